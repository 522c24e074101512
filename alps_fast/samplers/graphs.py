"""Levels as CUDA graphs: a sampler that is called again replays what it launched before, and Python issues nothing."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..ops import _cg, _pack_once
from .alps import Plan
from .rows import Rows, Stepped

Replay = Callable[[], object]
Capture = Callable[[Callable[[], Stepped], torch.device], tuple[Replay, Stepped]]  # of what runs on a device


class Recorded(NamedTuple):
    """A level that was captured, its first step `step`: the rows it reads and what it writes are at fixed addresses; `held` is
    read by it too."""

    step: int
    rows: Rows
    replay: Replay
    result: Stepped
    held: object


class Graphs:
    """Runs the steps of levels: plainly the first time, which warms up kernels and libraries, recorded the second, then replayed.

    A graph holds a whole level, and serves every level of as many steps with the same kinds of noise: what tells levels apart is
    in the device's memory, `Rows.scalars` and `Rows.prior`, where operator and energy allow it; else it is a number in the key,
    and the graph is one level's. Steps are counted on from where they were captured, on the device, in the high bits of `ids`. A
    replay is to the bit what the steps would be without. A sampler that is called once gains by it from its third level on. What
    would be captured first runs plainly once more, for torch to tell whether it waits for the device: a capture that fails is
    never begun, as torch's memory and random numbers do not come out of one as they were.
    """

    def __init__(self, capture: Capture, device: str):
        self.capture, self.device = capture, device  # the type of device that it captures
        self.watched = device != "cuda"  # others have nothing that tells who waits
        self.seen: set[Any] = set()
        self.recorded: dict[Any, Recorded] = {}
        self.why_not: str | None = None
        self.revision: object = None  # of the energy that was recorded

    def run(self, plan: Plan, rows: Rows, tick: Callable[[int], object]) -> Stepped:
        """`plan.run(rows, tick)`; a replay tells no progress."""
        target, first = plan.target, plan.scalars[0].step
        tuned_from = first if plan.tunes else None  # the tuning of τ takes its step number from the host
        key = (*launched(plan, rows), plan.tunes, tuned_from, plan.records, plan.draws, target.share, target.backend,
               id(target.energy), id(target.operator), *((v.shape, v.dtype, v.device) for v in flat(rows)))
        if self.why_not is not None:
            return plan.run(rows, tick)
        if (revision := target.energy.revision()) != self.revision:  # a graph reads what was made of the weights as they were
            self.clear()
            self.seen.clear()
            self.revision = revision
        if key not in self.seen:
            self.seen.add(key)
            with _cg.looks() as solves:
                done = plan.run(rows, tick)
            if solves:
                self.why_not = "torch's conjugate gradients look whether they may stop"
            return done
        if not self.watched:
            held = plan.target.energy.prepare(target.t, rows.x)  # as before a capture
            with waits() as told:
                done = plan.run(rows, tick)
            del held
            self.watched = True
            if told:
                self._give_up(plan, told[0])
            return done
        if key not in self.recorded:
            try:
                self.recorded[key] = self._record(plan, rows)
            except torch.OutOfMemoryError:  # for whoever asks for fewer chains then
                raise
            except RuntimeError as error:  # a network that looks at what it computes
                self.clear()
                self._give_up(plan, " ".join(str(error).split()))
                return plan.run(rows, tick)
        recorded = self.recorded[key]
        copy_all(flat(recorded.rows), flat(rows))
        recorded.rows.ids[:, 0].add_(first - recorded.step << 32)
        recorded.replay()
        theirs = flat(recorded.result)
        mine = [torch.empty_like(v) for v in theirs]
        copy_all(mine, theirs)
        return rebuilt(recorded.result, mine)

    def clear(self) -> None:
        """Give back the memory of all graphs."""
        self.recorded.clear()

    def _give_up(self, plan: Plan, why: str) -> None:
        self.why_not = why
        warnings.warn(f"graphs: level {plan.level} cannot be captured ({why}); it runs without", stacklevel=3)

    def _record(self, plan: Plan, rows: Rows) -> Recorded:
        held = plan.target.energy.prepare(plan.target.t, rows.x)
        mine = rebuilt(rows, [v.clone() for v in flat(rows)])
        with _pack_once.held() as packed, _cg.applications():  # what is captured has not run
            replay, result = self.capture(lambda: plan.run(mine, silent), rows.x.device)
        return Recorded(plan.scalars[0].step, mine, replay, result, (held, packed, plan))


@contextmanager
def waits() -> Iterator[list[str]]:
    """What torch says of whatever inside waits for a CUDA device."""
    told: list[str] = []
    mode = torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")  # which warns of itself too
        before = len(caught)
        try:
            yield told
        finally:
            torch.cuda.set_sync_debug_mode(mode)
    for w in caught[before:]:
        message = str(w.message)
        if "synchronizing CUDA operation" in message:
            told.append(message.split(" (Triggered")[0])
        elif "Synchronization debug mode" not in message:  # told whenever the mode is set
            warnings.warn_explicit(w.message, w.category, w.filename, w.lineno)


def silent(_: int) -> None:
    """No progress is told of a replay."""


def launched(plan: Plan, rows: Rows) -> tuple[object, ...]:
    """What the steps of a plan take from the host: with their scalars in memory only how many they are and the kinds of noise."""
    first = plan.scalars[0].step
    steps = [replace(s, step=s.step - first) for s in plan.scalars]
    numbers = [None if rows.scalars else s.numbers() for s in steps]
    predictor = plan.predictor if rows.scalars is None else plan.predictor is not None
    return tuple((s.noise, s.seed, s.step) for s in steps), *numbers, predictor, plan.target.t if rows.prior is None else None


def flat(value: tuple[Any, ...]) -> list[Tensor]:
    """All tensors in it, and in tuples in it."""
    return [v for part in value if part is not None for v in (flat(part) if isinstance(part, tuple) else (part,))]


def copy_all(to: list[Tensor], of: list[Tensor]) -> None:
    """Each tensor from its own, all of a dtype by one launch: most are small, and a launch is what they cost."""
    of_dtype: dict[torch.dtype, tuple[list[Tensor], list[Tensor]]] = {}
    for pair in zip(to, of, strict=True):
        for tensors, tensor in zip(of_dtype.setdefault(pair[0].dtype, ([], [])), pair, strict=True):
            tensors.append(tensor)
    for pairs in of_dtype.values():
        torch._foreach_copy_(*pairs)


def rebuilt(like: Any, tensors: Iterable[Tensor]) -> Any:
    """The inverse of `flat`."""
    supply = iter(tensors)
    parts = [rebuilt(part, supply) if isinstance(part, tuple) else None if part is None else next(supply) for part in like]
    return type(like)(*parts) if hasattr(like, "_fields") else tuple(parts)


class CudaGraphs:
    """Captures into CUDA graphs; those of a device share their temporary memory, as they are replayed one after another.

    They share the stream that they are captured on too: torch keeps a stream's blocks for it, in a graph's pool too.
    """

    def __init__(self) -> None:
        self.shared: dict[torch.device, tuple[Any, torch.cuda.Stream]] = {}

    def __call__(self, run: Callable[[], Stepped], device: torch.device) -> tuple[Replay, Stepped]:
        with torch.cuda.device(device):  # else torch captures a stream of whichever is current, and what runs here is not in it
            if device not in self.shared:
                self.shared[device] = torch.cuda.graph_pool_handle(), torch.cuda.Stream(device)
            pool, stream = self.shared[device]
            graph, before = torch.cuda.CUDAGraph(), torch.cuda.current_stream(device)
            try:
                with torch.cuda.graph(graph, pool=pool, stream=stream, capture_error_mode="thread_local"):
                    result = run()
            except BaseException:  # torch leaves the capture's stream the current one, and goes on allocating in its pool
                torch.cuda.set_stream(before)
                del self.shared[device]
                with suppress(RuntimeError):
                    torch._C._cuda_endAllocateToPool(before.device_index, pool)
                random = torch.cuda.default_generators[before.device_index]  # which takes itself for captured still
                random.graphsafe_set_state(random.clone_state())
                raise
        return graph.replay, result
