"""What the machine can hold: a run that needs more is a wrong argument, told before anything is allocated."""

from __future__ import annotations

import os
from contextlib import suppress
from functools import cache
from pathlib import Path

import torch

from .errors import check


@cache
def memory_of(device: torch.device) -> int:
    """Bytes of memory of a device, all of them, whoever uses them now; of a CPU what the control group lets a process have."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    most = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for limit in ("memory.max", "memory/memory.limit_in_bytes"):  # of control groups 2 and 1
        with suppress(OSError, ValueError):  # there is none, or it is "max"
            most = min(most, int(Path("/sys/fs/cgroup", limit).read_text()))
    return most


def check_memory(name: str, value: object, needed: int, device: torch.device) -> None:
    """`value` must not ask for more memory than the device has: `needed` bytes, counted from below."""
    have = memory_of(device)
    check(needed <= have, name, f"{value}, which takes {needed / 1e9:.3g} GB",
          f"what fits in the {have / 1e9:.3g} GB of this {device.type}")
