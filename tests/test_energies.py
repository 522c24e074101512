"""Energies: gradients against finite differences, symmetric Jacobians, curvature bounds, files."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import alps_fast.energies as energies
from alps_fast.distill.ridge_net import RidgeNet
from alps_fast.energies.ridge import RidgeEnergy, curvature_bound
from alps_fast.errors import ArgumentError
from alps_fast.ops.ridge_grad import ridge_grad_reference


def ridge(channels=1, knots=6, grid=24):
    """A small ridge energy; its bounds on a coarse grid, which makes them wider, not wrong."""
    torch.manual_seed(0)
    net = RidgeNet(channels, scales=2, levels=4, count=3, side=3)
    with torch.no_grad():
        torch.nn.init.normal_(net.table[4].weight, std=0.2)
        w, r, q = (table[::13][:knots] for table in net.tables())
    at = net.knots[::13][:knots]
    filters = net.filters().detach().double()
    bounds = torch.tensor([curvature_bound(filters, a, b, grid) for a, b in zip(w.double(), q.double(), strict=True)])
    return RidgeEnergy(net.filters(), at, w, r, q, mu=0.1 if channels == 1 else 0.0, channels=channels, channelwise=channels == 1,
                       bounds=bounds)


def denoiser(channels=1, **options):
    torch.manual_seed(0)
    net = energies.CompactNet(channels, 8, (1, 1, 1))
    torch.nn.init.normal_(net.tail.weight, std=0.1)
    return energies.DenoiserEnergy(net, **options)


class Module(torch.nn.Module):
    """Somebody's network, called as network(x, t)."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv = torch.nn.Conv2d(1, 1, 3, padding=1)

    def forward(self, x, t):
        return torch.tanh(self.conv(x)) / (1 + t.view(-1, 1, 1, 1))


def mixture():
    means = torch.tensor([-0.4, 0.4]).view(2, 1, 1, 1)
    return energies.GaussianMixtureEnergy(torch.tensor([0.3, 0.7]), means, torch.tensor([0.3, 0.5]))


EVERY = {
    "gaussian": lambda: energies.GaussianEnergy(0.2, 0.5),
    "mixture": mixture,
    "ridge": ridge,
    "ridge_complex": lambda: ridge(2),
    "denoiser": lambda: denoiser(channelwise=True),
    "denoiser_complex": lambda: denoiser(2),
    "module": lambda: energies.DenoiserEnergy(Module().double(), channelwise=True, channels=1),
    "sum": lambda: energies.SumEnergy([energies.GaussianEnergy(0.0, 1.0), ridge()], [0.5, 2.0]),
}
STORABLE = [n for n in EVERY if n != "module"]


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("t", [0.02, 0.5, 20.0])
def test_gradient_and_symmetry(name, t):
    energy = EVERY[name]()
    x = torch.randn(2, 2, 5, 6, dtype=torch.float64)
    value, grad = energy.value_and_grad(x, t)
    assert value.shape == (2,) and grad.shape == x.shape
    torch.testing.assert_close(energy.grad(x, t), grad, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(energy.value(x, t), value)
    u, v, h = torch.randn_like(x), torch.randn_like(x), 1e-5
    slope = (energy.value(x + h * u, t) - energy.value(x - h * u, t)) / (2 * h)
    torch.testing.assert_close(slope, (grad * u).flatten(1).sum(1), rtol=2e-5, atol=1e-7)
    curve = [(energy.grad(x + h * a, t) - energy.grad(x - h * a, t)) / (2 * h) for a in (u, v)]
    torch.testing.assert_close((curve[0] * v).sum(), (curve[1] * u).sum(), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", EVERY)
def test_complex_images_are_two_real_channels(name):
    energy = EVERY[name]()
    x = torch.randn(2, 2, 5, 6, dtype=torch.float64)
    z = torch.complex(x[:, :1], x[:, 1:])
    value, grad = energy.value_and_grad(z, 0.3)
    real_value, real_grad = energy.value_and_grad(x, 0.3)
    torch.testing.assert_close(value, real_value)
    torch.testing.assert_close(torch.cat([grad.real, grad.imag], 1), real_grad)


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("is_complex", [False, True])
def test_one_image_is_a_batch_of_one(name, is_complex):
    energy = EVERY[name]()
    x = torch.randn(2, 5, 6, dtype=torch.float64)
    x = torch.complex(x[:1], x[1:]) if is_complex else x
    value, grad = energy.value_and_grad(x, 0.3)
    values, grads = energy.value_and_grad(x[None], 0.3)
    assert value.shape == () and value == values[0] and torch.equal(grad, grads[0])
    assert torch.equal(energy.value(x, 0.3), value) and torch.equal(energy.grad(x, 0.3), energy.grad(x[None], 0.3)[0])


@pytest.mark.parametrize("name", ["gaussian", "mixture", "ridge", "ridge_complex", "sum"])
@pytest.mark.parametrize("t", [0.005, 0.1, 1.0, 50.0])
def test_curvature_bounds_the_hessian(name, t):
    energy = EVERY[name]()
    bound = energy.curvature(t)
    assert bound is not None
    for spread in (1e-3, 1.0):  # log potentials curve most at zero
        x = spread * torch.randn(1, 2, 4, 5, dtype=torch.float64)
        hessian = _differences(energy, x, t)
        assert torch.linalg.eigvalsh((hessian + hessian.T) / 2)[-1] <= bound * (1 + 1e-6)


def _differences(energy, x, t, h=1e-6):
    steps = h * torch.eye(x.numel(), dtype=x.dtype).view(-1, *x.shape[1:])
    return (energy.grad(x + steps, t) - energy.grad(x - steps, t)).flatten(1) / (2 * h)


def test_ridge_bound_is_reached_on_a_large_image():
    """Power iteration on 64x64 finds most of the bound: it is not only safe but tight."""
    energy = ridge(grid=96)
    t = 0.3
    filters, w, _, q, mu = energy._constants(t, torch.zeros(1, dtype=torch.float64))
    cost = torch.maximum(w, -w / 8)
    x = torch.randn(1, 1, 64, 64, dtype=torch.float64)
    for _ in range(60):
        x = ridge_grad_reference(x / x.norm(), filters, cost, torch.full_like(w, 1e-12), q, 0 * mu)[0]
    assert 0.85 * energy.curvature(t) < x.norm() <= energy.curvature(t)


def test_gaussian_denoiser_is_the_posterior_mean():
    x = torch.randn(2, 1, 3, 3, dtype=torch.float64)
    s, t = 0.5, 0.3
    denoised = x - energies.GaussianEnergy(0.0, s).grad(x, t)
    torch.testing.assert_close(denoised, s**2 / (s**2 + t**2) * x)


def test_far_above_the_data_the_denoiser_is_the_mean():
    """q → 1 as t grows, whatever the filters' weights learned: x − ∇E tends to μ where w → 0."""
    net = RidgeNet(1, scales=2, levels=3, count=3, side=3)
    _, _, q = net.tables()
    assert q[-1, 0] > 0.99 and q[0, 0] < 1e-3


def test_energy_over_t_squared_stays_below_the_first_knot():
    energy = ridge()
    first = float(energy.knots[0].exp())
    x = torch.randn(1, 1, 4, 4, dtype=torch.float64)
    torch.testing.assert_close(energy.grad(x, 0.001) / 0.001**2, energy.grad(x, first) / first**2)


@pytest.mark.parametrize("name", STORABLE)
def test_files_give_the_same_energy(name, tmp_path):
    energy = EVERY[name]()
    path = tmp_path / "e.safetensors"
    energies.save(energy, path)
    x = torch.randn(1, 2, 5, 6, dtype=torch.float64)
    expected = energy.grad(x, 0.3)  # a network is stored as float32, which is what it is trained in
    torch.testing.assert_close(energies.load(path).grad(x, 0.3), expected, rtol=1e-5, atol=1e-6)
    energies.save(energy, path, half=True)
    half = energies.load(path).grad(x, 0.3)
    assert (half - expected).norm() < 3e-3 * expected.norm()


def test_a_shipped_network_is_loaded_without_torchs_compiler():
    """Whose import takes longer than all else: torch asks for it to draw first weights that nobody will see."""
    script = "import sys, alps_fast as af; af.energies.load('natural-denoiser'); sys.exit('torch._dynamo' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], cwd=Path(__file__).parents[1]).returncode == 0


def test_teacher_files(tmp_path):
    net = denoiser().network
    energies.save_teacher(net, tmp_path / "t.safetensors", half=False)
    x, t = torch.randn(1, 1, 8, 8), torch.tensor([0.3])
    torch.testing.assert_close(energies.load_teacher(tmp_path / "t.safetensors")(x, t), net(x, t))
    energies.save_teacher(energies.SymmetricDenoiser(net), tmp_path / "s.safetensors", half=False)
    symmetric = energies.load_teacher(tmp_path / "s.safetensors")
    torch.testing.assert_close(symmetric(x, t), energies.SymmetricDenoiser(net)(x, t))
    with pytest.raises(ArgumentError, match="^energy: .*does not fit its own header"):
        energies.load(tmp_path / "t.safetensors")


def test_a_symmetric_denoiser_turns_with_the_image():
    net = denoiser().network
    x, t = torch.randn(2, 1, 8, 16), torch.tensor([0.3, 2.0])
    symmetric = energies.SymmetricDenoiser(net)
    turned = [(torch.rot90(x, k, (2, 3)), k) for k in range(4)] + [(torch.rot90(x, k, (2, 3)).flip(3), k) for k in range(4)]
    answers = [torch.rot90(net(y, t).flip(3) if i >= 4 else net(y, t), -k, (2, 3)) for i, (y, k) in enumerate(turned)]
    torch.testing.assert_close(symmetric(x, t), sum(answers) / 8)
    assert (answers[0] - answers[1]).abs().max() > 1e-3  # by itself the network is not
    torch.testing.assert_close(symmetric(x.transpose(2, 3), t), symmetric(x, t).transpose(2, 3))
    torch.testing.assert_close(symmetric(x.flip(2), t), symmetric(x, t).flip(2))


def test_bad_files_and_names(tmp_path):
    with pytest.raises(ArgumentError, match="^energy: got 'nowhere'; wanted a file, or one of"):
        energies.load("nowhere")
    whole = tmp_path / "e.safetensors"
    energies.save(energies.GaussianEnergy(0.0, 1.0), whole)
    (tmp_path / "cut.safetensors").write_bytes(whole.read_bytes()[:-3])
    (tmp_path / "text.safetensors").write_text("not a model")
    save_file({"a": torch.ones(1)}, tmp_path / "foreign.safetensors")
    for name in ("cut", "text", "foreign"):
        with pytest.raises(ArgumentError, match=f"^energy: .*{name}"):
            energies.load(tmp_path / f"{name}.safetensors")
    with pytest.raises(ArgumentError, match="^energy.network: got Module"):
        energies.save(energies.DenoiserEnergy(Module()), tmp_path / "m.safetensors")


def test_header_says_how_to_rebuild(tmp_path):
    import safetensors

    energies.save(denoiser(2), tmp_path / "e.safetensors")
    with safetensors.safe_open(tmp_path / "e.safetensors", "pt") as file:
        header = json.loads(file.metadata()["energy"])
    assert header == {"kind": "DenoiserEnergy", "channelwise": False,
                      "config": {"channels": 2, "width": 8, "blocks": [1, 1, 1], "sigma_data": 0.5}}


@pytest.mark.parametrize("build, name", [
    (lambda: energies.GaussianEnergy(0.0, 0.0), "std"),
    (lambda: energies.GaussianEnergy(float("nan"), 1.0), "mean"),
    (lambda: energies.GaussianMixtureEnergy(torch.tensor([0.5, -0.5]), torch.zeros(2, 1, 1, 1), torch.ones(2)), "weights"),
    (lambda: energies.SumEnergy([]), "energies"),
    (lambda: energies.DenoiserEnergy("net"), "network"),
    (lambda: energies.DenoiserEnergy(Module(), precision="low"), "precision"),
    (lambda: denoiser(2).grad(torch.zeros(1, 3, 4, 4), 0.1), "x"),
    (lambda: denoiser(1).grad(torch.zeros(4, 4), 0.1), "x"),
    (lambda: denoiser(1).value([[0.0]], 0.1), "x"),
    (lambda: denoiser(1).grad(torch.zeros(1, 1, 4, 4), 0.0), "t"),
])
def test_bad_arguments(build, name):
    with pytest.raises(ArgumentError, match=f"^{name}: got"):
        build()


# --- somebody's network --------------------------------------------------------------------------------------------

class Seen(torch.nn.Module):
    """A convolution that notes what it is given and gives, for the twin that runs in its place too."""

    seen = []  # noqa: RUF012

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = torch.nn.Conv2d(2, 16, 3, padding=1), torch.nn.Conv2d(16, 2, 3, padding=1)

    def forward(self, x, t):
        y = self.first(x)
        self.seen.append((x, y, self.first.weight))
        return x + 0.2 * torch.tanh(self.second(torch.relu(y))) * t[:, None, None, None]


@pytest.mark.parametrize("precision", ["high", "fast"])
def test_a_module_runs_channels_last_and_fast_in_bfloat16(precision):
    energy = energies.DenoiserEnergy(Seen(), channels=2, precision=precision)
    for x in (torch.randn(3, 2, 16, 12), torch.randn(3, 2, 16, 12).contiguous(memory_format=torch.channels_last)):
        value, grad = energy.value_and_grad(x, 0.5)
        given, between, weight = energy.network.seen.pop()
        assert all(v.is_contiguous(memory_format=torch.channels_last) for v in (given, between, weight))
        assert between.dtype == (torch.bfloat16 if precision == "fast" else torch.float32)
        assert value.dtype == grad.dtype == torch.float32 and not grad.requires_grad
        exact_value, exact = energies.DenoiserEnergy(Seen().double(), channels=2).value_and_grad(x.double(), 0.5)
        error = 5e-2 if precision == "fast" else 1e-5  # some roundings of bfloat16, 2^-8 each; measured 3.4e-2 and 9e-7
        assert (grad - exact).norm() <= error * exact.norm() and ((value - exact_value).abs() <= error * exact_value).all()
