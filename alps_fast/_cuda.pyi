def philox_normal(chains: int, rows: int, n: int, seed: int, step: int, tag: int, out: int, stream: int) -> None: ...
def langevin_pixel(
    *, x: int, grad: int, b: int, a: int, xi: int, chains: int, after: int, mean: int, rows: int, measurements: int, pixels: int,
    channels: int, a_of_each_measurement: bool, a_of_each_channel: bool, lam: float, lin: float, w: float, inv_eta2: float,
    noise_lam: float, noise: int, seed: int, step: int, stream: int,
) -> None: ...
def moments(
    *, is_double: bool, count: int, mean: int, m2: int, x: int, keep: int, count_after: int, mean_after: int, m2_after: int,
    groups: int, rows: int, n: int, stream: int,
) -> None: ...


class Ridge:
    def __init__(
        self, *, filters: int, side: int, w: int, r: int, q: int, mu: int, scales: int, count: int, potentials: int, levels: int,
        w_of_each_image: bool, r_of_each_image: bool, q_of_each_image: bool,
    ) -> None: ...


def ridge_fits(ridge: Ridge, *, channels: int, height: int, width: int) -> bool: ...
def ridge_grad(
    ridge: Ridge, *, x: int, grad: int, value: int, images: int, channels: int, height: int, width: int, stream: int,
) -> None: ...
def ridge_langevin(
    ridge: Ridge, *, x: int, b: int, a: int, xi: int, chains: int, after: int, mean: int, rows: int, measurements: int,
    height: int, width: int, channels: int, channels_of_image: int, a_of_each_measurement: bool, a_of_each_channel: bool,
    lam: float, lin: float, w: float, inv_eta2: float, noise_lam: float, noise: int, seed: int, step: int, count: int,
    stream: int,
) -> None: ...
