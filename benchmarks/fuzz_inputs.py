"""Small files of images and of data sets, and how each is read."""

import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fuzz_mutations as m
import h5py
import nibabel
import numpy as np
from fuzz_mutations import Mutation
from PIL import Image
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    RLELossless,
)

from msa2net.config import DataConfig
from msa2net.data.check.dataset import check_store
from msa2net.data.formats.synapse_files import read_test_volume, read_training_slices
from msa2net.data.io.readers import read_image, read_mask, read_path
from msa2net.data.prepared.prepare import prepare
from msa2net.data.prepared.slice_files import build_slices
from msa2net.data.prepared.store import open_store
from msa2net.data.preprocessing import Preprocessing
from msa2net.errors import DataError
from msa2net.prediction.inputs import find_images

SIZE = (32, 32)
PICTURE = np.arange(40 * 36 * 3, dtype=np.uint32).reshape(40, 36, 3).astype(np.uint8)
JSON, TEXT, BYTES = (m.json_values, m.json_values, m.as_text), (m.as_text,), (m.blindly,)


@dataclass(frozen=True)
class Kind:
    """Files that are read together.

    Attributes:
        name: what to call them.
        files: path in a folder → content.
        spoilt: which of them are spoilt, and how.
        read: reads them, of a folder.
        must_be_whole: nothing but what was written may be accepted.
    """

    name: str
    files: Mapping[str, bytes]
    spoilt: Mapping[str, Sequence[Mutation]]
    read: Callable[[Path], object]
    must_be_whole: bool = False


def each_file(folder: Path, read: Callable[[Path], object]) -> None:
    """Read every file of a folder."""
    for path in sorted(folder.iterdir()):
        read(path)


def only(files: Mapping[str, bytes], names: Any) -> dict[str, bytes]:
    """Return the files of some names."""
    return {name: files[name] for name in names}


def read_files(folder: Path) -> dict[str, bytes]:
    """Read all files below a folder: path → content."""
    found = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


def write_files(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write files into a folder that is made."""
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def pictures(_: Path) -> list[Kind]:
    """Make pictures."""

    def read(folder: Path) -> None:
        for path in folder.iterdir():
            read_image(path)
        mask = read_mask(path)
        assert mask.ndim == 2

    found = []
    for ending, more in (("png", (m.within_png, m.within_png)), ("jpeg", ())):
        file = io.BytesIO()
        Image.fromarray(PICTURE[..., :1].repeat(3, 2)).save(file, ending)
        name = f"a.{ending}"
        found.append(Kind(ending, {name: file.getvalue()}, {name: (*BYTES, *more)}, read))
    return found


def volumes(folder: Path) -> list[Kind]:
    """Make volumes in files of three kinds."""
    values = np.arange(6 * 5 * 4, dtype=np.int16).reshape(6, 5, 4)
    for ending in ("nii", "nii.gz"):
        nibabel.save(nibabel.Nifti1Image(values, np.diag([2, 2, 3, 1])), folder / f"a.{ending}")
    unit = np.linspace(0, 1, 4 * 32 * 32, dtype=np.float32).reshape(4, 32, 32)
    label = (unit > 0.7).astype(np.uint8)
    np.savez_compressed(folder / "s.npz", image=unit[0], label=label[0])
    with h5py.File(folder / "v.npy.h5", "w") as file:
        file.create_dataset("image", data=unit, compression="gzip")
        file.create_dataset("label", data=label)
    files = read_files(folder)
    nifti = {"a.nii": BYTES, "a.nii.gz": (*BYTES, m.within_gzip, m.within_gzip)}
    return [
        Kind("nifti", only(files, nifti), nifti, lambda at: each_file(at, read_path)),
        Kind(
            "npz", only(files, ["s.npz"]), {"s.npz": (*BYTES, m.within_zip, m.within_zip)},
            lambda at: read_training_slices([at / "s.npz"]),
        ),
        Kind(
            "hdf5", only(files, ["v.npy.h5"]), {"v.npy.h5": BYTES},
            lambda at: read_test_volume(at / "v.npy.h5"),
        ),
    ]  # fmt: skip


def dicom(folder: Path) -> list[Kind]:
    """Make DICOM series, plain and packed."""
    kinds = {
        "dicom": (ExplicitVRLittleEndian, BYTES),
        "dicom-rle": (RLELossless, BYTES),
        "dicom-j2k": (JPEG2000Lossless, BYTES),
        "dicom-deflate": (DeflatedExplicitVRLittleEndian, (*BYTES, m.within_deflated_dicom)),
    }
    found = []
    for name, (syntax, mutations) in kinds.items():
        for index in range(3):
            _slice(index, syntax).save_as(folder / f"{index}.dcm", enforce_file_format=True)
        files = read_files(folder)
        found.append(Kind(name, files, dict.fromkeys(files, mutations), _read_dicom))
    return found


def _read_dicom(folder: Path) -> None:
    refused: DataError | None = None
    for image in find_images([folder]):
        try:
            image.read()
        except DataError as error:
            refused = error
    if refused is not None:
        raise refused


def _slice(index: int, syntax: str) -> FileDataset:
    pixels = (PICTURE[:16, :12, 0].astype(np.int16) * 3 + index).copy()
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = CTImageStorage, f"1.2.3.{index}"
    meta.TransferSyntaxUID = syntax
    image = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    image.SOPClassUID, image.SOPInstanceUID = CTImageStorage, f"1.2.3.{index}"
    image.StudyInstanceUID, image.SeriesInstanceUID, image.FrameOfReferenceUID = "1.1", "1.2", "1.3"
    image.PatientID, image.Modality, image.SeriesDescription = "P", "CT", "thin"
    image.ImageOrientationPatient, image.PixelSpacing = [1, 0, 0, 0, 1, 0], [0.8, 0.7]
    image.ImagePositionPatient, image.SliceThickness = [0, 0, 2.5 * index], 2.5
    image.Rows, image.Columns = pixels.shape
    image.SamplesPerPixel, image.PhotometricInterpretation = 1, "MONOCHROME2"
    image.BitsAllocated, image.BitsStored, image.HighBit = 16, 16, 15
    image.PixelRepresentation = 0 if syntax == JPEG2000Lossless else 1
    image.RescaleSlope, image.RescaleIntercept = 1, -1000
    if syntax == JPEG2000Lossless:
        packed = io.BytesIO()
        Image.fromarray(pixels.astype(np.uint16)).save(packed, "JPEG2000", no_jp2=True)
        image.PixelData = encapsulate([packed.getvalue()])
        image["PixelData"].VR = "OB"
    else:
        image.PixelData = pixels.tobytes()
        image["PixelData"].VR = "OW"
    if syntax == RLELossless:
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        image.compress(RLELossless, generate_instance_uid=False)
    return image


def raw_data(folder: Path) -> list[Kind]:
    """Make data sets, raw and prepared."""
    raw, place = folder / "raw", np.diag([2, 2, 3, 1])
    for part in ("imagesTr", "labelsTr"):
        (raw / part).mkdir(parents=True)
    for index in range(4):
        image = np.random.default_rng(index).integers(0, 200, (32, 32, 3)).astype(np.int16)
        name = f"c{index}"
        nibabel.save(nibabel.Nifti1Image(image, place), raw / "imagesTr" / f"{name}_0000.nii.gz")
        label = nibabel.Nifti1Image((image > 150).astype(np.uint8), place)
        nibabel.save(label, raw / "labelsTr" / f"{name}.nii.gz")
    described = {
        "channel_names": {"0": "CT"}, "labels": {"background": 0, "lesion": 1},
        "numTraining": 4, "file_ending": ".nii.gz",
    }  # fmt: skip
    (raw / "dataset.json").write_text(json.dumps(described))
    folds = [{"train": ["c0", "c1"], "val": ["c2", "c3"]}]
    (raw / "splits_final.json").write_text(json.dumps(folds))
    prepare(DataConfig(format="nnunet", root=raw, prepared=folder / "p"))
    plain = folder / "plain"
    for index in range(4):
        for part in ("images", "masks"):
            (plain / part).mkdir(parents=True, exist_ok=True)
        Image.fromarray(PICTURE + np.uint8(index)).save(plain / "images" / f"p{index}.png")
        mask = (PICTURE[..., 0] > 128).astype(np.uint8)
        Image.fromarray(mask).save(plain / "masks" / f"p{index}.png")
    (plain / "labels.txt").write_text("background\nlesion\n")
    files, pictures, ready = read_files(raw), read_files(plain), read_files(folder / "p")
    ready = {name: own for name, own in ready.items() if name.endswith((".npy", ".json"))}
    arrays = {name: BYTES for name in ready if name.endswith(".npy")}
    gz = (*BYTES, m.within_gzip)
    return [
        Kind(
            "nnunet", files,
            {"dataset.json": JSON, "splits_final.json": JSON, "labelsTr/c1.nii.gz": gz},
            lambda at: prepare(DataConfig(format="nnunet", root=at, prepared=at / "out")),
        ),
        Kind(
            "images", pictures,
            {"labels.txt": TEXT, "masks/p1.png": (m.within_png,), "images/p2.png": (m.within_png,)},
            lambda at: prepare(DataConfig(format="images", root=at, prepared=at / "out")),
        ),
        Kind("prepared", ready, {"dataset.json": JSON} | arrays, _read_prepared),
    ]  # fmt: skip


def _read_prepared(folder: Path) -> None:
    store = open_store(folder, complete=False)
    check_store(store)
    for row in store.cases:
        np.asarray(store.case(row.id).image).sum()
    build_slices(store, Preprocessing(channels=1, image_size=SIZE, low=0, high=200), ("train",))
