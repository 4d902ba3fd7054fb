"""The phantoms: repeatable, anatomically right way round, and plausible in HU and size."""

import numpy as np
import pytest
from numpy.typing import NDArray

from msa2net.data.case import Case
from msa2net.data.phantom import ABDOMEN_LABELS, SKIN_LABELS, abdomen, skin_lesion
from msa2net.data.phantom.shapes import Floats, ellipsoid, smooth_noise, tube
from msa2net.errors import DataError

# Means over whole organs in portal-venous scans; the stomach may hold gas.
PLAUSIBLE_HU = {
    "aorta": (90, 190),
    "gallbladder": (-10, 40),
    "left kidney": (120, 230),
    "right kidney": (120, 230),
    "liver": (70, 140),
    "pancreas": (50, 120),
    "spleen": (80, 150),
    "stomach": (-500, 90),
}
# Adults, in millilitres, with room for what partial slices take or add.
PLAUSIBLE_ML = {
    "aorta": (40, 150),
    "gallbladder": (15, 90),
    "left kidney": (70, 250),
    "right kidney": (70, 250),
    "liver": (1000, 2200),
    "pancreas": (40, 130),
    "spleen": (80, 350),
    "stomach": (150, 700),
}


@pytest.fixture(scope="module")
def patients() -> list[Case]:
    return [abdomen(index) for index in range(6)]


def organ(case: Case, name: str) -> NDArray[np.bool_]:
    assert case.label is not None
    return case.label == ABDOMEN_LABELS.index(name)


def centre(case: Case, name: str) -> NDArray[np.float64]:
    """Centroid (slice, row, column)."""
    return np.argwhere(organ(case, name)).mean(axis=0)


def volume_ml(case: Case, name: str) -> float:
    assert case.geometry.spacing_mm is not None
    return float(organ(case, name).sum() * np.prod(case.geometry.spacing_mm) / 1000)


def test_abdomen_is_a_case_in_hu_with_its_size(patients: list[Case]) -> None:
    case = patients[3]
    assert case.id == "phantom_0003"
    assert case.image.shape == (1, 32, 128, 128)
    assert case.image.dtype == np.int16
    assert case.label is not None
    assert case.label.dtype == np.uint8
    assert case.geometry.spacing_mm == pytest.approx((240 / 32, 380 / 128, 380 / 128))
    assert case.image.min() >= -1024
    assert np.median(case.image[0, :, :8]) == pytest.approx(-1000, abs=3)  # air above the patient


@pytest.mark.parametrize("draw", [abdomen, skin_lesion])
def test_a_case_is_a_function_of_seed_and_index(draw: object) -> None:
    assert callable(draw)
    small = {"shape": (8, 64, 64) if draw is abdomen else (64, 64)}
    first, again = draw(1, seed=5, **small), draw(1, seed=5, **small)
    assert np.array_equal(first.image, again.image)
    assert np.array_equal(first.label, again.label)
    for other in (draw(2, seed=5, **small), draw(1, seed=6, **small)):
        assert not np.array_equal(first.image, other.image)
        assert not np.array_equal(first.label, other.label)


def test_every_organ_is_in_every_patient_even_on_the_coarsest_grid() -> None:
    for index in range(30):
        case = abdomen(index, seed=1, shape=(8, 64, 64))
        assert set(np.unique(case.label)) == set(range(9)), case.id


def test_organs_have_plausible_density_and_volume(patients: list[Case]) -> None:
    for case in patients:
        for name, (low, high) in PLAUSIBLE_HU.items():
            assert low < case.image[0][organ(case, name)].mean() < high, (case.id, name)
            least, most = PLAUSIBLE_ML[name]
            assert least < volume_ml(case, name) < most, (case.id, name)
        assert organ(case, "gallbladder").sum() >= 100


def test_density_alone_does_not_tell_the_organs_apart(patients: list[Case]) -> None:
    for case in patients:
        liver, spleen = (case.image[0][organ(case, name)] for name in ("liver", "spleen"))
        # Means closer than the sum of the spreads: the histograms overlap.
        assert abs(liver.mean() - spleen.mean()) < liver.std() + spleen.std()


def test_the_patient_lies_the_radiological_way(patients: list[Case]) -> None:
    for case in patients:
        where = {name: centre(case, name) for name in ABDOMEN_LABELS[1:]}
        column = {name: position[2] for name, position in where.items()}
        row = {name: position[1] for name, position in where.items()}
        height = {name: position[0] for name, position in where.items()}
        # The patient's right is at the picture's left.
        assert column["liver"] < column["aorta"] < column["spleen"]
        assert column["right kidney"] < column["aorta"] < column["left kidney"]
        assert column["gallbladder"] < column["pancreas"] < column["stomach"]
        # The front is at the top.
        assert row["gallbladder"] < row["right kidney"]
        assert row["stomach"] < row["pancreas"] < row["aorta"] < row["left kidney"]
        # Slice 0 is at the feet: kidneys in the lower half, liver and spleen in the upper.
        assert max(height["right kidney"], height["left kidney"]) < 16
        assert min(height["liver"], height["spleen"]) > 16
        assert height["gallbladder"] < height["spleen"]


def test_the_right_kidney_usually_lies_lower(patients: list[Case]) -> None:
    lower = [centre(case, "right kidney")[0] < centre(case, "left kidney")[0] for case in patients]
    assert sum(lower) >= 5


def test_only_the_aorta_runs_through_every_slice(patients: list[Case]) -> None:
    for case in patients:
        slices = {name: organ(case, name).any(axis=(1, 2)) for name in ABDOMEN_LABELS[1:]}
        assert slices.pop("aorta").all()
        for name, present in slices.items():
            assert 0.1 < present.mean() < 0.8, (case.id, name)


def test_the_anatomy_does_not_depend_on_the_resolution() -> None:
    fine, coarse = abdomen(2), abdomen(2, shape=(16, 64, 64))
    for name in ("liver", "spleen", "left kidney", "stomach"):
        # Counting voxels at 5.9 × 5.9 × 15 mm is good to a few per cent for organs of 10 cm.
        assert volume_ml(coarse, name) == pytest.approx(volume_ml(fine, name), rel=0.1), name


def test_pictures_need_not_be_square() -> None:
    wide = abdomen(0, shape=(9, 72, 96))
    assert wide.image.shape == (1, 9, 72, 96)
    assert set(np.unique(wide.label)) == set(range(9))
    assert wide.geometry.spacing_mm is not None
    assert wide.geometry.spacing_mm[1] == wide.geometry.spacing_mm[2]
    # Air all round the body on every side that the whole patient must fit into.
    assert wide.image[0, :, 0].max() < -500
    assert wide.image[0, :, :, [0, -1]].max() < -500
    assert skin_lesion(0, shape=(80, 100)).image.shape == (3, 1, 80, 100)


@pytest.mark.parametrize("shape", [(7, 64, 64), (8, 63, 64), (64, 64), (8, 64, 64, 1)])
def test_abdomen_refuses_a_shape_too_small(shape: tuple[int, int, int]) -> None:
    with pytest.raises(DataError, match=r"use at least \(8, 64, 64\)"):
        abdomen(0, shape=shape)


@pytest.mark.parametrize("shape", [(64, 63), (64,)])
def test_skin_lesion_refuses_a_shape_too_small(shape: tuple[int, int]) -> None:
    with pytest.raises(DataError, match=r"use at least \(64, 64\)"):
        skin_lesion(0, shape=shape)


def test_negative_numbers_are_refused() -> None:
    with pytest.raises(DataError, match="0 or more"):
        abdomen(-1)
    with pytest.raises(DataError, match="0 or more"):
        skin_lesion(0, seed=-1)


def test_lesions_are_dark_spots_of_plausible_size() -> None:
    fractions = []
    for index in range(25):
        case = skin_lesion(index, shape=(128, 128))
        assert case.id == f"lesion_{index:04d}"
        assert case.image.shape == (3, 1, 128, 128)
        assert case.image.dtype == np.uint8
        assert case.label is not None
        assert case.label.dtype == np.uint8
        assert set(np.unique(case.label)) == set(range(len(SKIN_LABELS)))
        lesion = case.label[0] == 1
        fractions.append(lesion.mean())
        # Green shows melanin best; the middle of the skin, as a tube's edge may be black.
        green = case.image[1, 0].astype(float)
        assert green[lesion].mean() < np.median(green[~lesion]) - 10, case.id
    assert min(fractions) > 0.02
    assert max(fractions) < 0.6
    assert max(fractions) > 3 * min(fractions)


def grid() -> Floats:
    """Positions (x, y, z) of a cube of 41³ voxels of 1 mm around the origin."""
    axis = np.arange(41, dtype=np.float32) - 20
    z, y, x = np.meshgrid(axis, axis, axis, indexing="ij")
    return np.stack([x, y, z])


def test_an_ellipsoid_has_its_volume_and_its_tilt() -> None:
    solid = ellipsoid(grid(), (0, 0, 0), (18, 6, 6))
    # 2 %: what counting voxels of 1 mm costs at a radius of 6 mm.
    assert (solid < 0).sum() == pytest.approx(4 / 3 * np.pi * 18 * 6 * 6, rel=0.02)
    assert (solid[20, 20, 3], solid[20, 20, 40]) == pytest.approx((-1, 2), abs=1e-4)
    assert solid[20, 3, 20] > 0
    turned = ellipsoid(grid(), (0, 0, 0), (18, 6, 6), (0, 0, 90)) < 0
    assert turned[20, 3, 20]
    assert not turned[20, 20, 3]


def test_a_straight_tube_is_the_distance_to_its_axis() -> None:
    xyz = grid()
    solid = tube(xyz, [(-50, 2, 0), (50, 2, 0)], [6, 6])
    assert solid == pytest.approx(np.hypot(xyz[1] - 2, xyz[2]) - 6, abs=1e-4)


def test_smooth_noise_has_unit_variance_and_no_memory_of_the_sampling() -> None:
    axes = [np.linspace(-100, 100, 201)] * 2
    fine = smooth_noise(np.random.default_rng(3), axes, (100, 100), 4)
    # About 2,500 independent cells: the mean is good to 0.02, the deviation to a few per cent.
    assert fine.mean() == pytest.approx(0, abs=0.08)
    assert fine.std() == pytest.approx(1, abs=0.08)
    coarse = smooth_noise(np.random.default_rng(3), [axis[::10] for axis in axes], (100, 100), 4)
    assert coarse == pytest.approx(fine[::10, ::10], abs=1e-5)  # float32 sums of 16 terms
