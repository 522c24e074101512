def philox_normal(chains: int, rows: int, n: int, seed: int, step: int, tag: int, out: int, stream: int) -> None: ...
def langevin_pixel(
    *, x: int, grad: int, b: int, a: int, xi: int, chains: int, after: int, mean: int, rows: int, measurements: int, pixels: int,
    channels: int, a_of_each_measurement: bool, a_of_each_channel: bool, lam: float, lin: float, w: float, inv_eta2: float,
    noise_lam: float, noise: int, seed: int, step: int, stream: int,
) -> None: ...
def langevin_fourier_workspace(*, rows: int, height: int, width: int, channels: int, is_complex: bool, noise: int) -> int: ...
def langevin_fourier(
    *, x: int, grad: int, b: int, h: int, xi: int, chains: int, after: int, mean: int, workspace: int, rows: int,
    measurements: int, height: int, width: int, channels: int, is_complex: bool, lam: float, lin: float, w: float,
    inv_eta2: float, noise_lam: float, noise: int, seed: int, step: int, stream: int,
) -> None: ...
def langevin_sense(
    *, x: int, grad: int, b: int, u: int, eigenvalues: int, xi: int, chains: int, after: int, mean: int, rows: int,
    measurements: int, lines: int, n: int, axis: int, lam: float, lin: float, w: float, inv_eta2: float, noise_lam: float,
    noise: int, seed: int, step: int, stream: int,
) -> bool: ...
def langevin_sense_cg_memory(*, rows: int, coils: int, height: int, width: int, noise: int) -> tuple[int, int]: ...
def langevin_sense_cg_iterate(
    *, x: int, grad: int, b: int, maps: int, mask: int, spectrum: int, xi: int, chains: int, after: int, mean: int, floats: int,
    doubles: int, rows: int, measurements: int, coils: int, height: int, width: int, lam: float, lin: float, w: float,
    inv_eta2: float, noise_lam: float, noise: int, seed: int, step: int, error: float, iteration: int, end: int, stream: int,
) -> None: ...
def langevin_sense_cg_finish(
    *, mean: int, after: int, doubles: int, rows: int, numbers: int, noisy: bool, stream: int,
) -> None: ...
def moments(
    *, is_double: bool, count: int, mean: int, m2: int, x: int, keep: int, count_after: int, mean_after: int, m2_after: int,
    groups: int, rows: int, n: int, stream: int,
) -> None: ...


def conv_grad_workspace(*, images: int, channels: int, height: int, width: int, blocks: list[int], kernel: int) -> int: ...
def conv_has_warpgroups() -> bool: ...
def conv_grad(
    *, x: int, weights: int, biases: int, scale: int, shift: int, coefficients: int, grad: int, value: int, workspace: int,
    images: int, channels: int, height: int, width: int, blocks: list[int], film_levels: int, edm_levels: int, kernel: int,
    stream: int,
) -> None: ...

class Ridge:
    def __init__(
        self, *, filters: int, side: int, w: int, r: int, q: int, mu: int, scales: int, count: int, potentials: int, levels: int,
        w_of_each_image: bool, r_of_each_image: bool, q_of_each_image: bool,
    ) -> None: ...


def ridge_fits(ridge: Ridge, *, channels: int, height: int, width: int) -> bool: ...
def ridge_workspace(ridge: Ridge, *, images: int, channels: int, height: int, width: int) -> int: ...
def ridge_grad(
    ridge: Ridge, *, x: int, grad: int, value: int, workspace: int, images: int, channels: int, height: int, width: int,
    stream: int,
) -> None: ...
def ridge_langevin_workspace(
    ridge: Ridge, *, rows: int, height: int, width: int, channels: int, channels_of_image: int,
) -> int: ...
def ridge_langevin(
    ridge: Ridge, *, x: int, b: int, a: int, xi: int, chains: int, after: int, mean: int, workspace: int, rows: int,
    measurements: int, height: int, width: int, channels: int, channels_of_image: int, a_of_each_measurement: bool,
    a_of_each_channel: bool, lam: float, lin: float, w: float, inv_eta2: float, noise_lam: float, noise: int, seed: int,
    step: int, count: int, stream: int,
) -> None: ...
