"""Adapters, each against the other library itself; skipped where it is not installed."""

import copy
from types import SimpleNamespace

import pytest
import torch

import alps_fast as af
from alps_fast.integrations import from_diffusers

diffusers = pytest.importorskip("diffusers")


def unet(**options):
    torch.manual_seed(0)
    return diffusers.UNet2DModel(**{
        "sample_size": 16, "in_channels": 3, "out_channels": 3, "layers_per_block": 1, "block_out_channels": (32, 32),
        "down_block_types": ("DownBlock2D", "AttnDownBlock2D"), "up_block_types": ("AttnUpBlock2D", "UpBlock2D")} | options)


@pytest.mark.parametrize("kind", ["epsilon", "sample", "v_prediction"])
@pytest.mark.parametrize("k", [10, 400, 990])
def test_a_schedulers_denoised_image_is_ours(kind, k):
    """x₀ as its own step predicts it at a timestep, from the network's weights as they happen to be."""
    model = unet()
    scheduler = diffusers.DDPMScheduler(prediction_type=kind, clip_sample=False)
    prior = from_diffusers(model, scheduler, probe=False)
    alpha = scheduler.alphas_cumprod[k].double()
    t = float((1 / alpha - 1).sqrt())
    x = torch.randn(2, 3, 16, 16) * (1 + t * t) ** 0.5
    sample = (alpha.sqrt() * x).float()
    with torch.no_grad():
        wanted = scheduler.step(model.eval()(sample, k).sample, k, sample).pred_original_sample
    torch.testing.assert_close(x - prior.grad(x, t), wanted, rtol=1e-3, atol=1e-3 * float(wanted.abs().max()))


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("sigma", [0.01, 1.0, 50.0])
def test_edm_preconditioning_is_the_schedulers(kind, sigma):
    model = unet()
    scheduler = diffusers.EDMEulerScheduler(prediction_type=kind)
    x = sigma * torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        out = model.eval()(scheduler.precondition_inputs(x, sigma), scheduler.precondition_noise(sigma)).sample
        wanted = scheduler.precondition_outputs(x, out, sigma)
    prior = from_diffusers(model, scheduler, probe=False)
    torch.testing.assert_close(x - prior.grad(x, sigma), wanted, rtol=1e-4, atol=1e-4)
    with pytest.raises(af.ArgumentError, match=r"^t: got 100; wanted a level in \[0.002, 80\]"):
        prior.grad(x, 100.0)


def test_scores_of_images_in_unit_range():
    """ScoreSdeVe's networks give the score of [0, 1] at sigma; ours is that of [−1, 1] at twice sigma."""
    model, scheduler = unet(), diffusers.ScoreSdeVeScheduler()
    x, t = torch.randn(2, 3, 16, 16), 0.8
    with torch.no_grad():
        u = (x + 1) / 2
        wanted = 2 * (u + (t / 2) ** 2 * model.eval()(u, torch.full((2,), t / 2)).sample) - 1
    torch.testing.assert_close(x - from_diffusers(model, scheduler, probe=False).grad(x, t), wanted, rtol=1e-4, atol=1e-4)


def test_pipelines_classes_and_half_precision():
    model, scheduler = unet(num_class_embeds=10), diffusers.DDPMScheduler()
    with pytest.raises(af.ArgumentError, match="^arguments: got None; wanted class_labels, one of the model's 10"):
        from_diffusers(model, scheduler)
    x, grads = torch.randn(2, 3, 16, 16), []
    for label in (3, 4):
        prior = from_diffusers(model, scheduler, arguments={"class_labels": torch.tensor(label)}, probe=False)
        grads.append(prior.grad(x, 0.7))
    assert not torch.equal(*grads)
    pipe = diffusers.DDPMPipeline(unet(), scheduler)
    whole = from_diffusers(pipe, probe=False).grad(x, 0.7)
    half = from_diffusers(copy.deepcopy(pipe.unet).to(torch.bfloat16), scheduler, probe=False).grad(x, 0.7)
    assert half.dtype == torch.float32 and 0 < float((half - whole).norm() / whole.norm()) < 0.05


def test_a_diffusers_model_samples_and_is_left_in_training():
    model = unet(in_channels=1, out_channels=1, block_out_channels=(32, 64)).train()
    op = af.operators.Denoising(0.1)
    prior = from_diffusers(model, diffusers.DDPMScheduler(), probe=False)
    post = af.sample(torch.zeros(1, 16, 16), op, prior, chains=2, schedule=af.Schedule(2.0, 0.1, 2, 1), progress=False)
    assert post.samples.isfinite().all() and model.training and all(p.requires_grad for p in model.parameters())


def test_an_untrained_model_is_told():
    with pytest.raises(af.ArgumentError, match="^denoiser: at t = 20, given noise alone, its D is"):
        from_diffusers(unet(), diffusers.DDPMScheduler()).grad(torch.zeros(1, 3, 16, 16), 1.0)


def test_what_is_not_of_pixels_or_not_known_is_refused():
    scheduler = diffusers.DDPMScheduler()
    latent, codes = SimpleNamespace(vae=object(), unet=unet(), scheduler=scheduler), unet(in_channels=4, out_channels=4)
    for build, sentence in [
        (lambda: from_diffusers(latent), "^model: got a SimpleNamespace with a vae; wanted one of pixels"),
        (lambda: from_diffusers(codes, scheduler), "^model: got a UNet2DModel of 4 channels; wanted"),
        (lambda: from_diffusers(unet(), diffusers.FlowMatchEulerDiscreteScheduler()), "^scheduler: got a FlowMatchEuler"),
        (lambda: from_diffusers(unet()), "^scheduler: got NoneType"),
        (lambda: from_diffusers(torch.nn.Conv2d(1, 1, 1), scheduler), "^model: got Conv2d"),
        (lambda: from_diffusers(unet(), scheduler, channels=1), "^channels: got 1; wanted the model's 3"),
    ]:
        with pytest.raises(af.ArgumentError, match=sentence):
            build()
    assert from_diffusers(codes, scheduler, channels=4).channels == 4
