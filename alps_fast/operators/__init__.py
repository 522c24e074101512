"""Measurement operators A: y = A x + noise."""

from .base import Operator
from .blur import Blur
from .fourier import CircularBlur
from .linear import LinearOperator
from .noise import counting_std
from .noncartesian import NonCartesianMRI
from .pixel import Denoising, Inpainting
from .sense import CartesianMRI
from .soft_sense import SoftSenseMRI
from .superres import SuperResolution

__all__ = ["Blur", "CartesianMRI", "CircularBlur", "Denoising", "Inpainting", "LinearOperator", "NonCartesianMRI", "Operator",
           "SoftSenseMRI", "SuperResolution", "counting_std"]
