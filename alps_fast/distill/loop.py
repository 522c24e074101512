"""One training loop for teachers and students: AdamW, cosine decay, averaged weights, checkpoints, a log."""

from __future__ import annotations

import json
import math
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from ..errors import ArgumentError, check
from ..io.files import first_line, reading
from ..io.tensors import DIGEST, read_tensors, write_tensors

OPTIMISER = ("step", "exp_avg", "exp_avg_sq")  # AdamW's state of a parameter
WARM = 300  # steps
KEEP = 60.0  # seconds of a slow run that may be lost, where `every` steps take longer
Net = TypeVar("Net", bound=nn.Module)


def bf16_is_fast() -> bool:
    """Whether this processor multiplies bfloat16 natively (AMX or AVX-512 BF16)."""
    try:
        flags = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    return "amx_bf16" in flags or "avx512_bf16" in flags


def training_noise(n: int, generator: torch.Generator) -> Tensor:
    """t (n,): ln t ~ N(-1.3, 1.2²) as in [EDM], one in eight log-uniform over [0.01, 100] so that no level is unseen."""
    t = torch.exp(-1.3 + 1.2 * torch.randn(n, generator=generator))
    wide = torch.exp(torch.empty(n).uniform_(math.log(0.01), math.log(100.0), generator=generator))
    return torch.where(torch.rand(n, generator=generator) < 0.125, wide, t)


def keep(path: Path, step: int, facts: str, probes: Tensor, params: list[nn.Parameter], averaged: list[Tensor],
         optimiser: torch.optim.Optimizer) -> None:
    """Write a checkpoint; where the disk is full the run goes on with a warning."""
    tensors = {"probes": probes}
    for i, (p, a) in enumerate(zip(params, averaged, strict=True)):
        tensors |= {f"params.{i}": p, f"averaged.{i}": a} | {f"{name}.{i}": optimiser.state[p][name] for name in OPTIMISER}
    try:
        write_tensors(path, tensors, {"step": str(step), "of": facts})
    except (OSError, SafetensorError, ArgumentError) as error:  # the last where the folder is gone or closed to us
        warnings.warn(f"checkpoint: {path} could not be written ({first_line(error)}); the run goes on", stacklevel=2)


def resume(path: Path, facts: str, probes: Tensor, params: list[nn.Parameter], averaged: list[Tensor],
           optimiser: torch.optim.Optimizer) -> int:
    """Read what `keep` wrote into parameters, averages and optimiser; the step to go on with."""
    wanted = "a checkpoint of this run, or a folder without one"
    tensors, metadata = read_tensors(path, "out", wanted)
    check(DIGEST in metadata and "step" in metadata, "out", f"{path}, which is something else", wanted)
    told = tensors.get("probes", probes)
    taught = told.shape == probes.shape and torch.allclose(told, probes, rtol=1e-3)
    check(metadata.get("of") == facts, "out", f"{path}, which is of {metadata.get('of')}", wanted)
    check(taught, "out", f"{path}, which is taught by another teacher", wanted)
    state: dict[int, dict[str, Tensor]] = {}
    with reading(path, "out", wanted, "is of another network"):
        for i, (p, a) in enumerate(zip(params, averaged, strict=True)):
            p.data.copy_(tensors[f"params.{i}"])
            a.copy_(tensors[f"averaged.{i}"])
            state[i] = {name: tensors[f"{name}.{i}"] for name in OPTIMISER}
        optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})
        return int(metadata["step"])


def fit(module: Net, loss: Callable[[int], Tensor], steps: int, out: Path, *, lr: float = 2e-3,
        average: float = 0.999, every: int = 250, warm: int = WARM, progress: bool = True, of: dict[str, object] | None = None,
        probes: Tensor | None = None) -> Net:
    """Minimise `loss(step)` over the module's parameters and return it with averaged weights.

    Resumes from `out/checkpoint.safetensors` where there is one; appends a JSON line to `out/log.jsonl` every `every` steps and
    writes the checkpoint then, and every minute. The learning rate warms up over `warm` steps and decays as a cosine.

    Args:
        of: what the run is of, to be met by a checkpoint. probes: numbers that tell, to 1e-3, what it is taught by.

    Raises:
        ArgumentError: the checkpoint is damaged or of another run.
    """
    from tqdm import tqdm

    out.mkdir(parents=True, exist_ok=True)
    checkpoint = out / "checkpoint.safetensors"
    params = [p for p in module.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(params, lr=lr, betas=(0.9, 0.99), weight_decay=1e-4)
    averaged = [p.detach().clone() for p in params]
    start, facts = 0, json.dumps(of or {}, sort_keys=True)
    told = torch.zeros(0) if probes is None else probes
    if checkpoint.exists():
        start = resume(checkpoint, facts, told, params, averaged, optimiser)
    running, count, clock = 0.0, 0, time.perf_counter()
    kept = clock
    for step in tqdm(range(start, steps), initial=start, total=steps, disable=not progress, mininterval=10):
        for group in optimiser.param_groups:
            group["lr"] = lr * min(1.0, (step + 1) / max(warm, 1)) * 0.5 * (1 + math.cos(math.pi * step / steps))
        value = loss(step)
        value.backward()
        norm = torch.nn.utils.clip_grad_norm_(params, 1.0)
        if math.isfinite(float(norm)):  # a rare overflow in bf16 must not end a long run
            optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        decay = min(average, (step + 1) / (step + 10))
        torch._foreach_lerp_(averaged, [p.detach() for p in params], 1 - decay)
        running, count, now = running + float(value.detach()), count + 1, time.perf_counter()
        due = (step + 1) % every == 0 or step + 1 == steps
        if due:
            with (out / "log.jsonl").open("a") as log:
                log.write(json.dumps({"step": step + 1, "loss": running / count, "seconds": round(now - clock, 2)}) + "\n")
            running, count, clock = 0.0, 0, now
        if due or now - kept > KEEP:
            keep(checkpoint, step + 1, facts, told, params, averaged, optimiser)
            kept = now
    for p, a in zip(params, averaged, strict=True):
        p.data.copy_(a)
    return module
