"""Somebody's network, evaluated as it stands and left as it is."""

from __future__ import annotations

import copy
import functools
import threading
import warnings
from collections.abc import Callable, Hashable, Iterable
from contextlib import nullcontext
from types import CellType, FunctionType, MethodType
from typing import Any

import torch
from torch import Tensor, nn

from ..adapters import adapter_of
from ..errors import ArgumentError, refused
from ..ops._pack_once import stamp

MATRICES = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d, nn.Linear)
COMPILER = "dynamo_ctx"  # the attribute of torch.compile(module) that has its options, of which torch copies some alone
CALLED = ("forward", "_compiled_call_impl")  # what a module may have of its own to be called by


class Twin:
    """A module for evaluations alone: the same code on the same weights, in evaluation mode, frozen, on `device`.

    Weights of four dimensions are channels-last, as convolutions like them. With `low` those of convolutions and linear layers
    are bfloat16, which autocast would make of them at every call. What can be is the caller's memory; the rest is copied, as all
    of a TorchScript module is, whose copies torch makes whole.
    """

    def __init__(self, network: nn.Module, low: bool, channels_last: bool, device: torch.device):
        self.places: list[tuple[dict[str, Any], str, object]] = []  # where the caller's tensors and submodules lie, and which
        self.shared: list[tuple[Tensor, Tensor]] = []  # the caller's and the twin's, on the same memory
        self.copied: list[tuple[Tensor, Tensor]] = []  # those on another
        tensors: dict[int, Tensor] = {}
        others: set[int] = set()  # that something besides a matrix product reads
        scripted = [v for module in network.modules() for v in scripts_own(module)]
        for module in network.modules():
            if isinstance(module, torch.jit.ScriptModule):
                continue
            loose = {key: there for key, there in vars(module).items() if isinstance(there, Tensor)}
            for place in (module._parameters, module._buffers, module._modules):
                self.places += [(place, key, there) for key, there in place.items()]
            self.places += [(vars(module), key, vars(module).get(key)) for key in CALLED]
            self.places += [(vars(module), key, there) for key, there in loose.items()]
            own = [v for v in (*module._parameters.values(), *module._buffers.values(), *loose.values()) if v is not None]
            tensors |= {id(v): v for v in own}
            others |= set() if isinstance(module, MATRICES) else {id(v) for v in own}
        placed = {v.device for v in (*tensors.values(), *scripted)}
        spread = len(placed) > 1 or torch.device("meta") in placed  # by other hands, which move them as they need them
        mine: dict[int, Any] = {id(v): v for module in network.modules() for v in [vars(module).get(COMPILER)] if v is not None}
        for key, v in tensors.items():
            made = v.detach() if spread else v.detach().to(device)
            if low and v.dtype == torch.float32 and key not in others and torch.amp.is_autocast_available(v.device.type):
                made = made.to(torch.bfloat16)
            if channels_last and v.ndim == 4:
                made = made.contiguous(memory_format=torch.channels_last)
            made = made.clone() if v.is_inference() else made
            same = (made.data_ptr(), made.dtype, made.device) == (v.data_ptr(), v.dtype, v.device)
            (self.shared if same else self.copied).append((v, made))
            mine[key] = nn.Parameter(made, requires_grad=False) if isinstance(v, nn.Parameter) else made
        try:
            self.module = copy.deepcopy(network, mine).eval()
        except Exception as error:  # whatever its attributes raise
            why = " ".join(str(error).split())
            raise ArgumentError(f"network: got a {type(network).__name__} that copy.deepcopy does not take ({why}); wanted one "
                                "that it does, or a function that calls it") from error
        for given, copied in zip(network.modules(), self.module.modules(), strict=True):
            if isinstance(given, torch.jit.ScriptModule):
                pairs = zip(scripts_own(given), scripts_own(copied if spread else copied.to(device)), strict=True)
                self.copied += [(its, made.requires_grad_(False)) for its, made in pairs]
                continue
            if COMPILER not in vars(given):  # what has one made its functions anew
                vars(copied).update({key: carried(v, mine) for key, v in vars(given).items() if isinstance(v, FunctionType)})
            call = given._compiled_call_impl
            if call is not None:  # by its method `compile`, which torch forgets in a copy
                copied._compiled_call_impl = carried(call, mine)
            if call is not None and copied._compiled_call_impl is call:
                warnings.warn("network: it was compiled in place, with options that this torch does not give back, and is "
                              "compiled without them; torch.compile(network, …) in its place keeps them", stacklevel=2)
                copied.compile()
        self.kinds = [(v.dtype, v.device) for v, _ in self.copied]
        self.seen = stamp(v for v, _ in self.copied)
        self.told = told(network)

    def stands(self) -> bool:
        """Whether the caller's module still is what the twin was made of, its numbers aside."""
        return (all(place.get(key) is there for place, key, there in self.places)
                and all(mine.data_ptr() == its.data_ptr() for its, mine in self.shared)
                and [(v.dtype, v.device) for v, _ in self.copied] == self.kinds)

    def current(self) -> bool:
        """Whether it has the caller's numbers too, as far as torch counted their changes."""
        return self.stands() and stamp(v for v, _ in self.copied) == self.seen

    def follow(self) -> None:
        """Take the caller's numbers."""
        now = stamp(v for v, _ in self.copied)
        for its, mine in self.copied:
            mine.copy_(its)
        self.seen = now


def scripts_own(module: nn.Module) -> list[Tensor]:
    """Parameters and buffers of a TorchScript module itself; none of another."""
    if not isinstance(module, torch.jit.ScriptModule):
        return []
    return [v for v in (*module._parameters.values(), *module._buffers.values()) if v is not None]


def told(network: nn.Module) -> list[object]:
    """All by which its code may do otherwise, tensors' numbers and modes aside: its modules, their classes, attributes and hooks.

    Of attributes that are lists, tuples and dicts also what is in them.
    """
    found: list[object] = []
    for module in network.modules():
        found += module, type(module)
        for key, value in vars(module).items():
            if key == "training":
                continue
            found += key, value
            if isinstance(value, dict):
                found += (part for item in value.items() for part in item)
            elif isinstance(value, list | tuple):
                found += value
    return found


def carried(held: Any, mine: dict[int, Any]) -> Any:
    """A function that holds parts of a network, as the same of its copy: left by deepcopy as it is, it would call the original.

    Such are `module.forward` under a decorator and what torch.compile makes of it, options and all: what they call is in their
    closures, defaults and attributes, and in what of Python's own holds others there. What an object of another class holds is
    not looked for. mine: by id, what has been copied and what this returned.
    """
    if id(held) in mine:
        return mine[id(held)]
    if isinstance(held, MethodType):
        own = carried(held.__self__, mine)
        return held if own is held.__self__ else MethodType(held.__func__, own)
    mine[id(held)] = held  # for those that hold themselves
    made = held
    if type(held) is list or type(held) is tuple:
        items = [carried(value, mine) for value in held]
        made = held if same(items, held) else type(held)(items)
    elif type(held) is dict:
        named = {key: carried(value, mine) for key, value in held.items()}
        made = held if same(named.values(), held.values()) else named
    elif isinstance(held, functools.partial):
        parts = held.func, held.args, held.keywords
        call, given, named = own = tuple(carried(part, mine) for part in parts)
        made = held if same(own, parts) else functools.partial(call, *given, **named)
    elif isinstance(held, FunctionType):
        made = carried_function(held, mine)
    mine[id(held)] = made
    return made


def carried_function(held: FunctionType, mine: dict[int, Any]) -> FunctionType:
    """`carried` of one that `def` or `lambda` made."""
    cells = held.__closure__ or ()
    filled = [cell for cell in cells if cell != CellType()]
    contents = [carried(cell.cell_contents, mine) for cell in filled]
    parts = held.__defaults__, held.__kwdefaults__, vars(held)
    own = tuple(carried(part, mine) for part in parts)
    if same(own, parts) and same(contents, [cell.cell_contents for cell in filled]):
        return held
    new = {id(cell): CellType(content) for cell, content in zip(filled, contents, strict=True)}
    made = FunctionType(held.__code__, held.__globals__, held.__name__, own[0], tuple(new.get(id(cell), cell) for cell in cells))
    made.__kwdefaults__ = own[1]
    vars(made).update(own[2])
    return made


def same(some: Iterable[Any], others: Iterable[Any]) -> bool:
    """Whether these are the very objects that those are."""
    return all(a is b for a, b in zip(some, others, strict=True))


class Foreign:
    """A torch module or function as evaluations need it.

    A module's own mode, gradients, dtype, memory and device stay as they are: what runs is a twin on the same weights. Where a
    weight had to be copied, to channels-last, bfloat16 or the images' device, it is copied again once the caller's has changed.
    Attributes and hooks are those that it has when a run begins. A function runs as it is.

    Args:
        network: called with images (N, C, H, W), one level an image (N,), and keyword arguments.
        dtype: what the network computes in; None: that of a module's first floating-point parameter, else of the images.
        channels_last: whether images and weights are channels-last in memory, as convolutions are fastest.
        name: of the argument to blame.
    """

    def __init__(self, network: Callable[..., Any], dtype: torch.dtype | None, channels_last: bool, name: str):
        self.network, self.given, self.channels_last, self.name = network, dtype, channels_last, name
        self.lock = threading.Lock()
        self.twins: dict[tuple[bool, torch.device], Twin] = {}
        self.others = 0  # twins that others took the place of, for other than weights
        if isinstance(network, nn.Module):
            self._twin(network, False, next((v.device for v in network.parameters()), torch.device("cpu")))  # or say why not

    def __getstate__(self) -> dict[str, Any]:
        """All but the lock and the twins, which a copy makes for itself."""
        return {key: value for key, value in vars(self).items() if key != "lock"} | {"twins": {}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self.lock = threading.Lock()

    def revision(self) -> Hashable:
        """Another one once the weights have changed, or what they are used by."""
        network = self.network
        return (self.others, *stamp(network.parameters())) if isinstance(network, nn.Module) else None

    def _twin(self, network: nn.Module, low: bool, device: torch.device) -> Twin:
        """The twin for such evaluations, up to date."""
        found = self.twins.get((low, device))
        if found is None or not found.current():
            with self.lock, torch.inference_mode(False), torch.no_grad():
                found = self.twins.get((low, device))
                if found is None or not found.stands():
                    self.others += found is not None
                    found = Twin(network, low, self.channels_last, device)
                    self.twins = {key: other for key, other in self.twins.items() if other.stands()} | {(low, device): found}
                elif not found.current():
                    found.follow()
        return found

    def renew(self) -> None:
        """Copy again what had to be copied, whether or not torch counted a change; itself uncounted, for other threads' sake.

        Where what the module is, attributes and hooks, has changed, all is.
        """
        with self.lock, torch.inference_mode(False), torch.no_grad():
            if isinstance(self.network, nn.Module):
                now, before = told(self.network), self.twins
                self.twins = {key: found for key, found in before.items()
                              if len(found.told) == len(now) and same(found.told, now)}
                self.others += len(before) - len(self.twins)
            for found in self.twins.values():
                for its, mine in found.copied:
                    mine.data.copy_(its)

    def __call__(self, x: Tensor, levels: Tensor, precision: str, **arguments: Any) -> Tensor:
        """The network's output for x (N, C, H, W), in the dtype of x; levels (N,) go in as they are.

        precision: "high", or "fast" with bfloat16 multiplications by autocast, for a network of float32.

        Raises:
            ArgumentError: what comes back is no tensor.
        """
        low, network, dtype = precision == "fast", self.network, self.computes_in(x)
        run = self._twin(network, low, x.device).module if isinstance(network, nn.Module) else network
        given = laid(x.to(dtype), self.channels_last)
        if given.data_ptr() == x.data_ptr() and not x.requires_grad:  # networks write there; with gradients torch says no
            given = laid(x.clone(), self.channels_last)
        with torch.autocast(x.device.type, torch.bfloat16) if low and dtype == torch.float32 else nullcontext():
            out = run(given, levels, **arguments)
        if not isinstance(out, Tensor):
            adapter = adapter_of(network)
            raise refused(self.name, f"output of type {type(out).__name__}", "a tensor" + (f": {adapter}" if adapter else ""))
        return out.to(x.dtype)

    def computes_in(self, x: Tensor) -> torch.dtype:
        """The dtype in which the network takes images and levels."""
        weights = self.network.parameters() if isinstance(self.network, nn.Module) else iter(())
        return self.given or next((v.dtype for v in weights if v.is_floating_point()), x.dtype)


def laid(x: Tensor, channels_last: bool) -> Tensor:
    """x (N, C, H, W) channels-last in memory, or else contiguous.

    Its strides too: those of a dimension of one say nothing, but torch picks kernels, and compiles code, by them.
    """
    _, c, h, w = x.shape
    strides = (h * w * c, 1, w * c, c) if channels_last else (c * h * w, h * w, w, 1)
    x = x.contiguous(memory_format=torch.channels_last if channels_last else torch.contiguous_format)
    return x if x.stride() == strides else x.as_strided(x.shape, strides)


def ordinary(x: Tensor) -> Tensor:
    """x as a tensor that autograd takes, which inference tensors are not."""
    return x.clone() if x.is_inference() else x.detach()
