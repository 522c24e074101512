"""The compiled parts of alps_fast; everything else is in pyproject.toml. Needs no torch, no GPU and no network.

ALPS_FAST_BUILD  builds                                            what cannot be built
auto (default)   alps_fast._cpu, and alps_fast._cuda where a GPU   is left out, with one line on stderr
                 is seen or an earlier build has left it
none             nothing: the package runs on the torch backend    -
cpu              alps_fast._cpu                                    is an error
cuda             alps_fast._cpu and alps_fast._cuda                is an error
sanitize         alps_fast._cpu that stops at the first finding    is an error
                 of AddressSanitizer or UBSan, for `make sanitize`

ALPS_FAST_CUDA_ARCHS  for which GPUs alps_fast._cuda has machine code, those of csrc/cuda/nvcc.toml unless it says otherwise; what
                      comes after the last runs its PTX.

Every csrc/cpu/*.cpp is compiled once an instruction set, and the choice is made at run time (ALPS_FAST_ISA forces it). One
build.ninja, in the build's temporary directory, has all of it; ninja compiles what has changed, or includes what has. nvcc and
the C++ compiler are those on the PATH; CXX names another C++ compiler, for nvcc too, and may begin with `ccache`.
"""

import ctypes
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tomllib
from itertools import dropwhile
from pathlib import Path

from setuptools import Extension, find_packages, setup
from setuptools.command.build_ext import build_ext

CHOICES = ("auto", "none", "cpu", "cuda", "sanitize")
BUILD = os.environ.get("ALPS_FAST_BUILD", "auto")
if BUILD not in CHOICES:
    raise SystemExit(f"ALPS_FAST_BUILD: got {BUILD!r}; wanted one of {', '.join(CHOICES)}")
NVCC = tomllib.loads(Path("csrc/cuda/nvcc.toml").read_text())
ARCHITECTURES = os.environ.get("ALPS_FAST_CUDA_ARCHS", ",".join(NVCC["architectures"]))
if not re.fullmatch(r"\d{2,3}[af]?(,\d{2,3}[af]?)*", ARCHITECTURES):
    raise SystemExit(f"ALPS_FAST_CUDA_ARCHS: got {ARCHITECTURES!r}; wanted numbers as that of sm_90, such as "
                     + ",".join(NVCC["architectures"]))

# Results are defined to the bit: nothing may contract or reorder their arithmetic, so no -ffast-math.
CXX_FLAGS = ["-O3", "-std=c++17", "-ffp-contract=off", "-fvisibility=hidden", "-fopenmp", "-g0", "-Wall", "-Wextra"]
SANITIZERS = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer"]
if BUILD == "sanitize":
    CXX_FLAGS = ["-O1", "-g1", *(flag for flag in CXX_FLAGS if flag not in ("-O3", "-g0")), *SANITIZERS]
ISAS = {"portable": []}
if platform.machine() in ("x86_64", "AMD64"):
    avx512 = ["-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl"]
    # GCC 12 takes the undefined operands inside its own AVX-512 intrinsics for a mistake
    avx512 += ["-Wno-uninitialized", "-Wno-maybe-uninitialized"]
    ISAS |= {"avx2": ["-mavx2", "-mfma"], "avx512": ["-mavx2", "-mfma", *avx512]}
    ISAS["avx512bf16"] = [*ISAS["avx512"], "-mavx512bf16"]
    ISAS["amx"] = [*ISAS["avx512bf16"], "-mamx-tile", "-mamx-bf16"]
NVCC_FLAGS = [*NVCC["flags"], "--threads=0", "-Werror=all-warnings",
              "-Xcompiler=-fPIC,-fvisibility=hidden,-Wall,-Wextra"]
NVCC_FLAGS += [f"-gencode=arch=compute_{a},code=sm_{a}" for a in ARCHITECTURES.split(",")]
NVCC_FLAGS += ["-gencode=arch=compute_{0},code=compute_{0}".format(ARCHITECTURES.split(",")[-1])]

# By extension: a source that shows whether its compiler works, and what is wrong where that does not compile.
PROBES = {
    "alps_fast._cpu": ("probe.cpp", "#include <Python.h>\nPyObject* probe() { return nullptr; }\n",
                       "the C++ compiler does not work, or Python.h is not installed"),
    "alps_fast._cuda": ("probe.cu", "__global__ void kernel() {}\nvoid probe() { kernel<<<1, 1>>>(); }\n",
                        f"nvcc does not work with the C++ compiler here, or knows not all of {ARCHITECTURES}"),
}

RULES = """\
rule compile
  command = $with -MD -MF $out.d -c $in -o $out
  description = $out
  depfile = $out.d
  deps = gcc
rule link
  command = $with $in -o $out
  description = $out
"""


class CannotBuildError(Exception):
    """Why an extension cannot be built here."""


class Build(build_ext):
    """Builds what ALPS_FAST_BUILD asks for."""

    def build_extensions(self):
        if self.editable_mode:  # whose own temporary directory does not outlive the build
            base = self.get_finalized_command("build").build_base
            self.build_temp = str(Path(base, f"temp.{sysconfig.get_platform()}-{sys.implementation.cache_tag}"))
        Path(self.build_temp).mkdir(parents=True, exist_ok=True)
        statements = [f"builddir = {escaped(self.build_temp)}\n{RULES}"]
        self.for_each_extension(lambda extension: statements.extend(self.statements(extension)))
        Path(self.build_temp, "build.ninja").write_text("".join(statements))
        self.for_each_extension(self.probe)
        if self.extensions and not self.ninja(*map(self.made, self.extensions)):
            raise SystemExit("alps_fast: the compiler's messages are above (pip shows them with -v)")
        for extension in self.extensions:
            target = Path(self.get_ext_fullpath(extension.name))
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(self.made(extension), target)

    def for_each_extension(self, do):
        """An extension for which `do` says that it cannot be built is an error, or is left out."""
        for extension in list(self.extensions):
            try:
                do(extension)
            except CannotBuildError as why:
                if BUILD != "auto":
                    raise SystemExit(f"ALPS_FAST_BUILD={BUILD}: cannot build {extension.name}: {why}") from None
                print(f"alps_fast: WARNING: built without {extension.name}: {why}", file=sys.stderr)
                self.extensions.remove(extension)

    def made(self, extension):
        return Path(self.build_temp, f"{extension.name}.so")

    def statements(self, extension):
        """Those of build.ninja that make an extension, and an object of its probe."""
        is_cpu, objects = extension.name == "alps_fast._cpu", []
        compiler, linker = self.cpp() if is_cpu else self.nvcc(extension)
        includes = [f"-I{path}" for path in (*extension.include_dirs, *self.include_dirs)]
        compiled = [("", source, includes) for source in extension.sources]
        for isa, flags in ISAS.items() if is_cpu else ():
            matrices = isa in ("avx512bf16", "amx")  # which multiply bfloat16, and are avx512 in all else
            sources = ["csrc/cpu/conv_grad.cpp"] if matrices else sorted(map(str, Path("csrc/cpu").glob("*.cpp")))
            compiled += [(isa, source, flags) for source in sources]
        for place, source, flags in compiled:
            objects.append(Path(self.build_temp, place, f"{Path(source).name}.o"))
            yield statement("compile", objects[-1], [source], [*compiler, *flags])
        yield statement("link", self.made(extension), objects, linker)

        name, text, _ = PROBES[extension.name]
        probe = Path(self.build_temp, name)
        if not probe.exists() or probe.read_text() != text:  # written each time, it would be compiled each time
            probe.write_text(text)
        yield statement("compile", f"{probe}.o", [probe], [*compiler, *includes])

    def cpp(self):
        """What compiles C++, and links it."""
        if shutil.which(self.compiler.compiler_cxx[0]) is None:
            raise CannotBuildError(f"the C++ compiler does not work: {self.compiler.compiler_cxx[0]} is not on the PATH")
        linker = [*self.compiler.compiler_cxx, *dropwhile(lambda word: word[0] != "-", self.compiler.linker_so_cxx), "-fopenmp"]
        sanitizers = SANITIZERS if BUILD == "sanitize" else []
        return [*self.compiler.compiler_so_cxx, *CXX_FLAGS], [*linker, *sanitizers]

    def nvcc(self, extension):
        """What compiles CUDA C++, and links it with the static CUDA runtime; libcuda is found when first used."""
        in_place = Path(*extension.name.split(".")).with_suffix(sysconfig.get_config_var("EXT_SUFFIX"))
        if BUILD == "auto" and not in_place.exists() and not gpu_is_seen():
            raise CannotBuildError("no GPU is seen here (ALPS_FAST_BUILD=cuda builds it all the same)")
        if shutil.which("nvcc") is None:
            raise CannotBuildError("no nvcc on the PATH")
        command = ["nvcc", *NVCC_FLAGS]
        if "CXX" in os.environ:
            *cache, host = self.compiler.compiler_cxx[:2 if self.compiler.compiler_cxx[0].endswith("ccache") else 1]
            command = [*cache, *command, f"-ccbin={host}"]
        return command, [*command, "-shared", "-cudart=static"]

    def probe(self, extension):
        name, _, wrong = PROBES[extension.name]
        if not self.ninja(Path(self.build_temp, f"{name}.o")):
            raise CannotBuildError(f"{wrong}: the compiler's messages are above (pip shows them with -v)")

    def ninja(self, *targets):
        """Whether these could be made."""
        quiet = [] if self.verbose else ["--quiet"]
        alone = {name: value for name, value in os.environ.items() if name != "MAKEFLAGS"}  # make -j has no jobs for its recipes
        return subprocess.run([ninja(), *quiet, "-f", Path(self.build_temp, "build.ninja"), *targets], env=alone).returncode == 0


def statement(rule, target, sources, command):
    """Of build.ninja: how `command` makes a target."""
    command = shlex.join(command).replace("$", "$$")
    return f"build {escaped(target)}: {rule} {' '.join(map(escaped, sources))}\n  with = {command}\n"


def escaped(path):
    return re.sub(r"([$ :])", r"$\1", str(path))


def ninja():
    """The package's, or that of the system."""
    try:
        from ninja import BIN_DIR
    except ImportError:
        found = shutil.which("ninja")
    else:
        found = shutil.which("ninja", path=BIN_DIR)
    if found is None:
        raise CannotBuildError("no ninja: pip install ninja")
    return found


def gpu_is_seen():
    """Whether there is a CUDA driver, and it has a device."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    count = ctypes.c_int(0)
    return driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(count)) == 0 and count.value > 0


def extensions():
    if BUILD == "none":
        return []
    import pybind11

    include = [pybind11.get_include()]
    cpu = Extension("alps_fast._cpu", ["csrc/bindings_cpu.cpp"], include, language="c++")
    cuda = Extension("alps_fast._cuda", ["csrc/bindings_cuda.cpp", *sorted(map(str, Path("csrc/cuda").glob("*.cu")))], include)
    return [cpu] if BUILD in ("cpu", "sanitize") else [cuda, cpu]


tables = {f"alps_fast.bench.{name}": f"benchmarks/{name}" for name in find_packages("benchmarks")}
setup(packages=[*find_packages(include=["alps_fast*"]), "alps_fast.kernels", "alps_fast.bench", *tables],
      package_dir={"alps_fast.kernels": "kernels", "alps_fast.bench": "benchmarks"} | tables,
      ext_modules=extensions(), cmdclass={"build_ext": Build})
