"""Run with `pytest benchmarks`; prints the ratios at the end, and writes them with pytest-benchmark's --benchmark-json."""

import pytest
import torch
from common import compare, machine, table

ROWS = pytest.StashKey[list]()


def pytest_configure(config):
    config.stash[ROWS] = []


@pytest.fixture
def measure(benchmark, request):
    """`common.compare`, whose rows are printed at the end."""
    def run(*arguments, **options):
        request.config.stash[ROWS] += compare(benchmark, *arguments, **options)
    return run


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def pytest_terminal_summary(terminalreporter, config):
    if config.stash[ROWS]:
        terminalreporter.section(f"ratios of medians, {torch.get_num_threads()} threads, {machine()}")
        for line in table(config.stash[ROWS]):
            terminalreporter.write_line(line)
