"""The steps of a level as a function of tensors: fused, in parts, as a graph, and never waiting for the device."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from inputs import COLUMNS, MASK, same_posterior, small_ridge
from tape import Tape
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from alps_fast import data
from alps_fast.energies import DenoiserEnergy, DiffusionPrior, GaussianEnergy, GaussianMixtureEnergy, RidgeEnergy, SumEnergy
from alps_fast.energies.base import Energy
from alps_fast.energies.compact import CompactNet
from alps_fast.operators import CartesianMRI, CircularBlur, Denoising, Inpainting, LinearOperator, Operator, SuperResolution
from alps_fast.operators._asked import NoiseAsked
from alps_fast.ops import _cg, _dispatch
from alps_fast.samplers import Progress, Sampler, Schedule, map_estimate
from alps_fast.samplers.alps import Plan
from alps_fast.samplers.graphs import CudaGraphs, Graphs, flat, rebuilt, waits
from alps_fast.samplers.rows import Rows, Stepped
from alps_fast.samplers.run import Run

FEW = Schedule(sigma_max=2.0, sigma_min=0.2, levels=3, steps=3, eta_steps=2, eta_max=0.2)


class Psi(nn.Module):
    """Any torch module."""

    def __init__(self, channels: int):
        super().__init__()
        torch.manual_seed(1)
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return 0.1 * torch.tanh(self.conv(x)) / (1 + t[:, None, None, None])


def compact(channels: int) -> DenoiserEnergy:
    torch.manual_seed(0)
    return DenoiserEnergy(CompactNet(channels, width=32, blocks=(1, 0, 1)))


ENERGIES: dict[str, Callable[[int], Energy]] = {
    "ridge": lambda channels: small_ridge(),
    "gaussian": lambda channels: GaussianEnergy(torch.full((channels, 1, 1), 0.3), 0.5),
    "mixture": lambda channels: GaussianMixtureEnergy(torch.ones(2), torch.tensor([0.4, -0.4]).view(2, 1, 1, 1), torch.ones(2)),
    "compact": compact,
    "module": lambda channels: DenoiserEnergy(Psi(channels)),
    "module, fast": lambda channels: DenoiserEnergy(Psi(channels), precision="fast"),
    "diffusion": lambda channels: DiffusionPrior(Psi(channels), channels, probe=False),
    "velocity": lambda channels: DiffusionPrior(Psi(channels), channels, predicts="velocity", value_range=(0, 1), probe=False,
                                                alphas_cumprod=torch.linspace(0.999, 0.001, 50)),
    "sum": lambda channels: SumEnergy([small_ridge(), GaussianEnergy(0.0, 1.0)], [0.5, 0.5]),
    "sum of two": lambda channels: SumEnergy([small_ridge(), DenoiserEnergy(Psi(channels))], [0.5, 0.5]),
}
OPERATORS: dict[str, Callable[[], Operator]] = {
    "inpainting": lambda: Inpainting(MASK, 0.1),
    "denoising": lambda: Denoising(0.1),
    "blur": lambda: CircularBlur.gaussian(1.0, 0.1),
    "superres": lambda: SuperResolution(2, 0.1),
    "one coil": lambda: CartesianMRI(MASK, noise_std=0.1),
    "lines": lambda: CartesianMRI(COLUMNS.expand(10, 10), data.coil_maps(3, 10, 10), noise_std=0.1),
    "coils": lambda: CartesianMRI(MASK, data.coil_maps(3, 10, 10), noise_std=0.1),
}


def problem(operator: str, energy: str, count: int = 1) -> tuple[Operator, Energy, Tensor]:
    op = OPERATORS[operator]()
    g = torch.Generator().manual_seed(2)
    image = torch.randn(count, 1, 10, 10, generator=g, dtype=torch.complex64 if op.is_complex else torch.float32)
    return op, ENERGIES[energy](2 if op.is_complex else 1), op.forward(image)


def problem_on_gpu(operator: str, energy: str) -> tuple[Operator, Energy, Tensor]:
    """The same there: a network of another's stays where it is put."""
    op, prior, y = problem(operator, energy)
    if isinstance(prior, DenoiserEnergy):
        prior.network.cuda()
    return op, prior, y.cuda()


def sampler(op: Operator, energy: Energy, **options: Any) -> Sampler:
    return Sampler(op, energy, **{"chains": 3, "schedule": FEW, "progress": False} | options)


# --- fused ---------------------------------------------------------------------------------------------------------

class Calls(TorchDispatchMode):
    """Notes the ops of ours that are called."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.namespace == "alps_fast":
            self.names.append(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("noise", ["averaged", "independent"])
@pytest.mark.parametrize("operator", ["inpainting", "denoising"])
def test_ridge_steps_are_fused_and_what_they_were(operator: str, noise: str, monkeypatch: pytest.MonkeyPatch) -> None:
    op, energy, y = problem(operator, "ridge", 2)
    with Calls() as calls:
        fused = sampler(op, energy, noise=noise)(y)
    assert calls.names.count("ridge_langevin") == calls.names.count("ridge_grad") == FEW.levels
    monkeypatch.setattr(energy, "langevin_pixel", lambda *args: None)
    apart = sampler(op, energy, noise=noise)(y)
    torch.testing.assert_close(fused.samples, apart.samples, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(fused.mean, apart.mean, rtol=1e-5, atol=1e-5)
    assert fused.gradients == apart.gradients == FEW.levels * FEW.steps


def test_what_does_not_fuse() -> None:
    op, energy, y = problem("inpainting", "ridge")
    energy.backend = "torch"  # type: ignore[attr-defined]
    with Calls() as calls:
        sampler(op, energy, backend="auto")(y)
        sampler(CircularBlur.gaussian(1.0, 0.1), small_ridge())(y)
        sampler(op, GaussianEnergy(0.0, 0.5))(y)
        sampler(op, small_ridge(), correction="mala")(y)
    assert "ridge_langevin" not in calls.names


@pytest.mark.parametrize("energy", ["ridge", "compact"])
def test_the_backend_that_is_asked_for_serves_the_energy_too(energy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unless the energy has one of its own; noise, which has the same bits everywhere, is drawn where that is fastest."""
    pytest.importorskip("alps_fast._cpu")
    monkeypatch.delenv("ALPS_FAST_BACKEND", raising=False)
    op, prior, y = problem("blur", energy)
    name = "ridge_grad" if energy == "ridge" else "conv_grad"
    served: list[str] = []
    for backend in ("cpu", "torch"):
        serve = _dispatch._implementations[name, backend]
        monkeypatch.setitem(_dispatch._implementations, (name, backend),
                            lambda *args, serve=serve, backend=backend: served.append(backend) or serve(*args))
    for asked, own, wanted in (("auto", "auto", "cpu"), ("torch", "auto", "torch"), ("torch", "cpu", "cpu"),
                               ("auto", "torch", "torch")):
        prior.backend = own  # type: ignore[attr-defined]
        for options in ({}, {"correction": "mala"}):
            served.clear()
            sampler(op, prior, backend=asked, **options)(y)
            assert set(served) == {wanted}


def test_a_backend_that_leaves_an_op_to_another_says_so_once() -> None:
    pytest.importorskip("alps_fast._cpu")
    op, _, y = problem("superres", "compact")
    prior = DenoiserEnergy(CompactNet(1, width=16, blocks=(1, 0, 1)))
    with pytest.warns(UserWarning) as told:
        sampler(op, prior, backend="cpu", draws=3)(y)
    assert [str(w.message) for w in told] == [
        "backend: 'cpu' takes conv_grad for float32 images of at most four channels and networks 32 or 64 wide alone; "
        "'torch' ran it"]
    with pytest.warns(UserWarning, match="^backend: 'cpu' takes conv_grad for .*; 'torch' ran it$"):
        map_estimate(y, op, prior, schedule=FEW, backend="cpu", progress=False)
    for backend in ("auto", "torch"):  # which is no choice, or takes all
        sampler(op, prior, backend=backend)(y)


class Overflows(RidgeEnergy):
    """The second chain is lost in the second level, in its fused steps."""

    def langevin_pixel(self, x: Tensor, *args: Any) -> Any:
        if args[3] < 1.5:
            x[1] = torch.inf
        return super().langevin_pixel(x, *args)


def test_a_chain_that_breaks_in_fused_steps_is_found_at_the_end_of_its_level() -> None:
    op, energy, y = problem("inpainting", "ridge")
    energy.__class__ = Overflows
    posterior = sampler(op, energy)(y)
    assert [tuple(lost) for lost in posterior.broken] == [(0, 1, 1, FEW.steps - 1)]
    assert posterior.count.tolist() == [2]


# --- parts ---------------------------------------------------------------------------------------------------------

WAYS: dict[str, dict[str, Any]] = {
    "alps": {}, "draws": {"draws": 3, "thin": 2}, "independent": {"noise": "independent"},
    "mala": {"correction": "mala", "draws": 2}, "measurement": {"method": "measurement"},
}


@pytest.mark.parametrize("way", WAYS)
def test_max_chains_changes_nothing(way: str) -> None:
    op, energy, y = problem("inpainting", "ridge", 3)
    whole = sampler(op, energy, **WAYS[way])(y)
    for most in (1, 2, 4, 6, 100):
        same_posterior(sampler(op, energy, max_chains=most, **WAYS[way])(y), whole)


class Small(GaussianEnergy):
    """A device on which `most` images fit."""

    most = 2
    seen: list[int]

    def _grad(self, x: Tensor, t: float) -> Tensor:
        self.seen.append(len(x))
        if len(x) > self.most:
            raise torch.OutOfMemoryError("no room")
        return super()._grad(x, t)


def test_chains_are_split_until_they_fit() -> None:
    op, _, y = problem("inpainting", "gaussian", 3)
    energy, large = Small(0.3, 0.5), GaussianEnergy(0.3, 0.5)
    energy.seen = []
    same_posterior(sampler(op, energy, correction="mala", draws=2)(y), sampler(op, large, correction="mala", draws=2)(y))
    assert energy.seen[:3] == [9, 3, 1] or energy.seen[:2] == [9, 4]
    assert energy.seen.count(9) == 1  # what did not fit is not tried again
    energy.most = 0
    with pytest.raises(torch.OutOfMemoryError, match="no room"):
        sampler(op, energy)(y)


# --- graphs --------------------------------------------------------------------------------------------------------

TAPES: list[Tape] = []


def tape(run: Callable[[], Stepped], device: torch.device) -> tuple[Callable[[], object], Stepped]:
    with Tape() as recorded:
        result = run()
    for v in flat(result):
        if v.is_floating_point():
            v.detach().fill_(torch.nan)  # a graph that is captured has not run
    TAPES.append(recorded)
    return recorded.replay, result


def recorded_levels(graphed: Sampler, prior: Energy) -> int:
    """Graphs of the levels that anneal: one for as many steps, of the same t where the energy reads t, and with the same end.

    The level of the first draw, whose m is wanted, is one of its own where m costs something.
    """
    assert graphed.schedule is not None
    if graphed.correction:
        return graphed.annealing
    levels = graphed.planned(graphed.schedule)[1][:graphed.annealing]
    reads_t = prior.level(1.0, torch.zeros(1, prior.channels or 1, 2, 2)) is None
    ends = graphed.noise == "independent" or graphed.schedule.predictor or graphed.operator.iterative
    return len({(level.steps, reads_t and level.t, ends and level is levels[-1]) for level in levels})


@pytest.mark.parametrize(("operator", "energy", "options"), [
    ("inpainting", "ridge", {}),
    ("inpainting", "sum", {"draws": 3, "thin": 2, "max_chains": 2}),
    ("inpainting", "sum of two", {"draws": 3, "thin": 2, "max_chains": 2}),
    ("denoising", "mixture", {"correction": "mala", "draws": 2}),
    ("inpainting", "gaussian", {"method": "measurement"}),
    ("inpainting", "ridge", {"method": "measurement"}),
    ("blur", "compact", {}),
    ("one coil", "module", {}),
    ("inpainting", "module, fast", {}),
    ("inpainting", "diffusion", {"draws": 3, "thin": 2}),
    ("blur", "velocity", {}),
    ("lines", "ridge", {"noise": "independent"}),
    ("coils", "gaussian", {}),
    ("coils", "ridge", {}),
    ("lines", "ridge", {"schedule": replace(FEW, predictor=True)}),
    ("inpainting", "sum", {"schedule": replace(FEW, predictor=True), "max_chains": 2}),
    ("denoising", "mixture", {"schedule": replace(FEW, predictor=True), "correction": "mala"}),
    ("inpainting", "ridge", {"correction": "mala"}),
])
def test_graphs_change_nothing(operator: str, energy: str, options: dict[str, Any]) -> None:
    """First plain, then captured, then replayed: with other measurements each time, whatever the energy forgot meanwhile.

    Of most energies one level's graph is every other level's: its numbers and t are NaN while it is captured. Runs without
    graphs take these as arguments, on the same kernels, to the same bits; the predictor alone rounds once more.
    """
    op, prior, y = problem(operator, energy)
    plain, graphed = sampler(op, prior, graphs=False, **options), sampler(op, prior, **options)
    graphed._graphs = Graphs(tape, "cpu")
    if "schedule" in options:
        plain._graphs = Graphs(tape, "cpu")
    TAPES.clear()
    for factor in (1.0, 0.5, -1.0):
        same_posterior(graphed(factor * y), plain(factor * y))
    parts, draws = 2 if "max_chains" in options else 1, "draws" in options  # all draws after the first are one graph
    recorded = parts * (recorded_levels(graphed, prior) + draws)
    assert len(graphed._graphs.recorded) == len(TAPES) == recorded and graphed._graphs.why_not is None


class Stepping(Inpainting):
    """Reads a number of the step."""

    def langevin(self, x: Tensor, grad: Tensor, b: Tensor, ids: Tensor, s: Any, **options: Any) -> tuple[Tensor, Tensor]:
        assert s.lam > 0
        return super().langevin(x, grad, b, ids, s, **options)


class Reading(DiffusionPrior):
    """Reads t."""

    def _grad(self, x: Tensor, t: float) -> Tensor:
        assert t > 0
        return super()._grad(x, t)


def test_classes_that_read_numbers_are_given_numbers() -> None:
    """Whatever their parents do without; each level is a graph then."""
    _, _, y = problem("inpainting", "ridge")
    for op, prior in ((Stepping(MASK, 0.1), ENERGIES["diffusion"](1)), (Inpainting(MASK, 0.1), Reading(Psi(1), 1, probe=False))):
        plain, graphed = sampler(op, prior, graphs=False), sampler(op, prior)
        graphed._graphs = Graphs(tape, "cpu")
        for factor in (1.0, 0.5, -1.0):
            same_posterior(graphed(factor * y), plain(factor * y))
        assert len(graphed._graphs.recorded) == FEW.levels


@pytest.mark.parametrize("operator", ["inpainting", "blur"])
def test_the_predictor_reads_from_memory_what_it_is_given_by_number(operator: str) -> None:
    op, prior, y = problem(operator, "ridge")
    options: dict[str, Any] = {"schedule": replace(FEW, predictor=True), "graphs": False}
    by_number, in_memory = sampler(op, prior, **options), sampler(op, prior, **options)
    in_memory._graphs = Graphs(tape, "cpu")
    torch.testing.assert_close(in_memory(y).samples, by_number(y).samples, rtol=1e-5, atol=1e-5)


def test_a_graph_of_draws_names_the_level_that_broke() -> None:
    """Captured in the second draw, replayed in the fourth, where chain 1 breaks."""
    op, energy, y = problem("inpainting", "gaussian")
    graphed = sampler(op, energy, draws=5, thin=2)
    graphed._graphs = Graphs(tape, "cpu")

    def breaks(progress: Progress) -> None:
        if progress.level == graphed.annealing + 1:
            progress.state[1] = torch.nan

    graphed.callback = breaks
    assert [(lost.chain, lost.level) for lost in graphed(y).broken] == [(1, graphed.annealing + 2)]


class Looks(GaussianEnergy):
    """Asks the device."""

    def _grad(self, x: Tensor, t: float) -> Tensor:
        return super()._grad(x, t) * (1.0 if float(x.sum()) < torch.inf else 0.0)


def test_what_cannot_be_captured_runs_without_and_says_so() -> None:
    op, _, y = problem("inpainting", "gaussian")
    plain, graphed = (sampler(op, Looks(0.3, 0.5), graphs=g) for g in (False, True))
    graphed._graphs = Graphs(tape, "cpu")
    graphed(y)
    with pytest.warns(UserWarning, match="graphs: level 0 cannot be captured .* while capturing"):
        same_posterior(graphed(y), plain(y))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        same_posterior(graphed(y), plain(y))


@pytest.mark.parametrize("operator", [
    LinearOperator(lambda x: x * MASK, lambda y: y * MASK, 0.1, (1, 10, 10)), OPERATORS["coils"]()], ids=["functions", "coils"])
def test_solves_on_torch_are_not_captured_and_say_nothing(operator: Operator) -> None:
    """They look whether they may stop; where a kernel solves, nothing does."""
    energy = ENERGIES["gaussian"](2 if operator.is_complex else 1)
    y = operator.forward(torch.randn(1, 1, 10, 10, dtype=torch.complex64 if operator.is_complex else torch.float32))
    plain, graphed = (sampler(operator, energy, graphs=g, backend="torch") for g in (False, True))
    graphed._graphs = Graphs(tape, "cpu")
    for _ in range(2):
        same_posterior(graphed(y), plain(y))
    assert not graphed._graphs.recorded and graphed._graphs.why_not is not None


def test_a_graph_is_captured_on_the_device_of_its_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever is current, with one pool and one stream a device; torch.cuda is a stand-in here."""
    current, captures = [torch.device("cuda", 0)], []

    @contextmanager
    def device(new: torch.device) -> Iterator[None]:
        current.append(new)
        yield
        current.pop()

    @contextmanager
    def graph(_: object, *, pool: object, stream: torch.device, capture_error_mode: str) -> Iterator[None]:
        captures.append((pool, stream, current[-1]))
        yield

    made = SimpleNamespace(replay=lambda: None)
    for name, stand_in in {"device": device, "graph": graph, "Stream": lambda on: [on], "CUDAGraph": lambda: made,
                           "graph_pool_handle": object, "current_stream": lambda on: on}.items():
        monkeypatch.setattr(torch.cuda, name, stand_in)
    op, energy, y = problem("inpainting", "gaussian")
    plan, rows = Run(sampler(op, energy), y).planned(0)
    capture, done = CudaGraphs(), plan.run(rows, lambda _: None)
    devices = [torch.device("cuda", index) for index in (1, 0, 1)]
    assert all(capture(lambda: done, on) == (made.replay, done) for on in devices)
    assert [(stream, on) for _, stream, on in captures] == [([on], on) for on in devices]
    for pool_or_stream in range(2):
        assert captures[0][pool_or_stream] is captures[2][pool_or_stream] is not captures[1][pool_or_stream]


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_graphs_change_nothing_on_a_gpu_that_is_not_current() -> None:
    op, prior, y = problem("inpainting", "ridge")
    y = y.to("cuda:1")
    plain, graphed = sampler(op, prior, graphs=False), sampler(op, prior)
    for factor in (1.0, 0.5, -1.0, 2.0):  # plain, watched, captured, replayed
        same_posterior(graphed(factor * y), plain(factor * y))


@pytest.mark.gpu
@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize("energy", ENERGIES)
def test_graphs_change_nothing_on_a_gpu(operator: str, energy: str) -> None:
    op, prior, y = problem_on_gpu(operator, energy)
    plain, graphed = sampler(op, prior, graphs=False), sampler(op, prior)
    for factor in (1.0, 0.5, -1.0, 2.0):  # plain; its first level watched; captured; replayed
        same_posterior(graphed(factor * y), plain(factor * y))
    assert len(graphed._graphs.recorded) == recorded_levels(graphed, prior) and graphed._graphs.why_not is None


def test_what_a_graph_notes_is_told_once_at_the_end_of_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    op, energy, y = problem("inpainting", "gaussian")
    monkeypatch.setitem(_cg._in_graphs, y.device, torch.tensor(7))
    with pytest.warns(UserWarning, match="conjugate gradients: 7 iterations did not reach the tolerance"):
        sampler(op, energy)(y)
    sampler(op, energy)(y)
    monkeypatch.delitem(_cg._in_graphs, y.device)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    with pytest.raises(RuntimeError, match="must run once on cpu before they are captured"):
        _cg.in_graphs(y.device)


@pytest.mark.gpu
def test_a_graph_tells_that_max_iter_did_not_suffice() -> None:
    op, energy, y = problem("coils", "gaussian")
    op.tol, op.max_iter = 1e-7, 9  # type: ignore[attr-defined]
    graphed = sampler(op, energy)
    for _ in range(3):
        with pytest.warns(UserWarning, match="conjugate gradients: 9 iterations did not reach the tolerance"):
            graphed(y.cuda())
    assert len(graphed._graphs.recorded) == FEW.levels


@pytest.mark.gpu
@pytest.mark.parametrize("operator", [name for name in OPERATORS if name != "coils"])  # which looks where nothing is captured
@pytest.mark.parametrize("energy", ENERGIES)
def test_a_level_waits_for_nothing_on_a_gpu(operator: str, energy: str) -> None:
    op, prior, y = problem_on_gpu(operator, energy)
    run = Run(sampler(op, prior, graphs=False), y)
    plan, rows = run.planned(0)
    plan.run(rows, lambda _: None)
    with waits() as told:
        plan.run(rows, lambda _: None)
    assert told == []


@pytest.mark.gpu
def test_who_waits_for_a_gpu_is_never_captured() -> None:
    """It says so once, and torch's memory, random numbers and current stream are what they were."""
    op, _, y = problem("inpainting", "gaussian")
    y, before = y.cuda(), torch.cuda.current_stream()
    plain, graphed = (sampler(op, Looks(0.3, 0.5), graphs=g) for g in (False, True))
    graphed(y)
    with pytest.warns(UserWarning, match="graphs: level 0 cannot be captured .*synchronizing"):
        same_posterior(graphed(y), plain(y))
    same_posterior(graphed(y), plain(y))
    assert torch.cuda.current_stream() == before and not graphed._graphs.recorded
    assert torch.randn(3, device="cuda").isfinite().all()


@pytest.mark.gpu
def test_a_capture_that_fails_all_the_same_leaves_torch_as_it_was() -> None:
    """What torch does not see waiting."""
    before, capture = torch.cuda.current_stream(), CudaGraphs()

    def run() -> Any:
        torch.zeros(1 << 20, device="cuda")
        torch.cuda.current_stream().synchronize()

    with pytest.raises(RuntimeError, match="captur"):
        capture(run, torch.device("cuda", torch.cuda.current_device()))
    assert torch.cuda.current_stream() == before
    assert torch.randn(3, device="cuda").isfinite().all()
    op, prior, y = problem("inpainting", "gaussian")
    graphed = sampler(op, prior)
    for _ in range(4):
        same_posterior(graphed(y.cuda()), sampler(op, prior, graphs=False)(y.cuda()))


# --- nothing waits -------------------------------------------------------------------------------------------------

class NoCopies(TorchDispatchMode):
    """Refuses whatever crosses from one device to another."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        devices = {v.device.type for v in tree_leaves((args, out)) if isinstance(v, Tensor) and v.numel() > 0}
        assert devices <= {"meta"}, f"{func} on {devices}"
        return out


def without_values(name: str, channels: int, t: float) -> Energy:
    """An energy of meta tensors: networks are made there; tables of a ridge energy are read once a level, and moved."""
    if name in ("compact", "module", "module, fast", "diffusion"):
        with torch.device("meta"):
            return ENERGIES[name](channels)
    energy = ENERGIES[name](channels)
    for term in energy.energies if isinstance(energy, SumEnergy) else (energy,):
        if isinstance(term, RidgeEnergy):
            read = term.prepare(t, torch.empty(0))
            term._levels[t, torch.float32, torch.device("meta")] = tree_map(lambda v: v.to("meta"), read)
    return energy


@pytest.mark.parametrize(("operator", "energy", "way"), [
    *((operator, "ridge", "ops") for operator in OPERATORS), *(("inpainting", energy, "ops") for energy in ENERGIES),
    ("inpainting", "ridge", "references"), ("blur", "compact", "references"), ("lines", "gaussian", "references"),
    ("inpainting", "mixture", "mala"), ("lines", "module", "mala"),
])
def test_a_level_waits_for_nothing(operator: str, energy: str, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """On meta tensors, which have no values to look at: every op as one operator, or its torch reference step by step."""
    op, prior, y = problem(operator, energy)
    schedule = Schedule(levels=1, steps=2 if operator == "inpainting" else 1)  # what is fused, and what is not
    run = Run(sampler(op, prior, schedule=schedule, correction="mala" if way == "mala" else None), y)
    plan, rows = run.planned(0)
    op = OPERATORS[operator]()  # that has placed nothing yet
    monkeypatch.setattr(NoiseAsked, "__call__", lambda *_: None)  # once a level, in the run before the one that is recorded
    if operator == "lines":  # factored once, before any level
        factors = op.factors(torch.complex64, torch.device("cpu"))
        op._factors[torch.complex64, torch.device("meta")] = tuple(v.to("meta") for v in factors)
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())  # which knows no meta tensors; a context alone
    if way == "references":
        monkeypatch.setattr(_dispatch, "_watched", lambda: False)
        monkeypatch.setattr(_dispatch, "_plain", lambda values: True)
    fake: Rows = rebuilt(rows, [v.to("meta") for v in flat(rows)])
    prior = without_values(energy, 2 if op.is_complex else 1, plan.target.t)
    plan = replace(plan, target=replace(plan.target, operator=op, energy=prior, b=fake.b))
    with Calls():  # and ops are operators
        plan.run(fake, lambda _: None)  # places constants
    with NoCopies():
        done = plan.run(fake, lambda _: None)
    assert done.x.shape == rows.x.shape and done.x.is_meta


def test_the_test_sees_who_waits() -> None:
    op, _, y = problem("inpainting", "gaussian")
    plan, rows = Run(sampler(op, GaussianEnergy(0.3, 0.5)), y).planned(0)
    fake: Rows = rebuilt(rows, [v.to("meta") for v in flat(rows)])
    target = replace(plan.target, operator=op, b=fake.b)
    with pytest.raises(RuntimeError, match="item.* cannot be called on meta tensors"):
        replace(plan, target=replace(target, energy=Looks(0.3, 0.5))).run(fake, lambda _: None)
    with pytest.raises(AssertionError, match="on .*cpu"), NoCopies():
        replace(plan, target=replace(target, operator=Inpainting(MASK, 0.1))).run(fake, lambda _: None)


def test_a_plan_is_the_schedules() -> None:
    op, energy, y = problem("inpainting", "ridge")
    run = Run(sampler(op, energy), y)
    plan, _ = run.planned(0)
    assert isinstance(plan, Plan) and [s.step for s in plan.scalars] == [1, 2, 3]
