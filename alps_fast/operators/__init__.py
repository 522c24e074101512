"""Measurement operators A: y = A x + noise."""

from .base import Operator
from .blur import Blur
from .fourier import CircularBlur
from .linear import LinearOperator
from .noise import counting_std
from .pixel import Denoising, Inpainting
from .sense import CartesianMRI
from .superres import SuperResolution

__all__ = ["Blur", "CartesianMRI", "CircularBlur", "Denoising", "Inpainting", "LinearOperator", "Operator",
           "SuperResolution", "counting_std"]
