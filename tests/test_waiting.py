"""How long threads spin: said to OpenMP where it can still hear it, and where nobody else has said so."""

import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

import alps_fast

MODULE = str(Path(alps_fast.__file__).with_name("_waiting.py"))
SAID = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")


def test_said_before_torch_is_loaded() -> None:
    """GNU OpenMP prints what it heard as it is loaded."""
    env = {k: v for k, v in os.environ.items() if k not in SAID} | {"OMP_DISPLAY_ENV": "verbose"}
    heard = subprocess.run([sys.executable, "-c", "import alps_fast"], env=env, capture_output=True, text=True, check=True).stderr
    assert "GOMP_SPINCOUNT = '1000'" in heard


@pytest.mark.parametrize("name", SAID)
def test_who_has_said_so_keeps_the_word(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    for each in SAID:
        monkeypatch.delenv(each, raising=False)
    monkeypatch.delitem(sys.modules, "torch")
    monkeypatch.setenv(name, "7")
    runpy.run_path(MODULE)
    assert {each: os.environ.get(each) for each in SAID} == {name: "7"} | {each: None for each in SAID if each != name}


def test_what_nobody_would_hear_is_not_said(monkeypatch: pytest.MonkeyPatch) -> None:
    for each in SAID:
        monkeypatch.delenv(each, raising=False)
    assert "torch" in sys.modules
    runpy.run_path(MODULE)
    assert not set(SAID) & os.environ.keys()
