"""Folders of 2-D images and masks: classes, what 255 means, cameras that turn, names."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import msa2net
from image_files import TWO_CLASSES, camera_image, image_pairs, save
from msa2net.config import DataConfig
from msa2net.data.check.dataset import check_store
from msa2net.data.formats import isic2018
from msa2net.data.formats.file_names import MASK_ENDINGS
from msa2net.data.formats.registry import open_source
from msa2net.data.prepared.prepare import prepare
from msa2net.data.prepared.store import open_store
from msa2net.errors import DataError
from msa2net.prediction.inputs import find_images


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


def test_label_values_outside_the_classes_are_named_with_file_and_count(tmp_path: Path):
    mask = np.zeros((8, 9), np.uint8)
    mask[0, :5] = 3
    data = image_pairs(tmp_path, mask=mask, labels=TWO_CLASSES)
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
    data = image_pairs(tmp_path, mask=mask, labels=TWO_CLASSES)
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
    data = image_pairs(tmp_path / "a", (3, 3, 3), bordered, TWO_CLASSES)
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
    for name in "012":  # so all are done again
        save(masks / f"{name}.png", np.array([[0, 1, 255]] * 3, np.uint8))
    store = prepare(data)
    assert [store.case(name).label.max() for name in "012"] == [255, 255, 255]
    assert store.case("2").label.tolist() == [[[0, 1, 255]] * 3]
    assert caplog.messages == []
    binary = prepare(image_pairs(tmp_path / "b", (3, 3, 3), bordered))
    assert binary.case("0").label.tolist() == [[[0, 0, 1]] * 3]
    both = np.array([[0, 1, 255]] * 3, np.uint8)
    with pytest.raises(DataError, match=r"holds 1 \(3 pixels\) beside 255 \(3 pixels\); masks wi"):
        prepare(image_pairs(tmp_path / "c", (3, 3, 3), both))
    with pytest.raises(DataError, match=r"classes: 7 \(9 pixels\); .*name classes in labels.txt"):
        prepare(image_pairs(tmp_path / "d", (3, 3, 3), np.full((3, 3), 7, np.uint8)))


def test_a_stray_1_among_masks_of_0_and_255_is_refused(tmp_path: Path, caplog):
    """Otherwise it would turn the structure of the whole data set into what counts nowhere."""
    data = image_pairs(tmp_path, (3, 3, 3), np.array([[0, 0, 255]] * 3, np.uint8), TWO_CLASSES)
    stray, masks = tmp_path / "masks" / "1.png", tmp_path / "masks"
    save(stray, np.array([[0, 1, 255]] * 3, np.uint8))
    words = "not clear: .*1.png holds a 1, but 2 of 3 labels hold 255 and no 1; "
    for _ in range(2):  # the second time nothing is read
        with pytest.raises(DataError, match=words):
            prepare(data)
    with pytest.raises(DataError, match="met files it could not use: msa2net check .* names them"):
        open_store(data.prepared)
    failed = check_store(open_store(data.prepared, complete=False))
    assert [one.where for one in failed if "not clear" in one.what + one.detail] == ["1"]
    shutil.copytree(masks, tmp_path / "predictions")
    save(tmp_path / "predictions" / "1.png", np.array([[0, 255, 255]] * 3, np.uint8))
    with pytest.raises(DataError, match=words + ".*if it is 'object', write 255 instead of 1"):
        msa2net.evaluate(tmp_path / "predictions", masks)
    (tmp_path / "labels.txt").write_text("background\nobject\nnone\n")  # as the sentence says
    assert prepare(data).case("0").label.max() == 255
    (tmp_path / "labels.txt").write_text(TWO_CLASSES)
    save(stray, np.array([[0, 255, 255]] * 3, np.uint8))
    assert prepare(data).case("1").label.tolist() == [[[0, 1, 1]] * 3]


def test_masks_that_only_hold_an_ignored_255_are_named(tmp_path: Path, caplog):
    data = image_pairs(tmp_path, (3, 3, 3), np.array([[0, 1, 255]] * 3, np.uint8), TWO_CLASSES)
    masks = tmp_path / "masks"
    save(masks / "1.png", np.array([[0, 0, 255]] * 3, np.uint8))
    store = prepare(data)
    said = f"255 is ignored, because 2 of 3 labels hold a 1; {masks / '1.png'} holds 255 and no 1"
    assert said in caplog.text
    assert any(said in finding.what for finding in check_store(store))
    (tmp_path / "predictions").mkdir()
    for name in "012":
        save(tmp_path / "predictions" / f"{name}.png", np.array([[0, 1, 1]] * 3, np.uint8))
    assert said in str(msa2net.evaluate(tmp_path / "predictions", masks).note)


def test_a_data_set_in_which_an_earlier_version_ignored_255_is_done_again(tmp_path: Path):
    data = image_pairs(tmp_path, (3, 3, 3), np.array([[0, 0, 255]] * 3, np.uint8), TWO_CLASSES)
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
    prepare(image_pairs(tmp_path, (3, 3, 3), mask, "background\nnevus\nmelanoma\n"))
    assert "the labels hold only 0 and 255, and 255 is ignored, so nothing can be" in caplog.text


@pytest.mark.parametrize("orientation", range(2, 9))
def test_masks_of_photographs_that_a_camera_turned(tmp_path: Path, caplog, orientation: int):
    """Told in prepare, compared in check: drawn as viewers show it, or on the stored pixels."""
    shown = np.full((64, 64), 200, np.uint8)
    shown[4:20, 6:26] = 40  # a dark spot
    for index, name in enumerate(("as_shown", "as_stored", "tagged", "other")):
        camera_image(tmp_path / "images" / f"{name}.jpg", shown, orientation)
        mask = np.where(shown < 128, 255, 0).astype(np.uint8)
        path = tmp_path / "masks" / f"{name}.png"
        if name == "as_shown":
            save(path, mask)
        else:
            camera_image(path, mask, orientation)
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
    camera_image(tmp_path / "images/a.jpg", np.zeros((40, 30), np.uint8), 6)
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
    data = image_pairs(tmp_path, (3, 3, 3), np.zeros((3, 3), np.uint8), labels)
    for index in range(3):
        Image.fromarray(np.eye(3) > 0).save(tmp_path / "masks" / f"{index}.png")
    assert prepare(data).case("0").label.tolist() == [np.eye(3).tolist()]


def test_pictures_of_mixed_depth_are_refused(tmp_path: Path):
    data = image_pairs(tmp_path)
    save(tmp_path / "images" / "2.png", np.full((8, 9), 40_000, np.uint16))
    with pytest.raises(DataError, match=r"2.png holds uint16 values and .* first image is 8-bit"):
        prepare(data)


def test_class_lists_from_any_editor(tmp_path: Path):
    data = image_pairs(tmp_path)
    (tmp_path / "labels.txt").write_bytes("\ufeffbackground\r\nnævus\r\n".encode())
    assert prepare(data).label_names == ("background", "nævus")
    (tmp_path / "labels.txt").write_bytes("background\nnævus\n".encode("latin-1"))
    with pytest.raises(DataError, match="labels.txt is not UTF-8 text"):
        prepare(data)


@pytest.mark.parametrize("ending", MASK_ENDINGS)
def test_endings_of_masks_are_known_in_every_place(tmp_path: Path, ending: str):
    """In prepare, in evaluate, and by predict, which leaves masks beside their images out."""
    data = image_pairs(tmp_path, mask=np.eye(9, dtype=np.uint8)[:8])
    for index in range(3):
        mask = tmp_path / "masks" / f"{index}.png"
        mask.rename(mask.with_name(f"{index}{ending.upper()}.PNG"))
    assert [case.id for case in prepare(data).cases] == ["0", "1", "2"]
    assert msa2net.evaluate(tmp_path / "masks", tmp_path / "masks", data.labels).cases == 3
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
    image_pairs(tmp_path, mask=np.eye(9, dtype=np.uint8)[:8])
    masks = tmp_path / "masks"
    data = DataConfig(format="images", root=tmp_path, prepared=tmp_path / "prepared")
    for place in (masks, tmp_path):
        (place / "labels.txt").write_text("background\nspot\n")
        assert prepare(data).label_names == ("background", "spot")
        assert msa2net.evaluate(masks, masks).label_names == ("background", "spot")
    (masks / "labels.txt").write_text("background\nother\n")
    for use in (lambda: prepare(data), lambda: msa2net.evaluate(masks, masks)):
        with pytest.raises(DataError, match="labels.txt name different classes; remove one of"):
            use()


def test_what_is_left_out_of_a_data_set_is_said(tmp_path: Path, caplog):
    data = image_pairs(tmp_path)
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
    data = image_pairs(tmp_path)
    (tmp_path / "images" / "._0.png").write_bytes(b"metadata")
    (tmp_path / "images" / "folder.png").mkdir()
    assert len(prepare(data).cases) == 3


def test_empty_split_lists_are_not_ignored(tmp_path: Path):
    data = image_pairs(tmp_path)
    (tmp_path / "splits").mkdir()
    for name in ("train", "val", "test"):
        (tmp_path / "splits" / f"{name}.txt").write_text("")
    with pytest.raises(DataError, match="are all split lists empty"):
        prepare(data)


def test_sizes_that_differ_are_both_shown(tmp_path: Path):
    with pytest.raises(DataError, match=r"is 8×9 and its mask .* is 4×4"):
        prepare(image_pairs(tmp_path, mask=np.zeros((4, 4), np.uint8)))


def test_an_image_without_mask_is_named(tmp_path: Path):
    data = image_pairs(tmp_path)
    (tmp_path / "masks" / "1.png").unlink()
    with pytest.raises(DataError, match=r"1 of 3 images have no mask, first .*1.png"):
        prepare(data)
    (tmp_path / "images" / "1.png").unlink()
    (tmp_path / "images" / "2.png").unlink()
    with pytest.raises(DataError, match=r"1 of 2 masks have no image, first .*2.png"):
        prepare(data)


def test_two_images_of_one_name_are_refused(tmp_path: Path):
    data = image_pairs(tmp_path)
    save(tmp_path / "images" / "1.jpg", np.zeros((8, 9, 3), np.uint8))
    with pytest.raises(DataError, match="are both .1.; rename or remove"):
        prepare(data)
