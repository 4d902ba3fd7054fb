"""Cases, and segmentations that are written."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from msa2net.data.case import Case, Geometry, Segmentation
from msa2net.data.display import class_color
from msa2net.data.io.readers import read_mask
from msa2net.errors import DataError


def test_a_case_with_a_label_of_another_size_is_refused():
    with pytest.raises(DataError, match="image is 1×4×4 but label is 1×4×5"):
        Case("a", np.zeros((1, 1, 4, 4)), np.zeros((1, 4, 5), np.uint8))
    with pytest.raises(DataError, match="expected \\(C, Z, H, W\\)"):
        Case("a", np.zeros((4, 4)))
    for name in ("", "../a", "a\r"):
        with pytest.raises(
            DataError, match=r"cannot be called .* no slash, backslash or line break; rename it"
        ):
            Case(name, np.zeros((1, 1, 4, 4)))


def test_segmentations_are_written_and_read_back(tmp_path: Path):
    import nibabel

    labels = np.random.default_rng(0).integers(0, 3, (5, 6, 7), np.uint8)
    geometry = Geometry.from_spacing((5.0, 0.8, 0.7))
    path = Segmentation("a", labels, ("b", "x", "y"), geometry).save(tmp_path / "s.nii.gz")
    image = nibabel.load(path)
    assert np.array_equal(np.asarray(image.dataobj).transpose(2, 1, 0), labels)
    np.testing.assert_allclose(image.header.get_zooms(), (0.7, 0.8, 5.0), rtol=1e-6)
    assert image.get_data_dtype() == np.uint8

    binary = Segmentation("a", np.array([[[0, 1]]], np.uint8), ("background", "x"))
    assert read_mask(binary.save(tmp_path / "b.png")).tolist() == [[0, 255]]


@pytest.mark.parametrize("names", [("background", "x"), ("background", "x", "y")])
def test_class_indices_are_written_with_colours_and_255_stays(tmp_path: Path, names):
    """Anybody who reads the indices gets them, and who looks sees something."""
    labels = np.array([[[0, 1, 255, len(names) - 1]]], np.uint8)
    path = Segmentation("a", labels, names).save(tmp_path / "m.png")
    assert read_mask(path).tolist() == labels[0].tolist()
    with Image.open(path) as picture:
        assert picture.mode == "P"
        assert np.asarray(picture).tolist() == labels[0].tolist()
        shown = np.asarray(picture.convert("RGB"))[0]
    assert [tuple(pixel) for pixel in shown.tolist()] == [
        (0, 0, 0), class_color(1), class_color(0), class_color(len(names) - 1),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("depth", "name", "message"),
    [
        (2, "s.png", "a PNG holds one slice"),
        (1, "s.nii", "no place in a patient"),
        (1, "s.bmp", "written as"),
    ],
)
def test_impossible_outputs_are_refused(tmp_path: Path, depth, name, message):
    segmentation = Segmentation("a", np.zeros((depth, 2, 2), np.uint8), ("background", "x"))
    with pytest.raises(DataError, match=message):
        segmentation.save(tmp_path / name)
    assert list(tmp_path.iterdir()) == []
