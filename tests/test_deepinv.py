"""DeepInverse's physics as operators and our sampler as one of its, each against DeepInverse itself."""

from __future__ import annotations

import warnings

import pytest
import torch
from oracles import MU, S, gaussian_posterior

import alps_fast as af
from alps_fast.energies import GaussianEnergy
from alps_fast.integrations import DeepInverseSampler, from_deepinv
from alps_fast.operators import Blur, CartesianMRI, CircularBlur, Denoising, Inpainting, LinearOperator, SuperResolution
from benchmarks.peers import deepinv

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    dinv = deepinv()
if dinv is None:
    pytest.skip("DeepInverse is not installed", allow_module_level=True)
dp = dinv.physics

SIGMA = 0.1
GAUSSIAN = GaussianEnergy(MU, S)
FEW = af.Schedule(sigma_max=5, sigma_min=0.02, levels=12, steps=8, predictor=True)


def random(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def mask(*shape: int) -> torch.Tensor:
    return (torch.rand(*shape, generator=torch.Generator().manual_seed(1)) < 0.5).float()


def psf(h: int, w: int) -> torch.Tensor:
    """Nothing about it is symmetric."""
    return torch.rand(1, 1, h, w, generator=torch.Generator().manual_seed(2))


def physics_of() -> dict[str, tuple[object, tuple[int, int, int], type]]:
    """Every class with a fused operator: the physics, its images, and ours."""
    noise = {"noise_model": dp.GaussianNoise(SIGMA)}
    lines, maps = mask(7)[None].expand(9, 7), random(1, 3, 9, 7, dtype=torch.complex64)
    found: dict[str, tuple[object, tuple[int, int, int], type]] = {
        "denoising": (dp.Denoising(**noise), (2, 9, 7), Denoising),
        "inpainting pixels": (dp.Inpainting((3, 9, 7), mask=mask(1, 9, 7), **noise), (3, 9, 7), Inpainting),
        "inpainting plane": (dp.Inpainting((3, 9, 7), mask=mask(9, 7), **noise), (3, 9, 7), Inpainting),
        "inpainting values": (dp.Inpainting((3, 9, 7), mask=mask(3, 9, 7), **noise), (3, 9, 7), Inpainting),
        "inpainting drawn": (dp.Inpainting((3, 9, 7), mask=0.5, **noise), (3, 9, 7), Inpainting),
        "demosaicing": (dp.Demosaicing((8, 6), **noise), (3, 8, 6), Inpainting),
        "downsampling bare": (dp.Downsampling(filter=None, factor=2, **noise), (1, 8, 6), SuperResolution),
        "mri": (dp.MRI(mask=mask(9, 7), **noise), (2, 9, 7), CartesianMRI),
        "mri even": (dp.MRI(mask=mask(8, 6), **noise), (2, 8, 6), CartesianMRI),
        "coils": (dp.MultiCoilMRI(mask=mask(9, 7), coil_maps=maps, **noise), (2, 9, 7), CartesianMRI),
        "coils, lines": (dp.MultiCoilMRI(mask=lines, coil_maps=maps, **noise), (2, 9, 7), CartesianMRI),
        "one flat coil": (dp.MultiCoilMRI(mask=mask(9, 7), coil_maps=None, img_size=(1, 9, 7), **noise), (2, 9, 7), CartesianMRI)}
    for h, w in ((3, 5), (4, 3), (4, 6)):
        found[f"blur {h}x{w}"] = dp.Blur(psf(h, w), padding="circular", **noise), (2, 9, 7), CircularBlur
        found[f"blur by fft {h}x{w}"] = dp.Blur(psf(h, w), padding="circular", use_fft=True, **noise), (2, 9, 7), CircularBlur
        for size in ((2, 9, 7), (2, 8, 10)):
            found[f"blurfft {h}x{w} {size}"] = dp.BlurFFT(size, psf(h, w), **noise), size, CircularBlur
        found[f"downsampling {h}x{w}"] = dp.Downsampling(filter=psf(h, w), factor=3, **noise), (1, 9, 12), SuperResolution
    for name in ("gaussian", "bilinear", "bicubic"):
        found[f"downsampling {name}"] = dp.Downsampling((1, 16, 20), filter=name, factor=2, **noise), (1, 16, 20), SuperResolution
    return found


PHYSICS = physics_of()


def theirs(x: torch.Tensor) -> torch.Tensor:
    """Complex (B, 1, …) as DeepInverse's real (B, 2, …)."""
    return torch.stack([x.real, x.imag], 1)


@pytest.mark.parametrize("name", PHYSICS)
def test_a_physics_is_the_fused_operator_of_its_name(name):
    """A x and Aᴴy agree with DeepInverse's own to rounding, for kernels and sizes of both parities."""
    physics, shape, kind = PHYSICS[name]
    op = from_deepinv(physics)
    assert isinstance(op, kind) and op.noise_std == pytest.approx(SIGMA)
    x = random(2, *shape, seed=3)
    wanted = physics.A(x)
    y = random(*wanted.shape, seed=4)
    back = physics.A_adjoint(y)
    if op.is_complex:
        got = theirs(op.forward(torch.complex(x[:, :1], x[:, 1:]))).view(wanted.shape)
        adjoint = theirs(op.adjoint(y))[:, :, 0]
    else:
        got, adjoint = op.forward(x), op.adjoint(y)
    torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(adjoint, back, rtol=1e-5, atol=2e-5)


def test_any_other_linear_physics_is_a_linear_operator():
    """By A and A_adjoint: convolutions at edges, another kernel for each channel, weights that are no mask, tomography."""
    noise = {"noise_model": dp.GaussianNoise(torch.tensor(SIGMA))}
    per_channel = torch.cat([psf(3, 3), psf(3, 3).flip(-1)], 1)
    for physics, shape in ((dp.Blur(per_channel, padding="circular", **noise), (2, 9, 7)),
                           (dp.Inpainting((1, 9, 7), mask=0.3 * mask(1, 9, 7), **noise), (1, 9, 7)),
                           (dp.Downsampling((1, 8, 8), filter=psf(3, 3), factor=2, padding="reflect", **noise), (1, 8, 8)),
                           (dp.Decolorize(**noise), (3, 5, 4))):
        op = from_deepinv(physics, shape)
        assert type(op) is LinearOperator and op.noise_std == pytest.approx(SIGMA)
        x = random(2, *shape)
        torch.testing.assert_close(op.forward(x), physics.A(x))
        assert op.check_measurement(physics(x)).shape == physics.A(x).shape


@pytest.mark.parametrize("padding", ["valid", "reflect", "replicate", "constant"])
def test_blur_with_borders_is_ours(padding):
    for h, w in ((3, 5), (4, 3), (4, 6)):
        physics = dp.Blur(psf(h, w), padding=padding, noise_model=dp.GaussianNoise(SIGMA))
        op, x = from_deepinv(physics, (2, 9, 8)), random(2, 2, 9, 8)
        assert type(op) is Blur
        torch.testing.assert_close(op.forward(x), physics.A(x))
    each = dp.Blur(psf(3, 3), padding=padding, noise_model=dp.GaussianNoise(torch.tensor([0.1, 0.2])))
    assert type(from_deepinv(each, (2, 9, 8))) is LinearOperator


EACH = {"noise_model": dp.GaussianNoise(torch.tensor([0.1, 0.2, 0.3]))}  # everything is another for each of three images
KERNELS = torch.rand(3, 1, 3, 4, generator=torch.Generator().manual_seed(4))
BATCHES = {
    "sigma alone": (lambda: dp.Inpainting((2, 9, 7), mask=mask(1, 9, 7), **EACH), (2, 9, 7), Inpainting),
    "sigma of denoising": (lambda: dp.Denoising(**EACH), (2, 9, 7), Denoising),
    "masks": (lambda: dp.Inpainting((2, 9, 7), mask=mask(3, 2, 9, 7), **EACH), (2, 9, 7), Inpainting),
    "kernels": (lambda: dp.Blur(KERNELS, padding="circular", **EACH), (2, 9, 7), CircularBlur),
    "kernels by fft": (lambda: dp.BlurFFT((2, 9, 7), KERNELS, **EACH), (2, 9, 7), CircularBlur),
    "kernels, then pixels": (lambda: dp.Downsampling(filter=KERNELS, factor=3, **EACH), (1, 12, 9), SuperResolution),
    "mri": (lambda: dp.MRI(mask=mask(3, 1, 8, 6), **EACH), (2, 8, 6), CartesianMRI),
    "coils": (lambda: dp.MultiCoilMRI(mask=mask(3, 1, 9, 7), coil_maps=random(3, 2, 9, 7, dtype=torch.complex64), **EACH),
              (2, 9, 7), CartesianMRI),
    "maps alone": (lambda: dp.MultiCoilMRI(mask=mask(9, 7), coil_maps=random(3, 2, 9, 7, dtype=torch.complex64),
                                           noise_model=dp.GaussianNoise(SIGMA)), (2, 9, 7), CartesianMRI),
    "weights": (lambda: dp.Inpainting((1, 9, 7), mask=torch.rand(3, 1, 9, 7), **EACH), (1, 9, 7), LinearOperator),
    "kernels of borders": (lambda: dp.Blur(KERNELS, padding="reflect", **EACH), (1, 9, 7), LinearOperator)}


@pytest.mark.parametrize("name", BATCHES)
def test_a_physics_of_a_batch_is_one_operator(name):
    """What is another for each image is so here, of chains too, and of each image alone."""
    make, shape, kind = BATCHES[name]
    physics = make()
    op = from_deepinv(physics, shape)
    assert isinstance(op, kind) and op.measurements == 3
    chains = random(2, 3, *shape, seed=3)  # two of each image
    wanted = torch.stack([physics.A(x) for x in chains], 1).flatten(0, 1)
    back = torch.stack([physics.A_adjoint(y) for y in wanted.view(3, 2, *wanted.shape[1:]).transpose(0, 1)], 1).flatten(0, 1)
    x = chains.transpose(0, 1).flatten(0, 1)
    x = torch.complex(x[:, :1], x[:, 1:]) if op.is_complex else x
    for rows, part in ((slice(0, 6), op), (slice(2, 6), op.of(1, 3)), (slice(4, 6), op.of(2, 3))):
        got, adjoint = part.forward(x[rows]), part.adjoint(wanted[rows])
        if op.is_complex:
            got, adjoint = theirs(got).view(wanted[rows].shape), theirs(adjoint)[:, :, 0]
        torch.testing.assert_close(got, wanted[rows], rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(adjoint, back[rows], rtol=1e-5, atol=2e-5)
    if name != "maps alone":
        stds = torch.as_tensor(op.stds(op.check_measurement(physics(chains[0])))).float()
        torch.testing.assert_close(stds.flatten()[:: stds.numel() // 3], torch.tensor([0.1, 0.2, 0.3]))


@pytest.mark.parametrize("name", ["masks", "mri"])
def test_a_batch_is_sampled_as_its_images_are_alone(name):
    """The exact posterior of each, whose mean pairs make exact."""
    make, shape, _ = BATCHES[name]
    physics = make()
    torch.manual_seed(0)
    y = physics(MU + S * random(3, *shape, seed=7))
    model = DeepInverseSampler(GAUSSIAN, image_range=(-1, 1), chains=40, schedule=FEW)
    mean, variance = model.sample(y, physics, seed=1)
    for i, sigma in enumerate((0.1, 0.2, 0.3)):
        one = from_deepinv(type(physics)(mask=physics.mask[i:i + 1], img_size=shape, noise_model=dp.GaussianNoise(sigma)))
        image = (1, *shape[1:]) if one.is_complex else shape
        exact, covariance = gaussian_posterior(one, y[i:i + 1], image, FEW.sigma_min)
        order = (0, 2, 3, 1)  # a state's
        torch.testing.assert_close(mean[i:i + 1].permute(order).flatten().double(), exact, rtol=0, atol=0.02)
        ratio = variance[i:i + 1].permute(order).flatten().double() / covariance.diagonal()
        assert abs(float(ratio.mean()) - 1) < 5 * (2 / 20 / ratio.numel()) ** 0.5


def test_a_subclass_is_not_taken_for_its_parent():
    """Its A may be another."""
    class Mine(dp.Inpainting):
        def A(self, x, **kwargs):
            return 2 * x

        def A_adjoint(self, y, **kwargs):
            return 2 * y

    assert type(from_deepinv(Mine((1, 4, 4), mask=mask(1, 4, 4)), noise_std=0.1)) is LinearOperator
    Mine.__name__ = "Inpainting"
    with pytest.warns(UserWarning, match="computes something else than Inpainting"):
        assert type(from_deepinv(Mine((1, 4, 4), mask=mask(1, 4, 4)), noise_std=0.1)) is LinearOperator


@pytest.mark.parametrize(("noise", "said"), [
    (None, r"^noise_std: got a physics whose noise is none; wanted GaussianNoise\(sigma\)"),
    (dp.PoissonNoise(0.1), "whose noise is PoissonNoise"), (dp.RicianNoise(0.1), "whose noise is RicianNoise"),
    (dp.UniformGaussianNoise(0.1, 0.2), "whose noise is UniformGaussianNoise"),
    (dp.GaussianNoise(torch.full((2, 1), SIGMA)), r"^noise_std: got sigma of shape \(2, 1\)"),
    (dp.GaussianNoise(0.0), r"^noise_std: got 0")])
def test_other_noise_is_refused_by_name(noise, said):
    physics = dp.Inpainting((1, 4, 4), mask=mask(1, 4, 4), noise_model=noise)
    with pytest.raises(af.ArgumentError, match=said):
        from_deepinv(physics)
    assert from_deepinv(physics, noise_std=0.3).noise_std == 0.3


def test_what_has_no_operator_is_refused():
    noise = {"noise_model": dp.GaussianNoise(torch.full((2,), SIGMA))}
    with pytest.raises(af.ArgumentError, match=r"^physics: got a MRI of volumes; wanted one of images: three_d=False"):
        from_deepinv(dp.MRI(img_size=(1, 2, 3, 4, 4), three_d=True, **noise))
    with pytest.raises(af.ArgumentError, match=r"^image_shape: got None; wanted \(C, H, W\), with a Blur"):
        from_deepinv(dp.Blur(psf(3, 3), padding="valid", **noise))
    with pytest.raises(af.ArgumentError, match=r"^physics: got Physics; wanted a deepinv.physics.LinearPhysics"):
        from_deepinv(dp.Physics())


def test_objects_of_deepinverse_name_their_adapter():
    physics = dp.Denoising(dp.GaussianNoise(SIGMA))
    y, op = random(1, 4, 4), Denoising(SIGMA)
    with pytest.raises(af.ArgumentError, match=r"^operator: got Denoising; wanted an alps_fast operator: .*from_deepinv\(phys"):
        af.sample(y, physics, GaussianEnergy(0.0, 1.0))
    with pytest.raises(af.ArgumentError, match=r"^energy: got MedianFilter; wanted an alps_fast energy: .*DiffusionPrior\("):
        af.map_estimate(y, op, dinv.models.MedianFilter())


@pytest.mark.parametrize("name", ["inpainting pixels", "blur 3x5", "coils, lines"])
def test_the_sampler_gives_the_exact_posterior_of_a_gaussian(name):
    """Mean and variance as DeepInverse lays them out; pairs make the mean exact, and the variance has its standard error."""
    physics, shape, _ = PHYSICS[name]
    torch.manual_seed(0)
    y = physics(MU + S * random(1, *shape, seed=7))
    model = DeepInverseSampler(GAUSSIAN, image_range=(-1, 1), chains=400, schedule=FEW)
    mean, variance = model.sample(y, physics, seed=1)
    assert mean.shape == variance.shape == (1, *shape)
    op = from_deepinv(physics)
    image = (1, *shape[1:]) if op.is_complex else shape
    exact, covariance = gaussian_posterior(op, y, image, FEW.sigma_min)
    order = (0, 2, 3, 1)  # a state's
    torch.testing.assert_close(mean.permute(order).flatten().double(), exact, rtol=0, atol=0.02)
    ratio = variance.permute(order).flatten().double() / covariance.diagonal()
    assert abs(float(ratio.mean()) - 1) < 0.05 and float((ratio - 1).abs().max()) < 6 * (2 / 200) ** 0.5
    torch.testing.assert_close(model(y, physics, seed=1), mean)
    assert len(model.get_chain()) == 400 and model.get_chain()[0]["x"].shape == (1, *shape)


def test_images_of_another_range_are_scaled_for_the_run_and_back():
    """Those of [0, 1], as DeepInverse has them, are those of [−1, 1], half as far from each other and with half the noise."""
    blurred, shape = dp.Blur(psf(3, 3), padding="circular", noise_model=dp.GaussianNoise(SIGMA)), (1, 6, 5)
    torch.manual_seed(0)
    u = MU + S * random(2, *shape)
    y = blurred((u + 1) / 2)
    double = dp.Blur(psf(3, 3), padding="circular", noise_model=dp.GaussianNoise(2 * SIGMA))
    wide = 2 * y - blurred.A(torch.ones(1, *shape))
    mean, variance = DeepInverseSampler(GAUSSIAN, chains=8, schedule=FEW).sample(y, blurred, seed=3)
    there, spread = DeepInverseSampler(GAUSSIAN, image_range=(-1, 1), chains=8, schedule=FEW).sample(wide, double, seed=3)
    torch.testing.assert_close(mean, (there + 1) / 2, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(variance, spread / 4, rtol=1e-3, atol=1e-6)


def test_the_sampler_is_called_as_deepinverses_own():
    physics, shape, _ = PHYSICS["inpainting pixels"]
    y = physics(random(1, *shape))
    model = DeepInverseSampler(GAUSSIAN, image_range=(-1, 1), chains=6, schedule=FEW)
    torch.manual_seed(5)
    first, second = model(y, physics), model(y, physics)
    torch.manual_seed(5)
    assert not torch.equal(first, second) and torch.equal(model(y, physics), first)  # by torch's generator where no seed is given
    means, variances = model.sample(y, physics, seed=1, g_statistics=[lambda d: d["x"], lambda d: d["x"] ** 2])
    assert len(means) == len(variances) == 2 and means[1].shape == y.shape
    chain = torch.stack([d["x"] for d in model.get_chain()])
    torch.testing.assert_close(means[1], (chain**2).mean(0))
    assert not model.posterior.pairs
    mean, _ = model.sample(y, physics, seed=1, g_statistics=lambda d: d["x"].mean((1, 2, 3)))
    assert mean.shape == (1,)
    with pytest.raises(af.ArgumentError, match=r"^x_init: got Tensor; wanted None"):
        model(y, physics, x_init=y)
    with pytest.raises(af.ArgumentError, match=r"^chains: got 0"):
        DeepInverseSampler(GAUSSIAN, chains=0)


def test_a_physics_is_no_forward_function():
    """Called, it adds noise."""
    physics = dp.Denoising(dp.GaussianNoise(SIGMA))
    with pytest.raises(af.ArgumentError, match=r"^forward: got a Denoising; wanted a function, or .*from_deepinv\(physics\)"):
        LinearOperator(physics, physics.A_adjoint, SIGMA, (1, 4, 4))
    assert LinearOperator(physics.A, physics.A_adjoint, SIGMA, (1, 4, 4)).noise_std == SIGMA
