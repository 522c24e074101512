"""Run with `pytest benchmarks`; prints the ratios at the end, and writes them with pytest-benchmark's --benchmark-json."""

import pytest
import torch

from alps_fast.bench.common import Measure, machine, table

ROWS = pytest.StashKey[list]()
LEVELS = 2  # of the 50 of whole runs: `alps-fast bench` has time for all of them


def pytest_configure(config):
    config.stash[ROWS] = []
    config.addinivalue_line("filterwarnings", "ignore:.*torch.jit.script_method:DeprecationWarning")  # torch.compile's own import


def pytest_generate_tests(metafunc):
    for names, values, ids in getattr(metafunc.function, "parameters", ()):
        metafunc.parametrize(names, values, ids=ids)


@pytest.fixture
def measure(benchmark, request):
    """The case's `Measure`, timed by pytest-benchmark; its rows are printed at the end."""
    def timer(timed, before, rounds, warmup, device):
        benchmark.pedantic(timed.run, setup=before, rounds=rounds, warmup_rounds=warmup)
        return benchmark.stats.stats.median / timed.calls

    handed = Measure(levels=LEVELS, timer=timer)
    yield handed
    benchmark.extra_info["rows"] = handed.rows
    request.config.stash[ROWS] += handed.rows


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def pytest_terminal_summary(terminalreporter, config):
    if config.stash[ROWS]:
        terminalreporter.section(f"ratios of medians, {torch.get_num_threads()} threads, {machine()}")
        for line in table(config.stash[ROWS]):
            terminalreporter.write_line(line)
