"""The compiled parts of alps_fast; everything else is in pyproject.toml. Needs no torch, no GPU and no network.

ALPS_FAST_BUILD  builds                                            what cannot be built
auto (default)   alps_fast._cpu, and alps_fast._cuda with nvcc     is left out, with one line on stderr
none             nothing: the package runs on the torch backend    -
cpu              alps_fast._cpu                                    is an error
cuda             alps_fast._cpu and alps_fast._cuda                is an error
sanitize         alps_fast._cpu that stops at the first finding    is an error
                 of AddressSanitizer or UBSan, for `make sanitize`

Every csrc/cpu/*.cpp is compiled once an instruction set, and the choice is made at run time (ALPS_FAST_ISA forces it).
nvcc and the C++ compiler are those on the PATH; CXX names another C++ compiler.
"""

import os
import platform
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from setuptools import Extension, find_packages, setup
from setuptools.command.build_ext import build_ext

CHOICES = ("auto", "none", "cpu", "cuda", "sanitize")
BUILD = os.environ.get("ALPS_FAST_BUILD", "auto")
if BUILD not in CHOICES:
    raise SystemExit(f"ALPS_FAST_BUILD: got {BUILD!r}; wanted one of {', '.join(CHOICES)}")

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
    ISAS["amx"] = [*ISAS["avx512"], "-mavx512bf16", "-mamx-tile", "-mamx-bf16"]
ARCHITECTURES = ("80", "90a", "100")  # 90a: with what Hopper alone has; and PTX of the last for what comes after
NVCC_FLAGS = ["-shared", "-cudart=static", "--threads=0", "-O3", "-std=c++17", "--fmad=false", "-Werror=all-warnings",
              "-Xcompiler=-fPIC,-fvisibility=hidden,-Wall,-Wextra"]


class CannotBuildError(Exception):
    """Why an extension cannot be built here."""


class Build(build_ext):
    """Builds what ALPS_FAST_BUILD asks for."""

    def build_extensions(self):
        for extension in list(self.extensions):
            try:
                self.build_cpu(extension) if extension.name == "alps_fast._cpu" else self.build_cuda(extension)
            except CannotBuildError as why:
                if BUILD != "auto":
                    raise SystemExit(f"ALPS_FAST_BUILD={BUILD}: cannot build {extension.name}: {why}") from None
                print(f"alps_fast: WARNING: built without {extension.name}: {why}", file=sys.stderr)
                self.extensions.remove(extension)

    def build_cpu(self, extension):
        self.probe_compiler()
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            objects = pool.map(lambda isa: self.compile_isa(extension, isa), ISAS)
            extension.extra_objects = [o for some in objects for o in some]
        extension.depends = [*extension.depends, *extension.extra_objects]  # or a new kernel is compiled but not linked
        self.build_extension(extension)

    def probe_compiler(self):
        with tempfile.TemporaryDirectory() as directory:
            source = Path(directory, "probe.cpp")
            source.write_text("#include <Python.h>\nPyObject* probe() { return nullptr; }\n")
            try:
                self.compiler.compile([str(source)], output_dir=directory, extra_postargs=CXX_FLAGS)
            except Exception as error:  # distutils raises several kinds, of modules that it moves about
                raise CannotBuildError(f"the C++ compiler does not work, or Python.h is not installed ({error})") from None

    def compile_isa(self, extension, isa):
        directory, sources = Path(self.build_temp, isa), sorted(map(str, Path("csrc/cpu").glob("*.cpp")))
        if isa == "amx":  # multiplies matrices, and is avx512 in all else
            sources = ["csrc/cpu/conv_grad.cpp"]
        return self.compiler.compile(sources, output_dir=str(directory),
                                     extra_postargs=[*CXX_FLAGS, *ISAS[isa]], depends=extension.depends)

    def build_cuda(self, extension):
        """One nvcc call: kernels, bindings and the static CUDA runtime into one module; libcuda is found when first used."""
        if shutil.which("nvcc") is None:
            raise CannotBuildError("no nvcc on the PATH")
        target = Path(self.get_ext_fullpath(extension.name))
        target.parent.mkdir(parents=True, exist_ok=True)
        code = [f"-gencode=arch=compute_{a},code=sm_{a}" for a in ARCHITECTURES]
        ptx = "-gencode=arch=compute_{0},code=compute_{0}".format(ARCHITECTURES[-1])
        includes = [f"-I{path}" for path in (*extension.include_dirs, *self.include_dirs)]
        command = ["nvcc", *NVCC_FLAGS, *code, ptx, *includes, *extension.sources, "-o", str(target)]
        print(*command, flush=True)
        if subprocess.run(command).returncode:
            raise CannotBuildError("nvcc failed, its messages are above (pip shows them with -v)")


def extensions():
    if BUILD == "none":
        return []
    import pybind11

    headers = sorted(str(path) for path in Path("csrc").rglob("*") if path.suffix in (".h", ".cuh"))
    include = [pybind11.get_include()]
    cpu = Extension("alps_fast._cpu", ["csrc/bindings.cpp"], include, depends=headers, language="c++",
                    extra_compile_args=CXX_FLAGS, extra_link_args=["-fopenmp", *(SANITIZERS if BUILD == "sanitize" else [])])
    cuda = Extension("alps_fast._cuda", ["csrc/bindings_cuda.cpp", *sorted(map(str, Path("csrc/cuda").glob("*.cu")))],
                     include, depends=headers)
    return [cpu] if BUILD in ("cpu", "sanitize") else [cuda, cpu]


setup(packages=[*find_packages(include=["alps_fast*"]), "alps_fast.kernels", "alps_fast.bench"],
      package_dir={"alps_fast.kernels": "kernels", "alps_fast.bench": "benchmarks"},
      ext_modules=extensions(), cmdclass={"build_ext": Build})
