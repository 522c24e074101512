"""The build's switches, what is importable, and life without the compiled parts."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[1]


def run(*arguments, cwd=ROOT, **environment):
    defaults = {name: value for name, value in os.environ.items() if name != "ALPS_FAST_CUDA_ARCHS"}
    return subprocess.run([sys.executable, *map(str, arguments)], cwd=cwd, env=defaults | environment, text=True,
                          capture_output=True, timeout=600)


def build(choice, directory, cwd=ROOT, **environment):
    return run("setup.py", "-q", "build_ext", "-b", directory, "-t", directory, cwd=cwd, ALPS_FAST_BUILD=choice, **environment)


@pytest.mark.skipif(shutil.which("aarch64-linux-gnu-g++") is None, reason="no aarch64-linux-gnu-g++")
def test_cpu_kernels_are_c_plus_plus_for_aarch64_too():
    """Nothing of x86 is left in them there; `make aarch64` compiles and runs them."""
    for source in sorted((ROOT / "csrc/cpu").glob("*.cpp")):
        command = ["aarch64-linux-gnu-g++", "-fsyntax-only", "-std=c++17", "-fopenmp", "-Wall", "-Wextra", "-Werror", source]
        assert subprocess.run(command, capture_output=True, text=True).stderr == ""


# In place of c++, nvcc and ccache: writes down its command line and makes what it is asked for, which takes no time.
COMPILER = """#!{python} -SE
import os, re, sys
name, *arguments = sys.argv
with open(os.environ["COMMANDS"], "a") as file:
    print(os.path.basename(name), *arguments, file=file)
if name.endswith("ccache"):
    os.execvp(arguments[0], arguments)
if "-MF" in arguments:
    found = [arguments[arguments.index("-c") + 1]]
    for path in found:
        text = open(path).read()
        if "#error" in text:
            sys.exit(f"{{path}}: #error")
        found += [os.path.join(os.path.dirname(path), header) for header in re.findall(r'^#include "(.*)"', text, re.M)]
    with open(arguments[arguments.index("-MF") + 1], "w") as file:
        print("made:", *found, file=file)
open(arguments[arguments.index("-o") + 1], "w").close()
"""


class Checkout:
    """What a build reads, copied, and compilers that only write down what they are asked for."""

    def __init__(self, directory):
        self.root, self.bin, self.commands = directory / "checkout", directory / "bin", directory / "commands"
        shutil.copytree(ROOT / "csrc", self.root / "csrc")
        for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
            shutil.copy(ROOT / name, self.root)
        (self.root / "alps_fast").mkdir()
        self.bin.mkdir()
        for name in ("c++", "nvcc", "ccache"):
            (self.bin / name).write_text(COMPILER.format(python=sys.executable))
            (self.bin / name).chmod(0o755)

    def build(self, choice, **environment):
        """What came of it, and the command lines, by what they made."""
        self.commands.write_text("")
        environment = {"CXX": str(self.bin / "c++"), "PATH": f"{self.bin}:{os.environ['PATH']}",
                       "COMMANDS": str(self.commands), **environment}
        result = build(choice, "out", cwd=self.root, **environment)
        lines = [line.split() for line in self.commands.read_text().splitlines()]
        return result, {line[line.index("-o") + 1].removeprefix("out/"): line for line in lines}

    def change(self, source):
        with open(self.root / source, "a") as file:
            file.write("\n")


@pytest.fixture
def checkout(tmp_path):
    return Checkout(tmp_path)


def test_unknown_choice_is_an_error(tmp_path):
    result = build("gpu", tmp_path)
    assert result.returncode != 0
    assert "ALPS_FAST_BUILD: got 'gpu'; wanted one of auto, none, cpu, cuda, sanitize" in result.stderr


@pytest.mark.parametrize("choice, why", [("cpu", "the C++ compiler does not work"), ("cuda", "no nvcc on the PATH")])
def test_explicit_choice_that_cannot_be_built_is_an_error(tmp_path, choice, why):
    result = build(choice, tmp_path, PATH="/nowhere", CXX="no-such-compiler")
    assert result.returncode != 0
    assert f"ALPS_FAST_BUILD={choice}: cannot build alps_fast._{choice}: {why}" in result.stderr


def test_auto_without_a_compiler_leaves_out_and_says_so(tmp_path):
    result = build("auto", tmp_path, PATH="/nowhere", CXX="no-such-compiler")
    assert result.returncode == 0, result.stderr
    assert "built without alps_fast._cpu: the C++ compiler does not work" in result.stderr
    assert not list(tmp_path.rglob("*.so"))


def test_what_has_changed_is_compiled_and_nothing_else(checkout):
    _, first = checkout.build("cuda")
    isas = {path.split("/")[0] for path in first if path.endswith("moments.cpp.o")}
    assert "portable" in isas and {"moments.cu.o", "alps_fast._cpu.so", "alps_fast._cuda.so"} < set(first)
    assert checkout.build("cuda")[1] == {}
    for source, objects in (("csrc/cpu/moments.cpp", {f"{isa}/moments.cpp.o" for isa in isas}),
                            ("csrc/cpu/conv_block.h", {path for path in first if path.endswith("/conv_grad.cpp.o")})):
        checkout.change(source)
        assert set(checkout.build("cuda")[1]) == {*objects, "alps_fast._cpu.so"}
    checkout.change("csrc/cuda/moments.cu")
    assert set(checkout.build("cuda")[1]) == {"moments.cu.o", "alps_fast._cuda.so"}
    assert checkout.build("cpu")[1] == {}


def test_builds_where_make_has_jobs_of_its_own(checkout):
    result, made = checkout.build("cpu", MAKEFLAGS=" -j2 --jobserver-auth=98,99")  # which a recipe is not given
    assert result.returncode == 0 and "alps_fast._cpu.so" in made
    assert "jobserver" not in result.stderr


def test_gpus_are_chosen_and_what_comes_after_runs_the_ptx_of_the_last(checkout):
    _, first = checkout.build("cuda")
    cuda = {"probe.cu.o", "bindings_cuda.cpp.o", "alps_fast._cuda.so", *(path for path in first if path.endswith(".cu.o"))}
    for architectures in (None, "90", "80,120"):
        made = first if architectures is None else checkout.build("cuda", ALPS_FAST_CUDA_ARCHS=architectures)[1]
        numbers = (architectures or "80,90a,100").split(",")
        code = [f"-gencode=arch=compute_{a},code=sm_{a}" for a in numbers]
        code.append("-gencode=arch=compute_{0},code=compute_{0}".format(numbers[-1]))
        assert all([flag for flag in made[path] if "gencode" in flag] == code for path in cuda)
        assert made is first or set(made) == cuda
    result, _ = checkout.build("cuda", ALPS_FAST_CUDA_ARCHS="sm_90")
    assert result.returncode != 0
    assert "ALPS_FAST_CUDA_ARCHS: got 'sm_90'; wanted numbers as that of sm_90, such as 80,90a,100" in result.stderr


def test_cxx_is_the_compiler_of_nvcc_too_and_may_be_cached(checkout):
    checkout.build("cuda", CXX=f"{checkout.bin}/ccache {checkout.bin}/c++")
    lines = [line.split() for line in checkout.commands.read_text().splitlines()]
    by = {name: [line for line in lines if line[0] == name] for name in ("ccache", "c++", "nvcc")}
    assert len(by["ccache"]) == len(by["c++"]) + len(by["nvcc"]) and by["c++"]
    assert all(f"-ccbin={checkout.bin}/c++" in line for line in by["nvcc"]) and by["nvcc"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="speaks of machines without a GPU")
def test_auto_leaves_out_the_cuda_module_where_no_gpu_is_seen_unless_it_is_there(checkout):
    result, made = checkout.build("auto")
    assert "built without alps_fast._cuda: no GPU is seen here (ALPS_FAST_BUILD=cuda builds it all the same)" in result.stderr
    assert "alps_fast._cpu.so" in made and "alps_fast._cuda.so" not in made
    (checkout.root / "alps_fast" / f"_cuda{sysconfig.get_config_var('EXT_SUFFIX')}").touch()
    result, made = checkout.build("auto")
    assert "alps_fast._cuda.so" in made and result.stderr == ""


@pytest.mark.parametrize("choice", ["auto", "cpu"])
def test_a_source_that_does_not_compile_is_an_error(checkout, choice):
    (checkout.root / "csrc/cpu/moments.cpp").write_text("#error\n")
    result, made = checkout.build(choice)
    assert result.returncode != 0 and "the compiler's messages are above" in result.stderr
    assert "moments.cpp: #error" in result.stdout + result.stderr and "alps_fast._cpu.so" not in made


def test_none_builds_nothing(tmp_path):
    result = build("none", tmp_path)
    assert result.returncode == 0, result.stderr
    assert not list(tmp_path.rglob("*.so"))


def test_kernels_is_not_a_top_level_import(tmp_path):
    assert run("-c", "import alps_fast.kernels", cwd=tmp_path).returncode == 0
    assert "No module named 'kernels'" in run("-c", "import kernels", cwd=tmp_path).stderr


def test_works_without_the_compiled_parts():
    """Blocked as if never built: import works, auto runs on torch, and cpu by name says why not."""
    result = run("-c", """
import sys
sys.modules["alps_fast._cpu"] = sys.modules["alps_fast._cuda"] = None
import torch
import alps_fast, alps_fast.kernels
from alps_fast.ops.philox_normal import philox_normal
chains = torch.arange(2)
assert torch.equal(philox_normal(chains, 9, 0, 0), philox_normal(chains, 9, 0, 0, backend="torch"))
try:
    philox_normal(chains, 9, 0, 0, backend="cpu")
except RuntimeError as error:
    print(error)
""", ALPS_FAST_BACKEND="auto")
    assert result.returncode == 0, result.stderr
    assert "backend 'cpu' cannot run here: alps_fast._cpu cannot be imported" in result.stdout


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_one_openmp_runtime():
    """_cpu runs on the threads of torch's libgomp: a second one would spin against it."""
    pytest.importorskip("alps_fast._cpu")
    result = run("-c", """
import os, torch
from alps_fast.ops.philox_normal import philox_normal
torch.set_num_threads(2)
torch.zeros(1 << 20).add_(1)
before = len(os.listdir("/proc/self/task"))
philox_normal(torch.arange(4), 1 << 14, 0, 0, backend="cpu")
print(len(os.listdir("/proc/self/task")) - before)
print(len({line.split()[-1] for line in open("/proc/self/maps") if "gomp" in line}))
""", OMP_NUM_THREADS="2")
    assert result.stdout.split() == ["0", "1"], result.stdout + result.stderr


@pytest.mark.skipif(torch.cuda.is_available(), reason="speaks of machines without a GPU")
def test_cuda_module_loads_without_a_driver_and_says_what_is_missing():
    if importlib.util.find_spec("alps_fast._cuda") is None:
        pytest.skip("built without alps_fast._cuda")
    result = run("-c", """
from alps_fast import _cuda
from alps_fast.ops import _compiled, philox_normal
none = {"ids": None, "out": None, "rows": 1, "n": 4, "seed": 0, "step": 0, "tag": 0}
try:
    arguments = next(kernel for kernel in _compiled._kernels if kernel.backend == "cuda").packed(none)
    _cuda.philox_normal(arguments, 0, 0)
except RuntimeError as error:
    print(error)
""")  # in a process where no stand-in of the module, which the laboratory loads, is beside it
    assert re.fullmatch("philox_normal: .*CUDA.*\n", result.stdout), result.stdout + result.stderr


def test_cuda_module_holds_its_kernels_for_every_gpu_and_as_ptx():
    _cuda = pytest.importorskip("alps_fast._cuda")
    tool = pytest.importorskip("lab.static")._tool("cuobjdump")
    listed = subprocess.run([tool, "--list-elf", "--list-ptx", _cuda.__file__], check=True, text=True, capture_output=True).stdout
    sm_80, sm_90, sm_100, ptx = (listed.count(kind) for kind in ("sm_80.cubin", "sm_90a.cubin", "sm_100.cubin", "sm_100.ptx"))
    assert sm_80 == sm_90 == sm_100 and 0 < ptx <= sm_80 <= ptx + 1  # one more is the linker's, of no source
