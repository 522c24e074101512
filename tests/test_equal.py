"""The benchmark of posteriors that are as good: both sides run and are judged alike."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from alps_fast import data
from alps_fast.bench.common import Measure
from alps_fast.cli.demo import SETTINGS, Problem
from alps_fast.operators import CartesianMRI, Inpainting, Operator
from benchmarks import equal


def seen(truth: torch.Tensor, operator: Operator) -> Problem:
    y = data.measure(operator, truth)
    return Problem(truth, operator, y, y, "measurement", np.ones(truth.shape[1:], bool))


@pytest.mark.parametrize("name", ["inpaint", "mri_r4"])
def test_all_contenders_find_the_image(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where most is measured: so the settings that baselines and ours are given mean the same problem."""
    monkeypatch.setattr(equal, "PUBLISHED", 20)
    monkeypatch.setattr(equal, "SHORTER", (6,))
    if name == "inpaint":
        problem = seen(data.photograph()[:, 60:92, 60:92], Inpainting(data.pixel_mask(32, 32, keep=0.9), noise_std=0.02))
    else:
        brain = data.brain()[:, 80:112, 60:92]
        problem = seen(brain, CartesianMRI(data.line_mask(32, 32, 2, 8), data.coil_maps(2, 32, 32), noise_std=0.01))
    runs = equal.contenders(problem, replace(SETTINGS[name], levels=4), Measure(True))
    found = {key: run() for key, run in runs.items()}
    assert [key.split(",")[0] for key in found] == ["tuned", "tuned", "default", "demo"]
    assert [found[key].gradients for key in list(found)[:2]] == [100, 30]
    decibels, covers = zip(*(equal.row(problem, one) for one in found.values()), strict=True)
    assert min(decibels) > 30 and max(decibels) - min(decibels) < 3, decibels
    assert min(covers) > 0.7, covers


def test_what_it_cannot_compare_is_refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["deblur"], ["inpaint", "--rounds", "0"]):
        monkeypatch.setattr("sys.argv", ["equal", *arguments])
        with pytest.raises(SystemExit):
            equal.main()
        assert "wanted of mri_r4, mri_r8, inpaint" in capsys.readouterr().err
