"""Data flows one way, and so do imports: operators and energies know no sampler, and the ops beneath know none of them."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "alps_fast"
UNKNOWN = {  # what the files of a folder must not import, at the top or inside a function
    "ops": ("operators", "energies", "samplers", "schedule", "posterior"),
    "operators": ("energies", "samplers", "schedule", "posterior"),
    "energies": ("operators", "samplers", "schedule", "posterior"),
    "samplers": ("cli", "profile", "distill"),
}


def imported(file: Path) -> set[str]:
    """Top parts of the package that a file imports."""
    found: set[str] = set()
    folder = file.relative_to(PACKAGE.parent).parent.parts
    for node in ast.walk(ast.parse(file.read_text())):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            base = list(folder[:len(folder) - node.level + 1]) if node.level else []
            start = ".".join([*base, *([node.module] if node.module else [])])
            names = [start, *(f"{start}.{alias.name}" for alias in node.names)]
        found |= {name.split(".")[1] for name in names if name.startswith("alps_fast.")}
    return found


@pytest.mark.parametrize("folder", UNKNOWN)
def test_nothing_is_imported_upwards(folder: str) -> None:
    files = sorted((PACKAGE / folder).rglob("*.py"))
    assert files
    for file in files:
        assert not imported(file) & set(UNKNOWN[folder]), file


def test_the_test_sees_imports() -> None:
    assert {"operators", "energies", "samplers", "ops", "errors"} <= imported(PACKAGE / "profile/sampling.py") | imported(
        PACKAGE / "samplers/sampler.py")
