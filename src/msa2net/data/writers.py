"""Writing segmentations to files, all of one or nothing."""

from pathlib import Path

import nibabel
import numpy as np
from PIL import Image

from msa2net.data.case import Segmentation
from msa2net.errors import DataError
from msa2net.files import atomic_path


def write_segmentation(segmentation: Segmentation, path: Path) -> Path:
    """Write class indices to `path`; returns it.

    `.png`: one slice, uint8 class indices (two classes are written as 0 and 255, the usual form
    of a binary mask). `.nii`, `.nii.gz`: uint8 with the geometry's affine.

    Raises:
        DataError: a suffix that is not written, several slices into a PNG, or no geometry for
            NIfTI.
    """
    name = path.name.lower()
    if name.endswith(".png"):
        if segmentation.labels.shape[0] != 1:
            raise DataError(
                f"{path}: a PNG holds one slice and this segmentation has "
                f"{segmentation.labels.shape[0]}; save it as .nii.gz"
            )
        write_png(segmentation.labels[0] * _png_factor(segmentation), path)
    elif name.endswith((".nii", ".nii.gz")):
        if segmentation.geometry.affine is None:
            raise DataError(f"{path}: a photograph has no place in a patient; save it as .png")
        labels_XYZ = segmentation.labels.transpose(2, 1, 0)
        image = nibabel.Nifti1Image(labels_XYZ, segmentation.geometry.affine, dtype=np.uint8)
        image.header.set_xyzt_units("mm")
        with atomic_path(path) as temporary:
            nibabel.save(image, temporary)
    else:
        raise DataError(f"{path}: masks are written as .png, .nii or .nii.gz")
    return path


def write_png(pixels: np.ndarray, path: Path) -> None:
    """Write (H, W) or (H, W, 3) uint8 pixels as PNG."""
    with atomic_path(path) as temporary:
        Image.fromarray(np.ascontiguousarray(pixels)).save(temporary, format="PNG")


def write_jpeg(pixels_HW3: np.ndarray, path: Path) -> None:
    """Write (H, W, 3) uint8 pixels as a JPEG to look at; never use it for masks."""
    with atomic_path(path) as temporary:
        Image.fromarray(np.ascontiguousarray(pixels_HW3)).save(temporary, format="JPEG", quality=90)


def _png_factor(segmentation: Segmentation) -> np.uint8:
    return np.uint8(255 if len(segmentation.label_names) == 2 else 1)
