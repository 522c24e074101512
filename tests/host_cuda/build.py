"""Builds csrc/cuda with g++ against the stand-in of the CUDA runtime in this directory, and runs it under a sanitizer."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import pickle
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
KEPT = ROOT / "build" / "host_cuda"  # objects by what they are made of, so that only what changed is compiled again
FLAGS = ["-std=c++20", "-O1", "-g1", "-fPIC", "-ffp-contract=off", "-fno-math-errno", "-fno-strict-aliasing", "-Wall", "-Wextra",
         "-Werror", "-Wno-unknown-pragmas", f"-I{HERE}"]
SANITIZERS = {  # runtime source, flags, preloaded library, options
    "fibers": ("fibers.cpp", ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"], "libasan.so",
               # what malloc gives is NaN
               {"ASAN_OPTIONS": "detect_leaks=0:detect_stack_use_after_return=0:"
                                "max_malloc_fill_size=1000000000:malloc_fill_byte=255",
                "UBSAN_OPTIONS": "print_stacktrace=1"}),
    "threads": ("threads.cpp", ["-fsanitize=thread"], "libtsan.so",
                {"TSAN_OPTIONS": "ignore_noninstrumented_modules=1:halt_on_error=1:exitcode=66"}),
}


RUNTIMES = {mode: (runtime, flags) for mode, (runtime, flags, *_) in SANITIZERS.items()} | {"record": ("record.cpp", [])}


def why_not() -> str | None:
    """None where this machine can build and run the stand-in."""
    if shutil.which("g++") is None:
        return "no g++"
    for name in ("libasan.so", "libtsan.so", "libubsan.so"):
        if not Path(_preloaded(name)).is_absolute():
            return f"g++ has no {name}"
    return None


def _preloaded(name: str) -> str:
    return subprocess.run(["g++", f"-print-file-name={name}"], capture_output=True, text=True, check=True).stdout.strip()


def _object(source: Path, flags: list[str]) -> Path:
    command = ["g++", "-x", "c++", "-c", str(source), *FLAGS, *flags]
    text = "".join(line for line in subprocess.run([*command, "-MM"], capture_output=True, text=True, check=True).stdout)
    files = [Path(word) for word in text.replace("\\\n", " ").split()[1:]]
    made_of = repr(command).encode() + b"".join(f.read_bytes() for f in files if f.is_relative_to(ROOT))
    target = KEPT / f"{source.stem}-{hashlib.sha256(made_of).hexdigest()[:20]}.o"
    if not target.exists():
        KEPT.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=KEPT) as directory:
            made = Path(directory, "made.o")
            subprocess.run([*command, "-o", str(made)], check=True)
            made.rename(target)
    return target


def objects(sources: list[Path], mode: str) -> list[Path]:
    """The sources and the runtime of `mode`, compiled under its sanitizer; bindings are not."""
    runtime, flags = RUNTIMES[mode]
    jobs = [(s, flags) for s in (*sources, HERE / runtime) if s.suffix == ".cu" or s.parent == HERE]
    import pybind11

    python = [f"-I{pybind11.get_include()}", f"-I{sysconfig.get_paths()['include']}", "-fvisibility=hidden", "-O0", "-g0"]
    jobs += [(s, python) for s in sources if s.suffix == ".cpp" and s.parent != HERE]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(lambda job: _object(*job), jobs))


def link(made: list[Path], mode: str, target: Path, *flags: str) -> Path:
    """Links objects of `objects` into a program, or with -shared into a library."""
    subprocess.run(["g++", *map(str, made), *RUNTIMES[mode][1], *flags, "-pthread", "-o", str(target)], check=True)
    return target


def library(mode: str, directory: Path) -> Path:
    """alps_fast._cuda for the CPU."""
    sources = [ROOT / "csrc" / "bindings_cuda.cpp", *sorted((ROOT / "csrc" / "cuda").glob("*.cu"))]
    return link(objects(sources, mode), mode, directory / f"_cuda_{mode}.so", "-shared")


class Crashed(Exception):
    """The worker ended; the message is what the sanitizer said."""


class Worker:
    """A Python process with the stand-in module, started when first needed and again after a crash."""

    def __init__(self, mode: str, directory: Path):
        self.library = library(mode, directory)
        self.mode, self.process, self.said = mode, None, tempfile.TemporaryFile()  # noqa: SIM115  closed by close()

    def _start(self) -> subprocess.Popen:
        _, _, preload, options = SANITIZERS[self.mode]
        environment = {**os.environ, **options, "LD_PRELOAD": _preloaded(preload), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, str(HERE / "worker.py"), str(self.library)]
        pipe = subprocess.PIPE
        return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=self.said, env=environment, cwd=ROOT)

    def __call__(self, op: str, arguments: dict[str, Any], seed: int = 0, **environment: str) -> Any:
        """What the op's CUDA implementation returns for CPU tensors, its threads in the order of `seed`, in this environment."""
        if self.process is None:
            self.process = self._start()
        request = io.BytesIO()
        torch.save((op, arguments, seed, environment), request)
        try:
            pickle.dump(request.getvalue(), self.process.stdin)
            self.process.stdin.flush()
            return torch.load(io.BytesIO(pickle.load(self.process.stdout)))
        except (EOFError, BrokenPipeError):
            self.process.wait()
            with contextlib.suppress(BrokenPipeError):  # of what is still to be flushed
                self.process.stdin.close()
            self.process.stdout.close()
            self.process = None
            self.said.seek(0)
            raise Crashed(self.said.read().decode(errors="replace")[-6000:]) from None

    def close(self) -> None:
        if self.process is not None:
            self.process.stdin.close()
            self.process.wait()
            self.process.stdout.close()
        self.said.close()
