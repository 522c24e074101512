"""Other libraries' models and operators as ours; each is an extra and is imported by none of ours."""

from .deepinv import DeepInverseSampler, from_deepinv
from .diffusers import from_diffusers
from .published import ALPS, ALPS_MRI
from .sigpy import from_sigpy, to_sigpy

__all__ = ["ALPS", "ALPS_MRI", "DeepInverseSampler", "from_deepinv", "from_diffusers", "from_sigpy", "to_sigpy"]
