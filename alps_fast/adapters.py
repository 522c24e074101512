"""Objects of other libraries, known by where their classes come from: nothing is imported for that."""

from __future__ import annotations

from .errors import ArgumentError

ADAPTERS = {  # package of a class: what is done with it
    "deepinv.physics": "alps_fast.integrations.from_deepinv(physics), the operator",
    "deepinv.models": "alps_fast.energies.DiffusionPrior(denoiser, channels, value_range=(0, 1), image_range=(0, 1)), the prior",
    "deepinv.optim.prior": "alps_fast.energies.DiffusionPrior of the denoiser in it, the prior",
    "deepinv.sampling": "alps_fast.integrations.DeepInverseSampler(energy), called as its samplers are",
    "sigpy.linop": "alps_fast.integrations.from_sigpy(linop, noise_std=…), the operator",
    "sigpy.mri.linop": "alps_fast.integrations.from_sigpy(linop, noise_std=…), the operator",
    "diffusers": "alps_fast.integrations.from_diffusers(unet, scheduler) or from_diffusers(pipeline), the prior",
}
FUNCTIONS = {  # argument that a function of the user's own was given as: what is done with it
    "energy": "alps_fast.energies.DiffusionPrior(denoiser, channels) of one D(x, sigma), the prior",
    "operator": "alps_fast.operators.LinearOperator(forward, adjoint, noise_std, image_shape) of A and its adjoint",
}


def adapter_of(value: object) -> str | None:
    """What makes an object of another library ours; None where it is of none that is known."""
    for kind in type(value).__mro__:
        for package, adapter in ADAPTERS.items():
            if kind.__module__ == package or kind.__module__.startswith(f"{package}."):
                return adapter
    return None


def check_ours(name: str, value: object, kind: type, wanted: str) -> None:
    """`value` must be a `kind`; of another library's object, and of a function, the error names what makes it one.

    Raises:
        ArgumentError: naming `name`.
    """
    if not isinstance(value, kind):
        adapter = adapter_of(value) or (FUNCTIONS.get(name) if callable(value) else None)
        raise ArgumentError(f"{name}: got {type(value).__name__}; wanted {wanted}" + (f": {adapter}" if adapter else ""))


def check_own(name: str, value: object, wanted: str) -> None:
    """`value`, where any function would do, must not be an object of another library that has an adapter.

    Raises:
        ArgumentError: naming `name` and the adapter.
    """
    adapter = adapter_of(value)
    if adapter:
        raise ArgumentError(f"{name}: got a {type(value).__name__}; wanted {wanted}, or {adapter}")
