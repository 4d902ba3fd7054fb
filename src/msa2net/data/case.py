"""`Case` and `Segmentation`: the two things that travel through the package.

Axes, everywhere: C channels, Z slices, H rows, W columns. A 2-D image is a Case with Z = 1.
"""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from msa2net.data.geometry import Geometry
from msa2net.data.io.validation import format_shape
from msa2net.data.io.writers import write_labels
from msa2net.errors import DataError
from msa2net.text import printable

__all__ = ["Case", "Geometry", "Segmentation"]


def is_name(text: str) -> bool:
    """Return whether a case can be called so: files are named by it, and stay in one folder."""
    return bool(text) and not set(text) & set("/\\\r\n\0")


@dataclass(frozen=True, eq=False)
class Case:
    """One image with, perhaps, its label.

    Attributes:
        id: unique within a data set; outputs are named by it.
        image: (C, Z, H, W), any real dtype, in the file's own units (0–255, HU, …).
        label: (Z, H, W) unsigned integers, 0 is background, 255 is ignored; None if unknown.
        geometry: where the grid lies.
        source: the file the image came from; None for data made in memory.
    """

    id: str
    image: NDArray[np.generic]
    label: NDArray[np.uint8] | None = None
    geometry: Geometry = field(default_factory=Geometry)
    source: Path | None = None

    def __post_init__(self) -> None:
        if not is_name(self.id):
            raise DataError(
                f"a case cannot be called '{printable(self.id)}': its outputs are named by it, and "
                "a name is not empty and holds no slash, backslash or line break; rename it"
            )
        if self.image.ndim != 4 or 0 in self.image.shape:
            raise DataError(
                f"case {self.id}: image has shape {self.image.shape}, expected (C, Z, H, W) "
                "with no empty axis"
            )
        if self.label is not None and self.label.shape != self.image.shape[1:]:
            raise DataError(
                f"case {self.id}: image is {format_shape(self.image.shape[1:])} but label is "
                f"{format_shape(self.label.shape)} (slices × rows × columns); they must be the "
                "same grid"
            )


@dataclass(frozen=True, eq=False)
class Segmentation:
    """The class of every voxel of a case, on the case's own grid.

    Attributes:
        id: the case's id.
        labels: (Z, H, W) uint8, class indices.
        label_names: one name per class, background first.
        geometry: the case's geometry.
    """

    id: str
    labels: NDArray[np.uint8]
    label_names: tuple[str, ...]
    geometry: Geometry = field(default_factory=Geometry)

    def save(self, path: str | Path) -> Path:
        """Write the labels to `path`; see `write_labels` for the formats and what is raised."""
        path = Path(path)
        write_labels(path, self.labels, len(self.label_names), self.geometry)
        return path
