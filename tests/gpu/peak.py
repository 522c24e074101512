"""What is live when a run's memory peaks, by the lines that asked for it, and when levels of a call have ended: python peak.py"""

from __future__ import annotations

import time
from collections import Counter
from functools import partial
from typing import Any

import torch
from common import DEVICE, emit, in_children
from runs import inpainting, slice_of

import alps_fast as af

CALLS, SHOWN = 4, 12


def asked_by(event: dict[str, Any]) -> str:
    """The innermost of our lines in an allocation's stack, and two of those that called it."""
    ours = [f"{f['filename'].rsplit('alps_fast/', 1)[-1]}:{f['line']}" for f in event["frames"] if "alps_fast" in f["filename"]]
    return " < ".join(ours[:3]) or "?"


def live_at_peak(trace: list[dict[str, Any]], first: int) -> Counter[str]:
    """Bytes by who asked for them, where what the events allocate and free is most after the first so many of them."""
    live: dict[int, dict[str, Any]] = {}
    now, most, then = 0, -1, []
    for i, event in enumerate(trace):
        if event["action"] == "alloc":
            live[event["addr"]] = event
            now += event["size"]
        elif event["action"] == "free_completed" and event["addr"] in live:
            now -= live.pop(event["addr"])["size"]
        if i >= first and now > most:
            most, then = now, list(live.values())
    sizes: Counter[str] = Counter()
    for event in then:
        sizes[asked_by(event)] += event["size"]
    return sizes


def peak(name: str, op: af.operators.Operator, prior: str, y: torch.Tensor, chains: int) -> None:
    """Calls of one sampler; of the first and the last what was live."""
    torch.cuda.memory._record_memory_history(max_entries=1_000_000, stacks="python")
    ended: list[float] = []

    def watch(_: af.samplers.Progress) -> None:
        torch.cuda.synchronize()
        ended.append(1e3 * (time.perf_counter() - began))

    sampler = af.Sampler(op, af.energies.load(prior, precision="fast"), chains=chains, schedule=af.Schedule(levels=10, steps=5),
                         progress=False, callback=watch)
    y = y.to(DEVICE)
    for call in range(CALLS):
        ended.clear()
        first, before = len(torch.cuda.memory._snapshot()["device_traces"][0]), torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        torch.cuda.synchronize()
        began = time.perf_counter()
        sampler(y)
        torch.cuda.synchronize()
        emit("peak", case=name, call=call, ms=1e3 * (time.perf_counter() - began),
             levels_ms=" ".join(f"{ms:.1f}" for ms in ended), told_MB=sampler.memory(y) / 1e6,
             peak_MB=torch.cuda.max_memory_allocated() / 1e6, before_MB=before / 1e6,
             reserved_MB=torch.cuda.memory_reserved() / 1e6)
        if call in (0, CALLS - 1):
            for where, size in live_at_peak(torch.cuda.memory._snapshot()["device_traces"][0], first).most_common(SHOWN):
                emit("live", case=name, call=call, MB=size / 1e6, where=where)


def of_slice(prior: str, side: int, coils: int) -> None:
    op, y = slice_of(side, coils, True)
    peak(f"mri {side}² {coils} coils {prior}", op, prior, y, 16)


def of_photograph(prior: str, chains: int) -> None:
    op, y = inpainting(64)
    peak(f"inpaint 64x64x3 {prior}, {chains} chains", op, prior, y, chains)


if __name__ == "__main__":
    in_children([*((f"mri {prior} {side}", partial(of_slice, prior, side, coils))
                   for prior, side, coils in (("brain-ridge", 128, 8), ("brain-ridge", 320, 12), ("brain-denoiser", 320, 12))),
                 *((f"inpaint {prior} {chains}", partial(of_photograph, prior, chains))
                   for prior, chains in (("natural-denoiser", 64), ("natural-denoiser", 1), ("natural-ridge", 64)))], 40)
