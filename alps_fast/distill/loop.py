"""One training loop for teachers and students: AdamW, cosine decay, averaged weights, checkpoints, a log."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

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


def fit(module: Net, loss: Callable[[int], Tensor], steps: int, out: Path, *, lr: float = 2e-3,
        average: float = 0.999, every: int = 250, progress: bool = True) -> Net:
    """Minimise `loss(step)` over the module's parameters and return it with averaged weights.

    Resumes from `out/checkpoint.pt` where there is one; appends a JSON line to `out/log.jsonl` and writes the
    checkpoint every `every` steps. The learning rate warms up over 300 steps and decays as a cosine.
    """
    from tqdm import tqdm

    out.mkdir(parents=True, exist_ok=True)
    checkpoint = out / "checkpoint.pt"
    params = [p for p in module.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(params, lr=lr, betas=(0.9, 0.99), weight_decay=1e-4)
    averaged = [p.detach().clone() for p in params]
    start = 0
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        start = state["step"]
        optimiser.load_state_dict(state["optimiser"])
        for p, v, a, w in zip(params, state["params"], averaged, state["averaged"], strict=True):
            p.data.copy_(v)
            a.copy_(w)
    running, clock = 0.0, time.perf_counter()
    for step in tqdm(range(start, steps), initial=start, total=steps, disable=not progress, mininterval=10):
        for group in optimiser.param_groups:
            group["lr"] = lr * min(1.0, (step + 1) / 300) * 0.5 * (1 + math.cos(math.pi * step / steps))
        value = loss(step)
        value.backward()
        norm = torch.nn.utils.clip_grad_norm_(params, 1.0)
        if math.isfinite(float(norm)):  # a rare overflow in bf16 must not end a long run
            optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        decay = min(average, (step + 1) / (step + 10))
        torch._foreach_lerp_(averaged, [p.detach() for p in params], 1 - decay)
        running += float(value.detach())
        if (step + 1) % every == 0 or step + 1 == steps:
            seconds = time.perf_counter() - clock
            count = (step - start) % every + 1 if step + 1 - start < every else every
            with (out / "log.jsonl").open("a") as log:
                log.write(json.dumps({"step": step + 1, "loss": running / count, "seconds": round(seconds, 2)}) + "\n")
            running, clock = 0.0, time.perf_counter()
            partial = checkpoint.with_suffix(".tmp")
            torch.save({"step": step + 1, "optimiser": optimiser.state_dict(), "params": [p.detach() for p in params],
                        "averaged": averaged}, partial)
            partial.replace(checkpoint)
    for p, a in zip(params, averaged, strict=True):
        p.data.copy_(a)
    return module
