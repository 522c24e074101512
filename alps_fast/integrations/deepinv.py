"""DeepInverse: its physics as our operators, and our sampler as one of its samplers."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..energies.base import Energy
from ..errors import ArgumentError, check, number, refused
from ..operators import CartesianMRI, CircularBlur, Denoising, Inpainting, LinearOperator, Operator, SuperResolution
from ..posterior import Posterior
from ..samplers import Sampler

AGREEMENT = 1e-4  # of A x of ours and theirs, relative: the rounding of two ways to compute it
NOISE = "GaussianNoise"  # the noise model that is ours


class DeepInverseMRI(CartesianMRI):
    """`CartesianMRI` that also takes measurements as DeepInverse lays them out: (B, 2, H, W), or (B, 2, coils, H, W) real."""

    def check_measurement(self, y: Tensor) -> Tensor:
        """y as (B, coils, H, W) complex."""
        return super().check_measurement(self._as_complex(y))

    def adjoint(self, y: Tensor) -> Tensor:
        """Σ_c conj(maps_c) F⁻¹(mask · y_c), (1, H, W) or (B, 1, H, W)."""
        return super().adjoint(self._as_complex(y))

    def _as_complex(self, y: Tensor) -> Tensor:
        if not isinstance(y, Tensor) or y.is_complex():
            return y
        axes = 4 if self.maps is None else 5
        check(y.ndim == axes and y.shape[1] == 2, "y", f"shape {tuple(y.shape)}",
              "(B, 2, H, W)" if self.maps is None else "(B, 2, coils, H, W)")
        coils = torch.complex(y[:, 0], y[:, 1])
        return coils[:, None] if self.maps is None else coils


def from_deepinv(physics: Any, image_shape: Sequence[int] | None = None, *, noise_std: float | None = None,
                 is_complex: bool = False) -> Operator:
    """The operator of a DeepInverse physics, which takes the measurements that the physics makes.

        Denoising, Inpainting, Demosaicing       `Denoising`, `Inpainting`
        BlurFFT, Blur(padding="circular")        `CircularBlur`
        Downsampling(padding="circular")         `SuperResolution`
        MRI, MultiCoilMRI (2-D)                  `CartesianMRI`, images (1, H, W) complex where theirs are (2, H, W)
        any other LinearPhysics                  `LinearOperator` of A and A_adjoint, images as theirs

    Of the first four the fused kernels sample; whether A is the same is tried on one image, and where it is not, a
    `LinearOperator` is returned, with a warning. One mask, kernel or set of maps serves all images of a batch.

    Args:
        physics: a `deepinv.physics.LinearPhysics`.
        image_shape: (C, H, W), where the physics does not have it as `img_size` and is of none of the classes above.
        noise_std: η, in every real component; None: physics.noise_model.sigma, a number or a tensor that holds one.
        is_complex: whether images of a physics of another class are complex tensors.

    Raises:
        ArgumentError: naming the argument; noise_std, where the noise is not Gaussian, or differs from image to image.
    """
    check(callable(getattr(physics, "A", None)) and callable(getattr(physics, "A_adjoint", None)), "physics",
          type(physics).__name__, "a deepinv.physics.LinearPhysics, with A and A_adjoint")
    eta = noise_of(physics) if noise_std is None else noise_std
    fused = FUSED.get(type(physics).__name__, nothing)(physics, eta)
    if fused is not None:
        found, tried = fused
        if agrees(found, physics, tried):
            return found
        warnings.warn(f"physics: {type(physics).__name__} of this DeepInverse computes something else than "
                      f"{type(found).__name__}; it is used as a LinearOperator", stacklevel=2)
    shape = tuple(image_shape) if image_shape is not None else getattr(physics, "img_size", None) or getattr(
        physics, "imsize", None)
    check(shape is not None and len(shape) == 3, "image_shape", None if shape is None else tuple(shape),
          f"(C, H, W), with a {type(physics).__name__}")
    return LinearOperator(physics.A, physics.A_adjoint, eta, tuple(shape or ()), is_complex=is_complex)


def noise_of(physics: Any) -> float:
    """σ of the noise that the physics adds.

    Raises:
        ArgumentError: naming noise_std, where it has none or another noise than one Gaussian.
    """
    model = getattr(physics, "noise_model", None)
    kind = type(model).__name__
    if model is None or kind != NOISE:
        raise ArgumentError(f"noise_std: got a physics whose noise is {'none' if kind in ('ZeroNoise', 'NoneType') else kind}; "
                            f"wanted {NOISE}(sigma), or noise_std=… for Gaussian noise that is not in the physics")
    sigma = model.sigma
    if isinstance(sigma, Tensor):
        if sigma.numel() == 0 or bool((sigma != sigma.flatten()[0]).any()):
            raise refused("noise_std", f"sigma of shape {tuple(sigma.shape)}, another for each image", "one for all images")
        sigma = sigma.flatten()[0]
    return float(number(sigma))


def agrees(operator: Operator, physics: Any, shape: tuple[int, int, int]) -> bool:
    """Whether A of both is the same, of noise in the shape (C, H, W) that DeepInverse takes."""
    buffers = (v for name in ("mask", "filter", "coil_maps") if isinstance(v := getattr(physics, name, None), Tensor))
    device = next(buffers, torch.zeros(())).device
    x = torch.randn(1, *shape, generator=torch.Generator().manual_seed(0)).to(device)
    with torch.no_grad():
        theirs = physics.A(x)
        if operator.is_complex:
            ours = operator.forward(torch.complex(x[:, :1], x[:, 1:]))
            ours = torch.stack([ours.real, ours.imag], 1).view(theirs.shape)
        else:
            ours = operator.forward(x)
    return ours.shape == theirs.shape and bool((ours - theirs).norm() <= AGREEMENT * theirs.norm())


Fused = tuple[Operator, tuple[int, int, int]]  # an operator, and images (C, H, W) of DeepInverse to try it on


def nothing(physics: Any, eta: float) -> Fused | None:
    """No class of ours."""
    return None


def denoising(physics: Any, eta: float) -> Fused | None:
    """A = 1."""
    return Denoising(eta), (1, 4, 5)


def inpainting(physics: Any, eta: float) -> Fused | None:
    """A mask (1, C, H, W), or (H, W), of zeros and ones."""
    mask = physics.mask.detach() if physics.mask.ndim == 2 else one_for_all(physics.mask, "mask")
    mask = mask[None] if mask is not None and mask.ndim == 2 else mask
    if mask is None or mask.ndim != 3 or not zeros_and_ones(mask):
        return None
    given = tuple(physics.img_size or ())
    shape = given if len(given) == 3 else tuple(mask.shape)
    return (Inpainting(mask, eta), shape) if mask.shape[-2:] == shape[-2:] and mask.shape[0] in (1, shape[0]) else None


def blur(physics: Any, eta: float) -> Fused | None:
    """A filter, centred at pixel (h // 2, w // 2), as is ours: by its code, also where its documentation says h // 2 − 1."""
    psf = kernel(physics.filter)
    if psf is None or physics.padding != "circular":
        return None
    return CircularBlur(psf, eta), (1, 2 * psf.shape[0] + 1, 2 * psf.shape[1] + 2)


def blur_fft(physics: Any, eta: float) -> Fused | None:
    """The same."""
    psf = kernel(physics.filter)
    return None if psf is None else (CircularBlur(psf, eta), tuple(physics.img_size))


def downsampling(physics: Any, eta: float) -> Fused | None:
    """A filter, then pixels 0, factor, 2 factor, …"""
    if physics.filter is not None and physics.padding != "circular":
        return None
    psf = None if physics.filter is None else kernel(physics.filter)
    if physics.filter is not None and psf is None:
        return None
    n = physics.factor
    known = getattr(physics, "imsize", None)
    least = (1, 1) if psf is None else psf.shape
    shape = tuple(known) if known is not None else (1, n * (2 + 2 * least[0] // n), n * (3 + 2 * least[1] // n))
    if any(side % n for side in shape[-2:]):
        return None
    return SuperResolution(n, eta, psf), shape


def mri(physics: Any, eta: float) -> Fused | None:
    """A mask (1, 2, H, W), the same for both parts; with coils also maps (1, coils, H, W)."""
    check(not physics.three_d, "physics", f"a {type(physics).__name__} of volumes", "one of images: three_d=False")
    mask, maps = one_for_all(physics.mask, "mask"), getattr(physics, "coil_maps", None)
    maps = None if maps is None else one_for_all(maps, "coil_maps")
    if mask is None or mask.ndim != 3 or bool((mask != mask[:1]).any()) or not zeros_and_ones(mask):
        return None
    return DeepInverseMRI(mask[0], maps, noise_std=eta), (2, mask.shape[-2], mask.shape[-1])


FUSED: dict[str, Callable[[Any, float], Fused | None]] = {
    "Denoising": denoising, "Inpainting": inpainting, "Demosaicing": inpainting, "Blur": blur, "BlurFFT": blur_fft,
    "Downsampling": downsampling, "MRI": mri, "MultiCoilMRI": mri}


def one_for_all(value: Tensor | None, name: str) -> Tensor | None:
    """What is the same for all images of a batch, without their axis."""
    if value is None:
        return None
    if bool((value != value[:1]).any()):
        raise refused("physics", f"a {name} of shape {tuple(value.shape)}, another for each image",
                      "one for all images; or sample them one by one, with first_measurement=k")
    return value[0].detach()


def zeros_and_ones(mask: Tensor) -> bool:
    """Whether a mask holds nothing else, and is not all zero."""
    return bool(((mask == 0) | (mask == 1)).all() and (mask != 0).any())


def kernel(filter: Tensor | None) -> Tensor | None:
    """The kernel (h, w) of a filter (b, c, h, w), where all channels have the same."""
    planes = one_for_all(filter, "filter")
    return None if planes is None or planes.ndim != 3 or bool((planes != planes[:1]).any()) else planes[0]


class DeepInverseSampler(nn.Module):
    """The sampler as DeepInverse's own are called: model(y, physics) is the mean, model.sample(y, physics) mean and variance.

        model = DeepInverseSampler(af.energies.load("natural"), chains=8)
        x_hat = model(y, physics)                        # (B, C, H, W), MRI (B, 2, H, W)
        mean, variance = model.sample(y, physics)

    The last run's `Posterior` is `model.posterior`, in units of the prior, and `get_chain()` its samples.

    Args:
        energy: the prior. noise_std: as `from_deepinv` takes it.
        image_range: what real images of the physics span, where those of the prior span its own image_range ([−1, 1] if it has
            none). Measurement and noise are rescaled for the run and what comes back is scaled back. MRI's stay as they are.
        options: of `Sampler`.

    Raises:
        ArgumentError: naming the argument.
    """

    def __init__(self, energy: Energy, *, image_range: tuple[float, float] = (0.0, 1.0), noise_std: float | None = None,
                 **options: Any):
        super().__init__()
        Sampler(Denoising(1.0), energy, **options)  # says what is wrong with an option
        check(image_range[0] < image_range[1], "image_range", image_range, "two numbers, the lower first")
        self.energy, self.noise_std, self.options = energy, noise_std, {"progress": False} | options
        low, high = getattr(energy, "image_range", (-1.0, 1.0))
        self.scale = (image_range[1] - image_range[0]) / (high - low)
        self.offset = image_range[0] - self.scale * low
        self.posterior: Posterior | None = None
        self._samples = torch.empty(0)

    def forward(self, y: Tensor, physics: Any, x_init: None = None, seed: int | None = None, **_: Any) -> Tensor:
        """The posterior mean (B, C, H, W)."""
        return self.sample(y, physics, x_init, seed)[0]

    def sample(self, y: Tensor, physics: Any, x_init: None = None, seed: int | None = None,
               g_statistics: Any = None) -> tuple[Any, Any]:
        """Posterior mean and variance of the image, or of functions of it.

        Args:
            y: (B, …), as the physics makes it. physics: as `from_deepinv` takes it.
            x_init: None, as chains start where the data put them at the widest level.
            seed: None: from torch's global generator, as DeepInverse's samplers do.
            g_statistics: None, or one function or a list of functions of {"x": (B, C, H, W)}, whose mean and variance over the
                chains, which are then all independent, are returned.

        Returns:
            Two tensors, or two lists with a list of functions.

        Raises:
            ArgumentError: naming the argument.
        """
        check(x_init is None, "x_init", type(x_init).__name__, "None: chains start by themselves; another method's image is "
              "DeepInverseSampler(…, warm_start=, warm_std=, method=\"measurement\")")
        sigma = noise_of(physics) if self.noise_std is None else self.noise_std
        with torch.no_grad():
            shape = tuple(physics.A_adjoint(y).shape[1:])
        operator = from_deepinv(physics, shape, noise_std=sigma)
        scale, offset = (1.0, 0.0) if operator.is_complex else (self.scale, self.offset)
        if (scale, offset) != (1.0, 0.0):
            operator = from_deepinv(physics, shape, noise_std=sigma / scale)
            y = (y - operator.forward(torch.full((1, *shape), offset, device=y.device))) / scale
        seed = int(torch.randint(1 << 62, ())) if seed is None else seed
        options = self.options | {"seed": seed} | ({} if g_statistics is None else {"pairs": False})
        self.posterior = Sampler(operator, self.energy, **options)(y)

        def image(v: Tensor) -> Tensor:
            return torch.cat([v.real, v.imag], -3) if v.is_complex() else scale * v + offset

        self._samples = image(self.posterior.samples).movedim(1, 0)
        if g_statistics is None:
            return image(self.posterior.mean), scale**2 * self.posterior.channel_std.square()
        several = isinstance(g_statistics, list | tuple)
        pairs = []
        for g in g_statistics if several else [g_statistics]:
            values = torch.stack([g({"x": x}) for x in self._samples])
            pairs.append((values.mean(0), values.var(0)))
        means, variances = (list(v) for v in zip(*pairs, strict=True))
        return (means, variances) if len(pairs) > 1 else (means[0], variances[0])

    def get_chain(self) -> list[dict[str, Tensor]]:
        """The last draw of every chain of the last run, {"x": (B, C, H, W)}."""
        return [{"x": x} for x in self._samples]
