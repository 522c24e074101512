"""Nothing that was read or made is destroyed: files are replaced whole, inputs never; checkpoints are told apart and checked."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image
from torch import Tensor

from alps_fast import energies, io
from alps_fast.cli import main
from alps_fast.energies import GaussianEnergy
from alps_fast.errors import ArgumentError, PlannedError
from alps_fast.io.files import check_writable
from alps_fast.operators import CartesianMRI, Denoising, Inpainting
from alps_fast.posterior import Posterior
from alps_fast.samplers import Sampler, Schedule, checkpoint, sample
from alps_fast.samplers.alps import Plan

FEW = Schedule(sigma_max=2.0, sigma_min=0.2, levels=4, steps=3)
ENERGY = GaussianEnergy(0.3, 0.5)
TINY = ["--levels", "3", "--steps", "1", "--chains", "2", "--draws", "3", "--no-progress"]


def call(*args: object) -> Result:
    return CliRunner().invoke(main, [str(a) for a in args])


def refused(result: Result, *words: str) -> None:
    assert result.exit_code == 2 and result.stderr.count("\n") == 1, result.output
    for word in words:
        assert word in result.stderr


@contextmanager
def full_disk(size: int) -> Iterator[None]:
    """No file can grow beyond `size` bytes: to whoever writes, the disk is full."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def run(**options: Any) -> Posterior:
    y = torch.rand(1, 16, 12, generator=torch.Generator().manual_seed(0))
    return sample(y, Denoising(0.1), ENERGY, **{"chains": 4, "schedule": FEW, "progress": False} | options)


def same(a: Posterior, b: Posterior) -> None:
    for name in ("mean", "channel_std", "samples", "count", "trace"):
        assert torch.equal(getattr(a, name), getattr(b, name)), name


# --- the command line ----------------------------------------------------------------------------------------------

@pytest.fixture
def prior(tmp_path: Path) -> Path:
    energies.save(GaussianEnergy(0.0, 0.5), tmp_path / "prior.safetensors")
    return tmp_path / "prior.safetensors"


@pytest.fixture
def files(tmp_path: Path, prior: Path) -> dict[str, Path]:
    levels = np.random.default_rng(0).integers(0, 256, (2, 12, 15)).astype(np.uint8)
    paths = {"input": tmp_path / "p.png", "mask": tmp_path / "m.png", "psf": tmp_path / "k.png", "energy": prior}
    Image.fromarray(levels[0]).save(paths["input"])
    Image.fromarray((levels[1] > 128) * np.uint8(255)).save(paths["mask"])
    Image.fromarray(levels[1, :3, :3]).save(paths["psf"])
    return paths


@pytest.mark.parametrize("force", [[], ["--force"]])
@pytest.mark.parametrize("link", ["", "symlink", "hardlink", "folder"])
@pytest.mark.parametrize("victim", ["input", "mask", "psf"])
def test_no_input_is_ever_replaced(tmp_path: Path, files: dict[str, Path], victim: str, link: str, force: list[str]) -> None:
    out = files[victim]
    before = {name: path.read_bytes() for name, path in files.items()}
    if link == "folder":
        (tmp_path / "elsewhere").symlink_to(tmp_path)
        out = tmp_path / "elsewhere" / out.name
    elif link:
        out = tmp_path / "other.png"
        (out.symlink_to if link == "symlink" else out.hardlink_to)(files[victim])
    operator = ["deblur", "--psf", files["psf"]] if victim == "psf" else ["inpaint", "--mask", files["mask"]]
    args = ["reconstruct", files["input"], "--operator", *operator, "--energy", files["energy"], *TINY]
    result = call(*args, "--out", out, *force)
    refused(result, "out: got", out.name, "INPUT" if victim == "input" else victim)
    assert {name: path.read_bytes() for name, path in files.items()} == before
    assert not list(tmp_path.glob("*.npz"))


def test_results_are_replaced_with_force_alone(tmp_path: Path, files: dict[str, Path]) -> None:
    args = ["reconstruct", files["input"], "--operator", "denoise", "--energy", files["energy"], *TINY]
    assert call(*args).exit_code == 0
    result = tmp_path / "p_posterior.npz"
    before = result.read_bytes(), result.with_suffix(".png").read_bytes()
    refused(call(*args, "--seed", 1), "out", "p_posterior.npz", "--force")
    assert before == (result.read_bytes(), result.with_suffix(".png").read_bytes())
    assert call(*args, "--seed", 1, "--force").exit_code == 0
    assert before[0] != result.read_bytes()
    only_the_picture = tmp_path / "one.png"
    only_the_picture.write_text("precious")
    refused(call(*args, "--out", tmp_path / "one"), "one.png")
    dangling = tmp_path / "two.npz"
    dangling.symlink_to(tmp_path / "nowhere")
    refused(call(*args, "--out", tmp_path / "two"), "two.npz")
    assert only_the_picture.read_text() == "precious" and not (tmp_path / "nowhere").exists()


def test_every_command_that_writes_asks(tmp_path: Path, prior: Path) -> None:
    for name in ("inpaint.npz", "teacher.safetensors", "energy.safetensors", "rows.json", "scaling.png", "roof.png", "run.json"):
        (tmp_path / name).write_text("precious")
    for args, word in ((["demo", "--task", "inpaint", "--energy", prior, "--out", tmp_path], "inpaint.npz"),
                       (["train", "brain", "--out", tmp_path], "teacher.safetensors"),
                       (["distill", "x", "--domain", "brain", "--kind", "ridge", "--out", tmp_path], "energy.safetensors"),
                       (["bench", "--quick", "--case", "moments", "--json", tmp_path / "rows.json"], "rows.json"),
                       (["bench", "--quick", "--scaling", tmp_path], "scaling.png"),
                       (["profile", "--roofline", tmp_path / "roof.png"], "roof.png"),
                       (["profile", "--trace", tmp_path / "run.json"], "run.json")):
        refused(call(*args), word, "--force")
        assert (tmp_path / word).read_text() == "precious"
    (tmp_path / "metrics.json").write_text("precious")
    for force in ([], ["--force"]):
        refused(call("demo", "--task", "deblur", "--energy", prior, "--out", tmp_path, *force), "out", "metrics.json")
    assert (tmp_path / "metrics.json").read_text() == "precious"
    (tmp_path / "metrics.json").write_text('[{"task": "deblur"}]')
    refused(call("demo", "--task", "deblur", "--energy", prior, "--out", tmp_path), "metrics.json", "deblur")


def test_the_teacher_is_not_replaced_by_its_student(tmp_path: Path) -> None:
    teacher = tmp_path / "energy.safetensors"
    energies.save_teacher(energies.CompactNet(1, 8, (1, 1, 1)), teacher)
    before = teacher.read_bytes()
    refused(call("distill", teacher, "--domain", "brain", "--kind", "ridge", "--out", tmp_path, "--force"), "out", "teacher")
    assert teacher.read_bytes() == before


# --- files are written whole ---------------------------------------------------------------------------------------

WRITERS = {"posterior": lambda path: run().save(path), "picture": lambda path: run().plot(path.with_suffix(".png")),
           "energy": lambda path: energies.save(energies.load("natural-ridge"), path)}


@pytest.mark.parametrize("kind", WRITERS)
def test_a_full_disk_leaves_the_good_file(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "x.npz"
    WRITERS[kind](path)
    there = next(tmp_path.iterdir())
    before = there.read_bytes()
    with full_disk(2000), pytest.raises(Exception, match="(?i)file too large|i/o error"):
        WRITERS[kind](path)
    assert there.read_bytes() == before and list(tmp_path.iterdir()) == [there]


@pytest.mark.parametrize("kind", [*WRITERS, "checkpoint"])
def test_what_takes_a_files_place_is_on_the_disk_first(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or a machine that stops finds an empty file under a good name; and after it the folder, which has the name."""
    told: list[tuple[str, int]] = []
    sync, replace = os.fsync, Path.replace
    monkeypatch.setattr(os, "fsync", lambda d: told.append(("on the disk", os.fstat(d).st_ino)) or sync(d))
    monkeypatch.setattr(Path, "replace", lambda p, to: told.append(("in place", p.stat().st_ino)) or replace(p, to))
    (WRITERS | {"checkpoint": lambda path: run(checkpoint=path)})[kind](tmp_path / "x.npz")
    file, folder = next(tmp_path.iterdir()).stat().st_ino, tmp_path.stat().st_ino
    assert told[-3:] == [("on the disk", file), ("in place", file), ("on the disk", folder)]


def test_temporary_names_are_nobody_elses(tmp_path: Path) -> None:
    path = tmp_path / "x.txt"
    with io.replacing(path) as one, io.replacing(path) as two:
        assert one != two and one.parent == two.parent == tmp_path
        one.write_text("one")
        two.write_text("two")
    assert path.read_text() == "one" and list(tmp_path.iterdir()) == [path]
    (tmp_path / "prior.partial").write_text("mine")  # a name that was once the temporary one
    energies.save(ENERGY, tmp_path / "prior.safetensors")
    assert (tmp_path / "prior.partial").read_text() == "mine"


def test_links_and_permissions_stay(tmp_path: Path) -> None:
    real, link = tmp_path / "real.npz", tmp_path / "link.npz"
    real.write_text("old")
    real.chmod(0o640)
    link.symlink_to(real)
    run().save(link)
    assert link.is_symlink() and real.stat().st_mode & 0o777 == 0o640
    assert Posterior.load(real).seed == 0
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ArgumentError, match="pipe"):
        run().save(tmp_path / "pipe")


# --- checkpoints ---------------------------------------------------------------------------------------------------

class Stop(Exception):
    pass


def stopped_at(level: int, error: type[BaseException] = Stop) -> Any:
    def stop(progress: Any) -> None:
        if progress.level == level:
            raise error

    return stop


def mri(turn: complex = 1.0, coil: int | None = None) -> tuple[CartesianMRI, Tensor]:
    g = torch.Generator().manual_seed(0)
    maps = torch.randn(3, 8, 6, dtype=torch.complex64, generator=g)
    mask = torch.rand(8, 6, generator=g) < 0.6
    y = torch.randn(3, 8, 6, dtype=torch.complex64, generator=g)
    maps = maps * turn
    if coil is not None:
        maps[coil] *= turn
    return CartesianMRI(mask, maps, noise_std=0.1), y


def test_a_checkpoint_of_another_operator_or_prior_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "c"
    op, y = mri()
    options: dict[str, Any] = {"chains": 4, "schedule": FEW, "progress": False, "checkpoint": path}
    energy = GaussianEnergy(0.0, 0.5)
    whole = sample(y, op, energy, **options)
    same(sample(y, mri()[0], GaussianEnergy(0.0, 0.5), **options), whole)
    one_sample = op.mask.clone()
    one_sample[tuple(one_sample.nonzero()[5])] = 0
    others = {"turned": mri(1j)[0], "one coil turned": mri(1j, coil=1)[0], "scaled": mri(1.01)[0],
              "a sample less": CartesianMRI(one_sample, op.maps, noise_std=0.1),
              "solved better": CartesianMRI(op.mask, op.maps, noise_std=0.1, tol=1e-3)}
    for other in others.values():
        with pytest.raises(ArgumentError, match="checkpoint: .* another run"):
            sample(y, other, energy, **options)
    for prior in (GaussianEnergy(0.0, 0.505), GaussianEnergy(0.01, 0.5), GaussianEnergy(torch.zeros(1, 8, 6), 0.51)):
        with pytest.raises(ArgumentError, match="another run"):
            sample(y, op, prior, **options)
    with pytest.raises(ArgumentError, match="another run"):
        sample(y, op, energy, **options | {"backend": "torch"})
    with pytest.raises(ArgumentError, match="another run"):
        sample(y, op, energy, **options | {"pairs": False})


def test_precision_belongs_to_the_identity(tmp_path: Path) -> None:
    y, net = torch.zeros(1, 8, 8), energies.CompactNet(1, 8, (1, 1, 1))
    options: dict[str, Any] = {"chains": 2, "schedule": Schedule(1.0, 0.5, 2, 1), "progress": False, "checkpoint": tmp_path / "c"}
    sample(y, Denoising(0.1), energies.SumEnergy([ENERGY, energies.DenoiserEnergy(net)]), **options)
    for changed in ({"precision": "fast"}, {"backend": "torch"}):
        with pytest.raises(ArgumentError, match="another run"):
            sample(y, Denoising(0.1), energies.SumEnergy([ENERGY, energies.DenoiserEnergy(net, **changed)]), **options)


def test_threads_do_not_change_who_a_run_is(tmp_path: Path, threads: Any) -> None:
    y, energy = torch.zeros(1, 33, 31), energies.load("natural-ridge", backend="torch")
    for count in (1, 2):
        threads(count)
        sample(y, Denoising(0.1), energy, chains=1, schedule=Schedule(1.0, 0.5, 2, 1), progress=False, checkpoint=tmp_path / "c")


def test_no_flipped_bit_changes_a_result(tmp_path: Path) -> None:
    path = tmp_path / "c"
    with pytest.raises(Stop):
        run(checkpoint=path, callback=stopped_at(1))
    good, whole = path.read_bytes(), run()
    rng, refusals = np.random.default_rng(0), 0
    for _ in range(100):
        bad = bytearray(good)
        bad[rng.integers(len(bad))] ^= 1 << rng.integers(8)
        path.write_bytes(bad)
        try:
            same(run(checkpoint=path), whole)
        except ArgumentError as error:
            assert str(error).startswith("checkpoint: ") and "\n" not in str(error)
            refusals += 1
    assert refusals > 90


def test_a_full_disk_is_warned_of_and_the_run_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "c"
    with pytest.raises(Stop):
        run(checkpoint=path, callback=stopped_at(1))
    before = path.read_bytes()
    monkeypatch.setattr(checkpoint, "CHECKPOINT_SECONDS", 0.0)
    with full_disk(1000), pytest.warns(UserWarning, match="checkpoint: .* could not be written"):
        posterior = run(checkpoint=path)
    same(posterior, run())
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def test_checkpoints_are_written_by_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    times: list[float] = []
    clock = iter(np.arange(0.0, 1e6, 25.0).tolist())
    monkeypatch.setattr(checkpoint.time, "monotonic", lambda: next(clock))
    written = checkpoint.save_checkpoint
    monkeypatch.setattr(checkpoint, "save_checkpoint", lambda *args: (times.append(args[1].level), written(*args)))
    run(checkpoint=tmp_path / "c", schedule=Schedule(2.0, 0.2, 12, 1))
    assert times[-1] == 12 and 3 <= len(times) <= 5  # a look a level is 25 s here: every third level, and the end


@pytest.mark.parametrize("where", ["annealing", "drawing"])
def test_ctrl_c_in_the_middle_of_a_level_is_gone_on_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    options: dict[str, Any] = {"method": "measurement", "draws": 3, "thin": 2, "correction": "mala",
                               "schedule": Schedule(2.0, 0.2, 3, 2, eta_max=0.5, eta_steps=2)}
    whole, path, calls = run(**options), tmp_path / "c", [0]
    step, after = Plan.run, 5 if where == "annealing" else 9

    def interrupted(*args: Any) -> Any:
        calls[0] += 1
        done = step(*args)
        if calls[0] == after:
            raise KeyboardInterrupt
        return done

    monkeypatch.setattr(Plan, "run", interrupted)
    assert run(checkpoint=path, **options).interrupted
    monkeypatch.undo()
    levels: list[int] = []
    same(run(checkpoint=path, callback=lambda p: levels.append(p.level), **options), whole)
    assert levels[0] == after - 1


SIGTERM = """
import os, signal, sys, torch
import alps_fast as af
def stop(progress):
    if progress.level == 1:
        os.kill(os.getpid(), signal.SIGTERM)
{before}
y = torch.rand(1, 16, 12, generator=torch.Generator().manual_seed(0))
af.sample(y, af.operators.Denoising(0.1), af.energies.GaussianEnergy(0.3, 0.5), chains=4, progress=False, checkpoint=sys.argv[1],
          callback=stop, schedule=af.Schedule(sigma_max=2.0, sigma_min=0.2, levels=4, steps=3))
print("whole")
"""


def test_sigterm_keeps_what_there_is_and_ends_the_process(tmp_path: Path) -> None:
    path = tmp_path / "c"
    done = subprocess.run([sys.executable, "-c", SIGTERM.format(before=""), path], capture_output=True, text=True)
    assert done.returncode == -signal.SIGTERM and done.stdout == "", done.stderr
    levels: list[int] = []
    same(run(checkpoint=path, callback=lambda p: levels.append(p.level)), run())
    assert levels[0] == 2
    handler = "signal.signal(signal.SIGTERM, lambda number, frame: print('mine'))"
    done = subprocess.run([sys.executable, "-c", SIGTERM.format(before=handler), tmp_path / "d"], capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.split() == ["mine", "whole"], done.stderr


def test_signals_are_what_they_were(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGTERM)
    run(checkpoint=tmp_path / "c")
    assert signal.getsignal(signal.SIGTERM) is before
    thread = threading.Thread(target=run, kwargs={"checkpoint": tmp_path / "d"})  # where no signal can be caught
    thread.start()
    thread.join()
    assert (tmp_path / "d").exists()


def test_two_runs_share_a_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "CHECKPOINT_SECONDS", 0.0)
    results: list[Posterior] = []
    threads = [threading.Thread(target=lambda: results.append(run(checkpoint=tmp_path / "c", schedule=Schedule(2.0, 0.2, 30, 1))))
               for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 4 and list(tmp_path.iterdir()) == [tmp_path / "c"]
    for result in results[1:]:
        same(result, results[0])


def test_only_files_and_folders_are_checkpoints(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", "/dev/null", "", ".", "a" * 5000):
        with pytest.raises(ArgumentError, match="^checkpoint: got"):
            run(checkpoint=path)


def test_reconstruct_goes_on_from_its_checkpoint(tmp_path: Path, files: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    args = ["reconstruct", files["input"], "--operator", "denoise", "--energy", files["energy"], *TINY]
    assert call(*args, "--out", tmp_path / "whole").exit_code == 0
    step, calls = Plan.run, [0]

    def interrupted(*arguments: Any) -> Any:
        calls[0] += 1
        if calls[0] == 3:
            raise KeyboardInterrupt
        return step(*arguments)

    monkeypatch.setattr(Plan, "run", interrupted)
    again = [*args, "--checkpoint", tmp_path / "c", "--out", tmp_path / "parts"]
    result = call(*again)
    assert result.exit_code == 0 and "--force" in result.stderr and (tmp_path / "c").exists()
    assert call(*again, "--force").exit_code == 0
    assert calls[0] == 3 + 3  # two of five levels were not sampled again
    same(*(Posterior.load(tmp_path / f"{name}.npz") for name in ("whole", "parts")))
    refused(call(*again, "--force", "--seed", 1), "checkpoint", "another run")
    for name in ("input", "energy"):
        refused(call(*args, "--out", tmp_path / "new", "--checkpoint", files[name]), "checkpoint", files[name].name)
    refused(call(*args, "--out", tmp_path / "new", "--checkpoint", tmp_path / "new.npz"), "checkpoint")


# --- what is given is kept as it was -------------------------------------------------------------------------------

def test_masks_maps_and_kernels_are_copied() -> None:
    from alps_fast.operators import CircularBlur

    mask, psf = torch.ones(4, 4), torch.full((3, 3), 1 / 9)
    maps = torch.ones(2, 4, 4, dtype=torch.complex64)
    mean, std = torch.zeros(1, 4, 4), torch.ones(1, 4, 4)
    x, z = torch.rand(1, 4, 4), torch.rand(1, 4, 4).to(torch.complex64)
    makers = (lambda: Inpainting(mask, 0.1).forward(x), lambda: CircularBlur(psf, 0.1).forward(x),
              lambda: CartesianMRI(mask, maps, noise_std=0.1).forward(z), lambda: GaussianEnergy(mean, std).grad(x, 1.0))
    made = (Inpainting(mask, 0.1), CircularBlur(psf, 0.1), CartesianMRI(mask, maps, noise_std=0.1), GaussianEnergy(mean, std))
    before = [make() for make in makers]
    for given in (mask, psf, maps, mean):
        given.mul_(0.25).add_(0.5)
    after = [made[0].forward(x), made[1].forward(x), made[2].forward(z), made[3].grad(x, 1.0)]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_a_planned_sampler_stays_as_it_is() -> None:
    sampler = Sampler(Denoising(0.1), ENERGY, schedule=FEW, progress=False, warm_start=torch.zeros(1, 4, 4), warm_std=0.3)
    for name, value in (("draws", 5), ("schedule", Schedule()), ("operator", Denoising(0.2)), ("seed", 1), ("levels", [])):
        with pytest.raises(PlannedError, match=f"^{name}: got") as caught:
            setattr(sampler, name, value)
        assert isinstance(caught.value, ArgumentError) and isinstance(caught.value, AttributeError)
    sampler.progress = False
    assert len(sampler.levels) == 4


def test_a_checkpoint_that_another_run_makes_meanwhile_is_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between two looks at it, had there been two."""
    path, looks, stat = tmp_path / "c", [0], Path.stat

    def look(self: Path, **options: Any) -> os.stat_result:
        looks[0] += self == path
        try:
            return stat(self, **options)
        finally:
            if looks[0] == 2:
                path.touch()

    monkeypatch.setattr(Path, "stat", look)
    check_writable(path, "checkpoint")
