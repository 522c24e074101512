"""What nvcc makes of csrc/cuda: PTX and machine code, kept by what they are made of; the kernels in them and how they launch."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import tempfile
import tomllib
from functools import cache
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
SOURCES = ROOT / "csrc" / "cuda"
KEPT = ROOT / "build" / "nvcc"
FLAGS = (*tomllib.loads((SOURCES / "nvcc.toml").read_text())["flags"], "-Werror=all-warnings")


class Kernel(NamedTuple):
    """One kernel of a source: its symbol, what it is called, threads a block, and whether it takes shared memory at launch."""

    symbol: str
    name: str
    threads: int
    dynamic_shared: bool


def ops() -> tuple[str, ...]:
    """The ops that have a source in csrc/cuda, and `loop`, theirs in graphs; none where the package lies without its sources."""
    return tuple(sorted(path.stem for path in SOURCES.glob("*.cu")))


@cache
def version() -> str | None:
    """Of nvcc on the PATH; None without one."""
    if shutil.which("nvcc") is None:
        return None
    said = subprocess.run(["nvcc", "--version"], check=True, capture_output=True, text=True).stdout
    return re.findall(r"V([\d.]+)", said)[-1]


def ptx(op: str, arch: str) -> str:
    """The PTX of an op's source."""
    made_of = [f"{version()} {arch} {FLAGS}".encode(), *(path.read_bytes() for path in _included(SOURCES / f"{op}.cu"))]
    command = ["nvcc", "-ptx", *FLAGS, f"-arch={arch}", str(SOURCES / f"{op}.cu")]
    return _made(command, f"{op}-{arch}", b"".join(made_of), "ptx").read_text()


def _included(source: Path) -> list[Path]:
    """A source and the headers of this repository that it includes, and they."""
    found: dict[Path, None] = {}
    waiting = [source.resolve()]
    while waiting:
        path = waiting.pop()
        if path not in found:
            found[path] = None
            waiting += [(path.parent / name).resolve() for name in re.findall(r'^#include "(.*)"', path.read_text(), re.M)]
    return list(found)


def cubin(op: str, arch: str) -> bytes:
    """The machine code of an op's source."""
    text = ptx(op, arch).encode()
    with tempfile.NamedTemporaryFile(suffix=".ptx") as file:
        file.write(text)
        file.flush()
        command = ["nvcc", "-cubin", f"-arch={arch}", file.name]
        return _made(command, f"{op}-{arch}", f"{version()} ".encode() + text, "cubin").read_bytes()


def _made(command: list[str], stem: str, made_of: bytes, kind: str) -> Path:
    """The file that `command -o` writes, once for what it is made of."""
    target = KEPT / f"{stem}-{hashlib.sha256(made_of).hexdigest()[:20]}.{kind}"
    if not target.exists():
        KEPT.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=KEPT) as directory:
            made = Path(directory, f"made.{kind}")
            subprocess.run([*command, "-o", str(made)], check=True)
            os.replace(made, target)
    return target


def kernels(text: str) -> list[Kernel]:
    """Those of a PTX text, by name; `__launch_bounds__` says how many threads they have."""
    dynamic = re.findall(r"\.extern\s+\.shared[^;]*?([\w$]+)\[\]\s*;", text)
    entries = list(re.finditer(r"\.entry\s+(\w+)\s*\([^)]*\)[^{]*?\.maxntid\s+(\d+)", text))
    ends = [*(entry.start() for entry in entries), len(text)][1:]
    found = [Kernel(entry.group(1), readable(entry.group(1)), int(entry.group(2)),
                    any(name in text[entry.end():end] for name in dynamic)) for entry, end in zip(entries, ends, strict=True)]
    return sorted(found, key=lambda kernel: kernel.name)


def readable(symbol: str) -> str:
    """A kernel's name with its template arguments, of a mangled name: `moments_kernel<float, true>`."""
    match = re.search(r"\d([a-z]+(?:_[a-z]+)+)(?:I((?:L[ib]\d+E|[fd])+)E)?", symbol)
    if match is None:
        return symbol
    words = {"f": "float", "d": "double", "Lb0E": "false", "Lb1E": "true"}
    arguments = re.findall(r"L[ib]\d+E|[fd]", match.group(2) or "")
    values = ", ".join(words.get(a) or a[2:-1] for a in arguments)
    return f"{match.group(1)}<{values}>" if values else match.group(1)
