"""moments: the reference against two-pass float64, split invariance, rows left out; the kernel has the reference's bits."""

import pytest
import torch
from inputs import empty_moments

from alps_fast.errors import ArgumentError
from alps_fast.ops.moments import moments


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("groups, rows, shape", [(1, 1, (1,)), (1, 17, (5, 3, 2)), (3, 21, (7, 1)), (5, 5, ()), (2, 64, (127,))])
def test_matches_two_pass(groups, rows, shape, dtype):
    x = 3 + torch.randn(rows, *shape, dtype=dtype)
    count, mean, m2 = moments(*empty_moments(groups, shape, dtype), x, torch.ones(rows, dtype=torch.bool), "torch")
    wide = x.double().unflatten(0, (groups, -1))
    exact = wide.mean(1)
    # each of the M updates rounds at the size of mean, and of M2: M·eps, measured below a quarter of it
    law = rows // groups * torch.finfo(dtype).eps
    assert torch.all(count == rows // groups)
    assert (mean - exact).abs().max() <= law * wide.abs().max()
    assert (m2 - (wide - exact.unsqueeze(1)).square().sum(1)).abs().max() <= law * wide.square().sum(1).max()


def test_offset_does_not_cancel():
    """Variance 1 around 1e4 in float32: a sum of squares would have lost it."""
    x = 1e4 + torch.randn(4096, 8)
    _, _, m2 = moments(*empty_moments(1, (8,)), x, torch.ones(4096, dtype=torch.bool))
    torch.testing.assert_close(m2[0] / 4096, x.double().var(0, correction=0).float(), rtol=2e-3, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(), (1,), (2, 1), (3,), (5, 1), (127,), (13, 11, 3), (4099,)])
def test_cpu_has_the_bits_of_the_reference(isa, threads, guarded, shape, dtype):
    """From a state that is not empty, on one to three threads, with rows left out that hold NaN."""
    for groups, rows in ((1, 1), (1, 17), (3, 21), (5, 5)):
        x = 3 + torch.randn(rows, *shape, dtype=dtype)
        keep = torch.rand(rows) < 0.7
        state = (torch.arange(groups) + 2, torch.randn(groups, *shape, dtype=dtype), torch.rand(groups, *shape, dtype=dtype))
        want = moments(*state, x, keep, "torch")
        x[~keep] = torch.nan
        before = [value.clone() for value in state]
        for count in (1, 2, 3):
            threads(count)
            assert all(torch.equal(w, g) for w, g in zip(want, moments(*state, x, keep, "cpu"), strict=True))
        assert all(torch.equal(a, b) for a, b in zip(before, state, strict=True))
    guarded()


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(), (3,), (13, 11, 3), (64, 64)])
def test_cuda_has_the_bits_of_the_reference(shape, dtype):
    for groups, rows in ((1, 1), (3, 21), (5, 5)):
        x, keep = 3 + torch.randn(rows, *shape, dtype=dtype), torch.rand(rows) < 0.7
        state = empty_moments(groups, shape, dtype)
        want = moments(*state, x, keep, "torch")
        got = moments(*(v.cuda() for v in (*state, x, keep)), "cuda")
        assert all(torch.equal(w, g.cpu()) for w, g in zip(want, got, strict=True))


def test_cpu_counts_past_the_integers_of_float32(isa):
    state = torch.tensor([2**24]), torch.zeros(1, 3), torch.zeros(1, 3)
    x, keep = torch.randn(3, 3), torch.ones(3, dtype=torch.bool)
    assert all(torch.equal(w, g) for w, g in zip(moments(*state, x, keep, "torch"), moments(*state, x, keep, "cpu"), strict=True))


def test_cpu_keeps_the_layout_of_a_strided_state():
    state = torch.zeros(2, dtype=torch.int64), torch.zeros(2, 3, 4).transpose(1, 2), torch.zeros(2, 4, 3)
    x, keep = torch.randn(6, 4, 3), torch.ones(6, dtype=torch.bool)
    want, got = (moments(*state, x, keep, backend) for backend in ("torch", "cpu"))
    assert all(torch.equal(w, g) and w.stride() == g.stride() for w, g in zip(want, got, strict=True))


def test_split_over_calls_is_bit_identical():
    x, keep = torch.randn(13, 4, 4), torch.rand(13) < 0.7
    whole = moments(*empty_moments(1, (4, 4)), x, keep)
    state = empty_moments(1, (4, 4))
    for rows in (slice(0, 1), slice(1, 6), slice(6, 13)):
        state = moments(*state, x[rows], keep[rows])
    assert all(torch.equal(a, b) for a, b in zip(whole, state, strict=True))


def test_groups_do_not_touch_each_other():
    x, keep = torch.randn(12, 9), torch.ones(12, dtype=torch.bool)
    together = moments(*empty_moments(3, (9,)), x, keep)
    for g in range(3):
        alone = moments(*empty_moments(1, (9,)), x[4 * g:4 * g + 4], keep[:4])
        assert all(torch.equal(a[g:g + 1], b) for a, b in zip(together, alone, strict=True))


def test_rows_left_out_may_be_nan():
    x, keep = torch.randn(6, 5), torch.tensor([False, True, True, False, True, False])
    poisoned = torch.where(keep[:, None], x, float("nan"))
    count, mean, m2 = moments(*empty_moments(1, (5,)), poisoned, keep)
    assert count.item() == 3
    torch.testing.assert_close(mean[0], x[keep].mean(0))
    torch.testing.assert_close(m2[0] / 2, x[keep].var(0))
    count, mean, m2 = moments(*empty_moments(1, (5,)), torch.full((2, 5), float("nan")), torch.zeros(2, dtype=torch.bool))
    assert count.item() == 0 and not mean.any() and not m2.any()


def test_non_contiguous_rows():
    x = torch.randn(6, 3, 4).transpose(1, 2)
    keep = torch.ones(6, dtype=torch.bool)
    got, want = (moments(*empty_moments(2, (4, 3)), v, keep)[1] for v in (x, x.contiguous()))
    assert torch.equal(got, want)


@pytest.mark.parametrize("name, change", [("count", lambda a: a[0].int()), ("mean", lambda a: a[1].double()),
                                          ("m2", lambda a: a[2][:, :2]), ("x", lambda a: a[3][:5]),
                                          ("x", lambda a: a[3].half()), ("keep", lambda a: a[4].float())])
def test_bad_arguments_are_named(name, change):
    arguments = [*empty_moments(2, (3,)), torch.randn(6, 3), torch.ones(6, dtype=torch.bool)]
    arguments[("count", "mean", "m2", "x", "keep").index(name)] = change(arguments)
    with pytest.raises(ArgumentError, match=f"^{name}: got"):
        moments(*arguments)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_opcheck(dtype):
    torch.library.opcheck(moments.traced, (*empty_moments(2, (3, 2), dtype), torch.randn(4, 3, 2, dtype=dtype),
                                    torch.tensor([True, False, True, True])))
