"""Launches of the CUDA ops as their own host code makes them, on a machine without a GPU.

csrc/cuda and its bindings are compiled for the CPU against the stand-in of CUDA's runtime in tests/host_cuda, where a launch
hands out its kernel, grid, block, shared memory and parameters; what it would have run can be run as PTX before the host goes on.
"""

from __future__ import annotations

import ctypes
import importlib.machinery
import importlib.util
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from functools import cache
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from alps_fast.ops._pack_once import held

from . import nvcc
from .ptxsim import Pointer

STAND_IN = nvcc.ROOT / "tests" / "host_cuda"
RECORDER = ctypes.CFUNCTYPE(None, ctypes.c_uint64, ctypes.POINTER(ctypes.c_uint), ctypes.c_size_t,
                            ctypes.POINTER(ctypes.c_void_p), ctypes.POINTER(ctypes.c_size_t), ctypes.c_size_t)


class Launch(NamedTuple):
    """A kernel by its name with template arguments, grid, block, bytes of shared memory, and the bytes of each parameter."""

    kernel: str
    grid: tuple[int, ...]
    block: tuple[int, ...]
    shared: int
    parameters: tuple[bytes, ...]


class Memory(TorchDispatchMode):
    """Knows the memory of all tensors that are given to torch or come from it meanwhile; what is allocated starts as NaN."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks: dict[int, tuple[Any, np.ndarray]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if "empty" in func.overloadpacket.__name__ and out.is_floating_point():
            out.fill_(torch.nan)
        self.note((args, kwargs, out))
        return out

    def note(self, values: Any) -> None:
        for value in tree_leaves(values):
            if isinstance(value, Tensor) and (storage := value.untyped_storage()).nbytes():
                memory = np.ctypeslib.as_array((ctypes.c_uint8 * storage.nbytes()).from_address(storage.data_ptr()))
                self.blocks[storage.data_ptr()] = storage, memory

    def pieces(self, parameter: bytes) -> tuple[Any, ...]:
        """A parameter as ptxsim takes it: every eight bytes that are an address in a block as a pointer there."""
        if len(parameter) % 8:
            return (parameter,)
        return tuple(self._word(parameter[i:i + 8]) for i in range(0, len(parameter), 8))

    def _word(self, word: bytes) -> Any:
        address = int.from_bytes(word, "little")
        for base, (_, memory) in self.blocks.items():
            if base <= address < base + len(memory):
                return Pointer(memory, address - base)
        return word


@cache
def library() -> tuple[ModuleType, ctypes.CDLL, dict[int, str]]:
    """The stand-in of alps_fast._cuda, its own entries, and its kernels by where their code lies."""
    spec = importlib.util.spec_from_file_location("host_cuda_build", STAND_IN / "build.py")
    assert spec is not None and spec.loader is not None
    build = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(build)
    with tempfile.TemporaryDirectory() as directory:
        path = str(build.library("record", Path(directory)))
        loader = importlib.machinery.ExtensionFileLoader("alps_fast._cuda", path)
        with mock.patch.dict(sys.modules):  # where Python enters it under its name, which is the real one's
            module = importlib.util.module_from_spec(importlib.machinery.ModuleSpec("alps_fast._cuda", loader, origin=path))
            loader.exec_module(module)
        symbols = subprocess.run(["nm", "--defined-only", path], check=True, capture_output=True, text=True).stdout
        names = {int(at, 16): nvcc.readable(name) for at, kind, name in map(str.split, symbols.splitlines()) if kind in "tTW"}
        return module, ctypes.CDLL(path), names


@contextmanager
def launches(take: Callable[[Launch, Memory], None], shared: int, multiprocessors: int) -> Iterator[Memory]:
    """The CUDA ops run on CPU tensors, their launches handed to `take`, on a GPU with so much shared memory a block."""
    module, entries, names = library()
    memory, failed = Memory(), list[BaseException]()

    def record(kernel: int, size: Any, shared: int, parameters: Any, counts: Any, count: int) -> None:
        raw = tuple(ctypes.string_at(parameters[i], counts[i]) for i in range(count))
        memory.note(constants)  # made in this call or in an earlier one
        try:
            take(Launch(names[kernel], tuple(size[:3]), tuple(size[3:6]), shared, raw), memory)
        except BaseException as error:  # ctypes would print it
            failed.append(error)

    callback = RECORDER(record)
    entries.host_cuda_recorder(callback, shared, multiprocessors)
    import alps_fast

    with ExitStack() as stack, held() as constants:
        stack.enter_context(mock.patch.object(alps_fast, "_cuda", module, create=True))
        stack.enter_context(mock.patch.object(torch.cuda, "device", nullcontext))
        stack.enter_context(mock.patch.object(torch.cuda, "current_stream", lambda: SimpleNamespace(cuda_stream=0)))
        stack.enter_context(mock.patch.object(torch.cuda, "is_current_stream_capturing", lambda: False))
        stack.enter_context(warnings.catch_warnings())
        warnings.filterwarnings("ignore", "conjugate gradients")
        stack.enter_context(memory)
        yield memory
    if failed:
        raise failed[0]
