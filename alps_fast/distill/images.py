"""One's own images to distil at: a folder, a tensor, a Dataset, a DataLoader or a function."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from ..errors import check, whole
from ..io.images import PICTURES, read_image
from ..layout import to_state

HELD_OUT = 10  # every such image is kept from training, for the table at the end
MOST_HELD_OUT = 16


class Source(Protocol):
    """What training draws from: batch `number` (batch, channels, size, size) of real channels."""

    @property
    def channels(self) -> int: ...
    size: int
    batch: int
    seed: int

    def get(self, number: int) -> Tensor: ...


def as_image(item: Any, name: str = "images") -> Tensor:
    """An image (C, H, W) of real channels, complex ones as two: of a tensor, array, PIL image, or a pair that leads with one.

    Grey levels 0 … 255 become −1 … 1; floats are taken as they are.
    """
    item = item[0] if isinstance(item, (tuple, list)) else next(iter(item.values())) if isinstance(item, dict) else item
    if not isinstance(item, Tensor):
        array = np.asarray(item)
        check(array.dtype.kind in "uifc", name, f"a {type(item).__name__}", "tensors, arrays or pictures")
        item = torch.from_numpy(np.require(array, requirements="CW"))  # pictures lend theirs to be read alone
        item = item.movedim(-1, 0) if item.ndim == 3 and array.dtype == np.uint8 and array.shape[-1] in (1, 3) else item
    item = item / 127.5 - 1 if item.dtype == torch.uint8 else item
    item = item[None] if item.ndim == 2 else item
    check(item.ndim in (3, 4) and (item.is_floating_point() or item.is_complex()), name,
          f"{item.dtype} of shape {tuple(item.shape)}", "floats, complex numbers or uint8, (C, H, W)")
    if item.is_complex():
        item = to_state(item if item.ndim == 4 else item[None]).movedim(-1, 1).view(*item.shape[:-3], -1, *item.shape[-2:])
    check(bool(item.isfinite().all()), name, "NaN or infinity in one", "finite numbers")
    return item.detach().float().cpu()


class Images:
    """Batches of one's own images, and some that training never sees.

    A folder, tensor or Dataset is cut at random, a function of (seed, number) alone, so that a run that goes on does as it would
    have; every tenth image is held out. Of a DataLoader or function the first batch is, as far as the other ones do not repeat
    it; a run that goes on draws from a DataLoader anew.

    Args:
        images: a folder of pictures and arrays (`io.read_image`), a tensor (N, C, H, W), a Dataset or any sequence of images, a
            DataLoader or other iterable of batches, or number -> batch. An item may be a pair that leads with the image. In the
            units of the teacher; grey levels become [−1, 1].
        size: side of the crops, at most that of the smallest image; batches that come whole are cut to it in the middle.
        batch: crops a step. seed: of the choice.

    Raises:
        ArgumentError: naming images or size.
    """

    def __init__(self, images: Any, size: int, batch: int, seed: int):
        self.size, self.batch, self.seed = whole("size", size, 1), whole("batch", batch, 1), seed
        self._batches: Iterator[Any] | None = None
        self._items: Sequence[Any] | None = None
        self._call: Callable[[int], Any] | None = None
        if isinstance(images, (str, Path)):
            folder = Path(images)
            check(folder.is_dir(), "images", str(folder), "a folder of images")
            files = sorted(p for p in folder.rglob("*") if p.suffix.lower() in (*PICTURES, ".npy", ".npz"))
            check(len(files) > 1, "images", f"{len(files)} images in {folder}", "two or more, png, jpeg, tiff, npy or npz")
            self.kind, self._items = "folder", [as_image(read_image(p, "images")) for p in files]
        elif hasattr(images, "__getitem__") and hasattr(images, "__len__"):
            check(len(images) > 1, "images", f"{len(images)} images", "two or more")
            self.kind, self._items = "dataset", images
        elif isinstance(images, Iterable):
            self.kind, self._source = "loader", images
        else:
            check(callable(images), "images", type(images).__name__, "a folder, tensor, Dataset, DataLoader or function")
            self.kind, self._call = "function", images
        if self._items is not None:
            count = len(self._items)
            self._kept = list(range(0, count, max(2, min(HELD_OUT, count))))[:MOST_HELD_OUT]
            self._seen = [i for i in range(count) if i not in set(self._kept)]
            self.held_out = [self._middle(self._image(i))[None] for i in self._kept]
        else:
            self.held_out = [v[None] for v in self._whole(0)[:MOST_HELD_OUT]]
        self.channels = self.held_out[0].shape[1]
        self.described = {"images": self.kind, "channels": self.channels, "size": self.size}

    def get(self, number: int) -> Tensor:
        """Batch `number`: (batch, channels, size, size) float32."""
        if self._items is None:
            return self._whole(number + 1)
        rng = np.random.default_rng((self.seed, number))
        return torch.stack([self._crop(self._image(self._seen[rng.integers(len(self._seen))]), rng) for _ in range(self.batch)])

    def _image(self, index: int) -> Tensor:
        assert self._items is not None
        image = as_image(self._items[index])
        check(image.ndim == 3, "images", f"one of shape {tuple(image.shape)}", "images (C, H, W)")
        self._check(image)
        return image

    def _whole(self, number: int) -> Tensor:
        """A batch as it comes, from a loader or a function."""
        if self._call is not None:
            found = self._call(number)
        else:
            if self._batches is None:
                self._batches = iter(self._source)
            found = next(self._batches, None)
            if found is None:
                self._batches = iter(self._source)
                found = next(self._batches, None)
            check(found is not None, "images", "an iterable that is over", "one that can be gone through again")
        batch = as_image(found)
        check(batch.ndim == 4, "images", f"a batch of shape {tuple(batch.shape)}", "(N, C, H, W)")
        self._check(batch)
        return self._middle(batch)

    def _check(self, image: Tensor) -> None:
        check(min(image.shape[-2:]) >= self.size, "size", self.size, f"at most {min(image.shape[-2:])}, as an image has")
        known = getattr(self, "channels", image.shape[-3])
        check(image.shape[-3] == known, "images", f"one of {image.shape[-3]} channels", f"all of {known}, as the first has")

    def _middle(self, image: Tensor) -> Tensor:
        top, left = ((n - self.size) // 2 for n in image.shape[-2:])
        return image[..., top:top + self.size, left:left + self.size].contiguous()

    def _crop(self, image: Tensor, rng: np.random.Generator) -> Tensor:
        top, left = (int(rng.integers(n - self.size + 1)) for n in image.shape[-2:])
        return image[..., top:top + self.size, left:left + self.size]
