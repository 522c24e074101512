"""The scripts of `make gpu`, tried on the CPU: every part that needs no tool of a GPU's, on small cases."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def test_a_run_on_a_gpu_tried_on_the_cpu(tmp_path: Path) -> None:
    pytest.importorskip("alps_fast._cpu")
    trial = {"GPU_RUN_DEVICE": "cpu", "GPU_RUN_PARTS": "site smoke timing runs", "OUT": str(tmp_path), "PYTHON": sys.executable,
             "OMP_NUM_THREADS": "1"}  # more than there are cores free wait for each other in loops
    ended = subprocess.run(["bash", "tests/gpu/run.sh"], cwd=ROOT, env=os.environ | trial, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert {row["kind"] for row in rows} == {"smoke", "ceilings", "time", "base", "run", "factors", "network"}
    assert all(row["ok"] for row in rows if row["kind"] == "smoke")
    shown = subprocess.run([sys.executable, "tests/gpu/table.py", str(tmp_path / "rows.jsonl")], cwd=ROOT, capture_output=True,
                           text=True, check=True).stdout
    assert sum(row["kind"] in ("run", "time") for row in rows) == len(shown.splitlines()) - 5
    assert "not all is well" not in ended.stdout and (tmp_path / "report.txt").stat().st_size > 0
