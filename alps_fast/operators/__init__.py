"""Measurement operators A: y = A x + noise."""

from .base import Operator
from .fourier import CircularBlur
from .linear import LinearOperator
from .pixel import Denoising, Inpainting
from .sense import CartesianMRI
from .superres import SuperResolution

__all__ = ["CartesianMRI", "CircularBlur", "Denoising", "Inpainting", "LinearOperator", "Operator", "SuperResolution"]
