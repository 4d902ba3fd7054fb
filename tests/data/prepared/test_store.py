"""Prepared data: equal to the files, reused, done again where something changed, and refused."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from commands import msa2net as command
from image_files import TWO_CLASSES, image_pairs, save
from msa2net.config import DataConfig
from msa2net.data.case import Case
from msa2net.data.io.readers import read_image
from msa2net.data.phantom.files import write_phantom
from msa2net.data.prepared import prepare as prepare_module
from msa2net.data.prepared.prepare import prepare
from msa2net.data.prepared.store import open_store
from msa2net.data.resampling import reduce_image
from msa2net.errors import ConfigError, DataError


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


def test_nothing_is_prepared_beside_foreign_files(tmp_path: Path):
    data = image_pairs(tmp_path)
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
        prepare(image_pairs(tmp_path), workers=0)


def test_another_data_set_s_store_is_not_overwritten(tmp_path: Path, prepared: DataConfig):
    data = image_pairs(tmp_path).model_copy(update={"prepared": prepared.prepared})
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
    data = image_pairs(tmp_path)
    prepare(data)
    (tmp_path / "prepared" / "cases" / "1.image.npy").unlink()
    assert prepare(data).case("1").image.shape == (3, 1, 8, 9)


def test_check_names_what_failed_even_where_nothing_could_be_stored(tmp_path: Path):
    data = image_pairs(tmp_path, mask=np.full((8, 9), 3, np.uint8), labels=TWO_CLASSES)
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
    with pytest.raises(DataError, match="is missing; prepare the data again"):
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
