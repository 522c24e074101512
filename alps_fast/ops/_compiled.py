"""Ops in alps_fast._cpu and alps_fast._cuda: their arguments go there packed by name, as the module says at its import.

An op's kernel reads a struct of csrc/common/arguments.h. The function that calls it has a local variable for each of the struct's
fields, a tensor or None where that is a pointer, and hands over `locals()`. So nothing goes by position, and no list of the
names is written twice: a field of any op that Python has no name for is an error when the first one is called.
"""

from __future__ import annotations

import importlib
import struct
from collections.abc import Callable
from functools import partial
from operator import itemgetter
from types import ModuleType
from typing import Any

import torch

import alps_fast

from ._dispatch import implementations, implements, stream_on


class Kernel:
    """An op of a compiled module; `names` are the variables that Python has for its fields."""

    def __init__(self, op: str, backend: str, names: set[str]):
        self.op, self.backend, self.names = op, backend, names
        self.module: ModuleType | None = None  # that `packer` is for
        self.packer: Callable[[dict[str, Any]], bytes]

    def packed(self, values: dict[str, Any]) -> bytes:
        """The fields among `values` as the module reads them."""
        if (module := module_of(self.backend)) is not self.module:
            see(module, self.backend)
        return self.packer(values)

    def call(self, suffix: str, *arguments: Any) -> Any:
        """The module's function of the op's name and this suffix."""
        return getattr(module_of(self.backend), self.op + suffix)(*arguments)

    def __call__(self, values: dict[str, Any], device: torch.device, suffix: str = "") -> bool:
        """Run it on torch's threads, or the device's stream and with the workspace it asks for; False: not for such arguments."""
        arguments = self.packed(values)
        if self.backend == "cpu":
            getattr(self.module, self.op)(arguments, torch.get_num_threads())
            return True
        with stream_on(device) as stream:
            needed = self.call(f"{suffix}_workspace", arguments)
            if needed >= 0:
                workspace = torch.empty(needed, dtype=torch.float32, device=device) if needed else None
                self.call(suffix, arguments, 0 if workspace is None else workspace.data_ptr(), stream)
        return bool(needed >= 0)

    def bytes(self, values: dict[str, Any], device: torch.device, suffix: str = "") -> int:
        """Of the memory that a call there works in; 0 where it is not for such arguments."""
        if self.backend == "cpu":
            return int(self.call("_bytes", self.packed(values), torch.get_num_threads()))
        with torch.cuda.device(device):
            return 4 * max(int(self.call(f"{suffix}_workspace", self.packed(values))), 0)


_kernels: list[Kernel] = []


def compiled(op: str, *also: Callable[..., Any], **takes: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register the decorated function as `op` on the backends that `takes` names, as `implements` does.

    It is given the backend's `Kernel` before the op's arguments. also: functions whose variables it hands over beside its own.
    """
    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        names = {name for f in (function, *also) for name in (*f.__code__.co_varnames, *f.__code__.co_cellvars)}
        for backend, what in takes.items():
            _kernels.append(Kernel(op, backend, names))
            implements(op, backend, what)(partial(function, _kernels[-1]))
        return function
    return register


def first_kernel(op: str, backend: str, device: torch.device) -> Kernel | None:
    """That which `backend` tries first for tensors there; None where that is not one of a compiled module."""
    first = implementations(op, backend, device)[0]
    return first.args[0] if isinstance(first, partial) else None


def module_of(backend: str) -> ModuleType:
    """alps_fast._cpu or alps_fast._cuda."""
    module: ModuleType | None = getattr(alps_fast, f"_{backend}", None)
    return importlib.import_module(f"alps_fast._{backend}") if module is None else module


def see(module: ModuleType, backend: str) -> None:
    """Hold what a module reads against what Python has, for all ops of `backend` that are imported, and make their packers."""
    for kernel in _kernels:
        if kernel.backend == backend:
            kernel.packer, kernel.module = packer(kernel, module.layouts[kernel.op]), module


def packer(kernel: Kernel, layout: list[tuple[str, str]]) -> Callable[[dict[str, Any]], bytes]:
    """What packs the addresses of tensors and then numbers, each by its letter of Python's struct."""
    names, kernels = [name for name, _ in layout], f"{kernel.op}: its kernel on {kernel.backend!r}"
    if unknown := set(names) - kernel.names:
        raise TypeError(f"{kernels} reads {', '.join(sorted(unknown))}, no name of Python's")
    if twice := {name for name in names if names.count(name) > 1}:
        raise TypeError(f"{kernels} has two fields {', '.join(sorted(twice))}")
    letters = "".join(letter for _, letter in layout)
    pack, pointers = struct.Struct(f"={letters}").pack, letters.count("Q")
    tensors, others = itemgetter(*names[:pointers]), itemgetter(*names[pointers:])  # two and more of each

    def packed(values: dict[str, Any]) -> bytes:
        return pack(*[0 if v is None else v.data_ptr() for v in tensors(values)], *others(values))
    return packed
