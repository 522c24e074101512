"""Every file of examples/ runs as it stands, and says what it should."""

import importlib.util
import re
import runpy
import sys
from pathlib import Path

import pytest

from benchmarks import peers

EXAMPLES = sorted((Path(__file__).resolve().parent.parent / "examples").glob("*.py"))
NEEDS = {"from_deepinverse": "deepinv", "from_sigpy": "sigpy", "from_diffusers": "diffusers"}


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # within the libraries that examples need
def test_an_example_runs(path, tmp_path, monkeypatch, capsys):
    needed = NEEDS.get(path.stem)
    if needed and importlib.util.find_spec(needed) is None:
        pytest.skip(f"{needed} is not installed")
    if needed == "deepinv":
        peers.deepinv()
    picture = tmp_path / "out.png"
    monkeypatch.setattr(sys, "argv", [str(path), "--out", str(picture)])
    runpy.run_path(str(path), run_name="__main__")
    assert picture.stat().st_size > 0 and capsys.readouterr().out


def test_own_network_says_what_is_right(monkeypatch, capsys):
    """Both networks are one prior, so both are off by the same, and by what their standard deviation says."""
    path = next(path for path in EXAMPLES if path.stem == "own_network")
    monkeypatch.setattr(sys, "argv", [str(path)])
    runpy.run_path(str(path), run_name="__main__")
    said = capsys.readouterr().out
    figures = [tuple(map(float, pair)) for pair in re.findall(r"off by ([\d.]+) rms, its standard deviation says ([\d.]+)", said)]
    assert len(figures) == 2 and "refused: denoiser: " in said and "its energy is nan" in said
    assert all(0.8 < error / spread < 1.25 for error, spread in figures)
    assert abs(figures[0][0] - figures[1][0]) < 0.01
