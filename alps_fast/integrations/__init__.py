"""Other libraries' models and operators as ours; each is an extra and is imported by none of ours."""

from .diffusers import from_diffusers

__all__ = ["from_diffusers"]
