"""ridge_grad and ridge_langevin: the gradient is that of the value, the steps are the composition."""

import inspect

import pytest
import torch

from alps_fast.errors import ArgumentError
from alps_fast.ops.langevin_pixel import langevin_pixel
from alps_fast.ops.philox_normal import AVERAGED, NO_NOISE
from alps_fast.ops.ridge_grad import down, down_transposed, ridge_grad, ridge_grad_reference
from alps_fast.ops.ridge_langevin import ridge_langevin


def constants(scales=3, count=4, side=5, potentials=2, images=1, dtype=torch.float64):
    g = torch.Generator().manual_seed(3)
    filters = [torch.randn(count, 1, side, side, generator=g, dtype=torch.float64) / side for _ in range(scales)]
    filters = [(f - f.mean((-2, -1), keepdim=True)).to(dtype) for f in filters]
    w = torch.randn(scales, potentials, images, count, generator=g, dtype=torch.float64)
    r = torch.rand(scales, potentials, images, count, generator=g, dtype=torch.float64) + 0.2
    q = torch.rand(scales + 2, images, generator=g, dtype=torch.float64)
    return filters, w.to(dtype), r.to(dtype), q.to(dtype), torch.tensor([0.1], dtype=dtype)


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
    args = constants(images=images)
    grad, value = ridge_grad_reference(x, *args)
    (exact,) = torch.autograd.grad(value.sum(), x)
    torch.testing.assert_close(grad, exact, rtol=1e-11, atol=1e-12)
    torch.testing.assert_close(ridge_grad(x.detach(), *args)[0], exact, rtol=1e-11, atol=1e-12)


def test_images_do_not_touch_each_other():
    x = torch.randn(4, 1, 9, 10, dtype=torch.float64)
    args = constants()
    together = ridge_grad(x, *args)
    alone = ridge_grad(x[2:3].clone(), *args)
    torch.testing.assert_close(together[0][2:3], alone[0], rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(together[1][2:3], alone[1], rtol=1e-13, atol=1e-13)


def test_float32_follows_float64():
    x = torch.randn(2, 2, 17, 12, dtype=torch.float64)
    exact, _ = ridge_grad(x, *constants())
    single, _ = ridge_grad(x.float(), *constants(dtype=torch.float32))
    assert (single - exact).norm() / exact.norm() < 1e-6  # measured 2e-7


def test_complex_images_meet_the_modulus():
    x = torch.randn(1, 2, 12, 12, dtype=torch.float64)
    angle = torch.tensor(0.7, dtype=torch.float64)
    turned = torch.stack([x[:, 0] * angle.cos() - x[:, 1] * angle.sin(), x[:, 0] * angle.sin() + x[:, 1] * angle.cos()], 1)
    *args, mu = constants()
    torch.testing.assert_close(ridge_grad(x, *args, 0 * mu)[1], ridge_grad(turned, *args, 0 * mu)[1])


def test_opcheck_and_bad_arguments():
    filters, w, r, q, mu = constants(dtype=torch.float32)
    x = torch.randn(2, 1, 8, 8)
    torch.library.opcheck(ridge_grad.traced, (x, filters, w, r, q, mu))
    good = {"x": x, "filters": filters, "w": w, "r": r, "q": q, "mu": mu}
    bad = [("x", x[0]), ("x", x.half()), ("filters", []), ("filters", [f[..., :4] for f in filters]),
           ("filters", [f.double() for f in filters]), ("w", w[:, 0]), ("w", w.double()), ("r", r[:, :, :, :1]),
           ("r", r.to("meta")), ("q", q[:1]), ("q", q.double()), ("mu", mu[0]), ("mu", mu.to("meta"))]
    for name, value in bad:
        with pytest.raises(ArgumentError, match=f"^{name}: got"):
            ridge_grad(**good | {name: value})


@pytest.mark.parametrize("noise", [NO_NOISE, AVERAGED])
@pytest.mark.parametrize("channels, groups", [(1, 3), (2, 1)])
def test_ridge_langevin_is_the_composition(noise, channels, groups):
    filters, w, r, q, mu = constants(dtype=torch.float32)
    x, b = torch.randn(2, 9, 7, channels * groups), torch.randn(1, 9, 7, channels * groups)
    a, chains = torch.rand(1, 9, 7, 1), torch.tensor([0, 5])
    scalars = {"lam": 2.0, "lin": 1.5, "w": 1.0, "inv_eta2": 4.0, "noise_lam": 2.0, "noise": noise, "seed": 9}
    out, mean = ridge_langevin(x, b, a, chains, filters, w, r, q, mu, channels, step=4, count=3, **scalars)
    for k in range(3):
        images = x.movedim(-1, 1).reshape(-1, channels, 9, 7)
        grad = ridge_grad(images, filters, w, r, q, mu)[0].reshape(2, -1, 9, 7).movedim(1, -1).contiguous()
        x, m = langevin_pixel(x, grad, b, a, chains, step=4 + k, **scalars)
    torch.testing.assert_close(out, x, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(mean, m, rtol=1e-5, atol=1e-5)


def test_ridge_langevin_opcheck_given_noise_and_bad_arguments():
    filters, w, r, q, mu = constants(dtype=torch.float32)
    x, a, chains = torch.randn(2, 6, 6, 1), torch.ones(1, 6, 6, 1), torch.arange(2)
    args = (x, x.clone(), a, chains, filters, w, r, q, mu, 1, 2.0, 1.0, 1.0, 1.0, 2.0, AVERAGED, 0, 0, 2)
    torch.library.opcheck(ridge_langevin.traced, args)
    still = ridge_langevin(*args[:-4], NO_NOISE, 0, 0, 2)[0]
    torch.testing.assert_close(ridge_langevin(*args, xi=torch.zeros(2, *x.shape))[0], still)
    good = dict(zip(inspect.signature(ridge_langevin).parameters, args, strict=False))
    bad = [("count", 0), ("xi", torch.zeros(1, *x.shape)), ("channels", 2), ("channels", 0), ("b", x.double()), ("b", x[:, 1:]),
           ("a", a.double()), ("a", a[:, 1:]), ("filters", [f.double() for f in filters]), ("weights", w.double()),
           ("weights", w.expand(-1, -1, 2, -1)), ("r", r[:1]), ("q", q.to("meta")), ("mu", mu.double()), ("step", 2**32 - 2)]
    for name, value in bad:
        with pytest.raises(ArgumentError, match=f"^{name}: got"):
            ridge_langevin(**good | {name: value})
