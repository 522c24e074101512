"""A sequence of slices of k-space."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import overload

from .kspace import KSpace


class Slices(ABC, Sequence[KSpace]):
    """Slices of a file, each read when it is asked for. path: the file; shape: that of its k-space, for people."""

    path: Path
    shape: tuple[int, ...]

    @abstractmethod
    def read(self, index: int) -> KSpace:
        """Slice `index`, from 0 on.

        Raises:
            ArgumentError: naming the file, the array and the slice.
        """

    def label(self, index: int) -> str:
        """What a slice is called, for people."""
        return f"slice {index}"

    @overload
    def __getitem__(self, index: int) -> KSpace: ...
    @overload
    def __getitem__(self, index: slice) -> list[KSpace]: ...
    def __getitem__(self, index: int | slice) -> KSpace | list[KSpace]:
        if isinstance(index, slice):
            return [self.read(i) for i in range(len(self))[index]]
        return self.read(range(len(self))[index])
