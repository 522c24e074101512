"""DeepInverse: its physics as our operators, and our sampler as one of its samplers."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..energies.base import Energy
from ..errors import ArgumentError, check, number, sides
from ..operators import Blur, CartesianMRI, CircularBlur, Denoising, Inpainting, LinearOperator, Operator, SuperResolution
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


def from_deepinv(physics: Any, image_shape: Sequence[int] | None = None, *, noise_std: float | Tensor | None = None,
                 is_complex: bool = False) -> Operator:
    """The operator of a DeepInverse physics, which takes the measurements that the physics makes.

        Denoising, Inpainting, Demosaicing       `Denoising`, `Inpainting`
        BlurFFT, Blur(padding="circular")        `CircularBlur`
        Blur with other padding                  `Blur`, where `image_shape` is said and the noise is one
        Downsampling(padding="circular")         `SuperResolution`
        MRI, MultiCoilMRI (2-D)                  `CartesianMRI`, images (1, H, W) complex where theirs are (2, H, W)
        any other LinearPhysics                  `LinearOperator` of A and A_adjoint, images as theirs

    Of the first five the fused kernels sample, or an exact factorisation; whether A is the same is tried on one image, and where
    it is not, a `LinearOperator` is returned, with a warning. Of these classes the masks, kernels and maps may be those of each
    image of a batch, (M, …); so may sigma of any. y is then a batch of M.

    Args:
        physics: a `deepinv.physics.LinearPhysics`.
        image_shape: (C, H, W), where the physics does not have it as `img_size` and cannot do without.
        noise_std: η, in every real component, or (M,) of them; None: physics.noise_model.sigma, a number or a tensor.
        is_complex: whether images of a physics of another class are complex tensors.

    Raises:
        ArgumentError: naming the argument; noise_std, where the noise is not Gaussian.
    """
    check(callable(getattr(physics, "A", None)) and callable(getattr(physics, "A_adjoint", None)), "physics",
          type(physics).__name__, "a deepinv.physics.LinearPhysics, with A and A_adjoint")
    eta = noise_of(physics) if noise_std is None else noise_std
    said = None if image_shape is None else sides(image_shape)
    given = said or getattr(physics, "img_size", None) or getattr(physics, "imsize", None)
    shape = None if given is None else tuple(given)
    known = FUSED.get(type(physics).__name__)
    fused = None if known is None else known(physics, eta, shape)
    if fused is not None:
        found, tried = fused
        if agrees(found, physics, tried):
            return found
        warnings.warn(f"physics: {type(physics).__name__} of this DeepInverse computes something else than "
                      f"{type(found).__name__}; it is used as a LinearOperator", stacklevel=2)
    check(shape is not None and len(shape) == 3, "image_shape", shape, f"(C, H, W), with a {type(physics).__name__}")
    forward, adjoint = physics.A, physics.A_adjoint
    count = None if known is None else images_of(physics)
    if count is not None:
        forward, adjoint = image_by_image(forward, count), image_by_image(adjoint, count)
    return LinearOperator(forward, adjoint, eta, shape or (), is_complex=is_complex, measurements=count)


def noise_of(physics: Any) -> float | Tensor:
    """σ of the noise that the physics adds, or (M,) where it is another for each image.

    Raises:
        ArgumentError: naming noise_std, where it has none or another noise than a Gaussian.
    """
    model = getattr(physics, "noise_model", None)
    kind = type(model).__name__
    if model is None or kind != NOISE:
        raise ArgumentError(f"noise_std: got a physics whose noise is {'none' if kind in ('ZeroNoise', 'NoneType') else kind}; "
                            f"wanted {NOISE}(sigma), or noise_std=… for Gaussian noise that is not in the physics")
    sigma = model.sigma
    if not isinstance(sigma, Tensor):
        return float(number(sigma))
    check(sigma.numel() > 0 and sigma.ndim <= 1, "noise_std", f"sigma of shape {tuple(sigma.shape)}",
          "a number, or one an image, (M,)")
    first = sigma.flatten()[0]
    return sigma.detach() if bool((sigma != first).any()) else float(first)


def agrees(operator: Operator, physics: Any, shape: tuple[int, ...]) -> bool:
    """Whether A of both is the same, of noise in the shape (C, H, W) that DeepInverse takes, for each image that A knows."""
    device = next(iter(parameters_of(physics)), torch.zeros((), device="cpu")).device
    x = torch.randn(operator.measurements or 1, *shape, generator=torch.Generator().manual_seed(0), device="cpu").to(device)
    with torch.no_grad():
        theirs = physics.A(x)
        if operator.is_complex:
            ours = operator.forward(torch.complex(x[:, :1], x[:, 1:]))
            ours = torch.stack([ours.real, ours.imag], 1).view(theirs.shape)
        else:
            ours = operator.forward(x)
    return ours.shape == theirs.shape and bool((ours - theirs).norm() <= AGREEMENT * theirs.norm())


def parameters_of(physics: Any) -> list[Tensor]:
    """Its mask, filter and coil maps, as far as it has them."""
    found = (getattr(physics, name, None) for name in ("mask", "filter", "coil_maps"))
    return [value for value in found if isinstance(value, Tensor)]


def images_of(physics: Any) -> int | None:
    """M, where some parameter is another for each image of a batch."""
    counts = {len(each) for value in parameters_of(physics) if value.ndim >= 4 and len(each := distinct(value)) > 1}
    return max(counts, default=None)


def image_by_image(function: Callable[[Tensor], Tensor], count: int) -> Callable[[Tensor, Tensor], Tensor]:
    """A or A_adjoint, which take `count` images at a time, each by its own parameters: for rows, and which image each is of."""
    def of(rows: Tensor, which: Tensor) -> Tensor:
        images = which.unique_consecutive()
        chains = len(rows) // len(images)  # rows come image by image, as many of each
        batch = rows.new_zeros(chains, count, *rows.shape[1:])  # zeros for images that nobody asks about
        batch[:, images] = rows.view(len(images), chains, *rows.shape[1:]).transpose(0, 1)
        return torch.stack([function(each)[images] for each in batch], 1).flatten(0, 1)

    return of


Fused = tuple[Operator, tuple[int, ...]]  # an operator, and images (C, H, W) of DeepInverse to try it on
Shape = tuple[int, ...] | None  # what is known of images
Noise = float | Tensor


def denoising(physics: Any, eta: Noise, shape: Shape) -> Fused | None:
    """A = 1."""
    return Denoising(eta), (1, 4, 5)


def inpainting(physics: Any, eta: Noise, shape: Shape) -> Fused | None:
    """Masks (1|M, C, H, W), or one (H, W), of zeros and ones."""
    if not isinstance(physics.mask, Tensor):
        return None
    masks = physics.mask.detach()
    masks = masks[None, None] if masks.ndim == 2 else distinct(masks)
    if masks.ndim != 4 or not zeros_and_ones(masks):
        return None
    given = tuple(physics.img_size or ())
    size = given if len(given) == 3 else tuple(masks.shape[1:])
    fits = masks.shape[-2:] == size[-2:] and masks.shape[1] in (1, size[0])
    return (Inpainting(alone(masks), eta), size) if fits else None


def blur(physics: Any, eta: Noise, shape: Shape) -> Fused | None:
    """A filter, centred at pixel (h // 2, w // 2), as is ours: by its code, also where its documentation says h // 2 − 1."""
    psf = kernel(physics.filter)
    if psf is None:
        return None
    if physics.padding == "circular":
        return CircularBlur(psf, eta), (1, 2 * psf.shape[-2] + 1, 2 * psf.shape[-1] + 2)
    padding = PADDINGS.get(physics.padding)
    if padding is None or shape is None or len(shape) != 3 or psf.ndim != 2 or isinstance(eta, Tensor):
        return None
    return Blur(psf, eta, shape, padding=padding), shape


def blur_fft(physics: Any, eta: Noise, shape: Shape) -> Fused | None:
    """The same."""
    psf = kernel(physics.filter)
    return None if psf is None else (CircularBlur(psf, eta), tuple(physics.img_size))


def downsampling(physics: Any, eta: Noise, shape: Shape) -> Fused | None:
    """A filter, then pixels 0, factor, 2 factor, …"""
    if physics.filter is not None and physics.padding != "circular":
        return None
    psf = None if physics.filter is None else kernel(physics.filter)
    if physics.filter is not None and psf is None:
        return None
    n = physics.factor
    known = getattr(physics, "imsize", None)
    least = (1, 1) if psf is None else psf.shape[-2:]
    size = tuple(known) if known is not None else (1, n * (2 + 2 * least[0] // n), n * (3 + 2 * least[1] // n))
    if any(side % n for side in size[-2:]):
        return None
    return SuperResolution(n, eta, psf), size


def mri(physics: Any, eta: Noise, shape: Shape) -> Fused | None:
    """Masks (1|M, 2, H, W), the same for both parts; with coils also maps (1|M, coils, H, W)."""
    check(not physics.three_d, "physics", f"a {type(physics).__name__} of volumes", "one of images: three_d=False")
    masks, maps = distinct(physics.mask.detach()), getattr(physics, "coil_maps", None)
    if masks.ndim != 4 or bool((masks != masks[:, :1]).any()) or not zeros_and_ones(masks):
        return None
    maps = None if maps is None else alone(distinct(maps.detach()))
    return DeepInverseMRI(alone(masks[:, 0]), maps, noise_std=eta), (2, masks.shape[-2], masks.shape[-1])


PADDINGS = {"valid": "valid", "reflect": "reflect", "replicate": "replicate", "constant": "zeros"}  # theirs and ours
FUSED: dict[str, Callable[[Any, Noise, Shape], Fused | None]] = {
    "Denoising": denoising, "Inpainting": inpainting, "Demosaicing": inpainting, "Blur": blur, "BlurFFT": blur_fft,
    "Downsampling": downsampling, "MRI": mri, "MultiCoilMRI": mri}


def distinct(value: Tensor) -> Tensor:
    """(1|M, …): one, where all images of a batch have the same."""
    return value if bool((value != value[:1]).any()) else value[:1]


def alone(value: Tensor) -> Tensor:
    """What is one for all without the axis of images."""
    return value[0] if len(value) == 1 else value


def zeros_and_ones(masks: Tensor) -> bool:
    """Whether masks (1|M, …) hold nothing else, and none is all zero."""
    return bool(((masks == 0) | (masks == 1)).all() and (masks != 0).flatten(1).any(1).all())


def kernel(filter: Tensor | None) -> Tensor | None:
    """The kernel (h, w), or (M, h, w), of a filter (b, c, h, w), where all channels have the same."""
    planes = None if filter is None else distinct(filter.detach())
    return None if planes is None or planes.ndim != 4 or bool((planes != planes[:, :1]).any()) else alone(planes[:, 0])


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

    def __init__(self, energy: Energy, *, image_range: tuple[float, float] = (0.0, 1.0),
                 noise_std: float | Tensor | None = None, **options: Any):
        super().__init__()
        Sampler(Denoising(1.0), energy, **options)  # says what is wrong with an option
        check(image_range[0] < image_range[1], "image_range", image_range, "two numbers, the lower first")
        self.energy, self.noise_std, self.options = energy, noise_std, {"progress": False} | options
        low, high = getattr(energy, "image_range", (-1.0, 1.0))
        self.scale = (image_range[1] - image_range[0]) / (high - low)
        self.offset = image_range[0] - self.scale * low
        self.posterior: Posterior | None = None
        self._samples = torch.empty(0, device="cpu")

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
            y = (y - operator.forward(torch.full((len(y), *shape), offset, device=y.device))) / scale
        seed = int(torch.randint(1 << 62, (), device="cpu")) if seed is None else seed
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
