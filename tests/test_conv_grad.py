"""conv_grad: ∇E against autograd and finite differences, its Jacobian symmetric, any size, bfloat16 close; the CPU kernel."""

import pytest
import torch
from inputs import NETWORK_LAW, conv_network, single

from alps_fast.cli.info import gather
from alps_fast.energies.compact import CompactNet, edm_coefficients
from alps_fast.errors import ArgumentError
from alps_fast.ops import _pack_once
from alps_fast.ops._conv_weights import FINER, pack_fragments
from alps_fast.ops.conv_grad import CUDA_KERNELS, conv_grad, conv_grad_reference, network, smooth_relu


def test_smooth_relu_derivative():
    z = torch.linspace(-5, 5, 101, dtype=torch.float64, requires_grad=True)
    value, slope = smooth_relu(z)
    h = 1e-6
    torch.testing.assert_close((smooth_relu(z + h)[0] - smooth_relu(z - h)[0]) / (2 * h), slope, rtol=1e-6, atol=1e-6)
    assert value[0] == 0 and slope.min() == 0 and slope.max() == 1


@pytest.mark.parametrize("size", [(8, 8), (1, 1), (7, 13), (16, 9), (24, 16)])
@pytest.mark.parametrize("channels", [1, 2])
def test_gradient_is_that_of_the_value(size, channels):
    weights, scale, shift, coefficients, blocks = conv_network(channels)
    x = torch.randn(3, channels, *size, dtype=torch.float64)
    grad, value = conv_grad(x, weights, scale, shift, coefficients, blocks)
    direction, h = torch.randn_like(x), 1e-5
    high, low = (conv_grad(x + s * h * direction, weights, scale, shift, coefficients, blocks)[1] for s in (1, -1))
    torch.testing.assert_close((high - low) / (2 * h), (grad * direction).flatten(1).sum(1), rtol=1e-6, atol=1e-8)
    psi, _ = network(x, weights, scale, shift, coefficients, blocks)
    torch.testing.assert_close(value, 0.5 * ((x - psi) ** 2).flatten(1).sum(1))


def test_jacobian_is_symmetric():
    weights, scale, shift, coefficients, blocks = conv_network(1)
    x = torch.randn(1, 1, 6, 5, dtype=torch.float64)

    def gradient(v):
        return conv_grad_reference(v.view(1, 1, 6, 5), weights, scale, shift, coefficients, blocks)[0].flatten()

    j = torch.func.jacrev(gradient)(x.flatten())
    torch.testing.assert_close(j, j.T, rtol=1e-6, atol=1e-6)  # torch's hardsigmoid derivative holds 1/6 in float32


@pytest.mark.parametrize("shape", [(0, 2, 7, 13), (3, 2, 0, 8)])
def test_nothing_has_no_gradient(shape):
    grad, value = conv_grad(torch.zeros(shape), *single(conv_network()))
    assert grad.shape == shape and value.tolist() == [0.0] * len(value) and len(value) == shape[0]


def test_one_level_an_image_and_images_apart():
    weights, *_, blocks = conv_network()
    net = CompactNet(2, 8, tuple(blocks)).double()
    t = torch.tensor([0.1, 2.0], dtype=torch.float64)
    with torch.no_grad():
        scale, shift = net.film_vectors(t)
    coefficients = edm_coefficients(t, 0.5)
    x = torch.randn(2, 2, 8, 8, dtype=torch.float64)
    together = conv_grad(x, weights, scale, shift, coefficients, blocks)[0]
    for i in range(2):
        one = slice(i, i + 1)
        alone = conv_grad(x[one], weights, scale[:, one], shift[:, one], coefficients[:, one], blocks)[0]
        torch.testing.assert_close(together[one], alone, rtol=1e-12, atol=1e-12)


def test_float32_and_bfloat16_follow_float64():
    args = conv_network()
    x = torch.randn(2, 2, 16, 16, dtype=torch.float64)
    exact = conv_grad(x, *args)[0]
    weights, *vectors = ([w.float() for w in args[0]], *(v.float() for v in args[1:4]))
    for precision, law in (("high", 2e-6), ("fast", 2e-2)):  # measured 3e-7, 5e-3
        grad = conv_grad(x.float(), weights, *vectors, args[4], precision)[0]
        assert grad.dtype == torch.float32
        assert (grad - exact).norm() / exact.norm() < law


def test_opcheck_and_bad_arguments():
    weights, scale, shift, coefficients, blocks = conv_network(dtype=torch.float32)
    x = torch.randn(1, 2, 8, 8)
    torch.library.opcheck(conv_grad.traced, (x, weights, scale, shift, coefficients, blocks))
    good = {"x": x, "weights": weights, "scale": scale, "shift": shift, "coefficients": coefficients, "blocks": blocks}
    bad = [("x", x[0]), ("x", x.half()), ("weights", weights[:-1]), ("weights", [*weights[:-1], weights[-1].double()]),
           ("weights", [weights[0].to("meta"), *weights[1:]]), ("weights", [weights[0][..., :2], *weights[1:]]),
           ("scale", scale[:1]), ("scale", scale.double()), ("shift", shift[..., 1:]), ("shift", shift.double()),
           ("coefficients", coefficients[:2]), ("coefficients", coefficients.to("meta")), ("blocks", blocks[:2]),
           ("precision", "low")]
    for name, value in bad:
        with pytest.raises(ArgumentError, match=f"^{name}: got"):
            conv_grad(**good | {name: value})


@pytest.mark.parametrize("precision", ["high", "fast"])
@pytest.mark.parametrize("channels, width, blocks", [(1, 64, (1, 1, 1)), (2, 32, (2, 1, 0)), (4, 32, (0, 0, 2))])
@pytest.mark.parametrize("size", [(1, 1), (8, 8), (7, 13), (40, 3), (17, 38)])
def test_kernel_follows_the_definition(isa, guarded, size, channels, width, blocks, precision):
    args = conv_network(channels, width, blocks)
    x = torch.randn(3, channels, *size, dtype=torch.float64)
    exact, value = conv_grad_reference(x, *args)
    grad, energy = conv_grad(x.float(), *single(args), precision, "cpu")
    guarded()
    assert (grad - exact).norm() / exact.norm() < NETWORK_LAW[precision]
    torch.testing.assert_close(energy.double(), value, rtol=NETWORK_LAW[precision], atol=0)


@pytest.mark.parametrize("precision", ["high", "fast"])
def test_kernel_gives_an_image_the_same_bits_in_any_batch_and_on_any_threads(isa, threads, precision):
    args = single(conv_network(2, 64, (1, 1, 1)))
    x = torch.randn(5, 2, 26, 19)
    threads(1)
    together = conv_grad(x, *args, precision, "cpu")
    for count in (1, 2, 3):
        threads(count)
        for rows in (slice(0, 5), slice(3, 4), slice(1, 3)):
            grad, value = conv_grad(x[rows], *args, precision, "cpu")
            assert torch.equal(grad, together[0][rows]) and torch.equal(value, together[1][rows])


def test_forced_isa_is_the_one_in_use(isa):
    from alps_fast import _cpu

    assert _cpu.isa() == isa and isa in _cpu.isas()


def test_info_says_what_fast_multiplies_with(isa):
    args = single(conv_network(1, 32, (1, 1, 1)))
    x = torch.randn(1, 1, 16, 16)
    fast, high = (conv_grad(x, *args, precision, "cpu")[0] for precision in ("fast", "high"))
    said = gather()["machine"]["fast"]
    assert said == {"amx": "bfloat16 (AMX)", "avx512bf16": "bfloat16 (AVX512_BF16)"}.get(isa, "float32")
    assert torch.equal(fast, high) == (said == "float32")


def test_kernel_takes_a_level_an_image(isa):
    weights, *_, blocks = conv_network(1, 32, (1, 1, 1))
    net = CompactNet(1, 32, tuple(blocks)).double()
    t = torch.tensor([0.1, 2.0, 0.5], dtype=torch.float64)
    with torch.no_grad():
        args = weights, *net.film_vectors(t), edm_coefficients(t, 0.5), blocks
    x = torch.randn(3, 1, 9, 8, dtype=torch.float64)
    exact = conv_grad_reference(x, *args)[0]
    grad = conv_grad(x.float(), *single(args), "high", "cpu")[0]
    for i in range(3):
        assert (grad[i] - exact[i]).norm() / exact[i].norm() < NETWORK_LAW["high"]


def test_kernel_sees_that_weights_changed(isa):
    weights, *rest = single(conv_network(1, 32, (1, 0, 0)))
    x = torch.randn(1, 1, 8, 8)
    before = conv_grad(x, weights, *rest, backend="cpu")[0]
    weights[0] *= 1.5
    after = conv_grad(x, weights, *rest, backend="cpu")[0]
    assert not torch.equal(before, after)
    torch.testing.assert_close(after, conv_grad(x, weights, *rest, backend="torch")[0], rtol=1e-4, atol=1e-5)
    with _pack_once.held() as held:
        for _ in range(_pack_once.MOST + 1):
            conv_grad(x, [w.clone() for w in weights], *rest, backend="cpu")
    assert len(_pack_once._packed) == _pack_once.MOST and len({id(packed) for packed in held}) == _pack_once.MOST + 1


def test_kernel_leaves_nan_in_its_own_image(isa):
    args = single(conv_network(1, 32, (1, 0, 0)))
    x = torch.randn(3, 1, 16, 16)
    clean = conv_grad(x, *args, backend="cpu")[0]
    x[1, 0, 8, 8] = torch.nan
    for precision in ("high", "fast"):
        grad, value = conv_grad(x, *args, precision, "cpu")
        assert grad[1].isnan().any() and value[1].isnan() and grad[[0, 2]].isfinite().all()
    assert torch.equal(conv_grad(x, *args, backend="cpu")[0][[0, 2]], clean[[0, 2]])


@pytest.mark.parametrize("channels, width, dtype", [(1, 16, torch.float32), (5, 32, torch.float32), (1, 32, torch.float64)])
def test_what_the_kernel_has_not_goes_to_the_definition(channels, width, dtype):
    args = conv_network(channels, width, (1, 1, 1), dtype)
    x = torch.randn(2, channels, 8, 8, dtype=dtype)
    assert torch.equal(conv_grad(x, *args, backend="cpu")[0], conv_grad(x, *args, backend="torch")[0])


SIZES_ON_A_GPU = [(1, 1), (7, 13), (136, 5), (64, 64), (200, 150)]


def test_weights_in_two_pieces_have_twenty_two_bits():
    """Of a convolution the first pieces of all its weights, then the second; below 2^-14 in units of 2^-36."""
    weights, *_, blocks = single(conv_network(1, 64, (0, 0, 1)))
    weights[0] *= torch.logspace(-8, 3, 64)[:, None, None, None]
    first = 9 * 16 * 64  # numbers of the first convolution, zeros after its channels
    high, low = pack_fragments(weights, blocks, "warpgroups", False).weights[:2 * first].double().unflatten(0, (2, -1))
    want = torch.cat([weights[0].double().flatten(), torch.zeros(first - weights[0].numel())]).sort().values
    got = (high + low / FINER).sort().values
    assert ((got - want).abs() <= torch.maximum(2.0**-23 * want.abs(), torch.tensor(2.0**-36))).all()


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["high", "fast"])
@pytest.mark.parametrize("channels, width, blocks", [(1, 64, (3, 3, 4)), (2, 32, (2, 1, 0)), (4, 64, (1, 0, 2))])
@pytest.mark.parametrize("size", SIZES_ON_A_GPU)
def test_on_a_gpu(size, channels, width, blocks, precision):
    """What the CUDA kernels have, and what they have not, which is the next backend's; alone and in a batch."""
    args = conv_network(channels, width, blocks)
    x = torch.randn(3, channels, *size, dtype=torch.float64)
    check_on_a_gpu(x, args, conv_grad_reference(x, *args), precision)


def check_on_a_gpu(x, args, exact, precision):
    weights, *vectors, blocks = single(args)
    here = [w.cuda() for w in weights], *(v.cuda() for v in vectors), blocks
    got = conv_grad(x.float().cuda(), *here, precision, "cuda")
    for g, e in zip(got, exact, strict=True):
        assert (g.cpu() - e).norm() / e.norm() < NETWORK_LAW[precision]
    alone = conv_grad(x[1:2].float().cuda(), *here, precision, "cuda")
    assert all(torch.equal(a, g[1:2]) for a, g in zip(alone, got, strict=True))


def kernels_here(monkeypatch):
    """The CUDA kernels that the current device runs, each forced in turn: the precisions that it has."""
    from alps_fast import _cuda

    for kernel in CUDA_KERNELS if _cuda.conv_has_warpgroups() else CUDA_KERNELS[:1]:
        monkeypatch.setenv("ALPS_FAST_CONV_GRAD", kernel)
        yield from ("fast", "high") if kernel == "warpgroups" else ("fast",)


@pytest.mark.gpu
@pytest.mark.parametrize("size", SIZES_ON_A_GPU)
def test_each_cuda_kernel_on_a_gpu(monkeypatch, size):
    args = conv_network(3, 64, (1, 1, 1))
    x = torch.randn(3, 3, *size, dtype=torch.float64)
    exact = conv_grad_reference(x, *args)
    for precision in kernels_here(monkeypatch):
        check_on_a_gpu(x, args, exact, precision)


@pytest.mark.gpu
def test_on_a_gpu_more_images_than_are_taken_at_once(monkeypatch):
    """An image has the bits that it has alone, with a level an image."""
    weights, scale, shift, coefficients, blocks = single(conv_network(1, 64, (1, 1, 1)))
    x = torch.randn(300, 1, 128, 128, device="cuda")
    each = torch.linspace(0.5, 1.5, len(x))
    here = [(each[:, None] * v).cuda() for v in (scale, shift)]
    weights, coefficients = [w.cuda() for w in weights], (each * coefficients).cuda()
    for precision in kernels_here(monkeypatch):
        got = conv_grad(x, weights, *here, coefficients, blocks, precision, "cuda")
        for i in (0, 151, 299):
            one = [v[:, i:i + 1] for v in here]
            alone = conv_grad(x[i:i + 1], weights, *one, coefficients[:, i:i + 1], blocks, precision, "cuda")
            assert all(torch.equal(a, g[i:i + 1]) for a, g in zip(alone, got, strict=True))
