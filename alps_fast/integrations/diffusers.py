"""Pixel-space diffusion models of Hugging Face's diffusers as priors; what is asked of them is a model's call and its config."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from ..energies.diffusion import DiffusionPrior
from ..errors import check, refused

PREDICTS = {"epsilon": "noise", "sample": "image", "v_prediction": "velocity"}
LATENT = ("vae", "vqvae", "movq")  # a pipeline's autoencoder, by its names
KNOWN = "a scheduler with alphas_cumprod, such as DDPMScheduler, an EDM scheduler, or ScoreSdeVeScheduler"


def from_diffusers(model: Any, scheduler: Any = None, **options: Any) -> DiffusionPrior:
    """The `DiffusionPrior` of a diffusers model and the scheduler that it was trained with.

    epsilon-, sample- and v-prediction by the scheduler's `alphas_cumprod`; EDM schedulers by their own preconditioning;
    ScoreSdeVeScheduler as scores of images in [0, 1]. Images are in [−1, 1].

    Args:
        model: a `UNet2DModel`, or any of diffusers called as model(sample, timestep), or a pipeline with `unet` and `scheduler`.
        scheduler: needed with a model; with a pipeline its own.
        options: of `DiffusionPrior`; channels are the model's `in_channels`, and where classes are embedded
            arguments={"class_labels": torch.tensor(3)} says which.

    Raises:
        ArgumentError: naming the argument; model, where it works on the latent code of an autoencoder.
    """
    latent = next((name for name in LATENT if getattr(model, name, None) is not None), None)
    check(latent is None, "model", f"a {type(model).__name__} with a {latent}",
          "one of pixels: a latent model's levels are those of a code, not of images")
    unet, scheduler = getattr(model, "unet", model), getattr(model, "scheduler", None) if scheduler is None else scheduler
    check(isinstance(unet, nn.Module) and hasattr(unet, "config") and hasattr(unet.config, "in_channels"), "model",
          type(unet).__name__, "a model of diffusers")
    check(hasattr(scheduler, "config"), "scheduler", type(scheduler).__name__, "the scheduler that the model was trained with")
    taken, channels = unet.config.in_channels, options.pop("channels", None)
    check(channels in (None, taken), "channels", channels, f"the model's {taken}")
    check(channels is not None or taken in (1, 2, 3), "model", f"a {type(unet).__name__} of {taken} channels",
          "one of 1 to 3, as more are mostly an autoencoder's code; or channels= said where they are an image's")
    classes = getattr(unet.config, "num_class_embeds", None)
    check(classes is None or "class_labels" in options.get("arguments", {}), "arguments", options.get("arguments"),
          f"class_labels, one of the model's {classes}")
    kind = type(scheduler).__name__
    if kind == "ScoreSdeVeScheduler":
        given = {"predicts": "score", "value_range": (0.0, 1.0), "t_range": _doubled(scheduler)}
        return DiffusionPrior(Plain(unet), taken, **{**given, **options})
    if hasattr(scheduler, "precondition_outputs"):
        span = float(scheduler.config.sigma_min), float(scheduler.config.sigma_max)
        return DiffusionPrior(Preconditioned(unet, scheduler), taken, **{"t_range": span, **options})
    said = getattr(scheduler.config, "prediction_type", "")
    predicts = PREDICTS.get(said)
    if getattr(scheduler, "alphas_cumprod", None) is None or predicts is None:
        raise refused("scheduler", f"a {kind} of prediction_type {said!r}", KNOWN)
    return DiffusionPrior(Plain(unet), taken, **{"predicts": predicts, "alphas_cumprod": scheduler.alphas_cumprod, **options})


def _doubled(scheduler: Any) -> tuple[float, float]:
    """The levels of [0, 1] as those of [−1, 1]."""
    return 2 * float(scheduler.config.sigma_min), 2 * float(scheduler.config.sigma_max)


class Plain(nn.Module):
    """A model's output itself, not what diffusers wraps it in."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, x: Tensor, levels: Tensor, **arguments: Any) -> Tensor:
        """The model's output for x (N, C, H, W) and levels (N,)."""
        return self.model(x, levels, return_dict=False, **arguments)[0]


class Preconditioned(Plain):
    """D(x, sigma) by the input, noise and output scales of an EDM scheduler."""

    def __init__(self, model: nn.Module, scheduler: Any):
        super().__init__(model)
        self.scheduler = scheduler

    def forward(self, x: Tensor, levels: Tensor, **arguments: Any) -> Tensor:
        """D for x (N, C, H, W) and sigma (N,)."""
        sigma = levels.view(-1, 1, 1, 1)
        scaled = self.scheduler.precondition_inputs(x, sigma)
        out = super().forward(scaled, self.scheduler.precondition_noise(levels), **arguments)
        return self.scheduler.precondition_outputs(x, out, sigma)
