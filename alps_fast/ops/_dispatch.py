"""What is called an op, and one visible list of backends, in order of preference, each with a check that says why not."""

from __future__ import annotations

import functools
import importlib
import os
import shutil
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from typing import Any, Generic, NamedTuple, ParamSpec, TypeVar

import torch
from torch import Tensor
from torch.autograd import profiler

from ..errors import ArgumentError, BackendError, check, check_choice
from ._modes import uncast

P = ParamSpec("P")
R = TypeVar("R")

TENSORS = (Tensor, torch.nn.Parameter)
NO_TENSORS = frozenset((bool, int, float, str, type(None)))


class Op(Generic[P, R]):
    """The decorated function as the torch operator `alps_fast::<its name>`, called past torch's dispatcher where nobody watches.

    The dispatcher takes 50 µs a call, as much as the step of a small chain. `traced` is the operator, a `CustomOpDef`: what
    torch.compile, fake tensors, vmap, dispatch modes and inputs that require a gradient meet. Either way an op is a range of its
    name in torch.profiler, and in NVTX under `torch.autograd.profiler.emit_nvtx`.
    """

    def __init__(self, function: Callable[P, R]):
        functools.update_wrapper(self, function)
        self.function = function
        self.name = f"alps_fast::{function.__name__}"
        self.traced = torch.library.custom_op(self.name, function, mutates_args=())
        self.register_fake = self.traced.register_fake

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        if torch.compiler.is_compiling() or _watched() or not (_plain(args) and _plain(kwargs.values())):
            return self.traced(*args, **kwargs)
        if profiler._is_profiler_enabled:  # torch's own flag for Python: a look costs 0.05 µs
            with profiler.record_function(self.name):
                return self.function(*args, **kwargs)
        return self.function(*args, **kwargs)


def _watched() -> bool:
    """Whether a dispatch mode (fake tensors, make_fx, FLOP counters), a functorch transform or jit.trace is at work."""
    return (torch._C._len_torch_dispatch_stack() > 0 or torch._C._functorch.peek_interpreter_stack() is not None
            or torch.jit.is_tracing())


def _plain(values: Iterable[object]) -> bool:
    """Whether all tensors among `values`, and in lists among them, are torch's own and want no gradient."""
    for value in values:
        kind = type(value)
        if kind in NO_TENSORS:
            continue
        if kind in TENSORS:
            if value.requires_grad and torch.is_grad_enabled():  # type: ignore[attr-defined]
                return False
        elif isinstance(value, (list, tuple)):
            if not _plain(value):
                return False
        elif isinstance(value, Tensor):
            return False
    return True


class Backend(NamedTuple):
    """A way to run ops: on which devices, a check that returns None, or why it cannot be used here, and why it has its place."""

    name: str
    devices: tuple[str, ...]
    why_not: Callable[[], str | None]
    why: str


def _missing(module: str) -> str | None:
    """Why a module cannot be imported; warns where it is there all the same, for then slower backends run what it is for."""
    try:
        importlib.import_module(module)
    except ImportError as error:
        why = f"{module} cannot be imported ({error})"
        if not isinstance(error, ModuleNotFoundError):
            warnings.warn(f"{why}, though it is there: other backends run its ops, more slowly", stacklevel=2)
        return why
    return None


def _why_not_gpu() -> str | None:
    return None if torch.cuda.is_available() else "torch sees no CUDA device"


def _why_not_triton() -> str | None:
    if os.environ.get("TRITON_INTERPRET") == "1":
        return _missing("triton")
    return _why_not_gpu() or _missing("triton")


BACKENDS = (
    Backend("cuda", ("cuda",), lambda: _why_not_gpu() or _missing("alps_fast._cuda"),
            "fuses most: an image stays in shared memory for steps on end; compiled ahead"),
    Backend("triton", ("cuda",), _why_not_triton, "fuses a step's parts; compiled when first called"),
    Backend("cpu", ("cpu",), lambda: _missing("alps_fast._cpu"), "fused, in the widest vectors of its build that run here"),
    Backend("torch", ("cpu", "cuda"), lambda: None, "the definition of every op, which runs everywhere"),
)
NAMES = ("auto", *(b.name for b in BACKENDS))
_implementations: dict[tuple[str, str], Callable[..., Any]] = {}
_takes: dict[tuple[str, str], str] = {}
_reasons: dict[str, str | None] = {}
_asked: ContextVar[str] = ContextVar("asked", default="auto")
_passed_on: ContextVar[set[str] | None] = ContextVar("passed_on", default=None)
_whys: ContextVar[list[str] | None] = ContextVar("whys", default=None)
_told: set[str] = set()  # by `slower`, in this process


# those with a file of their name in kernels/
TRITON_OPS = ("philox_normal", "langevin_pixel", "langevin_sense", "moments", "ridge_grad", "ridge_langevin", "conv_grad")


def implements(op: str, backend: str, takes: str = "") -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register the decorated function as `op` on `backend`; `takes`: what it takes, where it returns NotImplemented otherwise."""
    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        _implementations[op, backend] = function
        _takes[op, backend] = takes
        return function
    return register


def _from_kernels(op: str) -> Callable[..., Any]:
    """`op` of alps_fast.kernels, which is imported, and Triton with it, when it is first called."""
    def run(*arguments: Any, **named: Any) -> Any:
        return getattr(importlib.import_module(f"alps_fast.kernels.{op}"), op)(*arguments, **named)
    return run


for _op in TRITON_OPS:
    implements(_op, "triton", "float32, and sizes that its kernels are written for,")(_from_kernels(_op))


def why_not(backend: str) -> str | None:
    """None where `backend` can run here, else the reason; asked once a process."""
    if backend not in _reasons:
        _reasons[backend] = next(b for b in BACKENDS if b.name == backend).why_not()
    return _reasons[backend]


@contextmanager
def asked(backend: str) -> Iterator[None]:
    """Within it `backend` stands in for "auto"."""
    token = _asked.set(backend)
    try:
        yield
    finally:
        _asked.reset(token)


def chosen(backend: str) -> str:
    """`backend`, or in place of "auto" what was `asked`, or `ALPS_FAST_BACKEND` says; BackendError if it cannot run here."""
    name = "backend"
    backend = _asked.get() if backend == "auto" else backend
    if backend == "auto" and "ALPS_FAST_BACKEND" in os.environ:
        name, backend = "ALPS_FAST_BACKEND", os.environ["ALPS_FAST_BACKEND"]
    check_choice(name, backend, NAMES)
    reason = why_not(backend) if backend != "auto" else None
    if reason is not None:
        raise BackendError(f"{name}: backend {backend!r} cannot run here: {reason}")
    return backend


def resolved(backend: str, device: torch.device) -> str:
    """`backend`, under "auto" the first that runs on `device` here."""
    backend = chosen(backend)
    if backend != "auto":
        return backend
    return next(b.name for b in BACKENDS if device.type in b.devices and why_not(b.name) is None)


def implementations(op: str, backend: str, device: torch.device) -> list[Callable[..., Any]]:
    """The functions that may run `op` on `device`, in order: the named backend's, or under "auto" the first that can, and so on.

    `ALPS_FAST_BACKEND` stands in for "auto". The last is torch's, the definition of every op; a backend that cannot run here at
    all is an error that says why.
    """
    backend = chosen(backend)
    interpreted = backend == "triton" and os.environ.get("TRITON_INTERPRET") == "1"
    first = 0 if backend == "auto" else NAMES.index(backend) - 1
    fits = interpreted or backend == "auto" or device.type in BACKENDS[first].devices or (op, backend) not in _implementations
    check(fits, "backend", repr(backend), f"one for tensors on {device.type}")  # kernels take raw pointers
    able = (b.name for b in BACKENDS[first:-1] if (interpreted and b.name == backend)
            or (device.type in b.devices and why_not(b.name) is None))
    return [_implementations[op, name] for name in (*able, "torch") if (op, name) in _implementations]


def dispatch(op: str, backend: str, device: torch.device, *arguments: Any) -> Any:
    """`op` of the first of `implementations` that takes these arguments; one that does not returns NotImplemented.

    What a kernel takes depends on dtypes, options and an image's size, never on the number of chains, so that a chain's
    numbers do not either.
    """
    whys: list[str] = []
    token = _whys.set(whys)
    with uncast():
        *kernels, definition = implementations(op, backend, device)
        results = ((kernel, kernel(*arguments)) for kernel in kernels)
        function, result = next((found for found in results if found[1] is not NotImplemented), (definition, NotImplemented))
        if result is NotImplemented:
            with as_defined(device):
                result = definition(*arguments)
    _whys.reset(token)
    if (notes := _passed_on.get()) is not None:
        named = chosen(backend)
        if named not in ("auto", "torch") and function is not _implementations.get((op, named)):
            why = f"takes {op} for {_takes[op, named]} alone" if (op, named) in _takes else f"has no {op}"
            notes.add(f"backend: {named!r} {why}; {_name_of(function)!r} ran it")
        elif whys and named == "auto":
            notes.update(_untold(f"{op}: {' and '.join(whys)}; {_name_of(function)!r} ran it, more slowly"))
    return result


def _name_of(function: Callable[..., Any]) -> str:
    """The backend that a function serves an op on."""
    return next(name for (_, name), other in _implementations.items() if other is function)


def leaves(why: str) -> Any:
    """NotImplemented from a kernel, for a reason that whoever let backend="auto" choose would not expect, and is told of."""
    if (whys := _whys.get()) is not None:
        whys.append(why)
    return NotImplemented


def slower(note: str) -> None:
    """Tell, where anybody tells, once a process, of a kernel that is slower than one would expect, whether it runs or not."""
    if (notes := _passed_on.get()) is not None:
        notes.update(_untold(note))


def _untold(note: str) -> set[str]:
    new = {note} - _told
    _told.update(new)
    return new


def as_defined(device: torch.device) -> AbstractContextManager[None]:
    """On a GPU torch's convolutions round float32 to TF32, and may sum in another order each time; in here they do neither."""
    if device.type != "cuda" or torch.compiler.is_compiling():
        return nullcontext()
    return torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False)


@contextmanager
def telling() -> Iterator[None]:
    """Warns at its end, once an op, of what a backend that was asked for by name left to another; once a process and reason of an
    op that backend="auto" found no kernel for where one might be expected to be."""
    notes: set[str] = set()
    token = _passed_on.set(notes)
    try:
        yield
    finally:
        _passed_on.reset(token)
    for note in sorted(notes):
        warnings.warn(note, stacklevel=4)


@contextmanager
def stream_on(device: torch.device) -> Iterator[int]:
    """The address of torch's stream on a CUDA device, which is the current one meanwhile."""
    with torch.cuda.device(device):
        yield torch.cuda.current_stream().cuda_stream


def table() -> list[dict[str, Any]]:
    """What `alps-fast info` prints: every backend, whether it runs here, why not, and the ops it has."""
    return [{"backend": b.name, "usable": why_not(b.name) is None, "why_not": why_not(b.name), "why": b.why,
             "ops": sorted(op for op, name in _implementations if name == b.name)} for b in BACKENDS]


def serving() -> list[dict[str, Any]]:
    """For every op and kind of device: the backends that have it, in order, and the one that "auto" runs it on here."""
    rows = []
    for op in sorted({op for op, _ in _implementations}):
        for device, missing in (("cpu", None), ("cuda", _why_not_gpu())):
            have = [b.name for b in BACKENDS if device in b.devices and (op, b.name) in _implementations]
            rows.append({"op": op, "device": device, "have": have, "runs": None if missing else _runs(op, device)})
    return rows


def _runs(op: str, device: str) -> str | None:
    try:
        return _name_of(implementations(op, "auto", torch.device(device))[0])
    except ArgumentError:  # ALPS_FAST_BACKEND asks for what cannot run there
        return None


def has_nvcc() -> bool:
    """Whether a CUDA compiler is on the PATH."""
    return shutil.which("nvcc") is not None
