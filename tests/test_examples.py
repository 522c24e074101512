"""Every file of examples/ runs as it stands, and says what it should."""

import importlib.util
import json
import re
import runpy
import sys
from pathlib import Path

import pytest

from benchmarks import peers

EXAMPLES = sorted((Path(__file__).resolve().parent.parent / "examples").glob("*.py"))
SHORTER = {"distil_own": ["--steps", "20"]}
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
    monkeypatch.setattr(sys, "argv", [str(path), *SHORTER.get(path.stem, ()), "--out", str(picture)])
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


def test_the_notebook_runs_from_top_to_bottom(monkeypatch, capsys):
    """Its cells as they stand but for the size of images; it is kept without outputs."""
    plt = pytest.importorskip("matplotlib.pyplot")
    shown = []
    monkeypatch.setattr(plt, "show", lambda: (shown.append(len(plt.gcf().axes)), plt.close("all")))
    notebook = json.loads((EXAMPLES[0].parent / "tour.ipynb").read_text())
    cells = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in notebook["cells"])
    assert "SIDE = 64" in cells[0]
    names: dict[str, object] = {}
    for source in (cells[0].replace("SIDE = 64", "SIDE = 32"), *cells[1:]):
        exec(compile(source, "tour.ipynb", "exec"), names)
    said = capsys.readouterr().out
    assert shown == [5, 4, 4, 4]
    assert 70 < int(re.search(r"(\d+) % of the missing pixels", said)[1]) <= 100
    error, spread = map(float, re.search(r"off by ([\d.]+) rms, the standard deviation says ([\d.]+)", said).groups())
    assert 0.8 < error / spread < 1.25
