"""Reading image files into arrays, with one sentence when a file is not what it should be."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from msa2net.data.case import Case
from msa2net.data.dicom.detect import DICOM_SUFFIXES
from msa2net.data.geometry import require_same_grid
from msa2net.data.io.nifti import NIFTI_SUFFIXES, is_nifti, read_nifti_image
from msa2net.data.io.validation import as_integer_labels, check_finite, file_errors
from msa2net.errors import DataError

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")
_BAND = 2**22  # pixels at once
_FORMATS = ("PNG", "JPEG", "TIFF", "BMP")  # Pillow guesses by content, and starts programs for some


def read_image(path: Path, case_id: str | None = None) -> Case:
    """Read a 2-D image (PNG, JPEG, TIFF, BMP) as a Case with Z = 1.

    Colour becomes (3, 1, H, W) uint8, grey (1, 1, H, W) uint8, uint16, int32 or float32; a palette
    is resolved, transparency dropped, and the camera's EXIF rotation applied, so that the
    picture stands as viewers show it.

    Raises:
        DataError: missing, unreadable or truncated.
    """
    return Case(id=case_id or path.stem, image=_pixels(path)[:, None], source=path)


def _pixels(path: Path) -> NDArray[Any]:
    """Return a picture's pixels (C, H, W); Pillow's own copies are gone then."""
    with _opened(path) as picture:
        if picture.mode in ("RGB", "L", "I;16", "I;16B", "I;16L", "I", "F"):
            plain = picture
        elif picture.mode in ("1", "LA"):
            plain = picture.convert("L")
        else:
            plain = picture.convert("RGB")
        if plain.getexif().get(ExifTags.Base.Orientation, 1) != 1:
            plain = ImageOps.exif_transpose(plain)
        if plain.mode != "RGB":
            return np.array(plain)[None]
        width, height = plain.size
        image_CHW = np.empty((3, height, width), np.uint8)
        band = max(1, _BAND // width)
        for y in range(0, height, band):  # Pillow hands out three copies of what it is asked for
            part = plain.crop((0, y, width, min(height, y + band)))
            image_CHW[:, y : y + band] = np.asarray(part).transpose(2, 0, 1)
        return image_CHW


def read_mask(path: Path) -> NDArray[Any]:
    """Read a mask picture's raw values as (H, W) integers.

    A palette's indices are the values. An RGB mask is read only when its channels are equal. An
    EXIF orientation of its own is applied, as `read_image` does, but not that of the picture it
    belongs to, of which it knows nothing. Floats within 1e-3 of a whole number are that number.

    Raises:
        DataError: unreadable, a coloured picture rather than a mask, fractions, NaN or infinities.
    """
    with _opened(path) as picture:
        array = np.asarray(ImageOps.exif_transpose(picture))
        if picture.mode == "1":
            array = array.astype(np.uint8)
    if array.ndim == 3:
        colours = array[..., :3] if array.shape[2] > 2 else array[..., :1]  # without transparency
        if not (colours == colours[..., :1]).all():
            raise DataError(
                f"{path} is a colour image, not a mask; save class indices as a grey or palette PNG"
            )
        array = array[..., 0]
    check_finite(path, array)
    return as_integer_labels(path, array)


def exif_orientation(path: Path) -> int:
    """Return how viewers turn a picture, 2 to 8 as EXIF counts; 1: they show it as it is stored.

    Raises:
        DataError: missing or unreadable.
    """
    with _opened(path, decode=False) as picture:
        # PNG's own method decodes the picture, in case that the tag comes last.
        orientation = Image.Image.getexif(picture).get(ExifTags.Base.Orientation, 1)
    return orientation if orientation in range(2, 9) else 1


def read_path(path: Path) -> Case:
    """Read any supported image: a picture, a NIfTI volume, or a folder or file of DICOM.

    Pictures and NIfTI are known by their suffix, DICOM by its content. The case's id is the
    file's name without its suffix, or the folder's name.

    Raises:
        DataError: unknown suffix, an unreadable file, or a folder with none or several series,
            among which `dicom.read_series` chooses.
    """
    if is_nifti(path):
        image_CZHW, geometry = read_nifti_image(path)
        return Case(id=stem(path), image=image_CZHW, geometry=geometry, source=path)
    if path.suffix.lower() in (".h5", ".npz"):
        raise DataError(
            f"{path}: arrays without a place in space are not segmented; TransUNet's files become "
            "a data set with msa2net prepare synapse, which test.py and msa2net evaluate score"
        )
    if path.suffix.lower() in IMAGE_SUFFIXES:
        return read_image(path)
    # Imported here alone: most data sets and most predictions have no DICOM.
    from msa2net.data.dicom.detect import is_dicom
    from msa2net.data.dicom.reader import read_series

    if path.is_dir() or path.suffix.lower() in DICOM_SUFFIXES or is_dicom(path):
        return read_series(path)
    if not path.exists():
        raise DataError(f"there is no file or folder {path}")
    raise DataError(
        f"{path} is no DICOM, and files ending in '{path.suffix}' are not read; supported are "
        f"{', '.join(IMAGE_SUFFIXES + NIFTI_SUFFIXES)}"
    )


def read_channels(paths: Sequence[Path], case_id: str) -> Case:
    """Read NIfTI files that are the channels of one image, in order, such as MRI sequences.

    Raises:
        DataError: a file cannot be read, or they do not lie on one grid.
    """
    image_CZHW, geometry = read_nifti_image(paths[0])
    channels = [image_CZHW]
    for path in paths[1:]:
        other_CZHW, other = read_nifti_image(path)
        require_same_grid(
            case_id,
            (paths[0], image_CZHW.shape[1:], geometry),
            (path, other_CZHW.shape[1:], other),
        )
        channels.append(other_CZHW)
    joined_CZHW = np.concatenate(channels) if len(channels) > 1 else image_CZHW
    return Case(case_id, joined_CZHW, geometry=geometry, source=paths[0])


def stem(path: Path) -> str:
    """Return a file's name without its suffix; `.nii.gz` is one suffix."""
    return re.sub(r"\.nii(\.gz)?$", "", path.name, flags=re.I) if is_nifti(path) else path.stem


def list_files(folder: Path, endings: Sequence[str]) -> list[Path]:
    """List the files directly in `folder` with one of the endings, in any case, sorted by name.

    Hidden ones are left out: systems leave them beside pictures, such as `._name.jpg`.

    Raises:
        DataError: the folder cannot be listed.
    """
    try:
        entries = sorted(folder.iterdir())
    except OSError as error:
        raise DataError(f"cannot list {folder}: {error.strerror or error}") from error
    return [
        path
        for path in entries
        if path.name.lower().endswith(tuple(endings))
        and not path.name.startswith(".")
        and path.is_file()
    ]


def list_images(folder: Path, *, volumes: bool = False) -> list[Path]:
    """List the image files directly in `folder`, sorted by name; NIfTI too if `volumes`.

    Raises:
        DataError: no such folder, or no image in it.
    """
    if not folder.is_dir():
        raise DataError(f"there is no folder {folder}")
    known = IMAGE_SUFFIXES + NIFTI_SUFFIXES if volumes else IMAGE_SUFFIXES
    paths = list_files(folder, known)
    if not paths:
        raise DataError(f"{folder} holds no image ({', '.join(known)})")
    return paths


@contextmanager
def _opened(path: Path, *, decode: bool = True) -> Iterator[Image.Image]:
    """Open a picture and decode it whole, so that a truncated file is found here."""
    with file_errors(path, "image"):
        try:
            with Image.open(path, formats=_FORMATS) as picture:
                if decode:
                    picture.load()
                    picture.getexif()
                    pages = getattr(picture, "n_frames", 1)
                    if pages > 1:
                        raise DataError(f"{path} holds {pages} pages; save them as one file each")
                yield picture
        except UnidentifiedImageError as error:
            raise DataError(f"{path} is not an image that can be read; is it damaged?") from error
        except Image.DecompressionBombError as error:
            raise DataError(f"{path} declares an implausibly large image: {error}") from error
