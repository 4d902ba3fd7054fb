"""The files of TransUNet's Synapse layout, read and written.

    train_npz/case0005_slice000.npz      image, label: (H, W)
    test_vol_h5/case0001.npy.h5          image, label: (Z, H, W)

Images hold HU clipped to −125…275 and scaled to 0…1; they are read back into HU, so that a network
trained on them takes any CT. The published files say nothing of where
they lie in the patient; ours also hold `affine`, 4×4, voxel (column, row, slice) → RAS mm: in the
HDF5 files as an attribute, in the NPZ files as an array. Programs that only look for image and
label do not notice.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import h5py
import numpy as np
from numpy.typing import NDArray

from msa2net.data.case import Case
from msa2net.data.formats.source import HU_WINDOW
from msa2net.data.geometry import Geometry
from msa2net.data.io.hdf5_npz import read_hdf5, read_npz
from msa2net.data.io.validation import as_integer_labels, file_errors, format_shape
from msa2net.errors import DataError
from msa2net.files import atomic_path

TRAIN_FOLDER, TRAIN_ENDING = "train_npz", ".npz"
TEST_FOLDER, TEST_ENDING = "test_vol_h5", ".npy.h5"
_, HU_LOW, HU_HIGH = HU_WINDOW

_TOLERANCE = 1e-3  # values of 0…1 may have passed through half precision
_WHOLE = 0.01  # HU; scanners give whole numbers, and single precision keeps them this close

Volume = tuple[NDArray[Any], NDArray[Any], Geometry]
"""Image in HU and label values, each (Z, H, W), and where they lie."""


def read_training_slices(paths: Sequence[Path]) -> Volume:
    """Read the slices of one case, in order, as one volume.

    Raises:
        DataError: a file cannot be read, slices differ in size, values are not within 0…1.
    """
    image_ZHW: NDArray[Any] | None = None
    labels = []
    for z, path in enumerate(paths):
        arrays = read_npz(path, ("image", "label"))
        image_HW, label_HW = _checked(path, arrays["image"], arrays["label"], axes=2)
        if image_ZHW is None:
            image_ZHW = np.empty((len(paths), *image_HW.shape), np.float32)
        if image_HW.shape != image_ZHW.shape[1:]:
            raise DataError(
                f"{path} is {format_shape(image_HW.shape)} but {paths[0].name} is "
                f"{format_shape(image_ZHW.shape[1:])} (rows × columns); slices of a case are one "
                "size"
            )
        image_ZHW[z] = image_HW
        labels.append(label_HW)
    assert image_ZHW is not None
    return _hounsfield(image_ZHW), np.stack(labels), _npz_geometry(paths[0])


def read_test_volume(path: Path) -> Volume:
    """Read one test volume.

    Raises:
        DataError: the file cannot be read, or values are not within 0…1.
    """
    arrays = read_hdf5(path, ("image", "label"))
    image_ZHW, label_ZHW = _checked(path, arrays["image"], arrays["label"], axes=3)
    return _hounsfield(image_ZHW), label_ZHW, _hdf5_geometry(path)


def write_training_slices(root: Path, case: Case) -> None:
    """Write a CT case (HU) as training slices into `root`/train_npz."""
    image_ZHW, label_ZHW = _published_form(case)
    affine = case.geometry.affine
    place: dict[str, Any] = {} if affine is None else {"affine": affine}
    for z, (image_HW, label_HW) in enumerate(zip(image_ZHW, label_ZHW, strict=True)):
        path = root / TRAIN_FOLDER / f"{case.id}_slice{z:03d}{TRAIN_ENDING}"
        with atomic_path(path) as temporary:
            np.savez_compressed(temporary, image=image_HW, label=label_HW, **place)


def write_test_volume(root: Path, case: Case) -> None:
    """Write a CT case (HU) as a test volume into `root`/test_vol_h5."""
    image_ZHW, label_ZHW = _published_form(case)
    with (
        atomic_path(root / TEST_FOLDER / f"{case.id}{TEST_ENDING}") as temporary,
        h5py.File(temporary, "w") as file,
    ):
        for name, array in (("image", image_ZHW), ("label", label_ZHW)):
            chunks = (1, *array.shape[1:])
            file.create_dataset(name, data=array, chunks=chunks, compression="gzip")
        if case.geometry.affine is not None:
            file.attrs["affine"] = case.geometry.affine


def _published_form(case: Case) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    if len(case.image) != 1 or case.label is None:
        raise DataError(f"case {case.id}: this layout holds one channel and a label")
    unit_ZHW = case.image[0].astype(np.float32)
    np.clip(unit_ZHW, HU_LOW, HU_HIGH, out=unit_ZHW)
    unit_ZHW -= np.float32(HU_LOW)
    unit_ZHW /= np.float32(HU_HIGH - HU_LOW)
    return unit_ZHW, case.label


def _hounsfield(unit_ZHW: NDArray[Any]) -> NDArray[Any]:
    """Undo the scaling to 0…1: int16 where all values are whole HU, else float32."""
    hu_ZHW = unit_ZHW.astype(np.float32)
    hu_ZHW *= np.float32(HU_HIGH - HU_LOW)
    hu_ZHW += np.float32(HU_LOW)
    whole_ZHW = np.rint(hu_ZHW)
    if np.abs(hu_ZHW - whole_ZHW).max() > _WHOLE:
        return hu_ZHW
    return whole_ZHW.astype(np.int16)


def _checked(
    path: Path, image: NDArray[Any], label: NDArray[Any], axes: int
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return image as float16 or float32 and label as integers."""
    if image.ndim != axes or image.shape != label.shape:
        raise DataError(
            f"{path}: image is {format_shape(image.shape)} and label is "
            f"{format_shape(label.shape)}; both must have the same {axes} axes"
        )
    low, high = float(image.min()), float(image.max())
    if not (low >= -_TOLERANCE and high <= 1 + _TOLERANCE):
        raise DataError(
            f"{path} holds values from {low:g} to {high:g}; in this layout HU are clipped to "
            f"{HU_LOW:g}…{HU_HIGH:g} and scaled to 0…1, use the format btcv for raw scans"
        )
    if image.dtype not in (np.float16, np.float32):
        image = image.astype(np.float32)
    return image, as_integer_labels(path, label)


def _npz_geometry(path: Path) -> Geometry:
    with file_errors(path, "NPZ"), ZipFile(path) as archive:
        has_affine = "affine.npy" in archive.namelist()
    return _geometry(path, read_npz(path, ("affine",))["affine"]) if has_affine else Geometry()


def _hdf5_geometry(path: Path) -> Geometry:
    with file_errors(path, "HDF5"), h5py.File(path, "r", locking="best-effort") as file:
        if "affine" not in file.attrs:
            return Geometry()
        if file.attrs.get_id("affine").shape != (4, 4):  # before anything is read
            raise DataError(f"{path}: the attribute 'affine' is not 4×4; remove it")
        return _geometry(path, np.asarray(file.attrs["affine"]))


def _geometry(path: Path, affine: NDArray[Any]) -> Geometry:
    if affine.shape != (4, 4) or affine.dtype.kind != "f" or not np.isfinite(affine).all():
        raise DataError(f"{path}: 'affine' is not a 4×4 matrix of numbers; remove it")
    width, height, depth = np.linalg.norm(affine[:3, :3], axis=0).tolist()
    if 0 in (width, height, depth):
        raise DataError(f"{path}: 'affine' has no extent along some axis; remove it")
    return Geometry((depth, height, width), affine.astype(np.float64))
