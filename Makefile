# Each target sets up what it needs on a fresh machine; nothing outside this directory is touched.
PYTHON ?= python3
VENV   ?= .venv
# Pinned, so that demo and tests see one torch everywhere; where the index has CPU builds, this is one. The package asks for >=2.6.
TORCH  ?= torch==2.13.0
# That of the baseline of `make profile`, where torch does not bring one: torch's own CUDA builds want theirs and no other.
TRITON ?= triton==3.9.0

BIN       := $(VENV)/bin
TOOLS     := $(VENV)/.tools
INSTALLED := $(VENV)/.installed
DEVELOPED := $(VENV)/.developed
# Two thirds of pip's time would go into bytecode of modules that nobody imports; Python makes that of the others when it imports them.
INSTALL   := $(BIN)/python -m pip install -q --no-compile

# The tests of every CPU kernel, found by its name.
KERNEL_TESTS := $(wildcard $(patsubst csrc/cpu/%.cpp,tests/test_%.py,$(wildcard csrc/cpu/*.cpp)))

PEERS       := build/peers
PEERS_TESTS := tests/test_deepinv.py tests/test_integrations.py tests/test_sigpy.py tests/test_examples.py tests/test_quality.py

.PHONY: build compiled demo test lint fuzz fuzz-short profile peers oldest triton-versions sanitize aarch64 gpu dist clean

# The compiler works while pip fetches torch; where make has several jobs already, these two are among them.
build: $(TOOLS)                ## package and compiled parts, as ALPS_FAST_BUILD says; what has not changed costs nothing
	@$(MAKE) --no-print-directory $(if $(filter -j%,$(MAKEFLAGS)),,-j2) compiled $(INSTALLED)

compiled: $(TOOLS)
	$(BIN)/python setup.py -q build_ext --inplace

demo: build                    ## pictures and metrics of every task in demo_out/
	$(BIN)/alps-fast demo --out demo_out --force

# Two workers share the cores: while one compiles GPU kernels or waits for a process, the other tests. Their threads must not spin.
test: $(DEVELOPED)             ## the whole test suite
	OMP_WAIT_POLICY=passive $(BIN)/python -m pytest -q -n 2

lint: $(DEVELOPED)             ## style and types
	$(BIN)/ruff check .
	$(BIN)/mypy

# Files that fail are kept in build/fuzz. The short one is the same files everywhere, as far as its time lets it come.
FUZZ_SECONDS ?= 1800
fuzz: $(DEVELOPED)             ## damage files for FUZZ_SECONDS: every reader must refuse them in one line
	PYTHONPATH=tests $(BIN)/python -m fuzz --seconds $(FUZZ_SECONDS) --out build/fuzz

fuzz-short: $(DEVELOPED)
	PYTHONPATH=tests $(BIN)/python -m fuzz --seconds 100 --seed 0 --out build/fuzz

# The kernels' tests under AddressSanitizer and UBSan; the first finding ends the run. Built and imported from build/sanitize alone.
# libstdc++ is preloaded too, for libasan must find its __cxa_throw; leaks are off, as Python has many; pytest leaves stderr to the report.
sanitize: $(DEVELOPED)
	ALPS_FAST_BUILD=sanitize $(BIN)/python setup.py -q build --build-base build/sanitize --build-lib build/sanitize/lib
	LD_PRELOAD="$$($(CXX) -print-file-name=libasan.so) $$($(CXX) -print-file-name=libstdc++.so)" ASAN_OPTIONS=detect_leaks=0 \
	  UBSAN_OPTIONS=print_stacktrace=1 PYTHONPATH=build/sanitize/lib $(BIN)/python -P -m pytest -q --capture=sys $(KERNEL_TESTS)

# The last torch seen whose wheel for aarch64 brings no CUDA.
aarch64: $(TOOLS)              ## the CPU kernels compiled for aarch64, and their tests in qemu; on Debian 12; ten minutes of a core
	tests/aarch64.sh $(BIN)/python torch==2.10.0 tests/test_alike.py $(KERNEL_TESTS)

profile: $(DEVELOPED)          ## fail where a GPU kernel holds or moves more than the baseline; needs no GPU
	TRITON_CACHE_DIR=build/triton $(BIN)/python -m lab --check

# In an environment of its own, as what these bring is nothing that others' tests should hang on.
peers: build                   ## tests of adapters and of the field's table beside the newest DeepInverse, azula, diffusers and SigPy that pyproject.toml allows
	test -x $(PEERS)/bin/python || $(PYTHON) -m venv $(PEERS)
	ALPS_FAST_BUILD=none $(PEERS)/bin/python -m pip install -q --upgrade $(TORCH) -e '.[quality,diffusers,test]'
	OMP_WAIT_POLICY=passive $(PEERS)/bin/python -m pytest -q -p no:cacheprovider $(PEERS_TESTS)

oldest: $(DEVELOPED)           ## the tests of files and of what NumPy computes, under the oldest versions that are allowed; torch stays
	tests/oldest.sh $(BIN)/python

# The versions that CUDA builds of torch 2.11 to 2.14 bring.
triton-versions: $(DEVELOPED)  ## the Triton kernels' tests under each Triton they are for, without a GPU
	tests/triton_versions.sh $(BIN)/python 3.6.0 3.7.1 3.8.0 3.9.0

# sdist, and from it two wheels: with all that is compiled, and that of a machine without a compiler; both must import where they are
# unpacked. Without nvcc: ALPS_FAST_BUILD=cpu make dist.
dist: $(DEVELOPED)
	rm -rf dist build/none
	ALPS_FAST_BUILD=$${ALPS_FAST_BUILD:-cuda} $(BIN)/python -m build
	ALPS_FAST_BUILD=none $(BIN)/pip wheel -q --no-deps --wheel-dir build/none dist/*.tar.gz
	set -e; for wheel in dist/*.whl build/none/*.whl; do \
	  rm -rf build/unpacked; $(BIN)/pip install -q --no-deps --target build/unpacked $$wheel; \
	  $(BIN)/python tests/check_wheel.py build/unpacked; done

# On a machine with an NVIDIA GPU, nvcc, torch and Triton, and no network; fails where torch sees no device, so that a report is never
# one of skipped tests. What fails ends the run at the last, not the first: the report is whole.
gpu:                           ## kernels built, tested, timed and profiled on the GPU: gpu_report/
	$(PYTHON) -c "import sys, torch; sys.exit(0 if torch.cuda.is_available() else 'make gpu: torch sees no CUDA device')"
	PYTHON=$(PYTHON) tests/gpu/run.sh

clean:
	rm -rf build dist demo_out gpu_report *.egg-info alps_fast/*.so .pytest_cache .mypy_cache .ruff_cache .benchmarks
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +

# What compiles, alone: seconds, and pybind11 stays where build.ninja found it.
$(TOOLS):
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(INSTALL) 'setuptools>=77' 'pybind11>=2.12' 'ninja>=1.11'
	touch $@

# What the demo needs, so that whoever looks at it waits for no more.
$(INSTALLED): pyproject.toml $(TOOLS)
	$(INSTALL) $(TORCH)
	ALPS_FAST_BUILD=none $(INSTALL) --no-build-isolation -e '.[diagnostics,metrics]'
	touch $@

$(DEVELOPED): pyproject.toml | build
	$(BIN)/python -m pip show -q triton 2> /dev/null || $(INSTALL) $(TRITON)
	ALPS_FAST_BUILD=none $(INSTALL) --no-build-isolation -e '.[dev]'
	touch $@
