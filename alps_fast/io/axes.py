"""Which axis of an array is what, by letters: s slices, c coils, h rows, w columns, r real and imaginary part, _ an axis of one.

What is not said is guessed, and said to the user where it is not the order that this package writes.
"""

from __future__ import annotations

import numpy as np

from ..errors import check

LETTERS = "schwr_"
OURS = {2: "hw", 3: "chw", 4: "schw"}
MATLAB = {2: "hw", 3: "hwc", 4: "hwcs"}
TELLING = 2  # times as long as the others are axes that can be told to be the image's


def check_axes(axes: str, shape: tuple[int, ...], where: str) -> None:
    """Letters that the user gave must be of this array."""
    known = all(a in LETTERS for a in axes) and all(axes.count(a) == 1 for a in "hw") and all(axes.count(a) <= 1 for a in "cr")
    check(known, "axes", f"'{axes}'", "h and w, and for others s (slices), c (coils), r (real and imaginary part) or _ (of one)")
    ones = all(n == 1 for a, n in zip(axes, shape, strict=False) if a == "_")
    parts = all(n == 2 for a, n in zip(axes, shape, strict=False) if a == "r")
    check(len(axes) == len(shape) and ones and parts, "axes", f"'{axes}' for shape {shape} in {where}",
          "a letter an axis, r of 2 and _ of 1")


def guessed_axes(shape: tuple[int, ...], is_complex: bool, matlab: bool, coils: int | None, one_coil: bool, where: str) -> str:
    """The letters of k-space.

    Args:
        is_complex: whether numbers are; else a last axis of 2 is their two parts. matlab: whether axes come in its order.
        coils: how many there are, as far as maps tell. one_coil: of three axes the first is slices.

    Raises:
        ArgumentError: naming kspace, where there are too few axes, or too many.
    """
    parts = "" if is_complex or len(shape) < 3 or shape[-1] != 2 else "r"
    inner = shape[:-1] if parts else shape
    ones = [i for i, n in enumerate(inner) if n == 1]
    squeezed = ones[:max(0, len(inner) - 4)]
    long = [n for i, n in enumerate(inner) if i not in squeezed]
    check(2 <= len(long) <= 4, "kspace", f"shape {shape} in {where}",
          "(coils, H, W), (slices, coils, H, W) or (H, W); or axes, a letter an axis")
    letters = (MATLAB if matlab else OURS)[len(long)]
    if len(long) == 3 and one_coil:
        letters = letters.replace("c", "s")
    letters = _by_length(long, letters, coils)
    found = iter(letters)
    return "".join("_" if i in squeezed else next(found) for i in range(len(inner))) + parts


def _by_length(shape: list[int], letters: str, coils: int | None) -> str:
    """`letters`, or others where two axes beside each other are far longer than what these call slices and coils."""
    others = letters.replace("h", "").replace("w", "")
    at = letters.index("h")
    if not others or TELLING * min(shape[at:at + 2]) > max(n for i, n in enumerate(shape) if i not in (at, at + 1)):
        best = at
    else:
        best = max(range(len(shape) - 1), key=lambda i: min(shape[i:i + 2]))
        rest = [n for i, n in enumerate(shape) if i not in (best, best + 1)]
        best = best if min(shape[best:best + 2]) >= TELLING * max(rest) else at
    if best != at:
        others = {0: "cs", 1: "sc", 2: "sc"}[best][:len(others)] if len(others) == 2 else others
    if len(others) == 2 and coils is not None:
        first, second = (n for i, n in enumerate(shape) if i not in (best, best + 1))
        if (first == coils) != (second == coils):
            others = "cs" if first == coils else "sc"
    return others[:best] + "hw" + others[best:]


def ordered(array: np.ndarray, axes: str) -> np.ndarray:
    """The array as (slices, coils, H, W), missing axes of one; several axes of slices become one, the first slowest."""
    if "r" in axes:
        at = axes.index("r")
        array = array.take(0, at) + 1j * array.take(1, at)
        axes = axes.replace("r", "")
    order = [i for letter in "_schw" for i, a in enumerate(axes) if a == letter]
    *_, height, width = sizes = [array.shape[i] for i in order if axes[i] != "_"]
    coils = array.shape[axes.index("c")] if "c" in axes else 1
    slices = int(np.prod(sizes[:axes.count("s")], dtype=np.int64))
    return array.transpose(order).reshape(slices, coils, height, width)


def fitted(array: np.ndarray, axes: str, sizes: dict[str, int]) -> np.ndarray | None:
    """An array that may have fewer axes than k-space, or of one, as (s, c, h, w), each of one or as long as k-space's; else None.

    axes: of k-space. Letters are taken from their end on as NumPy broadcasts, but slices or coils may be missing too.
    """
    axes = axes.replace("_", "")
    pure = axes.replace("r", "")
    tries = [axes, pure, pure.replace("s", ""), pure.replace("c", ""), "hw" if "hw" in pure else "wh", "w"]
    for letters in dict.fromkeys(tries):
        if len(letters) == array.ndim and letters.count("s") <= 1 and all(
                n in (1, 1 if a == "r" else sizes[a]) for a, n in zip(letters, array.shape, strict=True)):
            if "r" in letters:
                array, letters = array.take(0, letters.index("r")), letters.replace("r", "")
            shape = [array.shape[letters.index(a)] if a in letters else 1 for a in "schw"]
            return array.transpose([letters.index(a) for a in "schw" if a in letters]).reshape(shape)
    return None
