"""A diffusion model as the prior: exact denoisers against closed forms, every convention, and what is refused."""

import math

import pytest
import torch
from torch import nn

import alps_fast as af
from alps_fast.energies import DiffusionPrior, GaussianEnergy, GaussianMixtureEnergy, SumEnergy
from alps_fast.energies.symmetric import network_of

STD = 0.5
ALPHAS = (1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)).cumprod(0)  # DDPM's
SHORT = af.Schedule(sigma_max=2.0, sigma_min=0.2, levels=3, steps=2, eta_max=0.2, eta_steps=2)


def wide(t):
    return t.view(-1, 1, 1, 1)


def exact(x, sigma):
    """The denoiser of N(0, ½²)."""
    return x * (STD**2 / (STD**2 + wide(sigma) ** 2))


def on_schedule(kind):
    """A network of the same images that was trained on DDPM's schedule: F(√ᾱ x₀ + √(1 − ᾱ) n, k)."""
    def network(x, k):
        assert k.dtype == torch.float32 and k.shape == x.shape[:1]
        logs = 0.5 * (1 / ALPHAS - 1).log()
        low = k.double().floor().long().clamp(max=998)
        s = wide((logs[low] + (k.double() - low) * (logs[low + 1] - logs[low])).exp()).to(x.dtype)
        shrink = (1 + s * s).rsqrt()
        u = x / shrink
        image = exact(u, s)
        noise = (u - image) / s
        return {"image": image, "noise": noise, "velocity": shrink * noise - s * shrink * image,
                "score": -noise / (s * shrink), "two": torch.cat([noise, 0 * noise + 7], 1)}[kind]
    return network


def run(y, op, prior, **options):
    return af.sample(y, op, prior, **{"chains": 3, "schedule": SHORT, "progress": False} | options)


def half_seen(side=16):
    mask = torch.rand(side, side, generator=torch.Generator().manual_seed(1)) < 0.5
    op = af.operators.Inpainting(mask.float(), noise_std=0.1)
    return op, op.forward(STD * torch.randn(1, side, side, generator=torch.Generator().manual_seed(2)))


# --- right ---------------------------------------------------------------------------------------------------------

def test_an_exact_denoiser_gives_the_exact_posterior():
    """Half the pixels unseen: there the standard deviation is √(s² + t²) = .51; seen, mean and variance of two Gaussians."""
    op, y = half_seen()
    schedule = af.Schedule(sigma_max=5.0, sigma_min=0.1, levels=12, steps=40)
    post = run(y, op, DiffusionPrior(exact, channels=1), chains=48, schedule=schedule)
    prior = STD**2 + schedule.sigma_min**2
    seen = op.diagonal(torch.zeros(1, 16, 16, 1))[0, ..., 0] > 0
    variance = torch.where(seen, 1 / (1 / prior + 1 / 0.1**2), torch.tensor(prior))
    mean = torch.where(seen, variance * y[0] / 0.1**2, 0)
    z = (post.samples[:, 0] - mean) / variance.sqrt()
    for where in (seen, ~seen):
        count = z[:, where].numel()
        assert abs(float(z[:, where].mean())) < 4 * count**-0.5
        assert abs(float(z[:, where].std()) - 1) < 4 * (2 * count) ** -0.5
    assert math.isclose(math.sqrt(prior), 0.51, abs_tol=1e-3)


def test_half_the_squared_residual_is_another_prior():
    """What DenoiserEnergy makes of a denoiser that was not distilled: a standard deviation of (s² + t²)/t = 2.6, not .51."""
    x, t = torch.randn(3, 1, 4, 4, dtype=torch.float64), 0.1
    energy = af.energies.DenoiserEnergy(Exact(), channels=1)
    std = (STD**2 + t**2) / t
    torch.testing.assert_close(energy.value(x, t) / t**2, x.square().flatten(1).sum(1) / (2 * std**2))
    assert math.isclose(std, 2.6)


class Exact(nn.Module):
    """`exact` as a module."""

    def forward(self, x, sigma):
        return exact(x, sigma)


def test_a_mixtures_exact_denoiser_gives_its_posterior():
    """Of one pixel, by quadrature; where modes overlap, as what annealing leaves is then small."""
    weights, means, stds = torch.tensor([0.3, 0.7]), torch.tensor([-0.3, 0.3]).view(2, 1, 1, 1), torch.tensor([0.25, 0.35])
    mixture, eta, y = GaussianMixtureEnergy(weights, means, stds), 0.6, 0.4
    prior = DiffusionPrior(lambda x, sigma: x - mixture.grad(x, float(sigma[0])), channels=1)
    schedule = af.Schedule(sigma_max=5.0, sigma_min=0.1, levels=12, steps=40)
    post = run(torch.full((1, 1, 1), y), af.operators.Denoising(eta), prior, chains=6000, schedule=schedule)
    x = torch.linspace(-3, 3, 4001, dtype=torch.float64)
    t2 = schedule.sigma_min**2
    density = sum(w * torch.exp(-0.5 * (x - m) ** 2 / (s**2 + t2)) / (s**2 + t2) ** 0.5
                  for w, m, s in zip(weights.double(), means.double().flatten(), stds.double(), strict=True))
    density = density * torch.exp(-0.5 * (x - y) ** 2 / eta**2)
    density = density / density.sum()
    mean = float((density * x).sum())
    std = float((density * (x - mean) ** 2).sum().sqrt())
    drawn = post.samples.double().flatten()
    # four standard errors, and 2 % of the std for what 40 steps a level leave
    assert abs(float(drawn.mean()) - mean) < 4 * std / 6000**0.5 + 0.02 * std
    assert abs(float(drawn.std()) - std) < 4 * std / 12000**0.5 + 0.02 * std


CONVENTIONS = {
    "edm": (exact, {}),
    "noise": (lambda x, sigma: (x - exact(x, sigma)) / wide(sigma), {"predicts": "noise"}),
    "score": (lambda x, sigma: (exact(x, sigma) - x) / wide(sigma) ** 2, {"predicts": "score"}),
    "[0, 1]": (lambda u, sigma: (exact(2 * u - 1, 2 * sigma) + 1) / 2, {"value_range": (0, 1)}),
    "[0, 1] noise": (lambda u, sigma: (2 * u - 1 - exact(2 * u - 1, 2 * sigma)) / wide(2 * sigma),
                     {"value_range": (0, 1), "predicts": "noise"}),
    "[0, 1] throughout": (lambda u, sigma: (exact(2 * u - 1, 2 * sigma) + 1) / 2, {"value_range": (0, 1), "image_range": (0, 1)}),
    "bytes": (lambda u, sigma: 127.5 * (exact(u / 127.5 - 1, sigma / 127.5) + 1), {"value_range": (0, 255)}),
    **{f"ddpm {kind}": (on_schedule(kind), {"predicts": kind, "alphas_cumprod": ALPHAS})
       for kind in ("image", "noise", "velocity", "score")},
    "learned variance": (on_schedule("two"), {"predicts": "noise", "alphas_cumprod": ALPHAS}),
}


@pytest.mark.parametrize("name", CONVENTIONS)
@pytest.mark.parametrize("t", [0.02, 0.7, 30.0])
def test_every_convention_is_the_same_prior(name, t):
    network, options = CONVENTIONS[name]
    prior, x = DiffusionPrior(network, channels=1, **options), t * torch.randn(3, 1, 8, 9)
    wanted = GaussianEnergy(0.0, STD).grad(x, t)
    if "throughout" in name:  # x in [0, 1] is this one's image
        x, t, wanted = (x + 1) / 2, t / 2, wanted / 2
    torch.testing.assert_close(prior.grad(x, t), wanted, rtol=1e-3, atol=1e-3 * min(t, 1.0))


def test_complex_images_and_channelwise_networks():
    z = torch.randn(2, 1, 8, 8, dtype=torch.complex64)
    torch.testing.assert_close(DiffusionPrior(exact, channels=2).grad(z, 0.5), GaussianEnergy(0.0, STD).grad(z, 0.5))
    seen = []

    def network(x, sigma):
        seen.append(x.shape)
        return exact(x, sigma)

    x = torch.randn(2, 3, 8, 8)
    torch.testing.assert_close(DiffusionPrior(network, channels=1, channelwise=True).grad(x, 0.5),
                               GaussianEnergy(0.0, STD).grad(x, 0.5))
    assert set(seen) == {(6, 1, 8, 8)}
    with pytest.raises(af.ArgumentError, match="^x: got 3 real channels"):
        DiffusionPrior(exact, channels=2).grad(x, 0.5)


def test_labels_reach_every_call_a_row_an_image():
    def network(x, sigma, labels, table, scale):
        assert labels.shape == (len(x),) and labels.dtype == torch.int64 and table.shape == (len(x), 4)
        return exact(x, sigma) * scale

    arguments = {"labels": torch.tensor(3), "table": torch.eye(4)[:1], "scale": 1.0}
    prior = DiffusionPrior(network, channels=1, arguments=arguments)
    x = torch.randn(5, 1, 8, 8)
    torch.testing.assert_close(prior.grad(x, 0.5), GaussianEnergy(0.0, STD).grad(x, 0.5))
    with pytest.raises(af.ArgumentError, match=r"^arguments\['labels'\]: got shape \(4,\)"):
        DiffusionPrior(network, channels=1, arguments={"labels": torch.arange(4)})


# --- refused -------------------------------------------------------------------------------------------------------

NOISE, UNIT = CONVENTIONS["noise"][0], CONVENTIONS["[0, 1]"][0]
WRONG = {
    "noise": (NOISE, {}, "predicts='noise'"),
    "score": (CONVENTIONS["score"][0], {}, "predicts='score'"),
    "image as noise": (exact, {"predicts": "noise"}, "predicts='image'"),
    "image as score": (exact, {"predicts": "score"}, "predicts='image'"),
    "residual": (lambda x, sigma: x - exact(x, sigma), {}, r"the residual x − D\(x, t\)"),
    "[0, 1]": (UNIT, {}, r"knows \[0, 1\]: value_range"),
    "[0, 1], clipped": (lambda x, sigma: UNIT(x, sigma).clamp(0, 1), {}, r"knows \[0, 1\]: value_range"),
    "no schedule": (on_schedule("noise"), {"predicts": "noise"}, "needs alphas_cumprod"),
    "nothing known": (lambda x, sigma: 100 + x, {}, "t_range"),
    **{f"ddpm {kind} as {said}": (on_schedule(kind), {"predicts": said, "alphas_cumprod": ALPHAS}, f"predicts='{kind}'")
       for kind, said in (("noise", "velocity"), ("noise", "image"), ("velocity", "noise"), ("velocity", "image"),
                          ("score", "noise"), ("image", "noise"))},
}


@pytest.mark.parametrize("name", WRONG)
def test_another_convention_is_told(name):
    network, options, sentence = WRONG[name]
    x = torch.randn(2, 1, 16, 16)
    with pytest.raises(af.ArgumentError, match=f"^denoiser: .*; wanted .*{sentence}") as refusal:
        DiffusionPrior(network, channels=1, **options).grad(x, 0.5)
    assert "\n" not in str(refusal.value)
    DiffusionPrior(network, channels=1, probe=False, **options).grad(x, 0.5)


@pytest.mark.parametrize("name", ["natural", "brain"])
def test_the_shipped_teachers_are_taken(name):
    teacher = af.energies.load_teacher(f"{name}-teacher")
    channels = network_of(teacher).channels
    x = torch.randn(1, channels, 16, 16)
    with torch.no_grad():
        wanted = x - teacher(x, 0.7)
    torch.testing.assert_close(DiffusionPrior(teacher, channels).grad(x, 0.7), wanted, rtol=1e-4, atol=1e-5)


def test_the_probe_leaves_torchs_random_numbers_alone():
    torch.manual_seed(5)
    wanted = torch.randn(3)
    torch.manual_seed(5)
    DiffusionPrior(exact, channels=1).grad(torch.zeros(1, 1, 8, 8), 0.5)
    assert torch.equal(torch.randn(3), wanted)


@pytest.mark.parametrize("build, name", [
    (lambda: DiffusionPrior("net", 1), "denoiser"),
    (lambda: DiffusionPrior(exact, 0), "channels"),
    (lambda: DiffusionPrior(exact, True), "channels"),
    (lambda: DiffusionPrior(exact, 1, predicts="epsilon"), "predicts"),
    (lambda: DiffusionPrior(exact, 1, predicts="velocity"), "alphas_cumprod"),
    (lambda: DiffusionPrior(exact, 1, alphas_cumprod=[0.1, 0.9]), "alphas_cumprod"),
    (lambda: DiffusionPrior(exact, 1, alphas_cumprod=[1.0, 0.9]), "alphas_cumprod"),
    (lambda: DiffusionPrior(exact, 1, value_range=(1, 0)), "value_range"),
    (lambda: DiffusionPrior(exact, 1, image_range=(0, float("inf"))), "image_range"),
    (lambda: DiffusionPrior(exact, 1, t_range=(0.0, 1.0)), "t_range"),
    (lambda: DiffusionPrior(exact, 1, precision="low"), "precision"),
    (lambda: DiffusionPrior(nn.Identity, 1), "denoiser"),
    (lambda: DiffusionPrior(exact, 1, value_range=1), "value_range"),
    (lambda: DiffusionPrior(exact, 1, value_range="01"), "value_range"),
    (lambda: DiffusionPrior(exact, 1, t_range=5), "t_range"),
    (lambda: DiffusionPrior(exact, 1, dtype="float16"), "dtype"),
    (lambda: DiffusionPrior(exact, 1, dtype=torch.int64), "dtype"),
    (lambda: DiffusionPrior(exact, 1, arguments=[3]), "arguments"),
    (lambda: DiffusionPrior(exact, 1, alphas_cumprod="linear"), "alphas_cumprod"),
    (lambda: DiffusionPrior(lambda x, s: x[:, :, ::2], 1).grad(torch.zeros(1, 1, 8, 8), 0.5), "denoiser"),
    (lambda: DiffusionPrior(lambda x, s: x[:, :1], 3).grad(torch.zeros(1, 3, 8, 8), 0.5), "denoiser"),
    (lambda: DiffusionPrior(lambda x, s: torch.cat([x, x], 1), 1).grad(torch.zeros(1, 1, 8, 8), 0.5), "denoiser"),
    (lambda: DiffusionPrior(lambda x, s: (x,), 1).grad(torch.zeros(1, 1, 8, 8), 0.5), "denoiser"),
])
def test_bad_arguments(build, name):
    with pytest.raises(af.ArgumentError, match=f"^{name}: got"):
        build()


def test_a_variance_beside_the_mean_is_told_from_channels():
    """Guided-diffusion's networks have one, and a schedule, which was not said."""
    prior = DiffusionPrior(lambda x, s: torch.cat([x, x], 1), 3)
    with pytest.raises(af.ArgumentError, match=r"output of shape \(1, 6, 8, 8\).*needs alphas_cumprod"):
        prior.grad(torch.zeros(1, 3, 8, 8), 0.5)


class Flat(nn.Module):
    """D = 0, by a convolution of so many channels, pixels folded by `fold` before; of images of `side`; notes what is asked."""

    def __init__(self, channels, asked=None, fold=1, side=None):
        super().__init__()
        self.fold, self.side, self.note = fold, side, (lambda shape: None) if asked is None else lambda shape: asked.append(shape)
        self.net = nn.Conv2d(channels * fold**2, channels * fold**2, 1)

    def forward(self, x, sigma):
        self.note(tuple(x.shape))
        assert self.side in (None, x.shape[-1])
        return 0 * nn.functional.pixel_shuffle(self.net(nn.functional.pixel_unshuffle(x, self.fold)), self.fold)


def test_channels_that_a_network_does_not_take_are_told_when_it_is_wrapped():
    with pytest.raises(af.ArgumentError, match="^channels: got 4; wanted 3, as the network's first convolution takes"):
        DiffusionPrior(Flat(3), 4)
    betas = (1 - torch.linspace(1e-4, 0.02, 100, dtype=torch.float64)).cumprod(0)
    with pytest.raises(af.ArgumentError, match="^channels: got 3; wanted 1"):
        DiffusionPrior(Flat(1), 3, predicts="noise", alphas_cumprod=betas)
    with pytest.raises(af.ArgumentError, match="^channels: got 4; wanted as many as the network takes: .*to have 3 channels"):
        DiffusionPrior(Flat(3).forward, 4).grad(torch.zeros(1, 4, 8, 8), 0.5)  # a function: when it is asked


def test_channels_that_a_network_may_take_are_left_to_it():
    """Those that fit cost no evaluation; folded pixels do, and of one that takes another size nothing is known."""
    asked = []
    for net, channels in ((Flat(3, asked), 3), (Flat(1, asked, fold=2), 1), (Flat(3, asked, side=16), 4)):
        DiffusionPrior(net, channels, probe=False)
        assert not asked
        DiffusionPrior(net, channels)
        assert [shape[1] for shape in asked] == {3: [], 1: [1], 4: [4, 3]}[channels]
        asked.clear()


def test_levels_that_a_network_never_saw_are_refused():
    latent = (1 - torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2).cumprod(0)
    prior = DiffusionPrior(on_schedule("noise"), 1, predicts="noise", alphas_cumprod=latent, probe=False)
    x = torch.zeros(1, 1, 8, 8)
    for t in (100.0, 0.01):
        with pytest.raises(af.ArgumentError, match=rf"^t: got {t:.4g}; wanted a level in \[0.029.*, 14.61\]"):
            prior.grad(x, t)
    prior.grad(x, 14.61)
    ends_in_noise = torch.cat([ALPHAS, torch.zeros(1, dtype=torch.float64)])  # zero terminal signal has no level
    spans = [DiffusionPrior(exact, 1, alphas_cumprod=alphas).t_range for alphas in (ALPHAS, ends_in_noise)]
    assert spans[0] == spans[1] and spans[0][1] > 100
    only = DiffusionPrior(exact, 1, t_range=(0.01, 0.4))  # a denoiser for weak noise, which is not asked above
    only.grad(x, 0.4)
    with pytest.raises(af.ArgumentError, match="^t: got 0.5; wanted a level in"):
        only.grad(x, 0.5)


# --- no value ------------------------------------------------------------------------------------------------------

class Mine(af.energies.Energy):
    channels = 1

    def _grad(self, x, t):
        return x - exact(x, torch.tensor([t]))


@pytest.mark.parametrize("prior", [Mine(), DiffusionPrior(exact, 1), SumEnergy([Mine(), GaussianEnergy(0.0, 9.0)])],
                         ids=["mine", "diffusion", "sum"])
def test_without_a_value(prior):
    op, y = half_seen(8)
    x = torch.randn(1, 1, 8, 8)
    assert not prior.has_value and GaussianEnergy(0.0, 1.0).has_value
    for ask in (prior.value, prior.value_and_grad):
        with pytest.raises(af.ArgumentError, match=f"^energy: got {type(prior).__name__}; wanted one with a value"):
            ask(x, 0.5)
    with pytest.raises(af.ArgumentError, match=f"^correction: got 'mala'; wanted None with a {type(prior).__name__}"):
        run(y, op, prior, correction="mala")
    post = run(y, op, prior)
    assert post.samples.isfinite().all() and all(math.isnan(e) for e in post.by_level["energy"])
    assert run(y, op, prior, method="measurement").samples.isfinite().all()


def test_six_lines_sample_as_the_energy_does():
    op, y = half_seen(8)

    class Gaussian(GaussianEnergy):
        def curvature(self, t):
            return None  # L = 1, as for Mine

    torch.testing.assert_close(run(y, op, Mine()).samples, run(y, op, Gaussian(0.0, STD)).samples, rtol=1e-4, atol=1e-5)


def test_the_most_probable_image_without_a_value():
    op, y = half_seen(8)
    schedule = af.Schedule(sigma_max=2.0, sigma_min=0.1, levels=5, steps=60)
    found = af.map_estimate(y, op, DiffusionPrior(exact, 1), schedule=schedule, progress=False)
    prior, seen = STD**2 + 0.1**2, op.diagonal(torch.zeros(1, 8, 8, 1))[0, ..., 0] > 0
    wanted = torch.where(seen, y[0] / 0.1**2 / (1 / prior + 1 / 0.1**2), 0)
    torch.testing.assert_close(found.image[0], wanted, rtol=1e-4, atol=1e-4)
    assert found.energy.isnan() and found.trace.isnan().all() and found.trace.shape == (5, 60)


def test_an_energy_is_nothing_without_a_gradient():
    class Nothing(af.energies.Energy):
        pass

    with pytest.raises(TypeError, match="Nothing implements neither _value_and_grad nor _grad"):
        Nothing()


# --- the modes of torch --------------------------------------------------------------------------------------------

class Seen:
    """A list that stays one where its owner is copied."""

    def __init__(self):
        self.all = []

    def append(self, value):
        self.all.append(value)

    def __deepcopy__(self, memo):
        return self


class Conv(nn.Module):
    """A denoiser with weights, about that of N(0, ½²), which notes what it is given."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(1, 1, 3, padding=1)
        self.seen = Seen()

    def forward(self, x, sigma):
        self.seen.append((x.dtype, sigma.dtype, sigma.shape))
        return (x - 0.01 * self.conv(x)) * (0.25 / (0.25 + wide(sigma) ** 2))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_networks_of_another_precision_are_cast_in_and_out(dtype):
    x = torch.randn(2, 1, 8, 8)
    single = DiffusionPrior(Conv(), 1).grad(x, 0.5)
    net = Conv().to(dtype)
    grad = DiffusionPrior(net, 1).grad(x, 0.5)
    assert grad.dtype == torch.float32 and set(net.seen.all) == {(dtype, dtype, (2,))}
    torch.testing.assert_close(grad, single, rtol=0, atol=8 * torch.finfo(dtype).eps * float(x.abs().max()) + 1e-6)
    op, y = half_seen(8)
    assert run(y, op, DiffusionPrior(net, 1)).mean.dtype == torch.float32

    def function(x, sigma):
        assert x.dtype == dtype
        return net(x, sigma)

    torch.testing.assert_close(DiffusionPrior(function, 1, dtype=dtype).grad(x, 0.5), grad)


@pytest.mark.parametrize("decorate", [torch.no_grad(), torch.inference_mode(), torch.enable_grad()],
                         ids=["no", "inference", "enable"])
def test_how_forward_is_decorated_changes_nothing(decorate):
    op, y = half_seen(8)
    assert torch.equal(run(y, op, DiffusionPrior(decorate(exact), 1)).samples, run(y, op, DiffusionPrior(exact, 1)).samples)


@pytest.mark.parametrize("mode", [torch.inference_mode(), torch.autocast("cpu", torch.bfloat16), torch.no_grad()],
                         ids=["inference", "autocast", "no_grad"])
def test_around_a_run_a_mode_changes_nothing(mode):
    op, y = half_seen(8)
    wanted = run(y, op, DiffusionPrior(Conv(), 1))
    with mode:
        found = run(y, op, DiffusionPrior(Conv(), 1))
    assert torch.equal(found.samples, wanted.samples) and torch.equal(found.mean, wanted.mean)


def test_a_compiled_network_is_compiled_once():
    """Over all levels, the probe included; t is a tensor to it."""
    torch._dynamo.reset()
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    op, y = half_seen(8)
    compiled = DiffusionPrior(torch.compile(Once(), backend=backend), 1)
    found = run(y, op, compiled, schedule=af.Schedule(2.0, 0.2, 6, 2))
    assert len(graphs) == 1
    torch.testing.assert_close(found.samples, run(y, op, DiffusionPrior(Once(), 1), schedule=af.Schedule(2.0, 0.2, 6, 2)).samples)
    with torch.inference_mode():
        run(y, op, compiled)
    assert len(graphs) == 1


class Once(Conv):
    """The same without a note of what it sees, which is nothing to compile."""

    def forward(self, x, sigma):
        return (x - 0.01 * self.conv(x)) * (0.25 / (0.25 + wide(sigma) ** 2))


@pytest.mark.parametrize("network", [torch.nn.Conv2d(3, 3, 1), lambda x, sigma: x])
def test_a_bare_network_is_told_what_makes_it_a_prior(network):
    with pytest.raises(af.ArgumentError, match=r"^energy: got .*; wanted an alps_fast energy: .*DiffusionPrior\("):
        af.sample(torch.zeros(3, 4, 4), af.operators.Denoising(0.1), network)


def test_a_function_is_told_what_makes_it_an_operator():
    with pytest.raises(af.ArgumentError, match=r"^operator: got function; wanted an alps_fast operator: .*LinearOperator\("):
        af.sample(torch.zeros(3, 4, 4), lambda x: x, DiffusionPrior(exact, 1))
