"""What every test shares: fixed seeds, GPU tests skipped without a GPU, and the instruction sets one by one."""

import importlib.util
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.append(str(Path(__file__).resolve().parent.parent))  # for lab: last, as the package may be another build
os.environ["ALPS_FAST_CACHE"] = "off"  # tests that want one say where
os.environ.setdefault("TRITON_CACHE_DIR", str(Path(__file__).resolve().parent.parent / "build" / "triton"))


# Files whose tests share what takes minutes to make.
TOGETHER = ("test_triton.py", "test_profile.py", "test_kernels.py", "test_stand_in.py", "test_cuda_ptx.py")
COMPILED = "sigpy"  # in the names of tests for which numba compiles, once a process


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """With pytest-xdist each of `TOGETHER`, and `COMPILED`, goes to one worker, early, and the rest test by test.

    Its own --dist loadgroup does not see the groups under pytest 9.2.
    """
    from xdist.scheduler.loadscope import LoadScopeScheduling

    class Scheduling(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            if COMPILED in nodeid:
                return COMPILED
            file = nodeid.split("::")[0]
            return file if Path(file).name in TOGETHER else nodeid

    return Scheduling(config, log)


def pytest_collection_modifyitems(items):
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="torch sees no CUDA device"))


@pytest.fixture(autouse=True)
def _seeds():
    np.random.seed(0)  # noqa: NPY002  some libraries draw from the global state
    torch.manual_seed(0)


@pytest.fixture
def threads():
    """Set torch's number of threads for one test."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.fixture
def guarded(monkeypatch):
    """Make every `torch.empty_like` NaN (or a large integer), unaligned, with guards at both ends; call it to check them."""
    made = []

    def empty_like(like):
        poison = torch.nan if like.is_floating_point() else 1 << 40
        buffer = torch.full((like.numel() + 131,), poison, dtype=like.dtype)
        made.append((buffer, poison))
        return buffer[65:65 + like.numel()].view(like.shape)

    def untouched():
        assert made
        for buffer, poison in made:
            wild = torch.isnan(buffer) if buffer.is_floating_point() else buffer == poison
            assert wild[:65].all() and wild[-66:].all() and not wild[65:-66].any()

    monkeypatch.setattr(torch, "empty_like", empty_like)
    return untouched


def pytest_generate_tests(metafunc):
    """The instruction sets; avx512bf16 and amx are avx512 but where matrices are multiplied."""
    if "isa" in metafunc.fixturenames:
        more = ["avx512bf16", "amx"] if metafunc.module.__name__ == "test_conv_grad" else []
        metafunc.parametrize("isa", ["portable", "avx2", "avx512", *more], indirect=True)


@pytest.fixture
def isa(request, monkeypatch):
    """Force each instruction set in turn; skips those that this processor or this build has not."""
    if importlib.util.find_spec("alps_fast._cpu") is None:
        pytest.skip("built without alps_fast._cpu")
    from alps_fast import _cpu

    if request.param not in _cpu.isas():
        pytest.skip(f"this processor has no {request.param}")
    monkeypatch.setenv("ALPS_FAST_ISA", request.param)
    return request.param
