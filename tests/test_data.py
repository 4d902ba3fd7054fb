"""Readers, formats, the store, slices, order and augmentation."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from msa2net.config import AugmentConfig, DataConfig
from msa2net.data import store as store_module
from msa2net.data.augment import Augmentation
from msa2net.data.case import Case, Geometry, Segmentation
from msa2net.data.phantom_files import write_phantom
from msa2net.data.preprocessing import Preprocessing
from msa2net.data.readers import list_images, read_image, read_mask, read_path
from msa2net.data.slices import EpochSampler, SliceDataset, build_slices
from msa2net.data.splits import read_split_lists, split_by_count, split_by_ratio
from msa2net.data.store import open_store, prepare, reduce_photograph
from msa2net.errors import ConfigError, DataError

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
        ("text.png", "not a picture"),
        ("empty.jpg", "not a picture"),
        ("none.png", "there is no file"),
        ("scan.dcm", "files ending in '.dcm' are not read"),
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
    with pytest.raises(DataError, match=r"bomb.png declares an implausibly large picture"):
        read_image(tmp_path / "bomb.png")


def test_masks_with_colours_or_fractions_are_refused(tmp_path: Path):
    colour = np.zeros((4, 4, 3), np.uint8)
    colour[0, 0] = 1, 2, 3
    with pytest.raises(DataError, match="colour picture, not a mask"):
        read_mask(save(tmp_path / "c.png", colour))
    Image.fromarray(np.full((2, 2), 0.5, np.float32)).save(tmp_path / "f.tif")
    with pytest.raises(DataError, match="whole class indices"):
        read_mask(tmp_path / "f.tif")


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
    several = Segmentation("a", np.array([[[0, 2]]], np.uint8), ("background", "x", "y"))
    assert read_mask(several.save(tmp_path / "m.png")).tolist() == [[0, 2]]


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


def test_split_lists(tmp_path: Path):
    folder = tmp_path / "splits"
    assert read_split_lists(folder, ["a"]) is None
    folder.mkdir()
    for name, text in (("train", "a\nb\n"), ("val", "c\n"), ("test", "d\n\n")):
        (folder / f"{name}.txt").write_text(text)
    expected = {"a": "train", "b": "train", "c": "val", "d": "test"}
    assert read_split_lists(folder, list("abcd")) == expected
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
    original = store_module._store_case
    monkeypatch.setattr(
        store_module,
        "_store_case",
        lambda data, case, recipe: done.append(case.id) or original(data, case, recipe),
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


def _pair(root: Path, image=(8, 9, 3), mask=None) -> DataConfig:
    mask = np.zeros((8, 9), np.uint8) if mask is None else mask
    for index in range(3):
        save(root / "images" / f"{index}.png", np.zeros(image, np.uint8))
        save(root / "masks" / f"{index}.png", mask)
    return DataConfig(format="images", root=root, prepared=root / "prepared")


def test_label_values_outside_the_classes_are_named_with_file_and_count(tmp_path: Path):
    mask = np.zeros((8, 9), np.uint8)
    mask[0, :5] = 3
    with pytest.raises(DataError, match=r"0.png holds label values .*: 3 \(5 pixels\); allowed"):
        prepare(_pair(tmp_path, mask=mask))
    assert not (tmp_path / "prepared").exists()


def test_smeared_masks_hint_at_jpeg(tmp_path: Path):
    mask = np.arange(72, dtype=np.uint8).reshape(8, 9)
    with pytest.raises(DataError, match="and 65 more; .*JPEG smears masks"):
        prepare(_pair(tmp_path, mask=mask))


def test_ignored_pixels_pass(tmp_path: Path):
    mask = np.array([[0, 1, 255]] * 3, np.uint8)
    store = prepare(_pair(tmp_path, image=(3, 3, 3), mask=mask))
    assert store.case("0").label.tolist() == [mask.tolist()]


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
    store = replace(open_store(prepared.prepared), root=tmp_path)
    with pytest.raises(DataError, match="missing or damaged"):
        store.case("ISIC_0000001")
    with pytest.raises(DataError, match="no case in split 'holdout'"):
        store.ids("holdout")


def test_large_photographs_are_stored_reduced():
    image = np.arange(3 * 40 * 20, dtype=np.uint8).reshape(3, 1, 40, 20)
    case = reduce_photograph(Case("a", image, np.zeros((1, 40, 20), np.uint8)), max_side=10)
    assert case.image.shape == (3, 1, 10, 5)
    assert case.label.shape == (1, 10, 5)
    np.testing.assert_allclose(case.image[0, 0, 0, 0], image[0, 0, :4, :4].mean(), atol=0.5)
    assert reduce_photograph(case, max_side=10) is case


# Slices, order, augmentation ----------------------------------------------------------------------

AUGMENT = AugmentConfig(
    horizontal_flip=0.5, vertical_flip=0.5, affine=1.0, brightness=0.3, contrast=0.3, noise_std=0.1
)


@pytest.fixture(scope="module")
def dataset(prepared: DataConfig) -> SliceDataset:
    arrays = build_slices(open_store(prepared.prepared), PREPROCESSING, "train")
    return SliceDataset(arrays, PREPROCESSING, Augmentation(AUGMENT), seed=7)


def test_slices_are_the_preprocessed_cases(prepared: DataConfig):
    store = open_store(prepared.prepared)
    arrays = build_slices(store, PREPROCESSING, "train")
    case_id, index = arrays.origin[3]
    case = store.case(case_id)
    expected = PREPROCESSING.unit_slices(case.image, (0.0, 255.0))[index]
    np.testing.assert_allclose(arrays.images[3], expected, atol=5e-4)  # half precision
    assert np.array_equal(arrays.labels[3], PREPROCESSING.label_slices(case.label)[index])
    assert len(arrays.origin) == 7
    assert isinstance(build_slices(store, PREPROCESSING, "train").images, np.memmap)


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
