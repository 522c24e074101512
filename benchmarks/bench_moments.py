"""moments against Welford's update written with torch: with new tensors (plain), and in place (tuned)."""

import torch

from alps_fast.bench.common import Work, fastest, parametrize
from alps_fast.ops.moments import moments


def plain(count, mean, m2, x):
    for row in x:
        count = count + 1
        delta = row - mean
        mean = mean + delta / count
        m2 = m2 + delta * (row - mean)
    return count, mean, m2


def tuned(count, mean, m2, x):
    """In memory used again, the count on the host."""
    delta, after = torch.empty_like(mean), torch.empty_like(mean)
    for number, row in enumerate(x, int(count) + 1):
        torch.sub(row, mean, out=delta)
        mean.add_(delta, alpha=1 / number)
        m2.addcmul_(delta, torch.sub(row, mean, out=after))
    return count + len(x), mean, m2


@parametrize("chains, shape", [(64, (64, 64, 3)), (1, (64, 64, 3)), (16, (320, 320, 2))])
def test_moments(measure, chains, shape):
    device = measure.device
    x, keep = torch.randn(chains, *shape, device=device), torch.ones(chains, dtype=torch.bool, device=device)
    nothing = torch.zeros(2, 1, *shape, device=device)
    count, mean, m2 = moments(torch.zeros(1, dtype=torch.int64, device=device), nothing[0], nothing[1], x, keep)
    backend = fastest("moments", device)

    def ours():
        return moments(count, mean, m2, x, keep, backend)

    own_mean, own_m2 = mean[0].clone(), m2[0].clone()
    for other in (plain(count, mean[0], m2[0], x), tuned(count, own_mean, own_m2, x)):
        for mine, theirs in zip(ours()[1:], other[1:], strict=True):
            torch.testing.assert_close(mine[0], theirs, rtol=1e-4, atol=1e-4)
    numbers = mean.numel()
    measure(f"moments, {chains} chains of {'x'.join(map(str, shape))}", backend, ours,
            {"plain": lambda: plain(count, mean[0], m2[0], x), "tuned": lambda: tuned(count, own_mean, own_m2, x)},
            Work(bytes=4 * numbers * (chains + 4), flops=6 * numbers * chains))
