def isa() -> str: ...
def isas() -> list[str]: ...
def philox_normal(chains: int, rows: int, n: int, seed: int, step: int, tag: int, out: int, threads: int) -> None: ...
def langevin_pixel(
    *, x: int, grad: int, b: int, a: int, xi: int, chains: int, after: int, mean: int, rows: int, measurements: int, pixels: int,
    channels: int, a_of_each_measurement: bool, a_of_each_channel: bool, lam: float, lin: float, w: float, inv_eta2: float,
    noise_lam: float, noise: int, seed: int, step: int, threads: int,
) -> None: ...
def langevin_sense(
    *, x: int, grad: int, b: int, u: int, eigenvalues: int, xi: int, chains: int, after: int, mean: int, rows: int,
    measurements: int, lines: int, n: int, axis: int, lam: float, lin: float, w: float, inv_eta2: float, noise_lam: float,
    noise: int, seed: int, step: int, threads: int,
) -> None: ...
def langevin_fourier(
    *, x: int, grad: int, b: int, h: int, xi: int, chains: int, after: int, mean: int, rows: int, measurements: int,
    height: int, width: int, channels: int, is_complex: bool, lam: float, lin: float, w: float, inv_eta2: float,
    noise_lam: float, noise: int, seed: int, step: int, threads: int,
) -> None: ...
def langevin_sense_cg(
    *, x: int, grad: int, b: int, maps: int, mask: int, spectrum: int, xi: int, chains: int, after: int, mean: int, rows: int,
    measurements: int, coils: int, height: int, width: int, lam: float, lin: float, w: float, inv_eta2: float,
    noise_lam: float, noise: int, seed: int, step: int, error: float, max_iter: int, threads: int,
) -> bool: ...
def moments(
    *, is_double: bool, count: int, mean: int, m2: int, x: int, keep: int, count_after: int, mean_after: int, m2_after: int,
    groups: int, rows: int, n: int, threads: int,
) -> None: ...
def conv_grad(
    *, x: int, weights: int, biases: int, scale: int, shift: int, coefficients: int, grad: int, value: int, images: int,
    channels: int, height: int, width: int, width_of_network: int, blocks: list[int], level_of_each: bool, in_bfloat16: bool,
    threads: int,
) -> None: ...
def conv_grad_bytes(
    *, images: int, channels: int, height: int, width: int, width_of_network: int, blocks: list[int], in_bfloat16: bool,
    threads: int,
) -> int: ...

most_blocks: int


class Ridge:
    def __init__(
        self, *, filters: list[int], sides: list[int], w: int, r: int, q: int, count: int, potentials: int, levels: int,
        w_of_each_image: bool, r_of_each_image: bool, q_of_each_image: bool, mu: float,
    ) -> None: ...


def ridge_grad(
    ridge: Ridge, *, x: int, grad: int, value: int, images: int, channels: int, height: int, width: int, threads: int,
) -> None: ...
def ridge_grad_bytes(ridge: Ridge, *, images: int, channels: int, height: int, width: int, threads: int) -> int: ...
def ridge_langevin(
    ridge: Ridge, *, x: int, b: int, a: int, xi: int, chains: int, after: int, mean: int, rows: int, measurements: int,
    height: int, width: int, channels: int, channels_of_image: int, a_of_each_measurement: bool, a_of_each_channel: bool,
    lam: float, lin: float, w: float, inv_eta2: float, noise_lam: float, noise: int, seed: int, step: int, count: int,
    threads: int,
) -> None: ...
