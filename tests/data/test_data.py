"""Readers, formats, the store, slices, order and augmentation."""

import errno
import json
import pickle
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from PIL.Image import Transpose as Turn
from torch.utils.data import DataLoader

import msa2net
from commands import msa2net as command
from msa2net.config import AugmentConfig, DataConfig
from msa2net.data.case import Case, Geometry, Segmentation
from msa2net.data.check.dataset import check_store
from msa2net.data.display import class_color
from msa2net.data.formats import isic2018, open_source
from msa2net.data.formats.file_names import MASK_ENDINGS
from msa2net.data.io.readers import list_images, read_image, read_mask, read_path
from msa2net.data.loading.augment import Augmentation
from msa2net.data.loading.sampler import EpochSampler
from msa2net.data.loading.slices import SliceDataset
from msa2net.data.phantom.files import write_phantom
from msa2net.data.prepared import prepare as prepare_module
from msa2net.data.prepared.prepare import prepare, reduce_image
from msa2net.data.prepared.slice_files import build_slices
from msa2net.data.prepared.splits import read_split_lists, split_by_count, split_by_ratio
from msa2net.data.prepared.store import Store, open_store, with_splits
from msa2net.data.preprocessing import Preprocessing
from msa2net.errors import ConfigError, DataError
from msa2net.prediction.inputs import find_images

PREPROCESSING = Preprocessing(channels=3, image_size=(32, 32), fit="stretch")


def save(path: Path, array: np.ndarray, mode: str | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).convert(mode or Image.fromarray(array).mode).save(path)
    return path


@pytest.fixture(scope="session")
def lesions(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("lesions") / "isic"
    write_phantom("isic2018", root, cases=10)
    return root


@pytest.fixture(scope="session")
def prepared(lesions: Path) -> DataConfig:
    data = DataConfig(format="isic2018", root=lesions, prepared=lesions.parent / "prepared")
    prepare(data)
    return data


# Readers ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "channels", "dtype"),
    [("RGB", 3, "uint8"), ("RGBA", 3, "uint8"), ("L", 1, "uint8"), ("P", 3, "uint8"),
     ("1", 1, "uint8"), ("LA", 1, "uint8"), ("I;16", 1, "uint16"), ("CMYK", 3, "uint8")],
)  # fmt: skip
def test_every_picture_mode_is_read(tmp_path: Path, mode, channels, dtype):
    suffix = ".jpg" if mode == "CMYK" else ".png"
    picture = Image.new(mode, (7, 5))
    picture.save(tmp_path / f"x{suffix}")
    image = read_image(tmp_path / f"x{suffix}").image
    assert image.shape == (channels, 1, 5, 7)
    assert image.dtype == dtype


def test_the_camera_s_rotation_is_applied(tmp_path: Path):
    picture = Image.new("RGB", (8, 4))
    exif = picture.getexif()
    exif[0x0112] = 6  # rotate by 90° to show
    picture.save(tmp_path / "x.jpg", exif=exif)
    assert read_image(tmp_path / "x.jpg").image.shape == (3, 1, 8, 4)


def test_palette_masks_give_their_indices(tmp_path: Path):
    mask = Image.fromarray(np.array([[0, 1], [2, 3]], np.uint8), mode="P")
    mask.putpalette([9, 9, 9, 200, 0, 0, 0, 200, 0, 0, 0, 200])
    mask.save(tmp_path / "m.png")
    assert read_mask(tmp_path / "m.png").tolist() == [[0, 1], [2, 3]]


def test_broken_pictures_are_one_sentence(tmp_path: Path):
    whole = save(
        tmp_path / "whole.png", np.random.default_rng(0).integers(0, 255, (99, 99, 3), np.uint8)
    )
    (tmp_path / "short.png").write_bytes(whole.read_bytes()[:9000])
    (tmp_path / "text.png").write_text("not a picture")
    (tmp_path / "empty.jpg").write_bytes(b"")
    for name, message in (
        ("short.png", "may be truncated"),
        ("text.png", "not an image"),
        ("empty.jpg", "not an image"),
        ("none.png", "there is no file"),
        ("scan.dcm", "there is no file"),
        ("scans", "there is no file or folder"),
        ("scans.d", "there is no file or folder"),
        ("case0001.npy.h5", "become a data set with msa2net prepare synapse"),
    ):
        with pytest.raises(DataError, match=message) as caught:
            read_path(tmp_path / name)
        assert name in str(caught.value)
        assert "\n" not in str(caught.value)


def test_a_picture_that_declares_a_huge_size_is_refused(tmp_path: Path):
    data = bytearray(save(tmp_path / "x.png", np.zeros((4, 4), np.uint8)).read_bytes())
    data[16:24] = (60_000).to_bytes(4, "big") * 2
    import zlib

    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    (tmp_path / "bomb.png").write_bytes(data)
    with pytest.raises(DataError, match=r"bomb.png declares an implausibly large image"):
        read_image(tmp_path / "bomb.png")


def test_masks_with_colours_or_fractions_are_refused(tmp_path: Path):
    colour = np.zeros((4, 4, 3), np.uint8)
    colour[0, 0] = 1, 2, 3
    with pytest.raises(DataError, match="colour image, not a mask"):
        read_mask(save(tmp_path / "c.png", colour))
    Image.fromarray(np.full((2, 2), 0.99, np.float32)).save(tmp_path / "f.tif")
    with pytest.raises(DataError, match=r"such as 0.9900000\d+; a label holds whole class indices"):
        read_mask(tmp_path / "f.tif")
    Image.fromarray(np.full((2, 2), np.nan, np.float32)).save(tmp_path / "n.tif")
    with pytest.raises(DataError, match="4 of 4 values are NaN"):
        read_mask(tmp_path / "n.tif")


def test_values_that_were_rounded_are_the_number_that_was_meant(tmp_path: Path):
    Image.fromarray(np.array([[0, 0.9999999, 2.0009]], np.float32)).save(tmp_path / "f.tif")
    assert read_mask(tmp_path / "f.tif").tolist() == [[0, 1, 2]]


def test_no_other_kind_is_opened_whatever_a_file_is_called(tmp_path: Path, monkeypatch):
    """Pillow's reader of EPS starts a program, Ghostscript, that may do what the file says."""
    monkeypatch.setattr("PIL.EpsImagePlugin.Ghostscript", lambda *_, **__: pytest.fail("started"))
    (tmp_path / "photo.png").write_text(
        "%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 4 4\n%%EndComments\nshowpage\n%%EOF\n"
    )
    Image.new("L", (4, 4)).save(tmp_path / "animation.png", format="GIF")
    for name in ("photo.png", "animation.png"):
        for read in (read_image, read_mask):
            with pytest.raises(DataError, match=f"{name} is not an image that can be read"):
                read(tmp_path / name)


def test_empty_and_missing_folders(tmp_path: Path):
    with pytest.raises(DataError, match="holds no image"):
        list_images(tmp_path)
    with pytest.raises(DataError, match="there is no folder"):
        list_images(tmp_path / "none")


# Cases and writers --------------------------------------------------------------------------------


def test_a_case_with_a_label_of_another_size_is_refused():
    with pytest.raises(DataError, match="image is 1×4×4 but label is 1×4×5"):
        Case("a", np.zeros((1, 1, 4, 4)), np.zeros((1, 4, 5), np.uint8))
    with pytest.raises(DataError, match="expected \\(C, Z, H, W\\)"):
        Case("a", np.zeros((4, 4)))
    for name in ("", "../a", "a\r"):
        with pytest.raises(DataError, match="cannot be called"):
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


# Splits -------------------------------------------------------------------------------------------


def test_ratios_split_everything_once_and_repeat():
    ids = [f"c{i:03d}" for i in range(50)]
    splits = split_by_ratio(ids, seed=3)
    assert splits == split_by_ratio(list(reversed(ids)), seed=3)
    assert splits != split_by_ratio(ids, seed=4)
    counts = {name: list(splits.values()).count(name) for name in ("train", "val", "test")}
    assert counts == {"train": 35, "val": 5, "test": 10}
    with pytest.raises(DataError, match="at least 3"):
        split_by_ratio(["a", "b"])


def test_published_isic_counts():
    splits = split_by_count([f"{i:04d}" for i in range(2594)], 1815, 259)
    assert [list(splits.values()).count(name) for name in ("train", "val", "test")] == [
        1815,
        259,
        520,
    ]
    assert splits["1814"] == "train"
    assert splits["1815"] == "val"
    assert splits["2074"] == "test"


def test_split_lists(tmp_path: Path, caplog):
    folder = tmp_path / "splits"
    assert read_split_lists(folder, ["a"]) is None
    folder.mkdir()
    for name, text in (("train", "a\nb\n"), ("val", "c\n"), ("test", "d\n\n")):
        (folder / f"{name}.txt").write_text(text)
    expected = {"a": "train", "b": "train", "c": "val", "d": "test"}
    assert read_split_lists(folder, list("abcd")) == expected
    assert caplog.text == ""
    assert read_split_lists(folder, list("abcdef")) == expected
    assert "2 of 6 cases are in none of the lists and left out, first 'e'" in caplog.text
    with pytest.raises(DataError, match="names 'd', which has no image"):
        read_split_lists(folder, list("abc"))
    (folder / "val.txt").write_text("a\n")
    with pytest.raises(DataError, match="'a' is in train and again in val"):
        read_split_lists(folder, list("abcd"))


# Formats and the store ----------------------------------------------------------------------------


def test_prepared_cases_equal_the_files(lesions: Path, prepared: DataConfig):
    store = open_store(prepared.prepared)
    assert [len(store.ids(split)) for split in ("train", "val", "test")] == [7, 1, 2]
    case = store.case("ISIC_0000003")
    direct = read_image(lesions / "ISIC2018_Task1-2_Training_Input" / "ISIC_0000003.jpg")
    assert np.array_equal(case.image, direct.image)
    assert set(np.unique(case.label)) == {0, 1}
    assert isinstance(case.image, np.memmap)


def test_a_second_run_does_only_what_changed(lesions: Path, prepared: DataConfig, monkeypatch):
    done = []
    original = prepare_module._store_case
    monkeypatch.setattr(
        prepare_module,
        "_store_case",
        lambda data, source, case, recipe: (
            done.append(case.id) or original(data, source, case, recipe)
        ),
    )
    before = open_store(prepared.prepared)
    assert prepare(prepared).hash == before.hash
    assert done == []
    mask = lesions / "ISIC2018_Task1_Training_GroundTruth" / "ISIC_0000004_segmentation.png"
    save(mask, 255 - np.asarray(Image.open(mask)))
    assert prepare(prepared).hash != before.hash
    assert done == ["ISIC_0000004"]


def test_images_format_with_named_classes(tmp_path: Path):
    for index in range(4):
        save(tmp_path / "images" / f"{index}.png", np.full((8, 9, 3), 40 * index, np.uint8))
        save(tmp_path / "masks" / f"{index}.png", np.full((8, 9), index % 3, np.uint8))
    (tmp_path / "labels.txt").write_text("background\nnevus\nmelanoma\n")
    data = DataConfig(format="images", root=tmp_path, prepared=tmp_path / "prepared")
    store = prepare(data)
    assert store.label_names == ("background", "nevus", "melanoma")
    assert store.case("2").label.max() == 2


def test_sixteen_bit_pictures_are_scaled_by_percentiles(tmp_path: Path):
    for index in range(3):
        save(tmp_path / "images" / f"{index}.png", np.full((8, 8), 4000 + index, np.uint16))
        save(tmp_path / "masks" / f"{index}.png", np.zeros((8, 8), np.uint8))
    store = prepare(DataConfig(format="images", root=tmp_path, prepared=tmp_path / "p"))
    assert (store.intensity, store.channels) == ("percentile", 1)


def _pair(root: Path, image=(8, 9, 3), mask=None, labels: str | None = None) -> DataConfig:
    """Write three equal pairs of image and mask."""
    mask = np.zeros((8, 9), np.uint8) if mask is None else mask
    for index in range(3):
        save(root / "images" / f"{index}.png", np.zeros(image, np.uint8))
        save(root / "masks" / f"{index}.png", mask)
    if labels:
        (root / "labels.txt").write_text(labels)
    return DataConfig(format="images", root=root, prepared=root / "prepared")


TWO_CLASSES = "background\nobject\n"


def test_label_values_outside_the_classes_are_named_with_file_and_count(tmp_path: Path):
    mask = np.zeros((8, 9), np.uint8)
    mask[0, :5] = 3
    data = _pair(tmp_path, mask=mask, labels=TWO_CLASSES)
    save(tmp_path / "masks" / "1.png", np.zeros((8, 9), np.uint8))
    message = (
        r"2 of 3 cases cannot be used: .*0.png holds label values outside the declared classes: "
        r"3 \(5 pixels\); allowed are 0 to 1, and 255 for pixels to ignore; .*2.png holds"
    )
    with pytest.raises(DataError, match=message):
        prepare(data)
    assert sorted(path.name for path in (tmp_path / "prepared" / "cases").iterdir()) == [
        "1.image.npy", "1.label.npy",
    ]  # fmt: skip
    with pytest.raises(DataError, match="met files it could not use: msa2net check .* names them"):
        open_store(data.prepared)
    failed = [
        f for f in check_store(open_store(data.prepared, complete=False)) if "be prep" in f.what
    ]
    assert [(f.level, f.where) for f in failed] == [("error", "0"), ("error", "2")]
    assert "0.png holds label values outside the declared classes: 3 (5 pixels)" in failed[0].detail
    for name in ("0.png", "2.png"):  # mended, only these are done again
        save(tmp_path / "masks" / name, np.ones((8, 9), np.uint8))
    assert len(prepare(data).cases) == 3


def test_smeared_masks_hint_at_what_smeared_them(tmp_path: Path):
    mask = np.arange(72, dtype=np.uint8).reshape(8, 9)
    data = _pair(tmp_path, mask=mask, labels=TWO_CLASSES)
    with pytest.raises(DataError, match="and 65 more; .*soft edges make such values, save the"):
        prepare(data)
    for index in range(3):
        (tmp_path / "masks" / f"{index}.png").unlink()
        save(tmp_path / "masks" / f"{index}.JPG", np.arange(0, 216, 3, np.uint8).reshape(8, 9))
    with pytest.raises(DataError, match="more; .*JPEG smears masks, save them as PNG"):
        prepare(data)


def test_what_255_means_is_decided_by_all_masks_of_a_data_set(tmp_path: Path, caplog):
    """One meaning for the whole data set, in prepare, check and evaluate, and never in silence."""
    bordered = np.array([[0, 0, 255]] * 3, np.uint8)
    data = _pair(tmp_path / "a", (3, 3, 3), bordered, TWO_CLASSES)
    masks = tmp_path / "a" / "masks"

    for _ in range(2):  # the second time nothing is read
        caplog.clear()
        store = prepare(data)
        assert store.case("0").label.tolist() == [[[0, 0, 1]] * 3]
        assert caplog.messages == [
            f"{data.prepared}: no label holds a 1, so 255 is taken for 'object' in all of them; "
            "beside a 1 in any label, 255 would be ignored"
        ]
    assert "no label holds a 1, so 255 was taken for 'object'" in [
        finding.what for finding in check_store(store) if finding.level == "note"
    ]
    caplog.clear()
    save(masks / "2.png", np.array([[0, 1, 255]] * 3, np.uint8))  # so all are done again
    store = prepare(data)
    assert [store.case(name).label.max() for name in "012"] == [255, 255, 255]
    assert store.case("2").label.tolist() == [[[0, 1, 255]] * 3]
    assert caplog.messages == []
    binary = prepare(_pair(tmp_path / "b", (3, 3, 3), bordered))
    assert binary.case("0").label.tolist() == [[[0, 0, 1]] * 3]
    both = np.array([[0, 1, 255]] * 3, np.uint8)
    with pytest.raises(DataError, match=r"holds 1 \(3 pixels\) beside 255 \(3 pixels\); masks wi"):
        prepare(_pair(tmp_path / "c", (3, 3, 3), both))
    with pytest.raises(DataError, match=r"classes: 7 \(9 pixels\); .*name classes in labels.txt"):
        prepare(_pair(tmp_path / "d", (3, 3, 3), np.full((3, 3), 7, np.uint8)))


def test_a_data_set_in_which_an_earlier_version_ignored_255_is_done_again(tmp_path: Path):
    data = _pair(tmp_path, (3, 3, 3), np.array([[0, 0, 255]] * 3, np.uint8), TWO_CLASSES)
    store = prepare(data)
    index = json.loads((store.root / "dataset.json").read_text())
    for row in index["cases"]:
        row |= {"recipe": row["recipe"].removesuffix(" 255=1"), "voxels": {"0": 6, "255": 3}}
    (store.root / "dataset.json").write_text(json.dumps(index))
    assert "error" in [
        finding.level
        for finding in check_store(open_store(store.root))
        if "only 0 and 255, which is ignored" in finding.what
    ]
    again = prepare(data)
    assert again.hash == store.hash
    assert again.cases[0].voxels == {"0": 6, "1": 3}


def test_three_classes_and_nothing_but_255_is_said(tmp_path: Path, caplog):
    mask = np.array([[0, 0, 255]] * 3, np.uint8)
    prepare(_pair(tmp_path, (3, 3, 3), mask, "background\nnevus\nmelanoma\n"))
    assert "the labels hold only 0 and 255, and 255 is ignored, so nothing can be" in caplog.text


def photograph(path: Path, shown: np.ndarray, orientation: int) -> None:
    """Write what viewers show as `shown` (H, W), as a camera that is held so stores it."""
    back = {2: Turn.FLIP_LEFT_RIGHT, 3: Turn.ROTATE_180, 4: Turn.FLIP_TOP_BOTTOM}
    back |= {5: Turn.TRANSPOSE, 6: Turn.ROTATE_90, 7: Turn.TRANSVERSE, 8: Turn.ROTATE_270}
    stored = Image.fromarray(shown).transpose(back[orientation])
    exif = stored.getexif()
    exif[0x0112] = orientation
    path.parent.mkdir(parents=True, exist_ok=True)
    stored.save(path, exif=exif, quality=95)
    assert np.abs(read_image(path).image[0, 0].astype(int) - shown).max() < 40


@pytest.mark.parametrize("orientation", range(2, 9))
def test_masks_of_photographs_that_a_camera_turned(tmp_path: Path, caplog, orientation: int):
    """Told in prepare, compared in check: drawn as viewers show it, or on the stored pixels."""
    shown = np.full((64, 64), 200, np.uint8)
    shown[4:20, 6:26] = 40  # a dark spot
    for index, name in enumerate(("as_shown", "as_stored", "tagged", "other")):
        photograph(tmp_path / "images" / f"{name}.jpg", shown, orientation)
        mask = np.where(shown < 128, 255, 0).astype(np.uint8)
        path = tmp_path / "masks" / f"{name}.png"
        if name == "as_shown":
            save(path, mask)
        else:
            photograph(path, mask, orientation)
        if name == "as_stored":
            save(path, np.asarray(Image.open(path)))  # without the tag
        if name == "other":
            Image.new("L", (64, 64), index).save(tmp_path / "images" / f"{name}.jpg")
    store = prepare(DataConfig(format="images", root=tmp_path, prepared=tmp_path / "p"))
    assert caplog.messages == [
        f"{tmp_path / 'p'}: the camera turned 2 of 4 photographs (EXIF orientation) whose masks "
        "say nothing of it (as_shown, as_stored); masks must be drawn on the picture as viewers "
        f"show it, which msa2net check {tmp_path / 'p'} compares"
    ]
    dark = shown < 128
    assert np.array_equal(store.case("as_shown").label[0], dark)
    assert np.array_equal(store.case("tagged").label[0], dark)
    found = {f.where: (f.level, f.what) for f in check_store(store) if "camera" in f.what}
    assert found.keys() == {"as_shown", "as_stored"}
    assert found["as_shown"][0] == "note"
    assert found["as_stored"][0] == "warning"
    assert found["as_stored"][1].endswith("it fits better turned alike")


def test_a_turned_photograph_and_its_lying_mask_are_told_by_their_sizes(tmp_path: Path):
    photograph(tmp_path / "images/a.jpg", np.zeros((40, 30), np.uint8), 6)
    for name in "abc":
        save(tmp_path / "masks" / f"{name}.png", np.zeros((30, 40), np.uint8))
    for name in "bc":
        save(tmp_path / "images" / f"{name}.jpg", np.zeros((30, 40), np.uint8))
    message = (
        r"case a: the camera turned .*a.jpg, so that viewers show 40×30 \(rows × columns; EXIF "
        r"orientation 6\), and its mask .*a.png is drawn on the stored 30×40; turn the mask alike"
    )
    with pytest.raises(DataError, match=message):
        prepare(DataConfig(format="images", root=tmp_path, prepared=tmp_path / "p"))
    save(tmp_path / "predicted/a.png", np.zeros((40, 30), np.uint8))
    save(tmp_path / "labels/a.png", np.zeros((30, 40), np.uint8))
    with pytest.raises(DataError, match="same grid; if a camera turned the photograph"):
        msa2net.evaluate(tmp_path / "predicted", tmp_path / "labels")


@pytest.mark.parametrize("labels", [None, TWO_CLASSES])
def test_one_bit_masks_are_object_and_background(tmp_path: Path, labels):
    data = _pair(tmp_path, (3, 3, 3), np.zeros((3, 3), np.uint8), labels)
    for index in range(3):
        Image.fromarray(np.eye(3) > 0).save(tmp_path / "masks" / f"{index}.png")
    assert prepare(data).case("0").label.tolist() == [np.eye(3).tolist()]


def test_pictures_of_mixed_depth_are_refused(tmp_path: Path):
    data = _pair(tmp_path)
    save(tmp_path / "images" / "2.png", np.full((8, 9), 40_000, np.uint16))
    with pytest.raises(DataError, match=r"2.png holds uint16 values and .* first image is 8-bit"):
        prepare(data)


def test_check_names_what_failed_even_where_nothing_could_be_stored(tmp_path: Path):
    data = _pair(tmp_path, mask=np.full((8, 9), 3, np.uint8), labels=TWO_CLASSES)
    with pytest.raises(DataError, match="3 of 3 cases cannot be used"):
        prepare(data)
    result = command("check", data.prepared, "-v", cwd=tmp_path)
    assert result.returncode == 2
    said = "".join(result.stdout.split())  # lines are broken where they must
    for name in "012":
        assert f"{name}.pngholdslabelvaluesoutside" in said
    for index in range(3):
        save(tmp_path / "masks" / f"{index}.png", np.ones((8, 9), np.uint8))
    assert len(prepare(data).cases) == 3
    assert '"failures"' not in (data.prepared / "dataset.json").read_text()


def test_nothing_is_prepared_beside_foreign_files(tmp_path: Path):
    data = _pair(tmp_path)
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "thesis.tex").write_text("")
    with pytest.raises(ConfigError, match=r"holds thesis.tex and no prepared data; name a new or"):
        prepare(data.model_copy(update={"prepared": foreign}))
    assert [path.name for path in foreign.iterdir()] == ["thesis.tex"]
    prepare(data)
    (data.prepared / "notes.txt").write_text("")  # beside data that are there already
    (data.prepared / "dataset.json").unlink()
    (data.prepared / "notes.txt").unlink()
    assert len(prepare(data).cases) == 3  # as our own advice about damage leaves it


def test_no_workers_are_no_default(tmp_path: Path):
    with pytest.raises(ConfigError, match="workers is 0; it must be 1 or more"):
        prepare(_pair(tmp_path), workers=0)


def test_another_data_set_s_store_is_not_overwritten(tmp_path: Path, prepared: DataConfig):
    data = _pair(tmp_path).model_copy(update={"prepared": prepared.prepared})
    before = (prepared.prepared / "dataset.json").read_bytes()
    with pytest.raises(DataError, match="was prepared from the format 'isic2018', not 'images'"):
        prepare(data)
    write_phantom("isic2018", tmp_path / "other", cases=3)
    (tmp_path / "other").rename(tmp_path / "isic")
    for folder in (tmp_path / "isic").iterdir():
        for path in folder.iterdir():
            path.rename(path.with_name(path.name.replace("ISIC_0", "ISIC_9")))
    with pytest.raises(DataError, match="holds another data set"):
        prepare(prepared.model_copy(update={"root": tmp_path / "isic"}))
    assert (prepared.prepared / "dataset.json").read_bytes() == before


def test_a_prepared_data_set_needs_no_raw_files(prepared: DataConfig):
    store = prepare(prepared.model_copy(update={"root": None}))
    assert len(store.cases) == 10


def test_a_deleted_array_is_made_again(tmp_path: Path):
    data = _pair(tmp_path)
    prepare(data)
    (tmp_path / "prepared" / "cases" / "1.image.npy").unlink()
    assert prepare(data).case("1").image.shape == (3, 1, 8, 9)


def test_class_lists_from_any_editor(tmp_path: Path):
    data = _pair(tmp_path)
    (tmp_path / "labels.txt").write_bytes("\ufeffbackground\r\nnævus\r\n".encode())
    assert prepare(data).label_names == ("background", "nævus")
    (tmp_path / "labels.txt").write_bytes("background\nnævus\n".encode("latin-1"))
    with pytest.raises(DataError, match="labels.txt is not UTF-8 text"):
        prepare(data)


@pytest.mark.parametrize("ending", MASK_ENDINGS)
def test_endings_of_masks_are_known_in_every_place(tmp_path: Path, ending: str):
    """In prepare, in evaluate, and by predict, which leaves masks beside their images out."""
    data = _pair(tmp_path, mask=np.eye(9, dtype=np.uint8)[:8])
    for index in range(3):
        mask = tmp_path / "masks" / f"{index}.png"
        mask.rename(mask.with_name(f"{index}{ending.upper()}.PNG"))
    assert [case.id for case in prepare(data).cases] == ["0", "1", "2"]
    assert msa2net.evaluate(tmp_path / "masks", tmp_path / "masks", data.labels)["cases"] == 3
    isic = tmp_path / "isic"
    for folder, other in (("images", isic2018.IMAGES), ("masks", isic2018.MASKS)):
        shutil.copytree(tmp_path / folder, isic / other)
    assert len(open_source(DataConfig(format="isic2018", root=isic, prepared=tmp_path)).cases) == 3
    for path in (tmp_path / "masks").iterdir():
        path.rename(tmp_path / "images" / path.name)
    found = find_images([tmp_path / "images"])
    assert [image.name for image in found] == ["0", "1", "2"]


def test_class_lists_lie_among_the_masks_or_beside_them(tmp_path: Path):
    """For prepare and evaluate alike; two that differ are refused."""
    _pair(tmp_path, mask=np.eye(9, dtype=np.uint8)[:8])
    masks = tmp_path / "masks"
    data = DataConfig(format="images", root=tmp_path, prepared=tmp_path / "prepared")
    for place in (masks, tmp_path):
        (place / "labels.txt").write_text("background\nspot\n")
        assert prepare(data).label_names == ("background", "spot")
        assert msa2net.evaluate(masks, masks)["label_names"] == ["background", "spot"]
    (masks / "labels.txt").write_text("background\nother\n")
    for use in (lambda: prepare(data), lambda: msa2net.evaluate(masks, masks)):
        with pytest.raises(DataError, match="labels.txt name different classes; remove one of"):
            use()


def test_what_is_left_out_of_a_data_set_is_said(tmp_path: Path, caplog):
    data = _pair(tmp_path)
    (tmp_path / "images" / "more").mkdir()
    for number in range(5):
        (tmp_path / "images" / f"x{number}.webp").write_bytes(b"")
    for name in ("Thumbs.db", ".hidden", "license.txt"):
        (tmp_path / "images" / name).write_bytes(b"")
    prepare(data)
    assert caplog.messages == [
        f"{tmp_path / 'images'}: 6 of its entries are not read, being folders or of another kind: "
        "more/, x0.webp, x1.webp, x2.webp, x3.webp and 1 more"
    ]


def test_a_wrong_folder_is_called_by_what_was_typed_and_what_was_looked_for(tmp_path: Path):
    def message(format: str, root: Path) -> str:
        with pytest.raises(DataError) as caught:
            open_source(DataConfig(format=format, root=root, prepared=tmp_path / "p"))
        return str(caught.value)

    (tmp_path / "scans").mkdir()
    for format in ("images", "isic2018", "btcv", "nnunet"):
        assert message(format, tmp_path / "none").startswith(f"there is no folder {tmp_path}/none;")
    holds = "it holds scans/"
    assert message("images", tmp_path) == (
        f"{tmp_path} holds no folder masks/: this layout is images/ and masks/, with images of "
        f"the same names; {holds}"
    )
    assert f"{tmp_path} holds no folder ISIC2018_T" in message("isic2018", tmp_path)
    assert f"{tmp_path} holds no folder img/: this layout is img/img" in message("btcv", tmp_path)
    assert message("images", tmp_path / "scans").endswith("; it is empty")


def test_hidden_files_are_no_images(tmp_path: Path):
    data = _pair(tmp_path)
    (tmp_path / "images" / "._0.png").write_bytes(b"metadata")
    (tmp_path / "images" / "folder.png").mkdir()
    assert len(prepare(data).cases) == 3


def test_pages_of_a_tiff_are_not_dropped_in_silence(tmp_path: Path):
    pages = [Image.new("L", (4, 4), value) for value in (0, 1)]
    pages[0].save(tmp_path / "x.tif", save_all=True, append_images=pages[1:])
    with pytest.raises(DataError, match="holds 2 pages"):
        read_image(tmp_path / "x.tif")


def test_empty_split_lists_are_not_ignored(tmp_path: Path):
    data = _pair(tmp_path)
    (tmp_path / "splits").mkdir()
    for name in ("train", "val", "test"):
        (tmp_path / "splits" / f"{name}.txt").write_text("")
    with pytest.raises(DataError, match="are all split lists empty"):
        prepare(data)


def test_sizes_that_differ_are_both_shown(tmp_path: Path):
    with pytest.raises(DataError, match=r"is 8×9 and its mask .* is 4×4"):
        prepare(_pair(tmp_path, mask=np.zeros((4, 4), np.uint8)))


def test_an_image_without_mask_is_named(tmp_path: Path):
    data = _pair(tmp_path)
    (tmp_path / "masks" / "1.png").unlink()
    with pytest.raises(DataError, match=r"1 of 3 images have no mask, first .*1.png"):
        prepare(data)
    (tmp_path / "images" / "1.png").unlink()
    (tmp_path / "images" / "2.png").unlink()
    with pytest.raises(DataError, match=r"1 of 2 masks have no image, first .*2.png"):
        prepare(data)


def test_two_images_of_one_name_are_refused(tmp_path: Path):
    data = _pair(tmp_path)
    save(tmp_path / "images" / "1.jpg", np.zeros((8, 9, 3), np.uint8))
    with pytest.raises(DataError, match="the same name"):
        prepare(data)


def test_unknown_format_and_missing_root():
    with pytest.raises(ConfigError, match="there is no data format 'dicom'; there are images"):
        prepare(DataConfig(format="dicom", prepared=Path("p")))
    with pytest.raises(ConfigError, match="data.root is missing"):
        prepare(DataConfig(format="isic2018", prepared=Path("p")))


def test_damaged_stores_are_named(prepared: DataConfig, tmp_path: Path):
    with pytest.raises(DataError, match="dataset.json"):
        open_store(tmp_path)
    (tmp_path / "dataset.json").write_text('{"schema": 99}')
    with pytest.raises(DataError, match="schema 99, this version reads 1"):
        open_store(tmp_path)
    (tmp_path / "dataset.json").write_text('{"schema": 1, "complete": true}')
    with pytest.raises(DataError, match="is damaged"):
        open_store(tmp_path)
    store = replace(open_store(prepared.prepared), root=tmp_path)
    with pytest.raises(DataError, match="missing or damaged"):
        store.case("ISIC_0000001")
    with pytest.raises(DataError, match="no case in split 'holdout'"):
        store.ids("holdout")


def test_large_photographs_are_stored_reduced():
    image = np.arange(3 * 40 * 20, dtype=np.uint8).reshape(3, 1, 40, 20)
    case = reduce_image(Case("a", image, np.zeros((1, 40, 20), np.uint8)), max_side=10)
    assert case.image.shape == (3, 1, 10, 5)
    assert case.label.shape == (1, 10, 5)
    np.testing.assert_allclose(case.image[0, 0, 0, 0], image[0, 0, :4, :4].mean(), atol=0.5)
    assert reduce_image(case, max_side=10) is case


# Slices, order, augmentation ----------------------------------------------------------------------

AUGMENT = AugmentConfig(
    horizontal_flip=0.5, vertical_flip=0.5, affine=1.0, brightness=0.3, contrast=0.3, noise_std=0.1
)


@pytest.fixture(scope="module")
def dataset(prepared: DataConfig) -> SliceDataset:
    arrays = build_slices(open_store(prepared.prepared), PREPROCESSING, ("train",))
    return SliceDataset(arrays, PREPROCESSING, Augmentation(AUGMENT), seed=7)


def test_slices_are_the_preprocessed_cases(prepared: DataConfig):
    store = open_store(prepared.prepared)
    arrays = build_slices(store, PREPROCESSING, ("train",))
    case_id, index = arrays.origin[3]
    case = store.case(case_id)
    expected = PREPROCESSING.unit_slices(case.image, (0.0, 255.0))[index]
    image_Chw, label_hw = arrays[3]
    np.testing.assert_allclose(image_Chw, expected, atol=5e-4)  # half precision
    assert np.array_equal(label_hw, PREPROCESSING.label_slices(case.label)[index])
    assert np.array_equal(arrays.label(3), label_hw)
    opened = np.load(arrays.path(3), allow_pickle=False)[index]
    assert np.array_equal(opened["image"], image_Chw)
    assert np.array_equal(opened["label"], label_hw)
    assert len(arrays.origin) == 7
    with pytest.raises(IndexError):
        arrays[7]


def test_a_spawned_worker_gets_no_copy_of_the_slices(dataset: SliceDataset):
    assert len(pickle.dumps(dataset.arrays)) < 5000


def test_slices_that_were_cut_short_are_written_anew(prepared: DataConfig):
    store = open_store(prepared.prepared)
    other = PREPROCESSING.model_copy(update={"image_size": (96, 32)})
    path = build_slices(store, other, ("train",)).path(0)
    content = path.read_bytes()
    path.write_bytes(content[:-1])
    build_slices(store, other, ("train",))
    assert path.read_bytes() == content


def copied(prepared: DataConfig, root: Path) -> Store:
    """A copy of its own: what other tests have sliced by then depends on their order."""
    shutil.copytree(prepared.prepared, root, ignore=shutil.ignore_patterns("slices"))
    return open_store(root)


def sliced(root: Path) -> dict[str, int]:
    """Every file of slices, and when it was written."""
    return {
        str(path.relative_to(root)): path.stat().st_mtime_ns
        for path in (root / "slices").rglob("*")
        if path.is_file()
    }


def test_folds_share_the_slices_of_their_cases(prepared: DataConfig, tmp_path: Path):
    """Each case's are written once, whichever fold comes first, and in the order of the store."""
    store = copied(prepared, tmp_path / "prepared")
    written: dict[str, int] = {}
    for fold in range(3):
        data = prepared.model_copy(update={"folds": 3, "fold": fold})
        split = with_splits(store, data)
        arrays = build_slices(split, PREPROCESSING, ("train",))
        assert [case_id for case_id, _ in arrays.origin] == split.ids("train")
        now = sliced(store.root)
        assert {name: now[name] for name in written} == written
        written = now
        for index, (case_id, place) in enumerate(arrays.origin):
            label = store.case(case_id).label
            assert np.array_equal(arrays[index][1], PREPROCESSING.label_slices(label)[place])
    trained_on = [row for row in store.cases if row.split != "test"]
    assert len(written) == len(trained_on)
    other = PREPROCESSING.model_copy(update={"image_size": (64, 32)})
    build_slices(store, other, ("train",))
    assert len({name.split("/")[1] for name in sliced(store.root)}) == 2


def test_slices_that_no_case_has_any_more_are_removed(prepared: DataConfig, tmp_path: Path):
    raw, data = tmp_path / "raw", prepared.model_copy(update={"prepared": tmp_path / "prepared"})
    shutil.copytree(data.root, raw)
    data = data.model_copy(update={"root": raw})
    store = prepare(data)
    build_slices(store, PREPROCESSING, ("train",))
    before = sliced(store.root)
    former = store.root / "slices" / "0123456789abcdef"  # of all cases of a split in one file
    former.mkdir()
    for name in ("origin.json", "images.npy", "labels.npy"):
        (former / name).touch()
    (store.root / ".slices-0123456789abcdef.lock").touch()
    (store.root / "slices" / ".writing-abc").mkdir()
    prepare(data)
    assert sliced(store.root) == before
    assert not former.exists()
    assert not list(store.root.rglob(".*"))

    changed = next(row for row in store.cases if row.split == "train")
    path = Path(changed.files[0]["path"])
    Image.fromarray(255 - np.asarray(Image.open(path))).save(path, quality=95)
    store = prepare(data)
    left = sliced(store.root)
    assert len(left) == len(before) - 1
    arrays = build_slices(store, PREPROCESSING, ("train",))
    after = sliced(store.root)
    assert len(after) == len(before)
    assert {name: after[name] for name in left} == left
    image = PREPROCESSING.unit_slices(store.case(changed.id).image, (0.0, 255.0))[0]
    index = arrays.origin.index((changed.id, 0))
    np.testing.assert_allclose(arrays[index][0], image, atol=5e-4)


def test_a_full_disk_is_one_sentence_and_leaves_nothing(
    prepared: DataConfig, tmp_path: Path, monkeypatch
):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    store = copied(prepared, tmp_path / "prepared")
    with monkeypatch.context() as patched:
        patched.setattr("msa2net.files.os.fsync", full)
        with pytest.raises(DataError, match="cannot write .*slices.*: No space left"):
            build_slices(store, PREPROCESSING, ("train",))
    assert sliced(store.root) == {}
    assert len(build_slices(store, PREPROCESSING, ("train",)).origin) > 0  # nothing in the way


def _batches(dataset: SliceDataset, epoch: int, **loader) -> list[torch.Tensor]:
    sampler = EpochSampler(len(dataset), seed=7)
    sampler.set_epoch(epoch)
    batches = list(DataLoader(dataset, batch_size=3, sampler=sampler, **loader))
    return [part for batch in batches for part in (batch["image"], batch["label"])]


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_samples_depend_on_seed_epoch_and_index_only(dataset: SliceDataset, start: str):
    alone = _batches(dataset, epoch=1)
    torch.rand(5)  # whatever else is drawn
    in_workers = _batches(dataset, epoch=1, num_workers=2, multiprocessing_context=start)
    assert all(torch.equal(a, b) for a, b in zip(alone, in_workers, strict=True))


def test_epochs_differ_in_order_and_augmentation(dataset: SliceDataset):
    assert list(EpochSampler(50, 1)) != [(1, i) for _, i in EpochSampler(50, 1)]
    one, two = EpochSampler(50, 1), EpochSampler(50, 1)
    two.set_epoch(1)
    assert [i for _, i in one] != [i for _, i in two]
    assert sorted(i for _, i in two) == list(range(50))
    assert not torch.equal(dataset[(0, 2)]["image"], dataset[(1, 2)]["image"])
    assert torch.equal(dataset[(1, 2)]["image"], dataset[(1, 2)]["image"])


def test_augmentation_leaves_the_global_generator_alone(dataset: SliceDataset):
    state = torch.get_rng_state()
    dataset[(0, 0)]
    assert torch.equal(state, torch.get_rng_state())


def test_image_and_label_move_together():
    """An image that equals its label still does after flips and affine maps, but for the edge."""
    config = AugmentConfig(horizontal_flip=0.5, vertical_flip=0.5, affine=1.0, shear_degrees=10)
    label = torch.zeros(64, 64, dtype=torch.uint8)
    label[10:40, 20:55] = 1
    for index in range(10):
        image, moved = Augmentation(config)(label[None].float(), label, (0, 0, index))
        disagree = ((image[0] > 0.5) != (moved == 1)).float().mean()
        assert disagree < 0.02
        assert set(moved.unique().tolist()) <= {0, 1}


def test_no_augmentation_changes_nothing():
    image, label = torch.rand(3, 16, 16), torch.randint(0, 2, (16, 16), dtype=torch.uint8)
    same_image, same_label = Augmentation(AugmentConfig())(image, label, (0, 0, 0))
    assert torch.equal(image, same_image)
    assert torch.equal(label, same_label)
