"""Writing segmentations to files, all of one or nothing."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from msa2net.data.display import class_color
from msa2net.data.geometry import Geometry
from msa2net.data.io.nifti import is_nifti, write_nifti_labels
from msa2net.data.labels import IGNORE
from msa2net.errors import DataError
from msa2net.files import atomic_path


def write_labels(
    path: Path,
    labels_ZHW: NDArray[np.uint8],
    num_classes: int,
    geometry: Geometry,
) -> None:
    """Write class indices; the suffix chooses the format.

    `.png`: one slice, uint8. Two classes are written as 0 and 255, the usual form of a binary mask;
    more, or labels with ignored pixels (255), as class indices with a palette, so that people see
    them too. `.nii`, `.nii.gz`: integers, in the layout of the file that the scan came from.

    Args:
        path: where to.
        labels_ZHW: (Z, H, W) class indices.
        num_classes: background included.
        geometry: of the scan; see `write_nifti_labels`.

    Raises:
        DataError: a suffix that is not written, several slices into a PNG, NIfTI of a 2-D image.
    """
    if path.name.lower().endswith(".png"):
        if labels_ZHW.shape[0] != 1:
            raise DataError(
                f"{path}: a PNG holds one slice and this segmentation has {labels_ZHW.shape[0]}; "
                "save it as .nii.gz"
            )
        if num_classes == 2 and not (labels_ZHW == IGNORE).any():
            write_png(labels_ZHW[0] * np.uint8(255), path)
        else:
            _write_indices(labels_ZHW[0], path)
    elif is_nifti(path):
        write_nifti_labels(path, labels_ZHW, geometry)
    else:
        raise DataError(f"{path}: masks are written as .png, .nii or .nii.gz")


def _write_indices(labels_HW: NDArray[np.uint8], path: Path) -> None:
    """Write class indices as a PNG whose palette paints the background black, 255 in grey."""
    colours = [(0, 0, 0), *(class_color(index) for index in range(1, IGNORE)), class_color(0)]
    picture = Image.fromarray(np.ascontiguousarray(labels_HW))
    picture.putpalette(np.array(colours, np.uint8).tobytes())
    with atomic_path(path) as temporary:
        picture.save(temporary, format="PNG")


def write_png(pixels: NDArray[Any], path: Path) -> None:
    """Write (H, W) or (H, W, 3) uint8 pixels as PNG."""
    with atomic_path(path) as temporary:
        Image.fromarray(np.ascontiguousarray(pixels)).save(temporary, format="PNG")


def write_jpeg(pixels_HW3: NDArray[Any], path: Path) -> None:
    """Write (H, W, 3) uint8 pixels as a JPEG to look at; never use it for masks."""
    with atomic_path(path) as temporary:
        Image.fromarray(np.ascontiguousarray(pixels_HW3)).save(temporary, format="JPEG", quality=90)
