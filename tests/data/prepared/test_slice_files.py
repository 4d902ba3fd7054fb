"""Training slices on disk."""

import errno
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from msa2net.config import DataConfig
from msa2net.data.prepared.prepare import prepare
from msa2net.data.prepared.slice_files import build_slices
from msa2net.data.prepared.store import Store, open_store, with_splits
from msa2net.data.preprocessing import Preprocessing
from msa2net.errors import DataError

PREPROCESSING = Preprocessing(channels=3, image_size=(32, 32), fit="stretch")


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
