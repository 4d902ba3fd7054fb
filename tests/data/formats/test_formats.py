"""Label encodings, and the volume formats from files to cases."""

import json
import re
import tempfile
from collections import Counter
from dataclasses import replace
from pathlib import Path

import h5py
import nibabel
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from msa2net.config import Config, DataConfig, parse_section
from msa2net.data.case import Case
from msa2net.data.formats.btcv import TEST_CASES, TRAINING_SLICES
from msa2net.data.formats.registry import open_source
from msa2net.data.formats.source import Source
from msa2net.data.labels import ENCODINGS, IGNORE, apply_label_table, convert, label_names
from msa2net.data.phantom import ABDOMEN_LABELS, abdomen
from msa2net.data.phantom.files import LAYOUTS, write_phantom
from msa2net.data.phantom.heart import HEART_LABELS, heart
from msa2net.data.prepared.prepare import prepare
from msa2net.data.prepared.store import open_store
from msa2net.errors import ConfigError, DataError

VOLUMES = ("acdc", "btcv", "synapse", "nnunet")
EIGHT = ("transunet", "cascade", "samed")


def opened(format: str, root: Path, **settings) -> Source:
    return open_source(DataConfig(format=format, root=root, prepared=root / "out", **settings))


def counts(source: Source) -> dict[str, int]:
    return dict(Counter(case.split for case in source.cases))


def touch(*paths: Path) -> None:
    """Make empty files: opening a data set only looks at names."""
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def nifti(path: Path, array_XYZ: np.ndarray, affine: np.ndarray | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    affine = np.diag([-1.0, -1.0, 2.0, 1.0]) if affine is None else affine
    nibabel.save(nibabel.Nifti1Image(array_XYZ, affine), path)
    return path


# Label encodings ----------------------------------------------------------------------------------

# Column by column from the published table: BTCV id → id, in the order of the BTCV ids below.
SHARED = [8, 4, 3, 2, 6, 11, 1, 7]
TABLE = {
    "transunet": [1, 2, 3, 4, 5, 6, 7, 8],
    "cascade": [8, 4, 3, 2, 6, 5, 1, 7],
    "samed": [7, 4, 3, 2, 5, 8, 1, 6],
}


@pytest.mark.parametrize("target", EIGHT)
def test_btcv_becomes_each_encoding_as_published(target):
    expected = np.zeros(14, np.uint8)  # organs that the target does not have are background
    expected[SHARED] = TABLE[target]
    assert convert(np.arange(14), "btcv", target).tolist() == expected.tolist()


@pytest.mark.parametrize("source", ENCODINGS)
@pytest.mark.parametrize("target", ENCODINGS)
def test_there_and_back_is_identity_over_shared_organs(source, target):
    values = np.array([*range(len(ENCODINGS[source]) + 1), IGNORE], np.uint8)
    back = convert(convert(values, source, target), target, source)
    shared = {0, IGNORE} | {
        value for value, organ in ENCODINGS[source].items() if organ in ENCODINGS[target].values()
    }
    assert back.tolist() == [value if value in shared else 0 for value in values.tolist()]
    assert len(shared) == (15 if source == target == "btcv" else 10)


@pytest.mark.parametrize(("source", "target"), [("btcv", "transunet"), ("samed", "cascade")])
def test_one_look_up_equals_replacing_one_by_one_through_free_numbers(source, target):
    """Replacing 4 by 2 and then 2 by 4 merges both; through numbers nobody uses it does not."""
    labels = np.random.default_rng(0).integers(0, len(ENCODINGS[source]) + 1, (5, 6, 7))
    ids = {organ: value for value, organ in ENCODINGS[target].items()}
    safe, merged = labels.copy(), labels.copy()
    for value, organ in ENCODINGS[source].items():
        safe[safe == value] = 100 + ids.get(organ, 0)
        merged[merged == value] = ids.get(organ, 0)
    safe[safe >= 100] -= 100
    assert np.array_equal(convert(labels, source, target), safe)
    assert not np.array_equal(convert(labels, source, target), merged)


@given(
    hnp.arrays(
        st.sampled_from([np.uint8, np.int16, np.uint16, np.int32, np.uint64]),
        hnp.array_shapes(max_dims=3, max_side=5),
        elements=st.sampled_from([0, 1, 2, 7, 100]),
    )
)
def test_remap_is_a_dictionary(values):
    table = {0: 0, 1: 9, 2: 1, 7: IGNORE, 100: 3}
    mapped = apply_label_table(values, table, origin="x", meaning="y")
    assert mapped.dtype == np.uint8
    assert mapped.tolist() == np.vectorize(table.get)(values).tolist()


@pytest.mark.parametrize("dtype", [np.int8, np.int16, np.int64])
def test_unknown_values_are_named_and_counted(dtype):
    labels = np.array([0, 8, 9, 9, -1], dtype)
    with pytest.raises(DataError, match=r"a.nii holds .* 'samed' ids: -1 \(1 voxels\), 9 \(2 vo"):
        convert(labels, "samed", "btcv", origin="a.nii")
    with pytest.raises(DataError, match=r"300 \(1 voxels\); known are 0 to 13"):
        convert(np.array([300], np.uint16), "btcv", "samed")


def test_encodings_by_name():
    assert label_names("transunet") == ABDOMEN_LABELS
    assert len(label_names("btcv")) == 14
    assert {label_names(name)[0] for name in ENCODINGS} == {"background"}
    for name in EIGHT:
        assert sorted(label_names(name)) == sorted(ABDOMEN_LABELS)
    with pytest.raises(ConfigError, match="no label encoding 'synapse8'; there are btcv, trans"):
        label_names("synapse8")


def test_the_configuration_knows_the_encodings():
    content = {"data": {"format": "btcv", "prepared": "p", "labels": "synapse8"}, "image_size": 32}
    content["train"] = {"epochs": 1, "batch_size": 1, "learning_rate": 1}
    with pytest.raises(ConfigError, match=r"'data.labels' is 'synapse8'.*'btcv', 'transunet'"):
        parse_section(Config, content, origin="c")
    content["data"]["labels"] = "samed"
    assert parse_section(Config, content, origin="c").data.labels in ENCODINGS


# Each layout, written by the phantom writers and read again ---------------------------------------


@pytest.fixture(scope="session")
def phantoms(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("phantoms")
    for format in VOLUMES:
        write_phantom(format, root / format, cases=5, seed=3)
    return root


def drawn(format: str) -> dict[str, Case]:
    """The phantoms that `phantoms` holds in a layout, by case id, with ABDOMEN_LABELS."""
    cases = {}
    for planned in LAYOUTS[format].plan(5, False):
        if format == "acdc":
            for systole in (False, True):
                case = heart(planned.index, systole=systole, seed=3, shape=planned.shape)
                cases[case.id] = case
        else:
            case = abdomen(planned.index, seed=3, shape=planned.shape)
            cases[planned.name] = replace(case, id=planned.name)
    return cases


@pytest.mark.parametrize("format", VOLUMES)
def test_a_layout_returns_the_phantom_voxel_for_voxel(phantoms: Path, format: str):
    source = opened(format, phantoms / format)
    expected = drawn(format)
    assert {case.id for case in source.cases} == set(expected)
    for source_case in source.cases:
        case, truth = source_case.read(), expected[source_case.id]
        label = truth.label
        if format == "btcv":
            label = convert(label, "transunet", "btcv")
        assert np.array_equal(case.label, label)
        hu = np.clip(truth.image, -125, 275) if format == "synapse" else truth.image
        assert np.array_equal(case.image, hu)
        assert case.image.dtype == truth.image.dtype
        # NIfTI keeps positions of some 300 mm in single precision.
        np.testing.assert_allclose(case.geometry.spacing_mm, truth.geometry.spacing_mm, rtol=1e-6)
        np.testing.assert_allclose(case.geometry.affine, truth.geometry.affine, atol=3e-5)
        assert case.source == source_case.files[0]


@pytest.mark.parametrize(
    ("format", "names", "encoding", "intensity"),
    [
        ("acdc", HEART_LABELS, None, ("percentile", 0.5, 99.5)),
        ("btcv", label_names("btcv"), "btcv", ("fixed", -125, 275)),
        ("synapse", ABDOMEN_LABELS, "transunet", ("fixed", -125, 275)),
        ("nnunet", ABDOMEN_LABELS, None, ("fixed", -125, 275)),
    ],
)
def test_prepared_once_and_what_the_store_says(
    phantoms: Path, tmp_path: Path, format, names, encoding, intensity
):
    data = DataConfig(format=format, root=phantoms / format, prepared=tmp_path)
    store = prepare(data)
    assert open_store(tmp_path).hash == store.hash
    assert json.loads((tmp_path / "dataset.json").read_text())["encoding"] == encoding
    assert open_store(tmp_path).encoding == encoding
    assert (store.kind, store.channels, store.label_names) == ("volume", 1, names)
    assert (store.intensity, store.low, store.high) == intensity
    for split in ("train", "val", "test"):
        assert store.ids(split)
    written = {path: path.stat().st_mtime_ns for path in (tmp_path / "cases").iterdir()}
    prepare(data)
    assert written == {path: path.stat().st_mtime_ns for path in (tmp_path / "cases").iterdir()}


def test_another_encoding_is_prepared_anew(phantoms: Path, tmp_path: Path):
    thirteen = prepare(DataConfig(format="btcv", root=phantoms / "btcv", prepared=tmp_path))
    label = np.array(thirteen.case("case0005").label)
    data = DataConfig(format="btcv", root=phantoms / "btcv", prepared=tmp_path, labels="cascade")
    eight = prepare(data)
    assert eight.label_names == label_names("cascade")
    assert eight.hash != thirteen.hash
    assert np.array_equal(eight.case("case0005").label, convert(label, "btcv", "cascade"))


def test_phantoms_of_the_real_size_are_planned_as_published():
    for format in ("synapse", "btcv", "nnunet"):
        plan = LAYOUTS[format].plan(None, True)
        train = {case.name: case.shape for case in plan if case.part == "train"}
        assert {name: shape[0] for name, shape in train.items()} == TRAINING_SLICES
        assert {case.name for case in plan if case.part == "test"} == set(TEST_CASES)
        assert {case.shape[1:] for case in plan} == {(512, 512)}
    assert len(LAYOUTS["acdc"].plan(None, True)) == 150
    assert len(LAYOUTS["isic2018"].plan(None, True)) == 2594
    assert len({case.name for case in LAYOUTS["btcv"].plan(99, False)}) == 99


def test_phantoms_of_the_real_size_are_written_so(tmp_path: Path):
    seen = []

    def track(planned, total):
        seen.append(total)
        return planned

    assert write_phantom("acdc", tmp_path, cases=1, full_size=True, progress=track) == 2 * [
        "patient001"
    ]
    assert seen == [1]
    assert [case.read().image.shape for case in opened("acdc", tmp_path).cases] == [
        (1, 10, 256, 216)
    ] * 2
    with pytest.raises(ConfigError, match="is not empty; name a new folder"):
        write_phantom("acdc", tmp_path)
    with pytest.raises(ConfigError, match="0 phantom cases cannot be drawn"):
        write_phantom("acdc", tmp_path / "new", 0)


def test_phantom_hearts_have_their_anatomy():
    for index in range(4):
        rest, squeezed = heart(index), heart(index, systole=True)
        volume = [np.bincount(case.label.ravel(), minlength=4) for case in (rest, squeezed)]
        assert (volume[0][1:] > 0).all()
        assert (volume[1][1:] > 0).all()
        assert volume[1][3] < 0.75 * volume[0][3]  # the left ventricle empties
        # The myocardium encloses the left ventricle: no step leads from it to anything else.
        around = rest.label[:, 1:][rest.label[:, :-1] == 3]
        assert set(np.unique(around)) == {2, 3}
    with pytest.raises(DataError, match="cannot be drawn; use at least"):
        heart(0, shape=(1, 96, 96))


# Splits -------------------------------------------------------------------------------------------


def test_the_published_lists():
    assert sum(TRAINING_SLICES.values()) == 2211
    assert (len(TRAINING_SLICES), len(set(TEST_CASES))) == (18, 12)
    assert set(TRAINING_SLICES) | set(TEST_CASES) == {f"case{n:04d}" for n in range(1, 41)} - {
        f"case{n:04d}" for n in range(11, 21)
    }


def test_the_thirty_published_cases_keep_their_places(tmp_path: Path):
    for case_id, depth in TRAINING_SLICES.items():
        touch(*(tmp_path / "s/train_npz" / f"{case_id}_slice{z:03d}.npz" for z in range(depth)))
    touch(*(tmp_path / "s/test_vol_h5" / f"{case_id}.npy.h5" for case_id in TEST_CASES))
    for case_id in (*TRAINING_SLICES, *TEST_CASES):
        number = case_id.removeprefix("case")
        touch(tmp_path / f"b/img/img{number}.nii.gz", tmp_path / f"b/label/label{number}.nii.gz")
    for source in (opened("synapse", tmp_path / "s"), opened("btcv", tmp_path / "b")):
        by_split = {split: [] for split in ("train", "val", "test")}
        for case in source.cases:
            by_split[case.split].append(case.id)
        assert by_split["test"] == sorted(TEST_CASES)
        assert by_split["val"] == ["case0021", "case0030", "case0040"]
        assert len(by_split["train"]) == 15
    slices = [len(case.files) for case in opened("synapse", tmp_path / "s").cases]
    assert sum(slices) == 2211 + 12
    # One case fewer is another collection, and drawn by ratio.
    (tmp_path / "b/img/img0001.nii.gz").unlink()
    (tmp_path / "b/label/label0001.nii.gz").unlink()
    assert counts(opened("btcv", tmp_path / "b")) == {"train": 20, "val": 3, "test": 6}


def acdc_nifti(root: Path, part: str, patients, frames=(1, 12)) -> None:
    for patient in patients:
        for frame in frames:
            name = root / part / f"patient{patient:03d}" / f"patient{patient:03d}_frame{frame:02d}"
            touch(Path(f"{name}.nii.gz"), Path(f"{name}_gt.nii.gz"))


def test_acdc_s_hundred_patients_are_cut_group_by_group(tmp_path: Path):
    acdc_nifti(tmp_path, "training", range(1, 101))
    touch(tmp_path / "training/patient001/patient001_4d.nii.gz")
    source = opened("acdc", tmp_path)
    assert counts(source) == {"train": 140, "val": 20, "test": 40}
    split = {int(case.id[7:10]): case.split for case in source.cases}
    assert [split[n] for n in (1, 14, 15, 16, 17, 20)] == ["train"] * 2 + ["val"] * 2 + ["test"] * 2
    assert [split[n] for n in (94, 95, 97)] == ["train", "val", "test"]
    acdc_nifti(tmp_path, "testing", range(101, 151))
    source = opened("acdc", tmp_path)
    assert counts(source) == {"train": 140, "val": 20, "test": 140}
    assert {case.id: case.split for case in source.cases}["patient150_frame12"] == "test"


def test_other_numbers_of_acdc_s_patients_are_drawn(tmp_path: Path):
    """What lies in testing/ is test, and training/ then gives none away for it."""
    acdc_nifti(tmp_path, "training", range(1, 17))
    assert counts(opened("acdc", tmp_path)) == {"train": 22, "val": 4, "test": 6}
    acdc_nifti(tmp_path, "testing", [101])
    assert counts(opened("acdc", tmp_path)) == {"train": 28, "val": 4, "test": 2}


def test_phases_are_named_by_info_or_by_order(tmp_path: Path):
    acdc_nifti(tmp_path, "training", [1, 2], frames=(4, 11))
    acdc_nifti(tmp_path, "training", [3], frames=(1,))
    (tmp_path / "training/patient002/Info.cfg").write_text("ED: 11\nES: 4\n")
    groups = {case.id: case.group for case in opened("acdc", tmp_path).cases}
    assert groups == {
        "patient001_frame04": "end diastole",
        "patient001_frame11": "end systole",
        "patient002_frame04": "end systole",
        "patient002_frame11": "end diastole",
        "patient003_frame01": "",  # of a single frame the order says nothing
    }


def test_real_acdc_phases_are_told_by_the_left_ventricle(real_data: Path):
    """End diastole is when the left ventricle is largest: so the order of frames is right."""
    volumes: dict[str, dict[str, int]] = {}
    for case in opened("acdc", real_data / "acdc").cases[:60]:
        volume = int((case.read().label == 3).sum())
        volumes.setdefault(case.patient, {})[case.group] = volume
    for patient, by_phase in volumes.items():
        assert by_phase["end diastole"] > by_phase["end systole"], patient


@given(st.dictionaries(st.integers(1, 120), st.sets(st.integers(1, 30), min_size=1, max_size=3)))
def test_frames_of_a_patient_never_part(frames):
    if not frames:
        return
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "n").mkdir()
        describe(root / "n")
        for patient, numbers in frames.items():
            acdc_nifti(root / "a", "testing" if patient > 100 else "training", [patient], numbers)
            for number in numbers:
                nnunet_case(root / "n", f"patient{patient:03d}_frame{number:02d}", empty=True)
        for source in (opened("acdc", root / "a"), opened("nnunet", root / "n")):
            places = {(case.id[:10], case.split) for case in source.cases}
            assert len(source.cases) == sum(map(len, frames.values()))
            assert len(places) == len(frames)
            if len(frames) < 3 and not any(patient > 100 for patient in frames):
                assert {split for _, split in places} == {"train"}
            again = {case.id: case.split for case in opened("nnunet", root / "n").cases}
        assert again == {case.id: case.split for case in source.cases}


def test_lists_go_before_everything_but_may_not_part_a_patient(tmp_path: Path):
    acdc_nifti(tmp_path, "training", range(1, 4))
    for name, ids in (("train", "patient002"), ("val", "patient001"), ("test", "patient003")):
        touch(tmp_path / "splits" / f"{name}.txt")
        (tmp_path / "splits" / f"{name}.txt").write_text(f"{ids}_frame01\n{ids}_frame12\n")
    split = {case.id: case.split for case in opened("acdc", tmp_path).cases}
    assert split["patient001_frame01"] == "val"
    (tmp_path / "splits/val.txt").write_text("patient001_frame01\n")
    (tmp_path / "splits/test.txt").write_text("patient001_frame12\n")
    with pytest.raises(DataError, match=r"splits: patient001 is in val and again in test; all"):
        opened("acdc", tmp_path)


# ACDC as HDF5 -------------------------------------------------------------------------------------


def acdc_hdf5(root: Path, split: str, case: Case) -> Path:
    path = root / split / f"{case.id}.h5"
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file["image"], file["label"] = case.image[0], case.label
    return path


def test_acdc_in_hdf5(tmp_path: Path):
    cases = [heart(index, systole=index == 1) for index in range(3)]
    for split, case in zip(("train", "val", "test"), cases, strict=True):
        acdc_hdf5(tmp_path, split, case)
    source = opened("acdc", tmp_path)
    assert counts(source) == {"train": 1, "val": 1, "test": 1}
    for source_case, truth in zip(source.cases, cases, strict=True):
        case = source_case.read()
        assert case.id == truth.id
        assert np.array_equal(case.image, truth.image)
        assert np.array_equal(case.label, truth.label)
        assert case.geometry.spacing_mm is None
    acdc_hdf5(tmp_path, "val", replace(cases[0], id="patient001_frame09"))
    with pytest.raises(DataError, match="patient001 is in train and again in val"):
        opened("acdc", tmp_path)


# Synapse ------------------------------------------------------------------------------------------


def npz(root: Path, name: str, image=None, label=None) -> Path:
    path = root / "train_npz" / f"{name}.npz"
    path.parent.mkdir(parents=True, exist_ok=True)
    image = np.zeros((4, 5), np.float32) if image is None else image
    np.savez(path, image=image, label=np.zeros(image.shape) if label is None else label)
    return path


def test_published_synapse_files_have_float_labels_and_no_geometry(tmp_path: Path):
    for z in range(3):
        npz(tmp_path, f"case0005_slice{z:03d}", np.full((4, 5), z / 2), np.full((4, 5), 4.0 * z))
    (case,) = (case.read() for case in opened("synapse", tmp_path, labels="samed").cases)
    assert case.label[:, 0, 0].tolist() == [0, 4, 8]
    assert case.image[0, :, 0, 0].tolist() == [-125, 75, 275]
    assert case.image.dtype == np.int16  # whole HU, as scanners give them
    assert case.geometry.affine is None
    assert opened("synapse", tmp_path, labels="samed").label_names == label_names("samed")
    assert opened("synapse", tmp_path, labels="btcv").encoding == "btcv"


def test_labels_that_were_rounded_are_the_class_that_was_meant(tmp_path: Path):
    """The same in every kind of file; and what is no rounding is shown with digits that tell."""
    almost = np.full((4, 5), 0.9999999, np.float32)
    npz(tmp_path / "s", "case0005_slice000", label=almost)
    case = Case("patient001_frame01", np.zeros((1, 2, 4, 5)), np.full((2, 4, 5), 3.0004))
    acdc_hdf5(tmp_path / "a", "train", case)
    describe(tmp_path)
    nnunet_case(tmp_path, "a", label=np.full((3, 4, 5), 0.9999999, np.float32))
    for format, root, value in (("synapse", "s", 1), ("acdc", "a", 3), ("nnunet", ".", 1)):
        assert (opened(format, tmp_path / root).cases[0].read().label == value).all()
    nnunet_case(tmp_path, "a", label=np.full((3, 4, 5), 0.9989999, np.float32))
    with pytest.raises(DataError, match=r"fractions in 60 of 60 voxels, such as 0.998999894; a"):
        opened("nnunet", tmp_path).cases[0].read()


def test_slices_that_are_missing_are_named(tmp_path: Path):
    npz(tmp_path, "case0005_slice000")
    npz(tmp_path, "case0007_slice001")
    npz(tmp_path, "case0007_slice004")
    with pytest.raises(DataError, match="case0007 has slices up to 004 but lacks 000, 002, 003;"):
        opened("synapse", tmp_path)


# nnU-Net ------------------------------------------------------------------------------------------


def describe(root: Path, **changes) -> None:
    content = {"channel_names": {"0": "T2"}, "labels": {"background": 0, "x": 1}}
    content |= {"file_ending": ".nii.gz"} | changes
    text = json.dumps({key: value for key, value in content.items() if value is not None})
    (root / "dataset.json").write_text(text)


def nnunet_case(root: Path, name: str, part="Tr", channels=1, label=None, empty=False) -> None:
    images = [root / f"images{part}/{name}_{number:04d}.nii.gz" for number in range(channels)]
    mask = root / f"labels{part}/{name}.nii.gz"
    if empty:
        return touch(*images, mask)
    for number, path in enumerate(images):
        nifti(path, np.full((3, 4, 5), number, np.int16))
    nifti(mask, np.ones((3, 4, 5), np.uint8) if label is None else label)
    return None


def test_channels_in_files_of_their_own_and_ignored_voxels(tmp_path: Path):
    describe(
        tmp_path,
        channel_names={"0": "T1", "1": "T2"},
        labels={"background": 0, "edema": 1, "core": 2, "ignore": 3},
    )
    nnunet_case(tmp_path, "a", channels=2, label=np.arange(60).reshape(3, 4, 5).astype("u1") % 4)
    source = opened("nnunet", tmp_path)
    assert source.label_names == ("background", "edema", "core")
    assert (source.scaling.intensity, counts(source)) == ("percentile", {"train": 1})
    case = source.cases[0].read()
    assert case.image.shape == (2, 5, 4, 3)
    assert [np.unique(channel).tolist() for channel in case.image] == [[0], [1]]
    assert np.unique(case.label).tolist() == [0, 1, 2, 255]


@pytest.mark.parametrize(
    ("values", "labels", "expected"),
    [
        ((0, 255), {"background": 0, "x": 1}, 1),
        ((0, 1, 255), {"background": 0, "x": 1}, IGNORE),
        ((0, 255), {"background": 0, "x": 1, "ignore": 2}, IGNORE),
        ((0, 255), {"background": 0, "x": 1, "y": 2}, IGNORE),
    ],
)
def test_255_in_labels_of_two_classes(tmp_path: Path, values, labels, expected):
    """The structure if no label of the data set holds a 1; the first label here is empty."""
    describe(tmp_path, labels=labels)
    nnunet_case(tmp_path, "a", label=np.zeros((3, 4, 5), np.uint8))
    nnunet_case(tmp_path, "b", label=np.resize(np.array(values, np.uint8), (3, 4, 5)))
    label = opened("nnunet", tmp_path).cases[1].read().label
    assert np.unique(label).tolist() == sorted({*values} - {255} | {expected})


def test_version_1_and_the_decathlon(tmp_path: Path):
    old = {"channel_names": None, "file_ending": None, "modality": {"0": "CT", "1": "PET"}}
    describe(tmp_path, **old, labels={"0": "background", "1": "liver", "2": "tumour"})
    nifti(tmp_path / "imagesTr/liver_1.nii.gz", np.zeros((3, 4, 5, 2), np.int16))
    nifti(tmp_path / "labelsTr/liver_1.nii.gz", np.ones((3, 4, 5), np.uint8))
    touch(tmp_path / "imagesTr/._liver_1.nii.gz", tmp_path / "labelsTr/._liver_1.nii.gz")
    source = opened("nnunet", tmp_path)
    assert source.label_names == ("background", "liver", "tumour")
    assert source.cases[0].read().image.shape == (2, 5, 4, 3)
    describe(tmp_path, **old | {"modality": {"0": "CT"}}, labels={"0": "background", "1": "x"})
    with pytest.raises(DataError, match=r"liver_1.nii.gz has 2 channels but dataset.json names 1"):
        opened("nnunet", tmp_path).cases[0].read()


@pytest.mark.parametrize(
    ("channels", "intensity"),
    [({"0": "CT"}, "fixed"), ({"0": "ct"}, "fixed"), ({"0": "CT", "1": "CT"}, "percentile")],
)
def test_only_a_lone_ct_channel_is_in_hu(tmp_path: Path, channels, intensity):
    describe(tmp_path, channel_names=channels)
    nnunet_case(tmp_path, "a", channels=len(channels), empty=True)
    assert opened("nnunet", tmp_path).scaling.intensity == intensity


def test_nnunet_s_own_splits(tmp_path: Path):
    describe(tmp_path)
    for name in "abcdefgh":
        nnunet_case(tmp_path, name, empty=True)
    assert counts(opened("nnunet", tmp_path)) == {"train": 5, "val": 1, "test": 2}
    for name in "xy":
        nnunet_case(tmp_path, name, part="Ts", empty=True)
    assert counts(opened("nnunet", tmp_path)) == {"train": 7, "val": 1, "test": 2}
    folds = tmp_path / "splits_final.json"
    folds.write_text(json.dumps([{"train": ["a", "c"], "val": ["b"]}, {"train": [], "val": []}]))
    split = {case.id: case.split for case in opened("nnunet", tmp_path).cases}
    assert split == {"a": "train", "b": "val", "c": "train", "x": "test", "y": "test"}
    folds.write_text(json.dumps([{"train": ["a", "q"], "val": ["b"]}]))
    with pytest.raises(DataError, match="train names 'q', which has no image"):
        opened("nnunet", tmp_path)
    folds.write_text('{"train": []}')
    with pytest.raises(DataError, match="splits_final.json is no list of folds"):
        opened("nnunet", tmp_path)
    for frame in (1, 2):
        nnunet_case(tmp_path, f"p_frame{frame:02d}", empty=True)
    folds.write_text(json.dumps([{"train": ["p_frame01"], "val": ["p_frame02"]}]))
    with pytest.raises(DataError, match=r"splits_final.json: p is in train and again in val"):
        opened("nnunet", tmp_path)


# Mistakes -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": {"background": 0, "whole": [1, 2]}}, r"the region 'whole' = \[1, 2\]; classes"),
        ({"labels": {"0": "background", "1": "x", "01": "y"}}, "'x' and 'y' are both label 01"),
        ({"labels": {"background": 0, "x": 2}}, "declares 2 label ids, 0, 2; they must run from 0"),
        ({"labels": {"background": 0}}, "declares 1 label ids, 0; they must run"),
        (
            {"labels": {f"x{n}": n for n in range(300)}},
            "declares 300 label ids, 0, 1, 2, 3, 4 and 295 more; they must run from 0",
        ),
        ({"labels": {"background": 0, "x": "one"}}, "'x' has the id 'one', not a whole number"),
        ({"labels": {"background": 0, "x": True}}, "'x' has the id True, not a whole number"),
        ({"labels": {"0": "a", "1": "a"}}, "two labels the same name"),
        ({"labels": None}, "has no 'labels'"),
        ({"channel_names": None}, "neither 'channel_names' nor 'modality'"),
        ({"channel_names": {"1": "T2"}}, "numbers the channels 1; they count from 0"),
        ({"file_ending": ".nrrd"}, "files ending in '.nrrd' are not read in this layout"),
        ({"channel_names": {"0": "T1", "1": "T2"}}, r"a.nii.gz has no image .*a_0001.nii.gz; add"),
    ],
)
def test_descriptions_that_cannot_be_used(tmp_path: Path, changes, message):
    describe(tmp_path, **changes)
    nnunet_case(tmp_path, "a", empty=True)
    with pytest.raises(DataError, match=message) as caught:
        opened("nnunet", tmp_path)
    assert "\n" not in str(caught.value)


MISTAKES = {
    "btcv nothing": ("btcv", ["x"], "holds no folder img/: this layout"),
    "btcv lonely": (
        "btcv",
        ["img/img0001.nii.gz", "label/label0002.nii.gz"],
        "1 of 1 images have no mask, first .*img0001.nii.gz: there is no .*label/label0001.nii.gz;",
    ),
    "btcv name": ("btcv", ["img/scan1.nii.gz", "label/label0001.nii.gz"], "not named like img0001"),
    "btcv twice": ("btcv", ["img/img1.nii", "img/img0001.nii.gz", "label/x"], "both .case0001."),
    "synapse nothing": ("synapse", ["x"], "is not in TransUNet's layout"),
    "synapse name": ("synapse", ["train_npz/5.npz"], "not named like case0005_slice000.npz"),
    "synapse test name": ("synapse", ["test_vol_h5/a.npy.h5"], "not named like case0001.npy.h5"),
    "synapse slice": (
        "synapse",
        ["train_npz/case0005_slice000.npz", "train_npz/case0005_slice0.npz"],
        "are the same slice",
    ),
    "synapse both": (
        "synapse",
        ["train_npz/case0005_slice000.npz", "test_vol_h5/case0005.npy.h5"],
        "case0005 is in train_npz/ and in test_vol_h5/",
    ),
    "acdc nothing": ("acdc", ["x"], "is not ACDC: it needs"),
    "acdc empty": ("acdc", ["train/x"], "holds no .h5 file"),
    "acdc name": ("acdc", ["train/a.h5"], "not named as ACDC does"),
    "acdc twice": (
        "acdc",
        ["train/patient001_frame01.h5", "val/patient001_frame01.h5"],
        "are both .patient001_frame01.",
    ),
    "acdc no masks": ("acdc", ["training/patient001/patient001_frame01.nii.gz"], "_gt.nii.gz in"),
    "acdc no image": (
        "acdc",
        ["training/patient001/patient001_frame01_gt.nii.gz"],
        "has no image patient001_frame01.nii.gz beside it",
    ),
    "acdc stranger": (
        "acdc",
        [f"training/patient001/patient002_frame01{end}.nii.gz" for end in ("", "_gt")],
        "does not belong in patient001/",
    ),
    "acdc both": (
        "acdc",
        [
            f"{part}/patient001/patient001_frame01{end}.nii.gz"
            for part in ("training", "testing")
            for end in ("", "_gt")
        ],
        "patient001 is in testing/ and again in training/",
    ),
    "nnunet nothing": ("nnunet", ["x"], "nnU-Net's layout is dataset.json"),
    "nnunet no labels": (
        "nnunet",
        ["dataset.json", "imagesTr/a_0000.nii.gz"],
        "holds no folder labelsTr/",
    ),
    "nnunet empty": ("nnunet", ["dataset.json", "imagesTr/x", "labelsTr/x"], "holds no file"),
    "nnunet unlabelled": (
        "nnunet",
        ["dataset.json", "labelsTr/a.nii.gz", "imagesTr/a_0000.nii.gz", "imagesTr/b_0000.nii.gz"],
        "1 files in .*imagesTr belong to no label .*, first b_0000.nii.gz",
    ),
    "nnunet both": (
        "nnunet",
        ["dataset.json"]
        + [
            f"{f}/a{e}.nii.gz"
            for p in ("Tr", "Ts")
            for f, e in ((f"images{p}", "_0000"), (f"labels{p}", ""))
        ],
        "a is in labelsTr/ and in labelsTs/",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_folders_that_cannot_be_used(tmp_path: Path, mistake: str):
    format, files, message = MISTAKES[mistake]
    touch(*(tmp_path / name for name in files))
    if "dataset.json" in files:
        describe(tmp_path)
    with pytest.raises(DataError, match=message) as caught:
        opened(format, tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("format", VOLUMES)
def test_no_folder(tmp_path: Path, format: str):
    with pytest.raises(ConfigError, match="data.root is missing: name the folder that holds"):
        open_source(DataConfig(format=format, prepared=tmp_path))
    with pytest.raises(DataError, match="there is no folder"):
        opened(format, tmp_path / "none")


def test_an_encoding_is_chosen_only_where_there_is_a_choice(tmp_path: Path):
    with pytest.raises(ConfigError, match="encoding of btcv and synapse; 'acdc' has its own"):
        opened("acdc", tmp_path, labels="btcv")


@pytest.mark.parametrize("format", VOLUMES)
def test_endings_in_capitals_and_byte_order_marks(phantoms: Path, tmp_path: Path, format: str):
    """As Windows and some scanners' programs leave them: the same cases, split alike."""
    root = tmp_path / format
    for path in sorted((phantoms / format).rglob("*")):
        if not path.is_file():
            continue
        name = re.sub(r"\.(nii\.gz|npz|npy\.h5)$", lambda end: end[0].upper(), path.name)
        copy = root / path.relative_to(phantoms / format).with_name(name)
        copy.parent.mkdir(parents=True, exist_ok=True)
        mark = b"\xef\xbb\xbf" if path.suffix in (".json", ".txt", ".cfg") else b""
        copy.write_bytes(mark + path.read_bytes())
    plain, loud = opened(format, phantoms / format), opened(format, root)
    assert [(case.id, case.split, case.group) for case in loud.cases] == [
        (case.id, case.split, case.group) for case in plain.cases
    ]
    assert loud.cases[0].files[0].name != plain.cases[0].files[0].name
    assert np.array_equal(loud.cases[0].read().label, plain.cases[0].read().label)


def test_half_a_patient_is_noticed(tmp_path: Path):
    acdc_nifti(tmp_path, "training", [1], frames=[1])
    (tmp_path / "training/patient001/Info.cfg").write_text("ED: 1\nES: 12\nGroup: DCM\n")
    with pytest.raises(
        DataError, match="patient001_frame12 as ES, but patient001_frame12.nii.gz or its"
    ):
        opened("acdc", tmp_path)


def test_values_that_a_format_does_not_have(tmp_path: Path):
    npz(tmp_path / "hu", "case0005_slice000", np.array([[-300.0, 90.0]]))
    with pytest.raises(DataError, match=r"values from -300 to 90; in this layout .*format btcv"):
        opened("synapse", tmp_path / "hu").cases[0].read()
    npz(tmp_path / "id", "case0005_slice000", label=np.full((4, 5), 11))
    with pytest.raises(DataError, match=r"case0005 in .*'transunet' ids: 11 \(20 voxels\)"):
        opened("synapse", tmp_path / "id").cases[0].read()
    npz(tmp_path / "size", "case0005_slice000")
    npz(tmp_path / "size", "case0005_slice001", np.zeros((4, 4)))
    with pytest.raises(DataError, match=r"slice001.npz is 4×4 but case0005_slice000.npz is 4×5"):
        opened("synapse", tmp_path / "size").cases[0].read()
    npz(tmp_path / "axes", "case0005_slice000", np.zeros((4, 4)), np.zeros((1, 4, 4)))
    with pytest.raises(DataError, match=r"image is 4×4 and label is 1×4×4"):
        opened("synapse", tmp_path / "axes").cases[0].read()
    case = heart(0)
    acdc_hdf5(tmp_path / "a", "train", replace(case, label=case.label * 2))
    with pytest.raises(
        DataError, match=r"are not ACDC's: 4 \(\d+ voxels\), 6 .*; known are 0 to 3"
    ):
        opened("acdc", tmp_path / "a").cases[0].read()
    describe(tmp_path)
    nnunet_case(tmp_path, "a", label=np.full((3, 4, 5), 2, np.uint8))
    with pytest.raises(DataError, match=r"not declared in dataset.json: 2 \(60 voxels\)"):
        opened("nnunet", tmp_path).cases[0].read()


def test_image_and_label_must_lie_on_one_grid(tmp_path: Path):
    image = np.zeros((3, 4, 5), np.int16)
    affine = np.diag([2.0, 2.0, 3.0, 1.0])
    nifti(tmp_path / "img/img0001.nii.gz", image, affine)
    moved = affine.copy()
    moved[0, 3] = 0.9  # less than half a voxel: a rounded header
    nifti(tmp_path / "label/label0001.nii.gz", image.astype(np.uint8), moved)
    assert opened("btcv", tmp_path).cases[0].read().label.shape == (5, 4, 3)
    moved[0, 3] = 1.1
    nifti(tmp_path / "label/label0001.nii.gz", image.astype(np.uint8), moved)
    with pytest.raises(DataError, match=r"lies at \(4, 6, 0\) mm .* at \(5.1, 6, 0\) .* 1.1 mm ap"):
        opened("btcv", tmp_path).cases[0].read()
    # A label whose header forgot the voxel size would be turned over without a word.
    nifti(tmp_path / "label/label0001.nii.gz", image.astype(np.uint8), np.diag([-1, 1, 1, 1]))
    with pytest.raises(DataError, match="with spacing 3×2×2 mm but .* with spacing 1×1×1 mm"):
        opened("btcv", tmp_path).cases[0].read()
    nifti(tmp_path / "label/label0001.nii.gz", image[:, :, :4].astype(np.uint8), affine)
    with pytest.raises(DataError, match=r"img0001.nii.gz is 5×4×3 but .* is 4×4×3 \(slices × row"):
        opened("btcv", tmp_path).cases[0].read()


def test_a_single_slice_is_no_photograph(tmp_path: Path):
    """It is not reduced to `max_side`, whatever its size."""
    nifti(tmp_path / "img/img0001.nii.gz", np.zeros((70, 40, 1), np.int16))
    nifti(tmp_path / "label/label0001.nii.gz", np.zeros((70, 40, 1), np.uint8))
    data = DataConfig(format="btcv", root=tmp_path, prepared=tmp_path / "p", max_side=32)
    assert prepare(data).case("case0001").image.shape == (1, 1, 40, 70)


# Real data ----------------------------------------------------------------------------------------


def test_real_acdc(real_data: Path):
    source = opened("acdc", real_data / "acdc")
    assert counts(source) == {"train": 140, "val": 20, "test": 40}
    patients = {(case.id[:10], case.split) for case in source.cases}
    assert len(patients) == 100
    for case in source.cases[::10]:
        read = case.read()
        assert read.image.shape == (1, *read.label.shape)
        assert np.unique(read.label).tolist() == [0, 1, 2, 3]
        # Every left ventricle is enclosed by the myocardium (2): label 3 next to 1 is rare.
        below = read.label[:, 1:][read.label[:, :-1] == 3]
        assert (below == 1).mean() < 0.01


@pytest.mark.parametrize("labels", ["btcv", "transunet"])
def test_real_ct_prepared(real_data: Path, tmp_path: Path, labels: str):
    root = real_data / "ct_example"
    store = prepare(DataConfig(format="btcv", root=root, prepared=tmp_path, labels=labels))
    case = store.case("case0001")
    raw_XYZ = np.asarray(nibabel.load(root / "Training/label/label0001.nii.gz").dataobj)
    assert case.geometry.spacing_mm == (3.0, 3.0, 3.0)
    # The file's axes run to the right, front and head: two of them are turned.
    expected = raw_XYZ[::-1, ::-1].transpose(2, 1, 0)
    assert np.array_equal(case.label, convert(expected, "btcv", labels))
    # As on a viewer: the liver lies on the picture's left, the spleen on its right.
    columns = {
        name: np.nonzero(case.label == store.label_names.index(name))[2].mean()
        for name in ("liver", "spleen")
    }
    assert columns["liver"] < columns["spleen"]
