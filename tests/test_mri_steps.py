"""What is done to k-space before sampling: noise, field of view, echo, coils, maps, and slices of volumes."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from alps_fast import data
from alps_fast.errors import ArgumentError
from alps_fast.io.kspace import KSpace
from alps_fast.mri import (
    compress_coils,
    estimate_maps,
    hybrid_slices,
    noise_covariance,
    normalise_maps,
    prepare,
    prewhiten,
    recentre,
    remove_oversampling,
)
from alps_fast.operators import CartesianMRI
from alps_fast.operators.sense import centred_fft, centred_ifft

COILS, H, W = 4, 40, 32
G = torch.Generator().manual_seed(0)


def randn(*shape: int) -> Tensor:
    return torch.complex(*torch.randn(2, *shape, generator=G, dtype=torch.float64))


def scan(mask: Tensor | None = None, maps: Tensor | None = None) -> KSpace:
    """k-space of a piece of the brain, without noise."""
    maps = data.coil_maps(COILS, H, W) if maps is None else maps
    mask = torch.ones(H, W) if mask is None else mask
    parts = torch.view_as_real(data.brain()).movedim(-1, 1)
    image = torch.nn.functional.interpolate(parts, size=(H, W), mode="area").movedim(1, -1)
    return KSpace(CartesianMRI(mask, maps, noise_std=1.0).forward(torch.view_as_complex(image.contiguous())), maps, mask)


def test_whitened_noise_is_white_and_the_image_stays() -> None:
    mixing = randn(COILS, COILS) * torch.tensor([0.1, 1.0, 3.0, 0.5])[:, None]
    noise = (mixing @ randn(COILS, 8000)).to(torch.complex64)
    found = scan()
    done = prewhiten(found, noise=noise[:, :4000])
    assert done.noise_std == 1.0 and "noise_std was" in done.words
    # other noise of the same law, whitened by what the first tells: Ψ̂ has a relative error of √(coils/n), so has this
    others = found._replace(kspace=noise[:, 4000:].reshape(COILS, 40, 100), maps=None)
    left = noise_covariance(prewhiten(others, noise=noise[:, :4000]).data.kspace)
    torch.testing.assert_close(left, torch.eye(COILS, dtype=torch.complex128), rtol=0, atol=6 / math.sqrt(4000))
    assert done.data.maps is not None and found.maps is not None
    image = centred_ifft(found.kspace)[0] / found.maps[0]
    torch.testing.assert_close(centred_fft(done.data.maps * image), done.data.kspace, rtol=1e-4, atol=1e-4)


def test_noise_of_each_coil_is_a_diagonal_covariance() -> None:
    variances = torch.tensor([1.0, 4.0, 0.25, 9.0])
    found = scan()
    done = prewhiten(found, covariance=variances)
    torch.testing.assert_close(done.data.kspace, found.kspace / variances.sqrt()[:, None, None])
    assert "0.5 to 3" in done.words


@pytest.mark.parametrize(("given", "message"), [
    ({}, "noise and covariance: got both or neither"),
    ({"noise": torch.zeros(COILS, 100, dtype=torch.complex64)}, "noise: got one without noise in some direction"),
    ({"noise": torch.ones(COILS, 3, dtype=torch.complex64)}, "noise: got 3 samples of 4 coils"),
    ({"covariance": torch.ones(COILS, COILS).triu()}, "covariance: got other than its conjugate transpose"),
    ({"covariance": torch.ones(3)}, "covariance: got shape"),
])
def test_noise_that_whitens_nothing_is_refused(given: dict[str, Tensor], message: str) -> None:
    with pytest.raises(ArgumentError, match=f"^{message}"):
        prewhiten(scan(), **given)


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("to", [20, 21])
def test_a_readout_without_oversampling_is_the_middle_of_the_image(axis: int, to: int) -> None:
    mask = torch.ones(H, W) * (torch.arange(W) % 2 == 0 if axis == 0 else (torch.arange(H) % 2 == 0)[:, None])
    found = scan(mask)
    done = remove_oversampling(found, to)
    first = (H, W)[axis] // 2 - to // 2
    torch.testing.assert_close(centred_ifft(done.data.kspace), centred_ifft(found.kspace).narrow(axis + 1, first, to),
                               rtol=1e-5, atol=1e-6)
    assert done.data.mask.shape == done.data.kspace.shape[1:] and f"axis {axis}" in done.words
    noise = found._replace(kspace=randn(COILS, H, W).to(torch.complex64))
    left = remove_oversampling(noise, to, axis).data.kspace
    assert float(left.abs().square().mean()) == pytest.approx(2.0, abs=5 * 2 / math.sqrt(left.numel()))
    with pytest.raises(ArgumentError, match="^mask: got one that varies along the readout"):
        remove_oversampling(found, to, 1 - axis)


def test_an_echo_beside_the_middle_is_brought_there_and_its_mask_with_it() -> None:
    found = scan((torch.rand(H, W, generator=G) < 0.5).float().index_fill(1, torch.arange(10, 22), 1))
    assert recentre(found).data is found
    aside = found._replace(kspace=found.kspace.roll((-3, 8), (1, 2)), mask=found.mask.roll((-3, 8), (0, 1)))
    done = recentre(aside)
    assert "(-3, +8) samples" in done.words
    kept = torch.zeros(H, W, dtype=torch.bool)
    kept[3:, :W - 8] = True  # what the roll did not carry around
    torch.testing.assert_close(done.data.kspace, found.kspace * kept, rtol=0, atol=0)
    torch.testing.assert_close(done.data.mask, found.mask * kept, rtol=0, atol=0)
    assert recentre(done.data).data is done.data


def test_fewer_coils_have_the_energy_that_was_asked_for() -> None:
    found = scan(maps=torch.cat([data.coil_maps(COILS, H, W)] * 3) / math.sqrt(3))
    done = compress_coils(found, energy=0.999)
    assert len(done.data.kspace) <= COILS and done.data.maps is not None  # twelve coils, of which no more differ
    energy = [float(v.abs().double().square().sum()) for v in (done.data.kspace, found.kspace)]
    assert energy[0] >= 0.999 * energy[1]
    fewer = compress_coils(found, energy=energy[0] / energy[1] - 1e-3, coils=None).data.kspace
    assert len(fewer) <= len(done.data.kspace)
    operator = CartesianMRI(done.data.mask, done.data.maps, noise_std=1.0)
    image = centred_ifft(found.kspace)[0] / found.maps[0]  # type: ignore[index]
    torch.testing.assert_close(operator.forward(image[None]), done.data.kspace, rtol=1e-4, atol=1e-4)
    assert len(compress_coils(found, coils=2).data.kspace) == 2
    with pytest.raises(ArgumentError, match="^kspace: got all zero"):
        compress_coils(found._replace(kspace=torch.zeros_like(found.kspace)))


def test_maps_are_those_that_sigpy_finds_on_the_whole_grid() -> None:
    app = pytest.importorskip("sigpy.mri.app")
    found = scan()._replace(maps=None)
    done = estimate_maps(found, kernel=5, calibration=16)
    maps = done.data.maps
    assert maps is not None and "16 x 16" in done.words
    wanted = torch.from_numpy(app.EspiritCalib(found.kspace.numpy(), 16, kernel_width=5, show_pbar=False, max_iter=300).run())
    body = torch.nn.functional.interpolate(data.brain().abs()[None], size=(H, W), mode="area")[0, 0] > 0.2
    both = body & (maps != 0).any(0) & (wanted != 0).any(0)  # elsewhere eigenvalues are near each other
    assert int(both.sum()) > 0.9 * int(body.sum()) > 200
    torch.testing.assert_close(maps * both, wanted * both, rtol=0, atol=1e-3)  # power iterations stop
    two = estimate_maps(found, sets=2, kernel=5, calibration=16).data.maps
    assert two is not None and two.shape == (2, COILS, H, W)
    torch.testing.assert_close(two[0], maps)


def test_two_sets_are_there_where_the_body_is_larger_than_the_image() -> None:
    pytest.importorskip("sigpy")
    maps, wide = data.coil_maps(8, 48, 64), scan().maps
    assert wide is not None
    image = torch.zeros(48, 64, dtype=torch.complex64)
    image[8:40, 8:56] = 1 + 0.3 * randn(32, 48).to(torch.complex64)
    folded = maps * image
    folded = folded[..., :16].clone(), folded[..., 16:48], folded[..., 48:].clone()
    seen = folded[1] + torch.cat([folded[2], folded[0]], -1)
    done = estimate_maps(KSpace(centred_fft(seen), None, torch.ones(48, 32)), sets=2, calibration=24)
    second = done.data.maps[1].abs().sum(0) > 0  # type: ignore[index]
    inside, twice = slice(12, 36), [*range(8), *range(24, 32)]
    assert float(second[inside][:, twice].float().mean()) > 0.9 > 0.2 > float(second[:8].float().mean())


def test_maps_need_a_middle_and_are_left_where_they_are_given() -> None:
    found = scan((torch.arange(W) % 2 == 0).float().expand(H, W))
    assert estimate_maps(found).data is found
    with pytest.raises(ArgumentError, match="^mask: got 1 x 1 samples around the middle"):
        estimate_maps(found._replace(maps=None))
    assert estimate_maps(KSpace(found.kspace[:1], None, found.mask)).words == "maps: none, of one coil"


def test_maps_are_normalised_over_coils() -> None:
    found = scan()
    assert found.maps is not None
    weight = 1 + torch.rand(H, W, generator=G)
    maps = normalise_maps(found._replace(maps=found.maps * weight)).data.maps
    torch.testing.assert_close(maps, found.maps, rtol=1e-5, atol=1e-6)
    assert normalise_maps(found).data is found


def test_a_pipeline_tells_its_steps_and_takes_others() -> None:
    pytest.importorskip("sigpy")
    found, noise = scan()._replace(maps=None), randn(COILS, 400).to(torch.complex64)
    whole = prepare(found, noise=0.1 * noise)
    assert [w.split(" ")[0] for w in whole.words] == ["prewhitened", "echo", "coils:", "maps:", "maps:"]
    assert whole.noise_std == 1.0
    assert whole.data.maps is not None
    only = prepare(found, steps=[lambda k: compress_coils(k, coils=2)])
    assert only.noise_std is None and len(only.words) == 1 and len(only.data.kspace) == 2


@pytest.mark.parametrize("readout", [0, 1, 2])
def test_slices_of_a_volume_are_images_of_their_own(readout: int) -> None:
    volume = randn(2, 6, 5, 8).to(torch.complex64)
    kspace = torch.stack([torch.fft.fftshift(torch.fft.fftn(torch.fft.ifftshift(v), norm="ortho")) for v in volume])
    sizes = [n for k, n in enumerate(volume.shape[1:]) if k != readout]
    mask = torch.rand(*sizes, generator=G) < 0.7
    slices = list(hybrid_slices(kspace, mask, volume, readout=readout))
    assert len(slices) == volume.shape[1 + readout]
    for x, found in enumerate(slices):
        torch.testing.assert_close(found.kspace, centred_fft(volume.movedim(readout + 1, 1)[:, x]) * mask, rtol=1e-5, atol=1e-5)
        assert torch.equal(found.mask, mask.float()) and found.maps is not None
        assert torch.equal(found.maps, volume.movedim(readout + 1, 1)[:, x])


def test_masks_may_differ_along_a_readout_in_image_space_alone() -> None:
    kspace, masks = randn(2, 3, 4, 5), torch.rand(3, 4, 5, generator=G) < 0.5
    masks[:, 0, 0] = True
    for x, found in enumerate(hybrid_slices(kspace, masks, transformed=True)):
        assert torch.equal(found.mask, masks[x].float()) and torch.equal(found.kspace, kspace[:, x] * masks[x])
    with pytest.raises(ArgumentError, match="^mask: got one that varies along the readout, axis 0"):
        hybrid_slices(kspace, masks)
