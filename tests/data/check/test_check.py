"""What `msa2net check` finds, one provoked defect after the other, and nothing in sound data."""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace

import nibabel
import numpy as np
import pytest

from check_cases import SMALL, case, found, make, the, three
from commands import msa2net
from msa2net.cli.check import places
from msa2net.config import DataConfig
from msa2net.data.case import Case
from msa2net.data.check.dataset import check_store
from msa2net.data.check.findings import LEVELS, Finding
from msa2net.data.geometry import FileLayout, Geometry, canonical_orientation
from msa2net.data.labels import ENCODINGS
from msa2net.data.phantom.files import write_phantom
from msa2net.data.prepared.prepare import prepare
from msa2net.data.prepared.slice_files import build_slices
from msa2net.data.prepared.store import (
    Store,
    label_path,
    open_store,
    write_index,
)
from msa2net.data.preprocessing import Preprocessing


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory) -> Path:
    """Sound data of every format, raw and prepared; whoever changes them takes a copy."""
    root = tmp_path_factory.mktemp("check")
    for format in ("acdc", "btcv", "synapse", "nnunet", "isic2018", "images"):
        write_phantom(format, root / format, cases=5)
        labels = "samed" if format == "btcv" else None
        prepare(
            DataConfig(
                format=format, root=root / format, prepared=root / f"p-{format}", labels=labels
            )
        )
    prepare(
        DataConfig(
            format="phantom",
            prepared=root / "p-phantom",
            phantom_cases=(2, 1, 1),
            phantom_shape=(16, 64, 64),
        )
    )
    return root


def bad(store: Store) -> list[str]:
    return [f"{f.where}: {f.what}" for f in check_store(store, SMALL) if f.level != "note"]


# Sound data ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "format", ["acdc", "btcv", "synapse", "nnunet", "isic2018", "images", "phantom"]
)
def test_sound_data_have_no_error_and_no_warning(phantoms: Path, format: str):
    store = open_store(phantoms / f"p-{format}", complete=False)
    seen = []

    def progress(cases, total):
        seen.append(total)
        return cases

    findings = check_store(store, SMALL, progress)
    assert [f for f in findings if f.level != "note"] == []
    assert seen == [len(store.cases)]
    assert {f.what for f in findings} == {
        "the split has fewer than 5 patients, so the intervals of its scores will be wide",
        "the first training at 32×32 will write its slices beside the prepared data",
        "this case needs the most memory, for image and label together",
    }


def test_the_made_up_cases_are_sound_too(tmp_path: Path):
    assert bad(make(tmp_path, three())) == []


def test_classes_that_the_eight_organ_phantom_lacks(phantoms: Path, tmp_path: Path):
    store = prepare(DataConfig(format="btcv", root=phantoms / "btcv", prepared=tmp_path))
    lacking = set(ENCODINGS["btcv"].values()) - set(ENCODINGS["samed"].values())
    warnings = [f for f in check_store(store, SMALL) if f.level == "warning"]
    assert {f.where for f in warnings} == lacking
    assert {f.what for f in warnings} == {"no case shows this class"}


# Labels -------------------------------------------------------------------------------------------


def label(*changes: tuple[object, int], fill: int = 0) -> np.ndarray:
    values = np.full((4, 16, 16), fill, np.uint8)
    for where, value in changes:
        values[where] = value
    return values


@pytest.mark.parametrize(
    ("values", "what", "level", "detail"),
    [
        (label((0, 1), (1, 2)), "values other than 0 to 1 and 255", "error", "2 (256 voxels)"),
        (label(fill=255), "every voxel of the label is ignored", "error", ""),
        (label(), "the label is empty", "warning", ""),
        (label((0, 255)), "the label is empty", "warning", ""),
        (label(((0, 0), 0), fill=1), "fills more than 95%", "warning", "98.4%"),
        (label((0, 255), ((1, 0), 0), fill=1), "fills more than 95%", "warning", "97.9%"),
        (label(((0, 0, 0), 1), ((0, 0, 1), 1)), "'organ' has only 2 voxels", "warning", ""),
    ],
)
def test_labels(tmp_path: Path, values, what, level, detail):
    finding = the(make(tmp_path, three(label=values)), what)
    assert (finding.level, finding.where, finding.detail) == (level, "case0", detail)


def test_limits_of_the_label_are_not_reported(tmp_path: Path):
    just_three = label(((0, 0, slice(3)), 1))
    nearly_full = label((0, 0), fill=1)  # three quarters
    ignored_but_one = label(((0, 0, slice(3)), 1), ((0, 1), 0), fill=255)
    cases = [case(i, label=v) for i, v in enumerate((just_three, nearly_full, ignored_but_one))]
    assert bad(make(tmp_path, cases)) == []


def test_a_photograph_may_be_full(tmp_path: Path):
    store = make(tmp_path, three(label=label(fill=1)), kind="photograph")
    assert the(store, "fills more than").level == "note"


def test_classes_that_splits_lack(tmp_path: Path):
    names = ("background", "organ", "only in train", "only in test", "nowhere")
    labels = [label((0, 1), (1, 2)), label((0, 1)), label((0, 1), (1, 3))]
    cases = [case(number, label=values) for number, values in enumerate(labels)]
    store = make(tmp_path, cases, names=names)
    findings = {(f.where, f.what.split(",")[0]): f.level for f in found(store, "shows this class")}
    assert findings == {
        ("only in train", "no case of val shows this class"): "warning",
        ("only in train", "no case of test shows this class"): "warning",
        ("only in test", "no case of train shows this class"): "error",
        ("only in test", "no case of val shows this class"): "warning",
        ("nowhere", "no case shows this class"): "warning",
    }


def altered(phantoms: Path, folder: Path, name: str, change: Callable[[dict], None]) -> Store:
    """Copy a prepared data set, change its dataset.json and open it."""
    shutil.copytree(phantoms / name, folder, dirs_exist_ok=True)
    content = json.loads((folder / "dataset.json").read_text())
    change(content)
    (folder / "dataset.json").write_text(json.dumps(content))
    return open_store(folder, complete=False)


def test_organs_of_impossible_size(phantoms: Path, tmp_path: Path):
    """The same voxels, ten times as large along each side: a litre of aorta."""

    def enlarge(content: dict) -> None:
        geometry = content["cases"][0]["geometry"]
        geometry["spacing_mm"] = [4 * side for side in geometry["spacing_mm"]]

    store = altered(phantoms, tmp_path, "p-synapse", enlarge)
    findings = found(store, "is not between")
    assert {f.where for f in findings} == {store.cases[0].id}
    assert {f.level for f in findings} == {"warning"}
    liver = next(f for f in findings if f.what == "'liver' is not between 300 and 6000 mL")
    row = store.cases[0]
    volume_ml = row.voxels["5"] * np.prod(row.spacing_mm) / 1000
    assert liver.detail == f"{volume_ml:.3g} mL"
    assert volume_ml > 6000


@pytest.mark.parametrize("declared", ["btcv", "cascade", "samed"])
def test_a_wrong_label_encoding(phantoms: Path, tmp_path: Path, caplog, declared: str):
    data = DataConfig(
        format="synapse", root=phantoms / "synapse", prepared=tmp_path, labels=declared
    )
    store = prepare(data)
    finding = the(store, "declared as")
    assert finding.level == "error"
    assert f"{finding.what}; → {finding.advice}" in caplog.text  # so does every training say it
    assert finding.advice == "prepare … --labels transunet"
    pattern = (
        rf"'{declared}' but look like 'transunet': value (\d) is .*, (.*) in 'transunet', (.*) in"
    )
    value, best, named = re.search(pattern, finding.what).groups()
    assert best == ENCODINGS["transunet"][int(value)]
    assert named == ENCODINGS[declared][int(value)] != best
    assert found(store, "is not between") == []  # wrong names have wrong sizes: said once


@pytest.mark.parametrize("labels", [None, "cascade"])
def test_btcv_files_in_another_encoding(phantoms: Path, tmp_path: Path, labels: str | None):
    """What the files hold is in doubt, not what they were converted to."""
    shutil.copytree(phantoms / "btcv", tmp_path / "raw")
    to_samed = np.zeros(14, np.uint8)
    for value, organ in ENCODINGS["samed"].items():
        raw = next(v for v, name in ENCODINGS["btcv"].items() if name == organ)
        to_samed[raw] = value
    for path in (tmp_path / "raw/label").iterdir():
        file = nibabel.load(path)
        nibabel.save(nibabel.Nifti1Image(to_samed[np.asarray(file.dataobj)], file.affine), path)
    data = DataConfig(format="btcv", root=tmp_path / "raw", prepared=tmp_path / "p", labels=labels)
    finding = the(prepare(data), "declared as 'btcv' but look like 'samed'")
    assert "convert the label files from 'samed' to 'btcv'" in finding.advice


def test_an_encoding_that_cannot_be_told(tmp_path: Path):
    names = ("background", *ENCODINGS["transunet"].values())
    store = make(tmp_path, three(), names=names, encoding="transunet")
    assert the(store, "do not tell").level == "note"


# Geometry -----------------------------------------------------------------------------------------


def with_spacings(*spacings) -> list[Case]:
    return [
        case(n, geometry=Geometry() if mm is None else Geometry.from_spacing(mm))
        for n, mm in enumerate(spacings)
    ]


def test_spacings(tmp_path: Path):
    usual = (2.0, 1.0, 1.0)
    store = make(tmp_path / "a", with_spacings(None, usual, usual))
    assert (the(store, "spacing is not known").level, bad(store)) == ("note", [])
    store = make(tmp_path / "b", with_spacings((20.0, 1.0, 1.0), usual, usual, (2.0, 0.05, 1.0)))
    findings = found(store, "not between 0.05 and 20 mm")
    assert [(f.level, f.where, f.detail) for f in findings] == [
        ("warning", "case0", "20×1×1 mm"),
        ("warning", "case3", "2×0.05×1 mm"),
    ]
    store = make(
        tmp_path / "c",
        with_spacings(usual, usual, (6.0, 1.0, 1.0), (2.0, 1.0, 0.4), (2.0, 0.3, 1.0)),
    )
    finding = the(store, "spacing of the slices is 3 or more times off the median")
    assert (finding.level, finding.where) == ("warning", "case2")
    assert finding.detail == "6×1×1 mm, the median is 2×1×1 mm"
    finding = the(store, "spacing of the rows is 3 or more times off the median")
    assert (finding.where, finding.detail) == ("case4", "2×0.3×1 mm, the median is 2×1×1 mm")
    assert found(store, "spacing of the columns") == []  # 2.5 times
    assert bad(make(tmp_path / "d", with_spacings((19.0, 1.0, 1.0), usual))) == [
        "test: no case is in this split"  # two have no median
    ]


def test_numbers_of_slices(tmp_path: Path):
    cases = [case(n, shape=(1, depth, 16, 16)) for n, depth in enumerate((4, 4, 12, 4, 11))]
    finding = the(make(tmp_path, cases), "number of slices")
    assert (finding.level, finding.where) == ("warning", "case2")
    assert finding.detail == "12, the median is 4"


def from_file(affine: np.ndarray) -> Geometry:
    layout = FileLayout((16, 16, 4), affine, canonical_orientation(affine), 1, 1, "mm")
    return Geometry.from_layout(layout)


def test_orientations(tmp_path: Path):
    ras, lps = np.diag([1.0, 1, 2, 1]), np.diag([-1.0, -1, 2, 1])
    cases = [case(n, geometry=from_file(affine)) for n, affine in enumerate((ras, ras, lps))]
    store = make(tmp_path / "a", cases)
    findings = found(store, "run in different directions")
    assert [(f.level, f.where, f.detail) for f in findings] == [
        ("note", "RAS", "2 of 3 cases"),
        ("note", "LPS", "1 of 3 cases"),
    ]
    assert bad(store) == []
    alike = [case(n, geometry=from_file(ras)) for n in range(3)]
    assert found(make(tmp_path / "b", alike), "run in different directions") == []


def test_scans_that_are_cut_across_their_slices(tmp_path: Path):
    """Sagittal: the file's axes run to the back, the feet and the left."""
    for name, mm, level in (("thick", 4.0, "warning"), ("cubes", 1.0, "note")):
        affine = np.array([[0, 0, -mm, 0], [-1, 0, 0, 0], [0, -1, 0, 0], [0, 0, 0, 1.0]])
        store = make(tmp_path / name, three(geometry=from_file(affine)))
        finding = the(store, "is sagittal, and training cuts it across its slices, into axial ones")
        assert (finding.level, finding.where) == (level, "case0")
        assert finding.detail == f"pixels of 1×{mm:g} mm"


@pytest.mark.parametrize(("degrees", "reported"), [(15, False), (25, True), (-40, True)])
def test_oblique_slices(tmp_path: Path, degrees: float, reported: bool):
    angle = np.radians(degrees)
    affine = np.diag([1.0, 1, 2, 1])
    turn = np.eye(4)
    turn[1:3, 1:3] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    cases = three(geometry=from_file(turn @ affine))
    for intensity, level in (("fixed", "warning"), ("percentile", "note")):
        store = make(tmp_path / intensity, cases, intensity=intensity, low=0, high=255)
        findings = found(store, "oblique")
        assert [(f.level, f.where, f.detail) for f in findings] == (
            [(level, "case0", f"{abs(degrees)}°")] if reported else []
        )


# Stored files -------------------------------------------------------------------------------------


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize("name", ["image", "label"])
@pytest.mark.parametrize(
    ("spoil", "detail"),
    [
        (Path.unlink, r"case0\.\w+\.npy is missing"),
        (cut, "mmap length"),
        (lambda path: path.write_bytes(b""), "is damaged"),
        (lambda path: path.write_bytes(b"nothing"), "is damaged"),
        (lambda path: np.save(path, np.load(path)[..., 1:]), "15, .*×16 is expected"),
        (lambda path: np.save(path, np.load(path).astype("c8")), "complex64"),
    ],
)
def test_damaged_arrays(tmp_path: Path, name: str, spoil, detail: str):
    store = make(tmp_path, three())
    spoil(tmp_path / f"cases/case0.{name}.npy")
    finding = the(store, f"the stored {name} is missing or damaged")
    assert (finding.level, finding.where) == ("error", "case0")
    assert finding.advice == "prepare the data again"
    assert re.search(detail, finding.detail)


def test_a_label_of_wide_numbers(tmp_path: Path):
    store = make(tmp_path, three())
    np.save(label_path(tmp_path, "case1"), np.zeros((4, 16, 16), np.uint16))
    assert "uint16" in the(store, "the stored label is missing or damaged").detail


def test_changed_and_vanished_sources(phantoms: Path, tmp_path: Path):
    shutil.copytree(phantoms / "images", tmp_path / "raw")
    store = prepare(DataConfig(format="images", root=tmp_path / "raw", prepared=tmp_path / "p"))
    first, second, third = (row.files for row in store.cases[:3])
    Path(first[0]["path"]).unlink()
    Path(first[1]["path"]).unlink()
    with Path(second[1]["path"]).open("ab") as file:
        file.write(b"1")
    os.utime(third[0]["path"], (0, 0))
    gone = the(store, "no longer where they were")
    assert (gone.level, gone.where) == ("note", store.cases[0].id)
    assert gone.detail == f"{Path(first[0]['path']).name} and 1 more"
    changed = found(store, "were changed after")
    assert [(f.level, f.where, f.detail) for f in changed] == [
        ("warning", store.cases[1].id, Path(second[1]["path"]).name),
        ("warning", store.cases[2].id, Path(third[0]["path"]).name),
    ]


def test_an_interrupted_preparation(tmp_path: Path):
    store = make(tmp_path, three())
    assert found(store, "interrupted") == []
    write_index(store, complete=False)
    assert the(open_store(tmp_path, complete=False), "interrupted").level == "error"


def test_data_prepared_before_there_were_statistics(tmp_path: Path):
    """They are made up for: the same is found."""
    store = make(tmp_path, three(label=label((0, 1), (1, 7)), image=np.ones((1, 4, 16, 16))))
    bare = replace(
        store, cases=tuple(replace(c, intensity=(), voxels={}, patient="") for c in store.cases)
    )
    assert bad(bare) == bad(store)
    assert len(bad(store)) == 2


# Intensities --------------------------------------------------------------------------------------

CT = {"intensity": "fixed", "low": -125.0, "high": 275.0}


def scan(low: float, high: float) -> np.ndarray:
    image = np.linspace(low, high, 1024).reshape(1, 4, 16, 16)
    return image if high <= 1 else image.round().astype(np.int16)


def test_values_that_are_no_image(tmp_path: Path):
    broken = case(0).image.copy()
    broken[0, 0, 0, :3] = np.nan, np.inf, -np.inf
    finding = the(make(tmp_path / "a", three(image=broken)), "NaN or infinite")
    assert (finding.level, finding.where, finding.detail) == ("error", "case0", "3 voxels")
    constant = np.full((1, 4, 16, 16), 7, np.int16)
    finding = the(make(tmp_path / "b", three(image=constant)), "the same value everywhere")
    assert (finding.level, finding.where, finding.detail) == ("error", "case0", "7")
    two = [case(n, shape=(2, 4, 16, 16)) for n in range(3)]
    half = two[0].image.copy()
    half[1] = 0
    finding = the(make(tmp_path / "c", [case(0, image=half), *two[1:]]), "a channel of the image")
    assert (finding.level, finding.where) == ("warning", "case0")


@pytest.mark.parametrize(
    ("low", "high", "what"),
    [
        (0, 1, "values within 0 to 1"),
        (0, 255, "values within 0 to 255"),
        (0, 2500, "perhaps stored with an offset of 1024"),
        (-125, 275, "never below −200, so without air, perhaps clipped"),
        (-150, 1500, "never below −200"),
    ],
)
def test_values_that_are_not_hounsfield_units(tmp_path: Path, low, high, what):
    ct = [case(n, image=scan(-1000 - n, 1000)) for n in range(3)]
    store = make(tmp_path / "a", [case(0, image=scan(low, high)), *ct[1:]], **CT)
    finding = the(store, "does not look like Hounsfield units")
    assert (finding.level, finding.where) == ("warning", "case0")
    assert finding.detail == f"{low} to {high}"
    assert what in finding.what
    assert bad(make(tmp_path / "b", ct, **CT)) == []
    assert bad(make(tmp_path / "c", three(image=scan(low, high)))) == []  # percentiles: any scale


def test_values_outside_the_window(tmp_path: Path):
    ct = [case(n, image=scan(-1000 - n, 1000)) for n in range(3)]
    far = scan(-1000, 1000)
    far[(far >= -125) & (far <= 275)] = 2000
    finding = the(make(tmp_path / "a", [case(0, image=far), *ct[1:]], **CT), "lie outside -125 to")
    assert (finding.level, finding.where, finding.detail) == ("warning", "case0", "100.00%")
    far[0, 0, 0, :11] = 0  # 11 of 1024: more than one in a hundred is seen
    assert bad(make(tmp_path / "b", [case(0, image=far), *ct[1:]], **CT)) == []


def test_numbers_of_channels(tmp_path: Path):
    cases = [case(n, shape=(c, 4, 16, 16)) for n, c in enumerate((3, 2, 3, 1))]
    store = make(tmp_path, cases)
    finding = the(store, "another number of channels")
    assert (finding.level, finding.where, finding.detail) == (
        "error",
        "case1",
        "2, the network gets 3",
    )
    assert the(store, "has one channel").level == "warning"


# Duplicates, patients, splits ---------------------------------------------------------------------


def test_duplicates(tmp_path: Path):
    image = case(0).image
    cases = [
        case(0),
        case(1, image=image),  # val
        case(2),
        case(3, image=image.astype(np.float64)),  # train, another type of number
        case(4, image=np.ascontiguousarray(image[:, ::-1])),  # the same statistics only
    ]
    store = make(tmp_path / "a", cases)
    findings = found(store, "two cases of")
    assert [(f.level, f.where, f.detail) for f in findings] == [
        ("warning", "case0 and case1", "train and val"),
        ("warning", "case0 and case3", "train"),
    ]
    assert "validation flatters" in findings[0].advice
    leak = the(make(tmp_path / "b", [case(0), case(1), case(2, image=image)]), "two cases of")
    assert (leak.level, leak.where, leak.detail) == ("error", "case0 and case2", "train and test")


def test_one_file_under_two_names(phantoms: Path, tmp_path: Path):
    shutil.copytree(phantoms / "images", tmp_path / "raw")
    for folder, ending in (("images", "jpg"), ("masks", "png")):
        files = tmp_path / "raw" / folder
        shutil.copy(files / f"lesion_0000.{ending}", files / f"lesion_0900.{ending}")
    store = prepare(DataConfig(format="images", root=tmp_path / "raw", prepared=tmp_path / "p"))
    finding = the(store, "are the same file")
    assert finding.where == "lesion_0000 and lesion_0900"
    one, other = (store.row(case_id).split for case_id in ("lesion_0000", "lesion_0900"))
    assert finding.level == ("error" if one != other and "test" in (one, other) else "warning")


def test_a_patient_in_two_splits(phantoms: Path, tmp_path: Path):
    def part(content: dict) -> None:
        one, other = content["cases"][:2]
        one["split"], other["split"] = "test", "train"

    store = altered(phantoms, tmp_path, "p-acdc", part)
    finding = the(store, "a patient's cases are in several splits")
    assert (finding.level, finding.where) == ("error", "patient001")
    assert finding.detail == "train and test"


@pytest.mark.parametrize(
    ("splits", "levels"),
    [
        ("train", {"val": "error", "test": "warning"}),
        ("val test", {"train": "error"}),
        ("train val", {"test": "warning"}),
    ],
)
def test_empty_splits(tmp_path: Path, splits: str, levels: dict[str, str]):
    store = make(tmp_path, three(), splits=splits)
    assert {f.where: f.level for f in found(store, "no case is in this split")} == levels


def test_few_patients(phantoms: Path, tmp_path: Path):
    """Two phases of one heart are one patient."""
    store = open_store(phantoms / "p-acdc")
    notes = {f.where: f.detail for f in found(store, "fewer than 5 patients")}
    patients = {split: {c.patient for c in store.cases if c.split == split} for split in notes}
    assert notes == {
        split: f"{len(names)} patient{'s' * (len(names) > 1)}" for split, names in patients.items()
    }
    many = make(tmp_path, [case(n) for n in range(15)])
    assert found(many, "fewer than") == []


# Room ---------------------------------------------------------------------------------------------


def test_room_on_the_disk(tmp_path: Path, monkeypatch):
    """By hand: 4 slices of 64×32, an image channel of two bytes and a label of one: 24 KiB."""
    store = make(tmp_path, three())
    words = "the first training at 64×32 will write its slices"
    usage = SimpleNamespace(free=4 * 64 * 32 * 3)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    finding = the(store, words, image_size=(64, 32))
    assert (finding.level, finding.detail) == ("note", "24.0 KiB for 4 slices, 24.0 KiB are free")
    usage.free -= 1
    assert the(store, "no room for training slices", image_size=(64, 32)).level == "error"
    build_slices(store, Preprocessing(channels=1, image_size=(64, 32)), ("train",))
    assert the(store, "beside the prepared data already", image_size=(64, 32)).level == "note"
    assert the(store, "no room", image_size=(32, 64)).level == "error"


def test_the_largest_case(tmp_path: Path):
    cases = [case(0), case(1, shape=(1, 8, 16, 16)), case(2)]
    finding = the(make(tmp_path, cases), "the most memory")
    # 8 × 16 × 16 voxels of four bytes and one byte.
    assert (finding.level, finding.where, finding.detail) == ("note", "case1", "10.0 KiB")


# The command --------------------------------------------------------------------------------------


def test_the_command(phantoms: Path, tmp_path: Path, monkeypatch):
    def command(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
        return msa2net("check", folder, *options, cwd=tmp_path)

    monkeypatch.setenv("COLUMNS", "80")
    clean = command(phantoms / "p-nnunet", "--image-size", "64")
    assert clean.returncode == 0, clean.stderr
    assert clean.stderr == ""
    assert clean.stdout.splitlines()[-1] == "0 errors, 0 warnings, 3 notes in 5 cases"
    assert "64×64" in clean.stdout

    make(tmp_path, [case(n, label=label((0, 9))) for n in range(5)])
    spoilt = command(tmp_path)
    assert spoilt.returncode == 2
    assert spoilt.stderr == ""
    assert max(len(line) for line in spoilt.stdout.splitlines()) <= 80
    assert "case0 (9 (256 voxels)), case1 (9 (256 voxels)), case2 (9 (256 voxels))" in (
        " ".join(spoilt.stdout.split())
    )
    assert "case4" not in spoilt.stdout
    assert spoilt.stdout.index("error") < spoilt.stdout.index("note")
    assert spoilt.stdout.splitlines()[-1] == "1 error, 1 warning, 3 notes in 5 cases"
    assert "case4" in command(tmp_path, "--verbose").stdout

    missing = command(tmp_path / "nowhere")
    assert missing.returncode == 2
    assert "there is no folder" in missing.stderr


def test_places():
    group = [Finding("note", f"case{n}", "what", "", "" if n else "9 mL") for n in range(5)]
    assert places(group, 3) == "case0 (9 mL), case1, case2 and 2 more"
    assert places(group[:3], 3) == "case0 (9 mL), case1, case2"
    assert places(group, None).endswith("case3, case4")
    assert asdict(group[0])["level"] in LEVELS
