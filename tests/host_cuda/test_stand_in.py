"""Tests of the test: faults planted in small kernels are caught, and kernels without one give the right answer."""

from __future__ import annotations

import os
import subprocess

import pytest

from build import HERE, ROOT, SANITIZERS, link, objects

REVERSED = " ".join(str(63 - i) for i in range(64))
SEEDS = range(3)


@pytest.fixture(scope="session")
def planted(host_cuda_directory):
    sources = [HERE / "planted.cu", ROOT / "csrc/cuda/loop.cu"]
    programs = {mode: link(objects(sources, mode), mode, host_cuda_directory / f"planted_{mode}") for mode in SANITIZERS}

    def run(mode, fault, seed=0):
        return subprocess.run([programs[mode], fault, str(seed)], capture_output=True, text=True,
                              env={**os.environ, **SANITIZERS[mode][3]})
    return run


@pytest.mark.parametrize("mode", SANITIZERS)
def test_right_kernels_pass(planted, mode):
    sums = " ".join(str(63 * 32 + (i ^ 1)) for i in range(64))
    for seed in SEEDS:
        for kernel, want in (("none", REVERSED), ("collectives", sums)):
            result = planted(mode, kernel, seed)
            assert (result.returncode, result.stdout.strip()) == (0, want), result.stderr


@pytest.mark.parametrize("fault", ["missing_barrier", "reuse"])
def test_fibers_give_another_answer_without_a_barrier(planted, fault):
    answers = {planted("fibers", fault, seed).stdout.strip() for seed in SEEDS}
    assert len(answers) == len(SEEDS) and REVERSED not in answers


def test_fibers_give_another_answer_after_a_race(planted):
    assert len({planted("fibers", "all_write_one", seed).stdout for seed in SEEDS}) == len(SEEDS)


def test_a_loop_in_a_graph_ends_on_the_device_in_each_replay(planted):
    result = planted("fibers", "loop")
    assert result.returncode == 0 and result.stdout.split()[0] == str(2 * (2 * (2 * 5 + 5) + 5)), result.stderr


@pytest.mark.parametrize("fault, said", [
    ("loop_beside", "host_cuda: a launch beside a loop"), ("loop_outside", "a launch beside the capture"),
    ("loop_unordered", "host_cuda: captured work that the stream does not wait for"), ("loop_handle", "host_cuda: a handle"),
    ("past_the_array", "heap-buffer-overflow"), ("past_the_shared", "use-after-poison"), ("unaligned", "misaligned address"),
    ("early_exit", "host_cuda: "), ("half_a_warp", "host_cuda: threads wait")])
def test_fibers_stop(planted, fault, said):
    result = planted("fibers", fault)
    assert result.returncode != 0 and said in result.stderr, result.stderr


@pytest.mark.parametrize("fault", ["missing_barrier", "reuse", "all_write_one"])
def test_threads_report_a_race(planted, fault):
    result = planted("threads", fault)
    assert result.returncode == 66 and "data race" in result.stderr, result.stderr
