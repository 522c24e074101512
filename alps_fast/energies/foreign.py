"""Somebody's network, evaluated as it stands and left as it is."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Hashable
from contextlib import nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..errors import ArgumentError, check
from ..ops._packed import stamp

MATRICES = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d, nn.Linear)


class Twin(NamedTuple):
    """A module's code over again, on its weights.

    low: as in `twin`. places: the dictionaries that hold the caller's tensors and submodules, key and what lay there. shared:
    pairs of the caller's tensor and the twin's on the same memory. copied: pairs of which the twin's had to be another; dtypes:
    those of the caller's.
    """

    module: nn.Module
    low: bool
    places: list[tuple[dict[str, Any], str, object]]
    shared: list[tuple[Tensor, Tensor]]
    copied: list[tuple[Tensor, Tensor]]
    dtypes: list[torch.dtype]

    def stands(self, low: bool) -> bool:
        """Whether the caller's module still is what the twin was made of, its numbers aside."""
        return (low == self.low and all(place.get(key) is there for place, key, there in self.places)
                and all(mine.data_ptr() == its.data_ptr() for its, mine in self.shared)
                and all(mine.device == its.device and its.dtype == was
                        for (its, mine), was in zip(self.copied, self.dtypes, strict=True)))


def twin(network: nn.Module, low: bool, channels_last: bool) -> Twin:
    """`network` for evaluations alone: in evaluation mode, frozen, and laid out as its convolutions like it.

    With `low` the weights of convolutions and linear layers are bfloat16, which autocast would make of them at every call.
    """
    places: list[tuple[dict[str, Any], str, object]] = []
    tensors: dict[int, Tensor] = {}
    others: set[int] = set()  # that something besides a matrix product reads
    for module in network.modules():
        for place in (module._parameters, module._buffers, module._modules):
            places += [(place, key, there) for key, there in place.items()]
        loose = {key: there for key, there in vars(module).items() if isinstance(there, Tensor)}
        places += [(vars(module), key, there) for key, there in loose.items()]
        own = [v for v in (*module._parameters.values(), *module._buffers.values(), *loose.values()) if v is not None]
        tensors |= {id(v): v for v in own}
        others |= set() if isinstance(module, MATRICES) else {id(v) for v in own}
    shared: list[tuple[Tensor, Tensor]] = []
    copied: list[tuple[Tensor, Tensor]] = []
    mine: dict[int, Any] = {}
    for key, v in tensors.items():
        made = v.detach()
        if low and v.dtype == torch.float32 and key not in others and torch.amp.is_autocast_available(v.device.type):
            made = made.to(torch.bfloat16)
        if channels_last and v.ndim == 4:
            made = made.contiguous(memory_format=torch.channels_last)
        made = made.clone() if v.is_inference() else made
        (shared if made.data_ptr() == v.data_ptr() and made.dtype == v.dtype else copied).append((v, made))
        mine[key] = nn.Parameter(made, requires_grad=False) if isinstance(v, nn.Parameter) else made
    try:
        module = copy.deepcopy(network, mine)
    except Exception as error:  # whatever its attributes raise
        raise ArgumentError(f"network: got a {type(network).__name__} that copy.deepcopy does not take "
                            f"({' '.join(str(error).split())}); wanted one that it does, or a function that calls it") from error
    return Twin(module.eval(), low, places, shared, copied, [v.dtype for v, _ in copied])


class Foreign:
    """A torch module or function as evaluations need it.

    A module's own mode, gradients, dtype and memory stay as they are: what runs is a twin on the same weights. Where a weight had
    to be copied, to channels-last or bfloat16, it is copied again once the caller's has changed. A function runs as it is.

    Args:
        network: called with images (N, C, H, W), one level an image (N,), and keyword arguments.
        dtype: what the network computes in; None: that of a module's first floating-point parameter, else of the images.
        channels_last: whether images and weights are channels-last in memory, as convolutions are fastest.
        name: of the argument to blame.
    """

    def __init__(self, network: Callable[..., Any], dtype: torch.dtype | None, channels_last: bool, name: str):
        self.network, self.given, self.channels_last, self.name = network, dtype, channels_last, name
        self.lock = threading.Lock()
        self.first: Tensor | None = None  # floating-point parameter
        if isinstance(network, nn.Module):
            self._make(network, False)

    def _make(self, network: nn.Module, low: bool) -> None:
        with torch.inference_mode(False), torch.no_grad():
            self.twin = twin(network, low, self.channels_last)
        self.seen = stamp(v for v, _ in self.twin.copied)
        self.first = next((v for v in network.parameters() if v.is_floating_point()), None)

    def revision(self) -> Hashable:
        """Another one once the weights have changed."""
        network = self.network
        return stamp(network.parameters()) if isinstance(network, nn.Module) else None

    def _ready(self, low: bool) -> Callable[..., Any]:
        """What to call, up to date with the caller's weights."""
        network = self.network
        if not isinstance(network, nn.Module):
            return network
        if not self.twin.stands(low) or stamp(v for v, _ in self.twin.copied) != self.seen:
            with self.lock:
                if not self.twin.stands(low):
                    self._make(network, low)
                elif (now := stamp(v for v, _ in self.twin.copied)) != self.seen:
                    with torch.inference_mode(False), torch.no_grad():
                        for its, mine in self.twin.copied:
                            mine.copy_(its)
                    self.seen = now
        return self.twin.module

    def renew(self) -> None:
        """Copy again what had to be copied, whether or not torch counted a change; itself uncounted, for other threads' sake."""
        if isinstance(self.network, nn.Module):
            with self.lock, torch.inference_mode(False), torch.no_grad():
                for its, mine in self.twin.copied:
                    mine.data.copy_(its)

    def __call__(self, x: Tensor, levels: Tensor, precision: str, **arguments: Any) -> Tensor:
        """The network's output for x (N, C, H, W), in the dtype of x; levels (N,) go in as they are.

        precision: "high", or "fast" with bfloat16 multiplications by autocast, for a network of float32.

        Raises:
            ArgumentError: the weights lie on another device, or what comes back is no tensor.
        """
        low = precision == "fast"
        run = self._ready(low)
        if self.first is not None and "meta" not in (self.first.device.type, x.device.type):
            check(self.first.device == x.device, self.name, f"weights on {self.first.device}", f"them on {x.device}, as images")
        dtype = self.computes_in(x)
        with torch.autocast(x.device.type, torch.bfloat16) if low and dtype == torch.float32 else nullcontext():
            out = run(laid(x.to(dtype), self.channels_last), levels, **arguments)
        check(isinstance(out, Tensor), self.name, f"output of type {type(out).__name__}", "a tensor")
        return out.to(x.dtype)

    def computes_in(self, x: Tensor) -> torch.dtype:
        """The dtype in which the network takes images and levels."""
        return self.given or (x.dtype if self.first is None else self.first.dtype)


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
