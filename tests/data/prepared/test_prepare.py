"""Preparing: side by side, interrupted, twice at once; what is noted; splits drawn by patient."""

import io
import json
import os
import shutil
import subprocess
import sys
import threading
import time
import tracemalloc
from collections import Counter
from pathlib import Path

import nibabel
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from msa2net.config import DataConfig, parse_section
from msa2net.data.formats.registry import open_source
from msa2net.data.phantom.files import write_phantom
from msa2net.data.prepared.intensity_statistics import count_labels, describe_channels
from msa2net.data.prepared.prepare import open_prepared, prepare
from msa2net.data.prepared.splits import resplit, split_by_ratio
from msa2net.data.prepared.store import INDEX, label_path, open_store
from msa2net.errors import ConfigError, DataError
from msa2net.locks import Lock, alone_in


@pytest.fixture(scope="module")
def hearts(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("hearts") / "acdc"
    write_phantom("acdc", root, cases=6)
    return root


def settings(root: Path, prepared: Path, **changes) -> DataConfig:
    return DataConfig(format="acdc", root=root, prepared=prepared, **changes)


def arrays(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (folder / "cases").iterdir()}


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


def garble(path: Path) -> None:
    path.write_bytes(b"garbled" + path.read_bytes()[7:])


@pytest.mark.parametrize("damage", [truncate, garble, Path.unlink])
def test_a_damaged_stored_case_is_made_again_and_said(hearts: Path, tmp_path: Path, caplog, damage):
    data = settings(hearts, tmp_path)
    before, whole = prepare(data), arrays(tmp_path)
    path = label_path(tmp_path, before.cases[0].id)
    damage(path)
    with pytest.raises(DataError, match=f"{path} is (missing|damaged.*); prepare the data again"):
        prepare(data.model_copy(update={"root": None}))
    assert prepare(data).hash == before.hash
    assert arrays(tmp_path) == whole
    assert f"{path} is " in caplog.text
    assert "made again from the raw data" in caplog.text


# Side by side, interrupted, twice at once ---------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 5])
def test_the_number_of_workers_changes_nothing(hearts: Path, tmp_path: Path, workers):
    store = prepare(settings(hearts, tmp_path / "a"), workers=workers)
    other = prepare(settings(hearts, tmp_path / "b"), workers=2)
    assert store.cases == other.cases
    assert arrays(tmp_path / "a") == arrays(tmp_path / "b")


def test_an_interruption_keeps_what_was_done(hearts: Path, tmp_path: Path):
    data = settings(hearts, tmp_path)

    def interrupted(cases, total):
        for index, case in enumerate(cases):
            if index == 3:
                raise KeyboardInterrupt
            yield case

    with pytest.raises(KeyboardInterrupt):
        prepare(data, interrupted, workers=1)
    content = json.loads((tmp_path / INDEX).read_text())
    assert not content["complete"]
    assert 3 <= len(content["cases"]) < 12
    with pytest.raises(DataError, match="was interrupted"):
        open_store(tmp_path)
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "cases").iterdir()}
    assert len(prepare(data).cases) == 12
    for row in content["cases"]:  # none of what was done is done again
        name = f"{row['id']}.image.npy"
        assert (tmp_path / "cases" / name).stat().st_mtime_ns == before[name]
    assert open_store(tmp_path).root == tmp_path


def test_a_killed_process_loses_little(hearts: Path, tmp_path: Path):
    """SIGKILL leaves no time to write anything: the index must be there from before."""
    code = (
        "import sys, time; from pathlib import Path\n"
        "from msa2net.config import DataConfig; from msa2net.data.prepared import prepare as p\n"
        "p.WRITE_INDEX_EVERY_S = 0.0; slow = p._store_case\n"
        "p._store_case = lambda *a: (time.sleep(0.3), slow(*a))[1]\n"
        f"p.prepare(DataConfig(format='acdc', root=Path({str(hearts)!r}), "
        f"prepared=Path({str(tmp_path)!r})), workers=1)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code])
    deadline = time.monotonic() + 60
    while not (tmp_path / INDEX).is_file() and time.monotonic() < deadline:
        time.sleep(0.02)
    process.kill()
    process.wait()
    noted = json.loads((tmp_path / INDEX).read_text())
    assert not noted["complete"]
    assert 1 <= len(noted["cases"]) < 12
    assert len(prepare(settings(hearts, tmp_path)).cases) == 12
    assert open_store(tmp_path).case("patient001_frame01").label.any()


def test_a_kill_while_arrays_change_never_passes_for_the_old_data(tmp_path: Path):
    """Once arrays of another encoding are written, no index may call them by the first one."""
    write_phantom("btcv", tmp_path / "raw", cases=5)
    thirteen = DataConfig(format="btcv", root=tmp_path / "raw", prepared=tmp_path / "p")
    before = prepare(thirteen)
    labels = {row.id: np.array(before.case(row.id).label) for row in before.cases}
    code = (
        "import os, sys; from pathlib import Path\n"
        "from msa2net.config import DataConfig; from msa2net.data.prepared import prepare as p\n"
        "real, done = p._store_case, []\n"
        "def dying(*a):\n"
        "    if len(done) == 2: os.kill(os.getpid(), 9)\n"
        "    done.append(real(*a)); return done[-1]\n"
        "p._store_case = dying\n"
        "p.prepare(DataConfig(format='btcv', root=Path(sys.argv[1]), prepared=Path(sys.argv[2]), "
        "labels='transunet'), workers=1)\n"
    )
    killed = subprocess.run([sys.executable, "-c", code, tmp_path / "raw", tmp_path / "p"])
    assert killed.returncode == -9
    with pytest.raises(DataError):
        open_store(tmp_path / "p")
    again = prepare(thirteen)
    for case_id, label in labels.items():
        assert np.array_equal(again.case(case_id).label, label), case_id


def test_a_drawn_data_set_is_finished_after_an_interruption(tmp_path: Path):
    """It has no raw folder that could be named again."""
    data = DataConfig(
        format="phantom", prepared=tmp_path, phantom_cases=(2, 1, 1), phantom_shape=(8, 64, 64)
    )

    def interrupted(cases, total):
        yield cases[0]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare(data, interrupted, workers=1)
    assert len(prepare(data).cases) == 4
    assert len(open_prepared(data).cases) == 4


def test_raw_data_may_move(hearts: Path, tmp_path: Path):
    shutil.copytree(hearts, tmp_path / "one")
    first = prepare(settings(tmp_path / "one", tmp_path / "p"))
    (tmp_path / "one").rename(tmp_path / "two")
    second = prepare(settings(tmp_path / "two", tmp_path / "p"))
    assert "/two/" in Path(second.cases[0].files[0]["path"]).as_posix()
    assert second.hash == first.hash


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"schema": 7}', "install a newer msa2net, or delete it"),
        ('{"labels": {"a": 1}}', "is not prepared data"),
        ('{"schema": 2,', "restore or delete it"),
        ("[]", "is not prepared data"),
        ('{"schema": 2, "complete": true, "hash": "", "cases": ["x"]}', "is damaged"),
    ],
)
def test_indices_that_are_none(tmp_path: Path, content: str, message: str):
    (tmp_path / INDEX).write_text(content)
    with pytest.raises(DataError, match=message):
        open_store(tmp_path)


def test_a_damaged_geometry_is_found_on_opening(hearts: Path, tmp_path: Path):
    prepare(settings(hearts, tmp_path))
    content = json.loads((tmp_path / INDEX).read_text())
    content["cases"][2]["geometry"] = {}
    (tmp_path / INDEX).write_text(json.dumps(content))
    with pytest.raises(DataError, match="is damaged"):
        open_store(tmp_path)


@pytest.fixture(scope="module")
def ready(hearts: Path, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("ready")
    prepare(settings(hearts, folder))
    return folder


FILE = {"path": "a.png", "bytes": 3, "mtime_ns": 1, "sha256": "0" * 64}
NO_ROOM = {"spacing_mm": [1, 0, 1], "affine": None, "layout": None}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"label_names": ["background"]}, "label_names"),
        ({"label_names": ["a", "a", "b", "c"]}, "two classes have the same name"),
        ({"label_names": 3}, "label_names is 3"),
        ({"kind": "film"}, "kind is 'film'"),
        ({"channels": 10**9}, "channels is 1000000000"),
        ({"low": float("nan")}, "low is nan"),
        ({"cases": None}, "cases"),
        ({"cases.0": 7}, "delete it"),
        ({"cases.1.id": "../../x"}, "no case can be called so"),
        ({"cases.1.id": "patient001_frame01"}, "two cases have the same name"),
        ({"cases.1.split": "other"}, "cases.1.split is 'other'"),
        ({"cases.1.shape": [1, 10, 96]}, "cases.1.shape"),
        ({"cases.1.shape": [1, -10, 96, 96]}, "cases.1.shape.1 is -10"),
        ({"cases.1.shape": [1, 2**40, 96, 96]}, "cases.1.shape.1 is 1099511627776"),
        ({"cases.1.shape": [1, 1, 1, 1]}, "cases.1.*the source file has"),
        ({"cases.1.geometry": NO_ROOM}, "spacing_mm"),
        ({"cases.1.geometry": 3}, "cases.1.geometry is 3"),
        ({"cases.1.geometry.layout.units": "inch"}, "a unit of length is one of"),
        ({"cases.1.geometry.layout.orientation": [[0, 1], [0, 1], [2, 1]]}, "another one"),
        ({"cases.1.geometry.affine": [[1]]}, "affine"),
        ({"cases.1.files": [10**9]}, "cases.1.files.0 is 1000000000"),
        ({"cases.1.files": [FILE | {"path": [1, 2]}]}, "files.0.path is"),
        ({"cases.1.files": [FILE | {"bytes": -1}]}, "files.0.bytes is -1"),
        ({"cases.1.files": [{"bytes": 3}]}, "files.0.path is missing"),
        ({"cases.1.voxels": 3}, "voxels is 3"),
        ({"cases.1.voxels": {"liver": 3}}, "voxels"),
        ({"cases.1.intensity": [{"mean": 3}]}, "intensity"),
        ({"cases.1.patient": None}, "patient is None"),
        ({"cases.1.more": 3}, "cases.1.more is 3"),
    ],
)
def test_a_forged_index_is_refused_on_opening(
    ready: Path, tmp_path: Path, changes: dict, message: str
):
    content = json.loads((ready / INDEX).read_text())
    for name, value in changes.items():
        *outer, last = name.split(".")
        place = content
        for key in outer:
            place = place[int(key) if isinstance(place, list) else key]
        place[int(last) if isinstance(place, list) else last] = value
    (tmp_path / INDEX).write_text(json.dumps(content))
    with pytest.raises(DataError, match=rf"dataset\.json is damaged.*{message}.*prepare") as caught:
        open_store(tmp_path)
    assert "\n" not in str(caught.value)


def _header(text: str) -> bytes:
    """A `.npy` file that begins so."""
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode() + bytes(64)


def _saved(array: np.ndarray, **options) -> bytes:
    file = io.BytesIO()
    np.save(file, array, **options)
    return file.getvalue()


def _archived(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.savez(file, image=array)
    return file.getvalue()


@pytest.mark.parametrize(
    ("kind", "content", "message"),
    [
        ("image", b"", "is damaged"),
        ("image", _archived(np.zeros(3)), "magic string is not correct"),
        ("image", _saved(np.array([{}], object), allow_pickle=True), "Python objects"),
        ("image", _saved(np.zeros((1, 8, 96, 96), complex)), "it is complex128"),
        ("image", _saved(np.zeros((1, 8, 96, 95))), "1×8×96×95, 1×8×96×96 is expected"),
        ("image", _header("{'descr': '<f8', 'shape': (1"), "is damaged"),
        ("image", _header("{'descr': [], 'fortran_order': 0, 'shape': (-1,)}"), "damaged"),
        (
            "image",
            _header("{'descr': '<f8', 'fortran_order': 0, 'shape': (9**9, )}"),
            "damaged",
        ),
        ("image", _header("-" * 9000), "is damaged"),
        ("label", _saved(np.zeros((8, 96, 96), np.int64)), "it is int64"),
        ("label", _saved(np.zeros((8, 96, 96), np.uint16)), "it is uint16"),
        ("label", _saved(np.full((8, 96, 96), 200, np.uint8)), "holds 200, and the classes are"),
    ],
)
def test_a_forged_array_is_refused(ready: Path, tmp_path: Path, kind, content: bytes, message):
    shutil.copytree(ready, tmp_path / "p")
    store = open_store(tmp_path / "p")
    (tmp_path / "p" / "cases" / f"{store.cases[0].id}.{kind}.npy").write_bytes(content)
    with pytest.raises(DataError, match=rf"{kind}.npy .*({message}).*prepare the data again"):
        store.case(store.cases[0].id)


def test_statistics_hold_no_second_volume():
    image = np.random.default_rng(0).integers(-1000, 1000, (1, 64, 256, 256)).astype(np.int16)
    label = np.zeros((64, 256, 256), np.uint8)
    tracemalloc.start()
    (channel,) = describe_channels(image)
    count_labels(label)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2 * image.nbytes + 30e6  # the sample for the quantiles is in it
    assert channel.mean == pytest.approx(image.mean())
    assert channel.std == pytest.approx(image.std())


def test_a_second_process_waits_for_the_first(hearts: Path, tmp_path: Path, caplog):
    data = settings(hearts, tmp_path)
    done = threading.Event()

    def second() -> None:
        prepare(data)
        done.set()

    with alone_in(tmp_path):
        thread = threading.Thread(target=second)
        thread.start()
        assert not done.wait(0.5)
        assert f"waiting for process {os.getpid()} on " in caplog.text
        assert not (tmp_path / INDEX).exists()
    thread.join(timeout=60)
    assert done.is_set()
    assert len(open_store(tmp_path).cases) == 12


def test_processes_at_once_give_what_one_gives(hearts: Path, tmp_path: Path):
    """Three processes with one target, started together."""
    code = (
        "import sys; from pathlib import Path; from msa2net.config import DataConfig;"
        "from msa2net.data.prepared.prepare import prepare;"
        "prepare(DataConfig(format='acdc', root=Path(sys.argv[1]), prepared=Path(sys.argv[2])))"
    )
    command = [sys.executable, "-c", code, str(hearts), str(tmp_path / "shared")]
    running = [subprocess.Popen(command) for _ in range(3)]
    assert [process.wait(timeout=120) for process in running] == [0, 0, 0]
    alone = prepare(settings(hearts, tmp_path / "alone"))
    assert open_store(tmp_path / "shared").cases == alone.cases
    assert arrays(tmp_path / "shared") == arrays(tmp_path / "alone")


def test_a_folder_that_cannot_be_written_can_still_be_read(
    hearts: Path, tmp_path: Path, monkeypatch
):
    data = settings(hearts, tmp_path)
    prepare(data)

    def refuse(_) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Lock, "acquire", refuse)
    assert len(prepare(data).cases) == 12


# What is noted ------------------------------------------------------------------------------------


def test_scans_that_are_cut_across_their_slices_are_said(tmp_path: Path, caplog):
    """On every start: what is prepared already says it too."""
    root = tmp_path / "raw"
    (root / "imagesTr").mkdir(parents=True)
    (root / "labelsTr").mkdir()
    labels = {"background": 0, "disc": 1}
    content = {"channel_names": {"0": "T2"}, "labels": labels, "file_ending": ".nii.gz"}
    (root / "dataset.json").write_text(json.dumps(content))
    affine = np.array([[0, 0, -4.0, 0], [-0.5, 0, 0, 0], [0, -0.5, 0, 0], [0, 0, 0, 1]])
    for name in "abc":
        volume = np.arange(8 * 9 * 4, dtype=np.int16).reshape(8, 9, 4)
        for path in (f"imagesTr/{name}_0000.nii.gz", f"labelsTr/{name}.nii.gz"):
            nibabel.save(nibabel.Nifti1Image(volume % 2, affine), root / path)
    data = DataConfig(format="nnunet", root=root, prepared=tmp_path / "out")
    for settings in (data, data, data.model_copy(update={"root": None})):
        caplog.clear()
        prepare(settings)
        assert caplog.messages == [
            f"{tmp_path / 'out'}: 3 of 3 scans are sagittal (a, b, c); they are cut into axial "
            "slices all the same, with pixels of 0.5×4 mm in the first"
        ]


def test_statistics_by_hand():
    image = np.array([[[[0.0, 1.0], [2.0, np.nan]]], [[[5.0, 5.0], [5.0, np.inf]]]])
    first, second = describe_channels(image)
    assert (first.minimum, first.maximum, first.mean, first.median) == (0, 2, 1, 1)
    assert first.std == pytest.approx(np.sqrt(2 / 3))
    assert (first.not_finite, second.not_finite) == (1, 1)
    assert (second.low, second.high, second.std) == (5, 5, 0)
    (empty,) = describe_channels(np.full((1, 1, 2, 2), np.nan))
    assert (empty.not_finite, empty.mean) == (4, 0)
    assert count_labels(np.array([[[0, 2], [2, 255]]], np.uint8)) == {0: 1, 2: 2, 255: 1}


def test_the_index_says_what_the_arrays_hold(hearts: Path, tmp_path: Path):
    store = prepare(settings(hearts, tmp_path))
    for row in store.cases:
        case = store.case(row.id)
        (channel,) = row.intensity
        assert channel.minimum == case.image.min()
        assert channel.maximum == case.image.max()
        assert channel.mean == pytest.approx(case.image.mean())
        assert row.voxels == {str(v): int((case.label == v).sum()) for v in range(4)}
        assert row.patient == row.id[:10]
        assert row.group == ("end diastole" if row.id.endswith("01") else "end systole")
        assert row.spacing_mm == case.geometry.spacing_mm
    assert open_store(tmp_path).cases == store.cases


def test_indices_of_the_first_version_still_load(hearts: Path, tmp_path: Path):
    data = settings(hearts, tmp_path)
    prepare(data)
    content = json.loads((tmp_path / INDEX).read_text()) | {"schema": 1}
    for row in content["cases"]:
        for key in ("patient", "group", "intensity", "voxels"):
            del row[key]
        geometry = row.pop("geometry")
        row |= {"spacing_mm": geometry["spacing_mm"], "affine": geometry["affine"]}
    (tmp_path / INDEX).write_text(json.dumps(content))
    store = open_store(tmp_path)
    assert store.case("patient001_frame01").geometry.spacing_mm is not None
    with pytest.raises(DataError, match="by an older version"):
        open_prepared(replace_root(data, folds=3))
    assert prepare(data).cases[0].intensity  # with the raw data at hand it is brought up to date


def replace_root(data: DataConfig, **changes) -> DataConfig:
    return data.model_copy(update={"root": None, **changes})


def test_a_label_returns_to_its_file_voxel_for_voxel(tmp_path: Path):
    """raw BTCV → prepare → NIfTI, in all 48 axis orders and flips, and for oblique affines."""
    rng = np.random.default_rng(0)
    affines = []
    for axes in [(0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)]:
        for signs in np.ndindex(2, 2, 2):
            affine = np.zeros((4, 4))
            for column, (axis, sign) in enumerate(zip(axes, signs, strict=True)):
                affine[axis, column] = (1 - 2 * sign) * (0.8, 1.1, 2.5)[column]
            affine[:, 3] = (-30.5, 12.25, 100.0, 1.0)
            affines.append(affine)
    for angle in (0.1, 0.5):
        turn = np.eye(4)
        turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
        affines.append(turn @ affines[7])
    raw = tmp_path / "raw"
    for number, affine in enumerate(affines, 1):
        labels = rng.integers(0, 14, (5, 6, 7)).astype(np.uint8)
        image = rng.integers(-100, 200, (5, 6, 7)).astype(np.int16)
        for folder, array in (("img", image), ("label", labels)):
            path = raw / folder / f"{folder}{number:04d}.nii.gz"
            path.parent.mkdir(parents=True, exist_ok=True)
            nibabel.save(nibabel.Nifti1Image(array, affine), path)
    prepare(DataConfig(format="btcv", root=raw, prepared=tmp_path / "prepared"))
    store = open_store(tmp_path / "prepared")
    assert len(store.cases) == 50
    for number in range(1, 51):
        written = store.ground_truth(f"case{number:04d}").save(tmp_path / "back.nii.gz")
        back, original = (
            nibabel.load(written),
            nibabel.load(raw / f"label/label{number:04d}.nii.gz"),
        )
        assert np.array_equal(np.asarray(back.dataobj), np.asarray(original.dataobj))
        np.testing.assert_array_equal(back.affine, original.affine)
        assert back.get_data_dtype() == np.uint8


def test_the_real_scan_returns_to_its_file(real_data: Path, tmp_path: Path):
    root = real_data / "ct_example"
    store = prepare(DataConfig(format="btcv", root=root, prepared=tmp_path))
    back = nibabel.load(store.ground_truth("case0001").save(tmp_path / "back.nii.gz"))
    original = nibabel.load(root / "Training/label/label0001.nii.gz")
    assert np.array_equal(np.asarray(back.dataobj), np.asarray(original.dataobj))
    np.testing.assert_array_equal(back.affine, original.affine)


# Splits -------------------------------------------------------------------------------------------


@given(
    patients=st.lists(st.integers(0, 30), min_size=10, max_size=60),
    folds=st.integers(2, 5),
    seed=st.integers(0, 3),
    ratios=st.sampled_from([None, (0.6, 0.2, 0.2)]),
)
def test_drawn_splits_never_part_a_patient(patients, folds, seed, ratios):
    of = {f"case{index}": f"patient{patient}" for index, patient in enumerate(patients)}
    stored = {case: "test" if int(p[7:]) < 3 else "train" for case, p in of.items()}
    trained = {p for case, p in of.items() if stored[case] != "test"}
    if len(set(of.values())) < 12 or len(trained) < folds:
        return
    val_of_folds = []
    for fold in range(folds):
        data = DataConfig(
            format="acdc", prepared=Path("p"), folds=folds, fold=fold, split_seed=seed,
            split_ratios=ratios,
        )  # fmt: skip
        drawn = resplit(stored, of, data)
        splits_of = {patient: {drawn[c] for c in of if of[c] == patient} for patient in of.values()}
        assert all(len(splits) == 1 for splits in splits_of.values())
        if ratios is None:
            assert all((drawn[c] == "test") == (stored[c] == "test") for c in of)
        val_of_folds.append({c for c in of if drawn[c] == "val"})
    tested = {c for c in of if drawn[c] == "test"}
    assert Counter(c for val in val_of_folds for c in val) == dict.fromkeys(of.keys() - tested, 1)


def test_folds_are_a_view_of_one_prepared_data_set(hearts: Path, tmp_path: Path):
    data = settings(hearts, tmp_path)
    whole = prepare(data)
    stamp = (tmp_path / INDEX).stat().st_mtime_ns
    validated: list[str] = []
    for fold in range(2):
        of_fold = prepare(settings(hearts, tmp_path, folds=2, fold=fold))
        validated += of_fold.ids("val")
        assert of_fold.ids("test") == whole.ids("test")
        assert of_fold.hash == open_prepared(settings(hearts, tmp_path, folds=2, fold=fold)).hash
    assert sorted(validated) == sorted(whole.ids("train") + whole.ids("val"))
    assert (tmp_path / INDEX).stat().st_mtime_ns == stamp
    with pytest.raises(DataError, match="lower folds"):
        prepare(settings(hearts, tmp_path, folds=40))


@given(n=st.integers(3, 40), test=st.floats(0.01, 0.98), seed=st.integers(0, 3))
def test_every_split_gets_somebody_whatever_the_ratios(n, test, seed):
    ratios = ((1 - test) / 2, (1 - test) / 2, test)
    drawn = split_by_ratio([f"p{index}" for index in range(n)], ratios, seed)
    assert len(drawn) == n
    assert set(drawn.values()) == {"train", "val", "test"}


def test_pictures_of_one_patient_never_part(tmp_path: Path):
    write_phantom("images", tmp_path / "raw", cases=12)
    for folder, ending in (("images", "jpg"), ("masks", "png")):
        files = sorted((tmp_path / "raw" / folder).glob(f"*.{ending}"))
        for index, path in enumerate(files):
            path.rename(path.with_name(f"p{index // 3}_slice{index % 3}.{ending}"))
    data = DataConfig(format="images", root=tmp_path / "raw", prepared=tmp_path / "p")
    for changes in ({}, {"split_ratios": (0.5, 0.25, 0.25)}, {"folds": 2}):
        store = prepare(data.model_copy(update=changes))
        splits: dict[str, set[str]] = {}
        for row in store.cases:
            splits.setdefault(row.patient, set()).add(row.split)
        assert len(splits) == 4
        assert all(len(found) == 1 for found in splits.values())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"folds": 2, "hold_out": False}, "hold_out=false that nobody does"),
        ({"split_ratios": [0.7, 0.3, float("nan")]}, "finite number"),
        ({"fold": 1}, "fold is 1, but there are no folds; set data.folds=5"),
        ({"folds": 3, "fold": 3}, "folds count from 0"),
        ({"split_ratios": [0.5, 0.5, 0.5]}, "add up to 1"),
        ({"crop": 0}, "greater than or equal to 0.01"),
    ],
)
def test_impossible_splits_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        parse_section(DataConfig, {"format": "acdc", "prepared": "p", **changes}, origin="data")


def test_every_source_says_whose_images_are_whose(hearts: Path):
    source = open_source(settings(hearts, Path("p")))
    assert Counter(case.patient for case in source.cases) == {
        f"patient{n:03d}": 2 for n in range(1, 7)
    }
