"""The field's table: its problems, its methods where closed forms know the answer, its figures, its file."""

from __future__ import annotations

import json
import math
import warnings
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from alps_fast import ArgumentError, data
from alps_fast.operators import CircularBlur, Inpainting
from benchmarks.quality import __main__ as command
from benchmarks.quality import libraries, methods, papers, perceptual, problems, runs, store, table, target, tuning
from benchmarks.quality.figures import FIGURES, Draws, figures
from benchmarks.quality.problems import Problem, bicubic, problem, scattered
from benchmarks.quality.teacher import Teacher

S, ETA, SIDE = 0.5, 0.3, 8


def needs(*packages: str) -> None:
    for package in packages:
        pytest.importorskip(package)


def needs_peers() -> None:
    needs("einops")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if libraries.deepinv() is None or libraries.azula() is None:
            pytest.skip("DeepInverse or azula is not installed")


class Gaussian(nn.Module):
    """D of N(0, S²), counting as the teacher does."""

    evaluations = 0

    def forward(self, x: Tensor, sigma: Tensor | float, **_: object) -> Tensor:
        self.evaluations += len(x)
        return x * S**2 / (S**2 + torch.as_tensor(sigma, dtype=torch.float32).reshape(-1, 1, 1, 1) ** 2)


def gaussian_problem() -> Problem:
    """A truth of that prior, seen at half of its pixels."""
    truth = S * torch.randn(1, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
    mask = data.pixel_mask(SIDE, SIDE, keep=0.5)
    operator = Inpainting(mask, ETA)
    return Problem("", "natural", operator, data.measure(operator, truth[0], mask, seed=2), truth, 2.0)


@pytest.mark.parametrize("row", problems.ROWS)
def test_the_algebra_of_every_row(row):
    """Aᵀ is the adjoint of A, `normal` is AᵀA, and `solve` inverts AᵀA/η² + lam; noise has the std that it says."""
    needs("skimage", "sklearn", *(["nilearn", "nibabel"] if row.startswith("MRI") else []))
    given = problem(row, 0, 32)
    x, v = torch.randn(2, *given.truth.shape[1:]), torch.randn(2, given.y.shape[1])
    torch.testing.assert_close((given.A(x) * v).sum(), (x * given.At(v)).sum(), rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(given.normal(x), given.At(given.A(x)), rtol=1e-4, atol=1e-4)
    solved = given.solve(x, 4.0)
    torch.testing.assert_close(given.normal(solved) / given.eta**2 + 4.0 * solved, x, rtol=1e-3, atol=1e-3)
    error = given.y - given.A(given.truth)
    seen = error[error != 0]
    assert float(seen.std()) == pytest.approx(given.eta, abs=4 * given.eta / (2 * len(seen)) ** 0.5)


def test_tuning_images_are_others():
    needs("skimage", "sklearn")
    table_image, tuning_image = problem("box", 0, 32), problem("box", 0, 32, tuning=True)
    assert not torch.equal(table_image.truth, tuning_image.truth)
    assert not any(torch.equal(problems.photographs(True)[0], image) for image in problems.photographs(False))
    torch.testing.assert_close(problem("box", 3, 32).measured, problem("box", 3, 32).measured, rtol=0, atol=0)


def test_kernels_and_masks():
    kernel = bicubic(4)
    assert kernel.shape == (16, 16) and float(kernel.sum()) == pytest.approx(1)
    torch.testing.assert_close(kernel, kernel.flip(0, 1))
    mask = scattered(32, 6, 4)
    assert int(mask.sum()) == round(32**2 / 6) and bool((mask[14:18, 14:18] == 1).all())


def test_split_gibbs_draws_from_the_posterior_that_it_has():
    """[PnPDM] at ρ sees pixels with noise η² + ρ²: mean, up to its Monte Carlo error, and variance by 5 %."""
    given, draws, rho = gaussian_problem(), 200, 0.2
    x = papers.pnpdm(given, Gaussian(), draws, 0, last=rho, decay=0.5, rounds=20, steps=100).x
    weight = given.normal(torch.ones_like(given.truth)) / (ETA**2 + rho**2)
    variance = 1 / (weight + S**-2)
    exact = variance * given.At(given.y) / (ETA**2 + rho**2)
    assert float((x.mean(0) - exact).square().mean()) == pytest.approx(float(variance.mean()) / draws, rel=0.3)
    assert float(x.var(0).mean()) == pytest.approx(float(variance.mean()), rel=0.05)


def test_the_published_loop_and_daps_reach_a_gaussian_mean(monkeypatch):
    given, draws = gaussian_problem(), 100
    exact = given.solve(given.At(given.y) / given.eta**2, S**-2)
    prior = SimpleNamespace(grad=lambda x, t: x - Gaussian()(x, t), curvature=lambda t: 1.0)
    monkeypatch.setattr(papers, "distilled", lambda domain: prior)
    teacher = Gaussian()
    found = {"published": papers.published(given, teacher, draws, 0, first=10.0, last=0.02, levels=40).x,
             "daps": papers.daps(given, Gaussian(), draws, 0, rate=0.3, last=0.1, levels=30, ode=5, langevin=30).x}
    assert teacher.evaluations == 2 * draws * 40 * 5
    for name, x in found.items():
        off = float((x.mean(0) - exact).square().mean() ** 0.5)
        assert off < 0.08, name  # beside a prior of S = .5; each has a bias that is its own
    assert float(found["published"].var(0).mean()) < 0.8 * float(S**2 / 2)  # conditional means: its draws are too near each other


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")  # of torch.func.jvp
def test_moment_matching_is_right_for_a_gaussian():
    """[MMPS] is exact there, given steps enough; of azula's solver two do, for two eigenvalues."""
    needs_peers()
    given, draws = gaussian_problem(), 100
    x = libraries.mmps(given, Gaussian(), draws, 0, iterations=2, eta=1.0, steps=240).x
    exact = given.solve(given.At(given.y) / given.eta**2, S**-2)
    variance = float((given.solve(torch.ones(1, 1, SIDE, SIDE), S**-2)).mean())
    assert float((x.mean(0) - exact).square().mean()) == pytest.approx(variance / draws, rel=0.5)
    assert float(x.var(0).mean()) == pytest.approx(variance, rel=0.1)


def test_singular_values_give_the_operator_back():
    needs_peers()
    needs("skimage", "sklearn")
    for row in ("random .05", "motion blur", "super-resolution x4"):
        given = problem(row, 0, 32)
        assert methods.METHODS["DDRM"].takes(given)
        x = torch.randn(2, 1, 32, 32)
        torch.testing.assert_close(libraries.decomposed(given).A(x).flatten(1), given.A(x), rtol=1e-4, atol=1e-4)


def test_figures_of_draws():
    """Of draws from the distribution that the truth is from, with numbers that a library has too."""
    given, m = gaussian_problem(), 8
    x = S * torch.randn(m, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(2))
    found = figures(Draws(x), given)
    assert set(found) == set(FIGURES)
    assert found["cover 90"] == pytest.approx(0.9, abs=4 * (0.09 / SIDE**2) ** 0.5)
    assert found["psnr draw"] == pytest.approx(10 * math.log10(4 / float((x[0] - given.truth[0]).square().mean())), abs=1e-4)
    single = figures(Draws(x[:1]), given)
    assert single["psnr mean"] == single["psnr draw"] and single["cover 90"] is None and single["crps"] is None
    apart = (x[:, None] - x[None]).abs().sum((0, 1)) / (m * (m - 1))
    assert found["crps"] == pytest.approx(float(((x - given.truth[0]).abs().mean(0) - apart / 2).mean()), rel=1e-5)


def test_a_discrepancy_is_nought_of_draws_from_the_target():
    """Fifty times four draws, in pairs that mirror each other; law: 4 standard errors. The draws' own conditional means are
    seen, and so are pairs that are taken for independent."""
    needs("scipy")
    given, t, g = gaussian_problem(), 0.2, torch.Generator().manual_seed(3)
    aim = target.Target(t, lambda x, t: x - Gaussian()(x, t))
    variance = 1 / (given.normal(torch.ones_like(given.truth)) / ETA**2 + 1 / (S**2 + t**2))
    mean = variance * given.At(given.y) / ETA**2
    assert float(aim.score(mean, given).abs().max()) < 1e-4

    def judged(shrink: float, pairs: bool) -> tuple[float, float]:
        found = []
        for _ in range(50):
            z = torch.randn(2, 1, SIDE, SIDE, generator=g) * variance.sqrt() * shrink
            x = mean + torch.stack([z, -z], 1).flatten(0, 1)
            found.append(target.discrepancy(x, aim, given, pairs))
        mean_, error, _ = table.spread(found)
        return mean_, error

    for shrink, pairs in ((1.0, True), (0.5, True), (1.0, False)):
        value, error = judged(shrink, pairs)
        assert abs(value) < 4 * error if (shrink, pairs) == (1.0, True) else abs(value) > 10 * error, (shrink, pairs)
    x = mean + variance.sqrt() * torch.randn(4, 1, SIDE, SIDE, generator=g)
    assert figures(Draws(x, target=aim), given)["ksd"] == target.discrepancy(x, aim, given, False)
    assert figures(Draws(x), given)["ksd"] is None


def test_an_inverse_root_is_that_of_the_dense_matrix():
    """By eight solutions, of a blur; law: float32's rounding times the condition number, 4,000; measured a twentieth of it."""
    needs("scipy")
    given = gaussian_problem()
    given = replace(given, operator=CircularBlur.gaussian(1.0, 0.01), measured=given.truth[0])
    pixels, lam = SIDE**2, 2.5
    normal = given.normal(torch.eye(pixels).view(pixels, 1, SIDE, SIDE)).view(pixels, pixels).double()
    values, vectors = torch.linalg.eigh(normal / given.eta**2 + lam * torch.eye(pixels))
    condition = float(values[-1] / values[0])
    assert condition > 3000
    b = torch.randn(3, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(4))
    wanted = (b.view(3, -1).double() @ (vectors * values.rsqrt()) @ vectors.T).float().view_as(b)
    allowed = 6e-8 * condition * float(wanted.abs().max())
    torch.testing.assert_close(target.inverse_root(given, b, lam), wanted, rtol=0, atol=allowed)


def test_the_perceptual_distance_is_of_its_packages_weights():
    """Nothing of the same, little of a pixel's shift, more of noise than of that; without the package there is none."""
    assert figures(Draws(torch.zeros(1, 1, SIDE, SIDE)), replace(gaussian_problem(), domain="brain"))["st-lpips"] is None
    needs(*perceptual.NEEDED[:-1])
    needs_peers()
    picture = data.photograph()[:, :65, :65]
    truth, shifted = picture[:, :-1, :-1], picture[:, 1:, 1:]
    noisy = truth + 0.3 * torch.randn(truth.shape, generator=torch.Generator().manual_seed(5))
    same, shift, noise = (perceptual.st_lpips(v, truth) for v in (truth, shifted, noisy))
    assert same == 0 and 0 < shift < noise < 2
    given = replace(gaussian_problem(), truth=truth[None])
    assert figures(Draws(noisy[None]), given)["st-lpips"] == pytest.approx(noise, rel=1e-4)


def test_a_run_goes_on_where_it_was_cut_off(tmp_path, monkeypatch):
    needs("skimage", "sklearn")
    monkeypatch.setattr(tuning, "FILE", tmp_path / "tuned.json")
    path, options, said = tmp_path / "run.jsonl", {"side": 32}, list[str]()
    names = ["ours, ridge", "PnP-DM"]

    def go(limit: float) -> list[dict]:
        kept = store.Store(path, options)
        runs.every(["random .1"], names, 2, 32, 4, True, kept, lambda: len(kept.lines) >= limit, said.append)
        return store.read(path)[1]

    first = go(1)
    with path.open("a") as file:
        file.write('{"row": "random .1", "meth')
    lines = go(math.inf)
    assert lines[:1] == first and len(lines) == 4 == len(said)
    assert [(line["method"], line["image"]) for line in lines] == [(n, i) for i in (0, 1) for n in names]
    assert lines[1]["evaluations"] > 1 and lines[1]["cpu"] > 0
    assert store.read(path)[0] == options
    with pytest.raises(ArgumentError, match="of the same options; it has side 32"):
        store.Store(path, {"side": 48})
    text = table.markdown(lines)
    assert "**random .1**, 2 images" in text and text.count("±") >= 2 * len(FIGURES) and "| ours, ridge | 2 |" in text


def test_what_is_no_file_of_restorations_is_refused(tmp_path):
    """And left alone: a run would write its lines behind it."""
    for name, content in {"other": b'{"a": 1}', "null": b"null", "picture": b"\x89PNG\r\n\xff", "page": b"# Title\n"}.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ArgumentError, match=f"--resume: got .*{name}.*; wanted a file that this benchmark wrote"):
            store.Store(tmp_path / name, {"side": 32})
        assert (tmp_path / name).read_bytes() == content
    with pytest.raises(ArgumentError, match="--resume: got .*; wanted a file that exists"):
        store.Store(tmp_path, {"side": 32})


def test_settings_are_tuned_by_the_mean(tmp_path, monkeypatch):
    """The better of two is kept, found again by the run, and not tried twice."""
    needs("skimage", "sklearn")
    monkeypatch.setattr(tuning, "FILE", tmp_path / "tuned.json")
    truth = problem("box", 0, 32, tuning=True).truth
    method = methods.Method(lambda given, teacher, draws, seed, off: Draws(truth + off + torch.zeros(draws, 1, 32, 32)),
                            {"off": 0.5}, {"off": (0.4, 0.1, 0.2)})
    monkeypatch.setitem(methods.METHODS, "DPS", method)
    said = list[str]()
    for _ in range(2):
        tuning.tune(["box"], ["DPS"], 1, 32, 2, lambda: False, said.append)
    assert len(said) == 1 and tuning.knobs_of("box", "DPS") == {"off": 0.1}
    assert len(json.loads((tmp_path / "tuned.json").read_text())["box / DPS"]["tried"]) == 3


def test_what_is_no_number_is_kept_as_json_has_it(tmp_path):
    """Of chains that are lost: null in the file, and no half decibel above anything."""
    path, of = tmp_path / "run.jsonl", {"row": "box", "image": 0, "psnr draw": 20.0, "cpu": 1.0, "wall": 1.0, "evaluations": 9.0}
    kept = store.Store(path, {"side": 32})
    kept.add(of | {"method": "DAPS", "psnr mean": 20.0, "cover 90": 0.9})
    kept.add(of | {"method": "ours, ridge", "psnr mean": math.nan, "cover 90": math.inf})
    assert [line.get("psnr mean") for line in store.read(path)[1]] == [20.0, None] and "NaN" not in path.read_text()
    assert store.read(path)[1][1]["cover 90"] is None
    for lines in (kept.lines, store.read(path)[1]):
        assert table.goals(lines)[2] == "| ours, ridge | 0 of 1 | 0 of 1 | – | – |"
        assert "| ours, ridge | 1 | – |" in table.markdown(lines)


def test_standard_errors_and_goals():
    assert table.spread([1.0, 3.0, None, math.nan]) == (2.0, pytest.approx(1.0), 2)
    assert table.cell([2.0], 1) == "2.0" and table.cell([None], 1) == "–" and table.cell([1.0, 3.0], 2) == "2.00 ± 1.00"
    base = {"row": "box", "image": 0, "psnr draw": 20.0, "ssim": 0.5, "cover 50": 0.5, "crps": 0.1, "evaluations": 9.0,
            "wall": 1.0}
    lines = [base | {"method": "DAPS", "psnr mean": 20.0, "cover 90": 0.8, "cpu": 10.0},
             base | {"method": "ours, ridge", "psnr mean": 20.6, "cover 90": 0.9, "cpu": 0.4}]
    assert table.goals(lines)[2] == "| ours, ridge | 1 of 1 | 1 of 1 | 1 of 1 | 0.900 |"
    assert table.goals(lines, "wall")[2] == "| ours, ridge | 1 of 1 | 0 of 1 | 1 of 1 | 0.900 |"
    lines.append(base | {"method": "DAPS, long", "psnr mean": 20.4, "cover 90": 0.8, "cpu": 40.0})
    assert table.goals(lines)[2] == "| ours, ridge | 1 of 1 | 1 of 1 | 0 of 1 | 0 of 1 | 1 of 1 | 0.900 |"
    assert table.goals(lines[1:])[2] == "| ours, ridge | 0 of 1 | 0 of 1 | 1 of 1 | 0.900 |"  # beside the longer run alone


@pytest.mark.parametrize("arguments", [("--device", "mps"), ("--device", "cuda", "--tune"), ("--device", "cuda")])
def test_a_device_that_nothing_would_run_on_is_refused(arguments, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["quality", *arguments])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: "--tune" in arguments)
    with pytest.raises(SystemExit):
        command.main()
    assert f"--device: got {arguments[1]}; wanted cpu" in capsys.readouterr().err


def test_the_teacher_counts():
    teacher = Teacher("natural")
    x = torch.zeros(2, 1, 16, 16, requires_grad=True)
    out = teacher(x, 0.5)
    assert teacher.evaluations == 2 and out.dtype == torch.float32
    torch.autograd.grad(out.sum(), x)
    assert teacher.evaluations == 4


def test_every_library_method_runs():
    """A few steps of each; figures mean nothing."""
    needs_peers()
    needs("skimage", "sklearn")
    given = problem("random .05", 0, 32)
    for name in ("DPS", "DiffPIR", "DDRM", "ULA"):
        method = methods.METHODS[name]
        found, cost = methods.restored(name, given, 4, 0, method.knobs | method.quick | {"steps": 3})
        assert found.x.shape == (4, 1, 32, 32) and bool(found.x.isfinite().all()), name
        assert cost["evaluations"] == {"DPS": 6, "DiffPIR": 3, "DDRM": 3, "ULA": 3}[name]


def test_a_longer_run_ends_at_the_noise():
    """Of the schedule that is chosen, steps and end alone are others; pairs are told from independent draws."""
    needs("skimage", "sklearn")
    given = problem("random .05", 0, 32)
    name = "ours, DiffusionPrior, long"
    found, cost = methods.restored(name, given, 4, 0, methods.METHODS[name].knobs | {"steps": 1})
    assert found.posterior is not None and found.posterior.pairs
    plan = found.posterior.schedule
    assert plan is not None and (plan.steps, plan.sigma_min) == (1, 0.05)
    assert cost["evaluations"] == pytest.approx(2 * plan.levels, abs=4)  # a step and a predictor a level, and a probe
    low, high = found.posterior.interval(0.9)
    inside = (low <= given.truth[0]) & (given.truth[0] <= high)
    assert figures(found, given)["cover 90"] == pytest.approx(float(inside.float().mean()))


def test_the_command(tmp_path, monkeypatch, capsys):
    """What is asked for runs, goes on and is shown; a wrong file or number is an error of one line."""
    needs_peers()
    needs("skimage", "sklearn")

    def said(*arguments: str) -> str:
        monkeypatch.setattr("sys.argv", ["quality", *arguments])
        threads = torch.get_num_threads()
        try:
            with warnings.catch_warnings():
                command.main()
        finally:
            torch.set_num_threads(threads)
        return capsys.readouterr().out

    path = tmp_path / "run.jsonl"
    some = ("--rows", "box", "--methods", "DAPS", "ours, ridge")
    monkeypatch.setattr(command, "every", lambda rows, names, images, side, draws, quick, kept, stop, say, device: [
        kept.add({"row": row, "method": name, "image": 0, "cpu": 1.0, "wall": 1.0, "evaluations": 1.0,
                  **dict.fromkeys(FIGURES, float(side))}) for row in rows for name in names])
    assert "| ours, ridge | 48.00 |" in said("--resume", str(path), "--side", "48", *some)
    assert "side 48" in said("--show", str(path)) and "| DAPS | 32.00 |" in said("--quick", *some)
    (tmp_path / "other").write_text('{"a": 1}')
    for wrong, why in ((("--show", str(tmp_path / "none")), "a file that --resume has written"), (("--side", "40"), "a multiple"),
                       (("--show", str(tmp_path / "other")), "a file that this"), (("--resume", str(path)), "it has side 48"),
                       (("--minutes", "nan"), "--minutes")):
        with pytest.raises(SystemExit) as ended:
            said(*wrong)
        assert ended.value.code == 2 and why in capsys.readouterr().err
