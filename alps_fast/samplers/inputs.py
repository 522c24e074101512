"""Measurements and warm starts as samplers take them, and what may be wrong with them."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor

from ..energies.base import Energy
from ..errors import check
from ..layout import to_state
from ..operators.base import Operator
from ..ops._modes import ordinary
from .targets import centred

SMALLEST, LARGEST = 0.01, 30.0  # sizes of images, over the energy's `spread`, that it can be asked about
GREY = 256.0  # reached by images of 8 bits
MOST_CHANNELS = 4


def measured(operator: Operator, y: Tensor) -> Tensor:
    """y (B, ...), checked, as float32 or complex64: states have that precision."""
    y = ordinary(operator.check_measurement(y)).detach()
    return y.to(torch.complex64 if y.is_complex() else torch.float32)


def warn_of_size(operator: Operator, energy: Energy, adjoint: Tensor) -> None:
    """Warn where the image behind y is of a size that the energy cannot know.

    The image is Aᴴy where A is a mask, else that times what makes it explain y best, ‖Aᴴy‖²/‖AAᴴy‖², whatever the units of y and
    of A. (c of `Target` is no measure of it: of what A hardly sees it has noise, as large as 1 however small y is.)
    """
    if energy.unit:
        eta, known, image = operator.noise_std, energy.spread, adjoint
        if centred(operator, adjoint):
            squares = (adjoint * adjoint).flatten(1).double().sum(1)
            explained = (adjoint * operator.normal_state(adjoint)).flatten(1).double().sum(1)
            image = adjoint * (squares / explained).nan_to_num(0.0).float().view(-1, 1, 1, 1)
        size = float(image.abs().max())
        if 0 < size < SMALLEST * known or size > LARGEST * known + 6 * eta:
            levels = not operator.is_complex and known == 1.0 and size <= GREY + 6 * eta and size > LARGEST
            remedy = ("it looks like grey levels 0 to 255: y / 127.5 - 1 and noise_std / 127.5 are in its units" if levels else
                      "divide y and noise_std by a common scale, as alps_fast.io.scaled_kspace does with k-space")
            warnings.warn(f"y: the image behind it reaches {size:.3g}, and the energy knows images that reach about {known:.3g}; "
                          f"{remedy}", stacklevel=5)


def warn_of_axes(image: tuple[int, int, int]) -> None:
    """Warn of an image that has its channels last, (H, W, C), where (C, H, W) is meant."""
    channels, height, width = image
    if width <= MOST_CHANNELS < min(channels, height):
        warnings.warn(f"y: an image of shape {image}, which is {channels} channels of {height} x {width}; if it is (H, W, C), "
                      "y.movedim(-1, -3) is (C, H, W)", stacklevel=5)


def image_state(name: str, given: Tensor | None, image: tuple[int, int, int], is_complex: bool, like: Tensor,
                energy: Energy) -> Tensor | None:
    """The option `name`, an image for all measurements or one for each, as a state (B, H, W, C') beside states `like`.

    One of a size that the energy cannot know is warned of: steps from there hardly get back to what it knows.

    Raises:
        ArgumentError: it is no such image, or none that is finite.
    """
    if given is None:
        return None
    check(isinstance(given, Tensor), name, type(given).__name__, "a torch tensor")
    shapes = {image, (1, *image), (len(like), *image)}
    check(tuple(given.shape) in shapes and given.is_complex() == is_complex, name,
          f"{given.dtype} of shape {tuple(given.shape)}",
          f"a {'complex' if is_complex else 'real'} image {image}, or one a measurement")
    state = to_state(ordinary(given).detach().view(-1, *image).to(like.device)).float()
    check(bool(state.isfinite().all()), name, "NaN, infinity or what float32 does not hold in it", "finite numbers")
    size = float(state.abs().max())
    if energy.unit and size > LARGEST * energy.spread:
        warnings.warn(f"{name}: it reaches {size:.3g}, and the energy knows images that reach about {energy.spread:.3g}; wanted "
                      "an image in the units of the one behind y", stacklevel=5)
    return state.expand(len(like), *state.shape[1:]).contiguous()
