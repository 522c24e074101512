"""A model of Hugging Face's diffusers as the prior.

    python examples/from_diffusers.py [--out posterior.png]

Needs diffusers. The UNet is a small one with the weights it is born with, so what comes out is no image; with your pipeline
it is `from_diffusers(DDPMPipeline.from_pretrained(…))`, and nothing else changes.
"""

import argparse

import diffusers
import torch

import alps_fast as af
from alps_fast import data
from alps_fast.integrations import from_diffusers

SIDE = 16


def main():
    """Fill in half the pixels of a colour image."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", help="a picture of the posterior")
    out = parser.parse_args().out
    torch.manual_seed(0)
    unet = diffusers.UNet2DModel(sample_size=SIDE, in_channels=3, out_channels=3, layers_per_block=1, block_out_channels=(32, 32),
                                 down_block_types=("DownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "UpBlock2D"))
    scheduler = diffusers.DDPMScheduler()

    image = data.photograph()[:, :SIDE, :SIDE].expand(3, SIDE, SIDE)
    mask = data.pixel_mask(SIDE, SIDE, keep=0.5)
    operator = af.operators.Inpainting(mask, noise_std=0.05)
    y = data.measure(operator, image, mask)

    # With its trained weights a model passes the probe; this one has none.
    try:
        af.sample(y, operator, from_diffusers(unet, scheduler), chains=4, progress=False)
    except af.ArgumentError as error:
        print("refused:", error)
    prior = from_diffusers(unet, scheduler, probe=False)
    schedule = af.Schedule(sigma_max=5, sigma_min=0.05, levels=4, steps=2)
    post = af.sample(y, operator, prior, chains=4, schedule=schedule, progress=False)
    print(post)
    if out:
        post.plot(out)


if __name__ == "__main__":
    main()
