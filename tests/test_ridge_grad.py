"""ridge_grad: the gradient is that of the value, the kernels are the reference."""

import pytest
import torch
from inputs import check_ridge_grad, ridge_constants
from step_checks import shifted

import alps_fast as af
from alps_fast.errors import ArgumentError
from alps_fast.ops.ridge_grad import down, down_transposed, ridge_grad, ridge_grad_reference

SIZES = [(1, 1), (2, 3), (7, 11), (16, 16), (13, 8)]


@pytest.mark.parametrize("size", SIZES)
def test_down_transposed_is_the_adjoint_and_norm_is_one(size):
    x = torch.randn(2, 1, *size, dtype=torch.float64)
    y = torch.randn_like(down(x))
    assert y.shape[2:] == tuple(-(-s // 2) for s in size)
    torch.testing.assert_close((down(x) * y).sum(), (x * down_transposed(y, *size)).sum())
    assert down(x).norm() <= x.norm() * (1 + 1e-12)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("images", [1, 3])
def test_gradient_is_that_of_the_value(size, channels, images):
    x = torch.randn(3, channels, *size, dtype=torch.float64, requires_grad=True)
    args = ridge_constants(images=images)
    grad, value = ridge_grad_reference(x, *args)
    (exact,) = torch.autograd.grad(value.sum(), x)
    torch.testing.assert_close(grad, exact, rtol=1e-11, atol=1e-12)
    torch.testing.assert_close(ridge_grad(x.detach(), *args)[0], exact, rtol=1e-11, atol=1e-12)


def test_images_do_not_touch_each_other():
    x = torch.randn(4, 1, 9, 10, dtype=torch.float64)
    args = ridge_constants()
    together = ridge_grad(x, *args)
    alone = ridge_grad(x[2:3].clone(), *args)
    torch.testing.assert_close(together[0][2:3], alone[0], rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(together[1][2:3], alone[1], rtol=1e-13, atol=1e-13)


def test_float32_follows_float64():
    x = torch.randn(2, 2, 17, 12, dtype=torch.float64)
    exact, _ = ridge_grad(x, *ridge_constants())
    single, _ = ridge_grad(x.float(), *ridge_constants(dtype=torch.float32))
    assert (single - exact).norm() / exact.norm() < 1e-6  # measured 2e-7


def test_complex_images_meet_the_modulus():
    x = torch.randn(1, 2, 12, 12, dtype=torch.float64)
    angle = torch.tensor(0.7, dtype=torch.float64)
    turned = torch.stack([x[:, 0] * angle.cos() - x[:, 1] * angle.sin(), x[:, 0] * angle.sin() + x[:, 1] * angle.cos()], 1)
    *args, mu = ridge_constants()
    torch.testing.assert_close(ridge_grad(x, *args, 0 * mu)[1], ridge_grad(turned, *args, 0 * mu)[1])


def test_opcheck_and_bad_arguments():
    filters, w, r, q, mu = ridge_constants(dtype=torch.float32)
    x = torch.randn(2, 1, 8, 8)
    torch.library.opcheck(ridge_grad.traced, (x, filters, w, r, q, mu))
    torch.library.opcheck(ridge_grad.traced, (x, filters, w, r, q, mu, False))
    good = {"x": x, "filters": filters, "weights": w, "r": r, "q": q, "mu": mu}
    bad = [("x", x[0]), ("x", x.half()), ("filters", []), ("filters", [f[..., :4] for f in filters]),
           ("filters", [f.double() for f in filters]), ("weights", w[:, 0]), ("weights", w.double()), ("r", r[:, :, :, :1]),
           ("r", r.to("meta")), ("q", q[:1]), ("q", q.double()), ("mu", mu[0]), ("mu", mu.to("meta"))]
    for name, value in bad:
        with pytest.raises(ArgumentError, match=f"^{name}: got"):
            ridge_grad(**good | {name: value})


# (scales, filters, side, potentials): fewer and more filters than a block of six, sides beyond seven taps, odd potentials
BANKS = ((1, 1, 1, 1), (2, 7, 3, 2), (3, 6, 5, 3), (2, 13, 7, 2), (1, 4, 9, 1), (2, 2, 15, 2))
# below, at and over a vector; below and over blocks of eight rows and tiles of 64
SHAPES = ((1, 1), (1, 40), (33, 1), (2, 3), (7, 16), (17, 15), (16, 49), (71, 33), (130, 20), (37, 530))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("channels", [1, 2])
def test_cpu_is_the_reference(isa, shape, channels, guarded):
    n = 3 if shape[0] * shape[1] > 100 else 48  # roundings of a few numbers are luck
    for i, (scales, count, side, potentials) in enumerate(BANKS if n > 3 else BANKS[2:5]):
        args = ridge_constants(scales, count, side, potentials, n if i % 2 else 1, torch.float32)
        x = shifted(torch.randn(n, channels, *shape) * torch.tensor([1.0, 0.01, 30.0]).repeat(n // 3)[:, None, None, None])
        got = ridge_grad(x, *args, backend="cpu")
        check_ridge_grad(x, args, got)
        without = ridge_grad(x, *args, want_value=False, backend="cpu")
        assert torch.equal(got[0], without[0]) and without[1].shape == (0,)
    guarded()


@pytest.mark.gpu
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("channels", [1, 2])
def test_cuda_is_the_reference(shape, channels):
    """Also filters that have no kernel: the next backend's."""
    for i, bank in enumerate(BANKS):
        args = ridge_constants(*bank, 48 if i % 2 else 1, torch.float32)
        x = torch.randn(48, channels, *shape) * torch.tensor([1.0, 0.01, 30.0]).repeat(16)[:, None, None, None]
        filters, *tables = args
        for want_value in (True, False):
            got = ridge_grad(x.cuda(), [f.cuda() for f in filters], *(v.cuda() for v in tables), want_value, "cuda")
            if want_value:
                check_ridge_grad(x, args, [v.cpu() for v in got])
                first = got[0]
        assert torch.equal(first, got[0]) and got[1].shape == (0,)


@pytest.mark.gpu
@pytest.mark.parametrize("shape, channels", [((64, 64), 1), ((256, 320), 1), ((130, 131), 2)])
def test_cuda_has_the_same_bits_alone_and_in_any_batch(shape, channels):
    """Smaller tiles where images are few, several batches where they are many; with the value, and without."""
    x = torch.randn(300 if shape == (256, 320) else 40, channels, *shape, device="cuda")
    filters, *tables = ridge_constants(4, 12, 7, 2, len(x), torch.float32)
    filters, (w, r, q, mu) = [f.cuda() for f in filters], [v.cuda() for v in tables]
    want = ridge_grad(x, filters, w, r, q, mu, backend="cuda")
    assert torch.equal(ridge_grad(x, filters, w, r, q, mu, want_value=False, backend="cuda")[0], want[0])
    for n in (0, 17, len(x) - 1):
        one = [v[:, :, n:n + 1].contiguous() for v in (w, r)]
        for want_value in (True, False):
            alone = ridge_grad(x[n:n + 1], filters, *one, q[:, n:n + 1].contiguous(), mu, want_value, "cuda")
            assert torch.equal(alone[0][0], want[0][n]) and (not want_value or alone[1][0] == want[1][n])


@pytest.mark.parametrize("name, channels", [("natural-ridge", 1), ("brain-ridge", 2)])
def test_cpu_is_the_reference_on_shipped_models(isa, name, channels):
    energy = af.energies.load(name)
    for t in (0.02, 0.5, 40.0):
        x = (0.5 + t) * torch.randn(3, channels, 45, 64)
        args = energy._constants(t, x)
        check_ridge_grad(x, args, ridge_grad(x, *args, backend="cpu"))


def test_cpu_has_the_same_bits_alone_and_on_any_threads(isa, threads):
    for shape in ((5, 3), (71, 40), (200, 70)):
        x = torch.randn(5, 2, *shape)
        for images in (1, 5):
            args = ridge_constants(images=images, dtype=torch.float32)
            threads(1)
            want = ridge_grad(x, *args, backend="cpu")
            for count in (2, 3, 7):
                threads(count)
                assert all(torch.equal(w, g) for w, g in zip(want, ridge_grad(x, *args, backend="cpu"), strict=True))
            filters, w, r, q, mu = args
            for n in range(5):
                one = [v[..., n:n + 1, :] if images > 1 else v for v in (w, r)]
                alone = ridge_grad(x[n:n + 1], filters, *one, q[:, n:n + 1] if images > 1 else q, mu, backend="cpu")
                assert torch.equal(alone[0][0], want[0][n]) and alone[1][0] == want[1][n]


def test_cpu_takes_w_r_and_q_of_each_image_apart(isa):
    x = torch.randn(3, 1, 9, 12)
    filters, *each, mu = ridge_constants(images=3, dtype=torch.float32)
    for i in range(3):
        mixed = [v if j == i else v[:, :, :1] if v.ndim == 4 else v[:, :1] for j, v in enumerate(each)]
        ours, torchs = (ridge_grad(x, filters, *mixed, mu, backend=b) for b in ("cpu", "torch"))
        torch.testing.assert_close(ours, torchs)


def test_cpu_takes_strided_images_and_constants(isa):
    x = torch.randn(3, 12, 9, 2).movedim(-1, 1)
    filters, w, r, q, mu = ridge_constants(dtype=torch.float32)
    want = ridge_grad(x.contiguous(), filters, w, r, q, mu, backend="cpu")
    strided = [f.mT.contiguous().mT for f in filters], w.mT.contiguous().mT, r, q.repeat(1, 2)[:, ::2], mu
    assert all(torch.equal(a, b) for a, b in zip(want, ridge_grad(x, *strided, backend="cpu"), strict=True))


def test_cpu_leaves_float64_and_three_channels_to_the_reference(isa):
    for x in (torch.randn(2, 1, 6, 7, dtype=torch.float64), torch.randn(2, 3, 6, 7)):
        args = ridge_constants(dtype=x.dtype)
        ours, torchs = (ridge_grad(x, *args, backend=b) for b in ("cpu", "torch"))
        assert all(torch.equal(a, b) for a, b in zip(ours, torchs, strict=True))


def test_a_broken_image_stays_alone(isa):
    x, args = torch.randn(4, 1, 20, 21), ridge_constants(dtype=torch.float32)
    want = ridge_grad(x, *args, backend="cpu")
    x[1, 0, 10, 3], x[2, 0, 0, 0] = torch.nan, torch.inf
    for w, g in zip(want, ridge_grad(x, *args, backend="cpu"), strict=True):
        assert torch.equal(w[[0, 3]], g[[0, 3]])
        assert not g[1].isfinite().all() and not g[2].isfinite().all()


def test_responses_that_no_slope_can_move(isa):
    filters, w, r, q, mu = ridge_constants(dtype=torch.float32)
    x = 1e12 * torch.randn(2, 1, 9, 9)
    grad, _ = ridge_grad(x, filters, w, r, q, mu, backend="cpu")
    torch.testing.assert_close(grad, ridge_grad(x, filters, w, r, q, mu, backend="torch")[0])
