"""philox_normal against torch.randn: fresh memory (plain), and memory used again (tuned)."""

import torch

from alps_fast.bench.common import Work, fastest, parametrize
from alps_fast.ops.philox_normal import LANGEVIN, counters, philox_normal


def work(normals: int) -> Work:
    """A normal is written once; four take 38 fma, 18 products, 2 sums and 2 roots beside the integers."""
    return Work(bytes=4 * normals, flops=normals // 4 * (2 * 38 + 18 + 2 + 2))


@parametrize("chains, n", [(64, 3 * 64 * 64), (1, 3 * 64 * 64), (16, 2 * 320 * 320)])
def test_philox_normal(measure, chains, n):
    device = measure.device
    ids, target = counters(torch.arange(chains, device=device)), torch.empty(chains, n, device=device)
    backend = fastest("philox_normal", device)

    def ours():
        return philox_normal(ids, n, 7, 3, LANGEVIN, backend)

    reference = philox_normal(ids[:1], n, 7, 3, LANGEVIN, "torch")
    assert torch.equal(ours()[:1], reference)
    measure(f"philox_normal, {chains} chains of {n}", backend, ours,
            {"plain": lambda: torch.randn(chains, n, device=device), "tuned": lambda: target.normal_()}, work(chains * n))
