"""Training and distillation on small made images: they learn, resume, take any teacher, and keep held-out images out."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from alps_fast.distill import data, evaluate, loop
from alps_fast.distill.images import Images, as_image
from alps_fast.distill.loop import fit
from alps_fast.distill.matching import OfPrior, distill_denoiser, distill_ridge
from alps_fast.distill.ridge_net import RidgeNet
from alps_fast.distill.teacher import edm_weight, train_teacher
from alps_fast.energies import CompactNet, DenoiserEnergy, DiffusionPrior, RidgeEnergy, SymmetricDenoiser, ridge
from alps_fast.errors import ArgumentError
from alps_fast.io.tensors import read_tensors
from alps_fast.ops.ridge_grad import ridge_grad

SMALL = {"batch": 2, "size": 16, "compile": False, "progress": False}


@pytest.fixture(autouse=True)
def made_images(monkeypatch):
    """Smooth pictures in place of the Debian packages', which a test machine need not have."""
    rows, columns = np.mgrid[:40, :48]
    pictures = [(127.5 + 100 * np.sin(rows / a + columns / b)).astype(np.uint8) for a, b in ((5, 9), (8, 4), (12, 15))]
    monkeypatch.setattr(data, "natural_images", lambda: pictures)
    monkeypatch.setattr(data, "brain_images", lambda: pictures)


@pytest.fixture
def coarse_bounds(monkeypatch):
    """Curvature bounds on a grid that takes seconds, not minutes; wider, still bounds."""
    exact = ridge.curvature_bound
    monkeypatch.setattr(ridge, "curvature_bound", lambda filters, w, q: exact(filters, w, q, grid=19))


@pytest.mark.parametrize("domain, channels", [("natural", 1), ("brain", 2)])
def test_crops_are_a_function_of_seed_and_number(domain, channels):
    one, two, other = data.Crops(domain, 16, 3, seed=4), data.Crops(domain, 16, 3, seed=4), data.Crops(domain, 16, 3, seed=5)
    batch = one.get(7)
    assert batch.shape == (3, channels, 16, 16) and batch.dtype == torch.float32
    assert batch.abs().max() <= 1.05 and torch.equal(batch, two.get(7))
    assert not torch.equal(batch, one.get(8)) and not torch.equal(batch, other.get(7))


def test_brain_phase_is_smooth_and_magnitude_unchanged():
    phase = data.random_phase(4, 32, torch.Generator().manual_seed(0))
    assert phase.diff(dim=-1).abs().max() < 0.6 and phase.std((1, 2)).min() > 0.05
    batch = data.Crops("brain", 16, 8).get(0)
    assert batch.square().sum(1).sqrt().max() <= 1.05


def test_sharp_draws_reduced_photographs_more_often(monkeypatch):
    monkeypatch.setattr(data, "natural_images", lambda: [np.zeros((side // 2, side), np.uint8) for side in (120, 60, 40)])
    np.testing.assert_allclose(data.Crops("natural", 16).weight, [1 / 3] * 3)
    np.testing.assert_allclose(data.Crops("natural", 16, sharp=1.0).weight, [1 / 6, 2 / 6, 3 / 6])


def test_edm_weight_evens_out_the_levels():
    """A denoiser that returns its input is off by t; with D = c_skip x the weighted error is one at every level."""
    t, sigma = torch.tensor([0.01, 0.5, 30.0]), 0.5
    error = sigma**2 * t**2 / (sigma**2 + t**2)  # of the best linear denoiser of N(0, σ_d²)
    torch.testing.assert_close(edm_weight(t, sigma) * error, torch.ones(3))


def test_teacher_learns(tmp_path):
    net = train_teacher("natural", tmp_path, steps=40, **SMALL)
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [40] and isinstance(net, CompactNet)
    clean = data.Crops("natural", 16, 8, seed=9).get(0)
    noisy = clean + 0.5 * torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert (net(noisy, 0.5) - clean).square().mean() < 0.12 < (noisy - clean).square().mean()  # linear: 0.125


@pytest.mark.parametrize(("seconds", "left"), [(60.0, "8"), (0.0, "9")])
def test_a_stopped_run_goes_on_where_it_was(seconds, left, tmp_path, monkeypatch):
    """From the last checkpoint, which a slow run writes between its lines of the log too."""
    monkeypatch.setattr(loop, "KEEP", seconds)

    def make():
        torch.manual_seed(0)
        return torch.nn.Linear(3, 1)

    def run(module, out, stop=None):
        def loss(step):
            if step == stop:
                raise KeyboardInterrupt
            x = torch.randn(5, 3, generator=torch.Generator().manual_seed(step))
            seen.append(float((value := (module(x) - x.sum(1, keepdim=True)).square().mean()).detach()))
            return value

        return fit(module, loss, 11, out, every=4, progress=False)

    seen: list[float] = []

    whole = run(make(), tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(make(), tmp_path / "stopped", stop=9)
    assert read_tensors(tmp_path / "stopped/checkpoint.safetensors", "", "")[1]["step"] == left
    again = run(make(), tmp_path / "stopped")
    assert torch.equal(whole.weight, again.weight) and torch.equal(whole.bias, again.bias)
    steps = [json.loads(line)["step"] for line in (tmp_path / "stopped/log.jsonl").read_text().splitlines()]
    last = json.loads((tmp_path / "whole/log.jsonl").read_text().splitlines()[-1])
    assert steps == [4, 8, 11] == [4, 8, last["step"]] and last["loss"] == pytest.approx(sum(seen[8:11]) / 3)


class Shrink(torch.nn.Module):
    """The denoiser of N(0, ¼): somebody's teacher, D(x, sigma)."""

    def forward(self, x, sigma):
        return x * (0.25 / (0.25 + sigma.view(-1, 1, 1, 1) ** 2))


class Stronger(Shrink):
    def forward(self, x, sigma):
        return 0.9 * super().forward(x, sigma)


def test_any_module_can_teach(tmp_path, coarse_bounds):
    denoiser = distill_denoiser(Shrink(), "natural", tmp_path / "d", steps=2, **SMALL)
    learned = distill_ridge(Shrink(), "brain", tmp_path / "r", steps=2, **SMALL)
    assert isinstance(denoiser, DenoiserEnergy) and denoiser.channels == 1
    assert isinstance(learned, RidgeEnergy) and learned.channels == 2 and learned.curvature(0.5) > 0
    with pytest.raises(ArgumentError, match="^teacher: got output of shape"):
        distill_denoiser(Wrong(), "natural", tmp_path / "x", steps=1, **SMALL)


class Wrong(torch.nn.Module):
    """A teacher whose output has another shape."""

    def forward(self, x, sigma):
        return x[..., ::2]


class InTraining(torch.nn.Module):
    """A teacher with statistics of its own, which asking it in training mode would change, and a part that is not in training."""

    def __init__(self):
        super().__init__()
        self.norm, self.done = torch.nn.BatchNorm2d(1), torch.nn.Conv2d(1, 1, 3, padding=1).eval()
        self.asked = []

    def forward(self, x, sigma):
        self.asked.append(self.norm.training)
        return x + 0.1 * self.done(self.norm(x))


@pytest.mark.parametrize("distil", [distill_denoiser, distill_ridge])
def test_the_callers_teacher_is_left_as_it_was(distil, tmp_path, coarse_bounds):
    """A validation loop that distils would else end the training of its network."""
    teacher = InTraining()
    before = {k: v.clone() for k, v in teacher.state_dict().items()}
    distil(teacher, "natural", tmp_path / "a", steps=1, **SMALL)
    assert len(teacher.asked) >= 2 and not any(teacher.asked)
    assert [m.training for m in teacher.modules()] == [True, True, False]
    assert all(p.requires_grad and p.grad is None for p in teacher.parameters())
    assert all(torch.equal(v, before[k]) for k, v in teacher.state_dict().items())
    teacher.forward = lambda x, sigma: 1 / 0
    with pytest.raises(ZeroDivisionError):
        distil(teacher, "natural", tmp_path / "b", steps=1, **SMALL)
    assert teacher.norm.training
    with pytest.raises(ArgumentError, match=r"^teacher: got function; wanted a module D\(x, sigma\)"):
        distil(lambda x, sigma: x, "natural", tmp_path / "b", steps=1, **SMALL)


def test_student_starts_from_the_teacher(tmp_path):
    torch.manual_seed(1)
    teacher = CompactNet(1, 8, (1, 1, 1))
    student = distill_denoiser(teacher, "natural", tmp_path, steps=1, **SMALL).network
    assert student.width == 8
    step = max(float((a - b).detach().abs().max()) for a, b in zip(teacher.parameters(), student.parameters(), strict=True))
    assert step < 1e-3  # one warm-up step of AdamW at 1e-3/300


def test_a_symmetric_teacher_shows_one_side_a_step(tmp_path):
    """Over eight steps on the same images the target is the mean of the eight."""
    torch.manual_seed(1)
    teacher = SymmetricDenoiser(CompactNet(1, 8, (1, 1, 1)))
    x, t = torch.randn(3, 1, 16, 16), torch.tensor([0.1, 0.5, 2.0])
    with torch.no_grad():
        torch.testing.assert_close(sum(teacher.one(x, t, g) for g in range(8)) / 8, teacher(x, t))
    student = distill_denoiser(teacher, "natural", tmp_path, steps=1, **SMALL).network
    step = max(float((a - b).detach().abs().max())
               for a, b in zip(teacher.denoiser.parameters(), student.parameters(), strict=True))
    assert step < 1e-3


def test_baked_ridge_is_the_trained_one(coarse_bounds):
    torch.manual_seed(0)
    net = RidgeNet(1, scales=2, levels=3, count=2, side=3)
    energy = net.bake()
    x, t = torch.randn(2, 1, 9, 8), 0.27
    with torch.no_grad():
        grad, _ = ridge_grad(x, list(net.filters()), *(c.contiguous() for c in net.constants(torch.tensor([t]))), net.mu)
    torch.testing.assert_close(energy.grad(x, t), grad, rtol=1e-5, atol=1e-6)


def test_missing_packages_are_named(monkeypatch):
    monkeypatch.undo()
    monkeypatch.setattr(data, "COLIN", ("/nowhere/ch2better.nii.gz",))
    monkeypatch.setattr(data, "PLASMA", ("Nowhere",))
    with pytest.raises(FileNotFoundError, match="apt-get install mricron-data"):
        data.brain_images()
    with pytest.raises(FileNotFoundError, match="apt-get install .*plasma-workspace-wallpapers"):
        data.natural_files()
    with pytest.raises(ArgumentError, match="^domain: got 'knee'"):
        data.Crops("knee")


def test_held_out_photographs_do_not_train():
    names = {Path(n).stem for n in (*data.LOMIRI, *data.MATE, *data.PLASMA, *data.SCIKIT_IMAGE)}
    assert not names & set(data.HELD_OUT)
    images = evaluate.held_out("natural")
    assert len(images) == len(data.HELD_OUT) and all(i.shape == (1, 1, 192, 192) for i in images)


def test_psnr_table_of_the_identity():
    rows = evaluate.psnr_table("natural", {"none": lambda x, t: x}, levels=(0.2,))
    assert abs(rows["none"][0] - 20 * np.log10(2 / 0.2)) < 0.1
    assert evaluate.markdown_table(rows, (0.2,)).splitlines()[2] == f"| 0.2 | {rows['none'][0]:.2f} |"


def test_a_checkpoint_of_another_training_is_refused(tmp_path):
    train_teacher("natural", tmp_path, steps=2, **SMALL)
    path = tmp_path / "checkpoint.safetensors"
    before = path.read_bytes()
    with pytest.raises(ArgumentError, match="^out: got .*, which is of .*; wanted a checkpoint of this run"):
        train_teacher("brain", tmp_path, steps=4, **SMALL)
    with pytest.raises(ArgumentError, match="^out: got"):
        distill_denoiser(Shrink(), "natural", tmp_path, steps=4, **SMALL)
    path.write_bytes(before[:-9])
    with pytest.raises(ArgumentError, match="^out: got .*, which cannot be read"):
        train_teacher("natural", tmp_path, steps=4, **SMALL)
    distill_denoiser(Shrink(), "natural", tmp_path / "d", steps=2, **SMALL)
    with pytest.raises(ArgumentError, match="by another teacher"):
        distill_denoiser(Stronger(), "natural", tmp_path / "d", steps=4, **SMALL)
    assert (tmp_path / "log.jsonl").read_text().count("\n") == 1


def colour(count, size=20):
    """Smooth colour images in [-1, 1]."""
    rows = torch.arange(size, dtype=torch.float32)
    phase = torch.rand(count, 3, 1, 1, generator=torch.Generator().manual_seed(2)) * 6
    return torch.sin(rows[:, None] / 4 + rows / 6 + phase)


def sources(tmp_path):
    """The same images as everything that may hold them."""
    images = colour(24)
    folder = tmp_path / "photos"
    folder.mkdir()
    for i, image in enumerate(images):
        levels = ((image.movedim(0, -1) + 1) * 127.5).round().to(torch.uint8).numpy()
        Image.fromarray(levels).save(folder / f"{i:02}.png")
    pairs = torch.utils.data.TensorDataset(images, torch.zeros(24))
    return {"folder": folder, "tensor": images, "dataset": pairs, "loader": torch.utils.data.DataLoader(pairs, 4),
            "function": lambda number: images[4 * number % 20:][:4]}


@pytest.mark.parametrize("kind", ["folder", "tensor", "dataset", "loader", "function"])
def test_own_images_teach_and_are_held_out(kind, tmp_path):
    """RGB, from whatever holds them; none of those in the table is trained on, and a run that goes on says whose it is."""
    images, out = sources(tmp_path)[kind], tmp_path / "run"
    own = Images(images, 16, 4, 1)
    assert own.channels == 3 and own.get(3).shape == (4, 3, 16, 16) and own.get(0).abs().max() <= 1
    if kind != "loader":
        assert torch.equal(own.get(3), Images(images, 16, 4, 1).get(3))
    if kind in ("tensor", "dataset"):
        assert not set(own._kept) & set(own._seen) and len(own._kept) + len(own._seen) == 24
    energy = distill_denoiser(Shrink(), images=images, out=out, student=CompactNet(3, 8, (1, 1, 1)), steps=2, **SMALL)
    assert energy.channels == 3 and not energy.channelwise and energy.grad(colour(2), 0.5).shape == (2, 3, 20, 20)
    assert "| t | noisy | teacher | energy |" in (out / "held_out.txt").read_text()
    with pytest.raises(ArgumentError, match="^out: got .*, which is of"):
        distill_denoiser(Shrink(), "natural", out, steps=4, **SMALL)


def test_pictures_are_taken_as_they_are_read():
    grey = np.arange(0, 240, dtype=np.uint8).reshape(4, 20, 3)
    found = as_image((Image.fromarray(grey), 7))  # of a Dataset that gives labels too
    assert torch.equal(found, torch.from_numpy(grey).movedim(-1, 0) / 127.5 - 1)


class Learned(torch.nn.Module):
    """A teacher of another architecture."""

    def __init__(self):
        super().__init__()
        self.one, self.two = torch.nn.Conv2d(3, 8, 3, padding=1), torch.nn.Conv2d(8, 3, 3, padding=1)

    def forward(self, x, sigma):
        return x / (1 + sigma.view(-1, 1, 1, 1) ** 2) + 0.1 * self.two(torch.nn.functional.silu(self.one(x)))


def test_a_student_of_the_teachers_architecture_starts_from_its_weights(tmp_path):
    torch.manual_seed(1)
    teacher = Learned()
    energy = distill_denoiser(teacher, images=colour(8), out=tmp_path, student="teacher", steps=1, **SMALL)
    assert isinstance(energy.network, Learned) and energy.network is not teacher
    moved = [float((a - b).detach().abs().max()) for a, b in zip(teacher.parameters(), energy.network.parameters(), strict=True)]
    assert 0 < max(moved) < 1e-3 and all(p.grad is None for p in teacher.parameters())
    x, t = colour(2).double(), 0.7
    net = energy.network.double()
    jacobian = torch.autograd.functional.jacobian(lambda v: net(v[None], torch.tensor([t], dtype=v.dtype))[0].flatten(), x[0])
    residual = (x[0] - net(x[:1], torch.tensor([t], dtype=x.dtype))[0]).flatten()
    torch.testing.assert_close(energy.grad(x[:1], t).flatten(), residual - jacobian.view(1200, 1200).T @ residual)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_a_teacher_of_another_precision_is_asked_in_it(dtype, tmp_path):
    """Its student is of float32; the images' bfloat16 is what the energies differ by from those of a float32 teacher."""
    images = torch.rand(12, 3, 20, 20, generator=torch.Generator().manual_seed(1)) * 2 - 1
    told = []
    for name, teacher in (("single", Learned()), ("other", Learned().to(dtype))):
        student = distill_denoiser(teacher, images=images, out=tmp_path / name, student="teacher", steps=2, **SMALL)
        assert all(v.dtype == torch.float32 for v in student.network.parameters())
        told.append(student.grad(images[:2], 0.5))
        assert all(v.dtype == (dtype if name == "other" else torch.float32) for v in teacher.parameters())
    torch.testing.assert_close(*told, rtol=0, atol=0.05)


def test_an_energy_teaches_and_a_ridge_takes_any_channels(tmp_path, coarse_bounds):
    prior = DiffusionPrior(Shrink(), channels=3)
    learned = distill_ridge(prior, images=colour(8), out=tmp_path, steps=2, **SMALL)
    assert learned.channels == 1 and learned.grad(colour(2), 0.5).shape == (2, 3, 20, 20)
    x, t = colour(3), torch.tensor([0.1, 0.5, 2.0])
    torch.testing.assert_close(OfPrior(prior)(x, t), Shrink()(x, t))


@pytest.mark.parametrize("name, wrong", [
    ("images", {"images": None}), ("images", {"images": colour(8), "domain": "natural"}), ("images", {"images": 3}),
    ("images", {"images": "nowhere"}), ("images", {"images": [colour(1)[0], torch.zeros(1, 20, 20)]}),
    ("images", {"images": [torch.zeros(3, 20, 20, dtype=torch.int64)] * 3}), ("size", {"images": colour(4, 8)}),
    ("student", {"images": colour(4), "student": "large"}), ("out", {"images": colour(4), "out": None}),
    ("images", {"images": lambda number: colour(1)[0]})])
def test_wrong_images_are_refused_by_name(name, wrong, tmp_path):
    with pytest.raises(ArgumentError, match=f"^{name}: "):
        distill_denoiser(Shrink(), **{"out": tmp_path, "steps": 1, **SMALL} | wrong)
