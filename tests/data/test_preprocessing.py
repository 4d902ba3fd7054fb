"""Preprocessing: against other libraries, by hand, and its inverse."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage
from torch.nn import functional as F

from msa2net.data.preprocessing import Preprocessing, foreign_values
from msa2net.data.resampling import nearest_index, resampling_matrix
from msa2net.errors import DataError

SIDES = st.integers(1, 90)


def preprocessing(size=(32, 64), **options) -> Preprocessing:
    return Preprocessing(channels=1, image_size=size, low=0.0, high=1.0, **options)


def _unit(shape, seed=0):
    return np.random.default_rng(seed).random((1, *shape), dtype=np.float32)


@pytest.mark.parametrize("shape", [(2, 100, 51), (1, 17, 200), (3, 32, 64), (1, 1, 1)])
def test_linear_equals_torch_antialiased_bilinear(shape):
    image = _unit(shape)
    ours = preprocessing(fit="stretch").unit_slices(image, (0, 1))
    theirs = F.interpolate(
        torch.from_numpy(image).transpose(0, 1), (32, 64), mode="bilinear", antialias=True
    )
    np.testing.assert_allclose(ours, theirs, atol=2e-6)


@pytest.mark.parametrize("fit", ["stretch", "pad"])
@pytest.mark.parametrize("resampling", ["linear", "spline"])
def test_very_large_slices_come_in_bands_to_the_same_values(monkeypatch, fit, resampling):
    options = {"fit": fit, "resampling": resampling, "crop": 0.9}
    image = np.random.default_rng(0).integers(0, 255, (3, 2, 90, 71), np.uint8)
    ours = Preprocessing(channels=3, image_size=(32, 48), **options)
    whole = ours.unit_slices(image, (0, 255))
    monkeypatch.setattr("msa2net.data.preprocessing._LARGE", 6000)
    np.testing.assert_array_equal(ours.unit_slices(image, (0, 255)), whole)


@pytest.mark.parametrize("sides", [(300, 224), (100, 224), (224, 224), (64, 61)])
def test_spline_equals_scipy_zoom(sides):
    old, new = sides
    image = np.random.default_rng(0).random((old, old))
    matrix = resampling_matrix(old, new, "spline")
    expected = ndimage.zoom(image, new / old, order=3)
    np.testing.assert_allclose(matrix @ image @ matrix.T, expected, atol=1e-5)


@given(SIDES, SIDES, st.sampled_from(["stretch", "pad"]))
def test_a_constant_stays_constant_there_and_back(height, width, fit):
    """Rows of every matrix sum to one inside the image, so nothing brightens or bleeds."""
    p = preprocessing(fit=fit)
    unit = p.unit_slices(np.full((1, 2, height, width), 0.7, np.float32), (0, 1))
    back = p.invert(unit, (height, width))
    np.testing.assert_allclose(back, np.full((2, 1, height, width), 0.7), atol=1e-5)


@given(SIDES, SIDES, st.sampled_from(["stretch", "pad"]), st.integers(0, 3))
def test_labels_and_images_land_in_the_same_place(height, width, fit, seed):
    """A half plane goes forward as image and as label to the same pixels, within one pixel."""
    cut = np.random.default_rng(seed).integers(0, width + 1)
    label = np.zeros((1, height, width), np.uint8)
    label[..., :cut] = 1
    p = preprocessing(fit=fit)
    from_image = p.unit_slices(label[None].astype(np.float32), (0, 1))[0, 0].sum(1)
    from_label = p.label_slices(label)[0].sum(1)
    # A column of the original spans `scale` columns of the input when it is enlarged.
    scale = max(1.0, 64 / width, 32 / height)
    assert np.abs(from_image - from_label).max() <= scale


def test_half_resolution_round_trip_keeps_a_disc():
    rows, columns = np.mgrid[:128, :96]
    disc = ((rows - 60) ** 2 + (columns - 40) ** 2 < 30**2).astype(np.uint8)[None]
    for fit in ("stretch", "pad"):
        p = preprocessing((64, 64), fit=fit)
        small = p.label_slices(disc).astype(np.float32)[:, None]
        back = p.invert(small, (128, 96))[:, 0] > 0.5
        overlap = 2 * (back & (disc > 0)).sum() / (back.sum() + disc.sum())
        assert overlap > 0.97


def test_pad_keeps_the_aspect_ratio_and_centres():
    p = preprocessing((32, 64), fit="pad")
    unit = p.unit_slices(np.ones((1, 1, 100, 100), np.float32), (0, 1))[0, 0]
    assert unit[:, :16].max() == 0
    assert unit[:, 48:].max() == 0
    np.testing.assert_allclose(unit[:, 16:48], 1, atol=1e-6)


def test_fixed_intensities_are_clipped_and_scaled():
    p = Preprocessing(channels=1, image_size=(32, 32), low=-125, high=275)
    image = np.array([-1000, -125, 75, 275, 3000], np.int16).repeat(32)[None, None, None, :]
    ends = p.unit_slices(image.repeat(32, 2), p.intensity_range(image))
    assert ends.min() == 0
    assert ends.max() == 1
    assert p.intensity_range(image) == (-125, 275)


def test_percentile_intensities_come_from_the_whole_case():
    p = Preprocessing(channels=1, image_size=(32, 32), intensity="percentile", low=0, high=100)
    image = np.arange(2 * 4 * 4, dtype=np.uint16).reshape(1, 2, 4, 4)
    assert p.intensity_range(image) == (0, 31)
    constant = np.full((1, 1, 4, 4), 7, np.uint16)
    assert p.intensity_range(constant) == (7, 8)  # no division by zero


def test_grey_is_repeated_and_too_many_channels_are_refused():
    p = Preprocessing(channels=3, image_size=(32, 32))
    assert p.unit_slices(np.zeros((1, 2, 9, 9), np.uint8), (0, 255)).shape == (2, 3, 32, 32)
    with pytest.raises(DataError, match="has 2 channels and the network takes 3"):
        p.unit_slices(np.zeros((2, 1, 9, 9), np.uint8), (0, 255))


def test_numpy_and_torch_invert_alike():
    p = preprocessing((32, 64))
    values = np.random.default_rng(0).random((2, 3, 32, 64), dtype=np.float32)
    on_torch = p.invert(torch.from_numpy(values), (77, 130), convert=torch.tensor)
    np.testing.assert_allclose(p.invert(values, (77, 130)), on_torch, atol=1e-5)


def test_saved_and_read_back_it_is_equal():
    p = Preprocessing(
        channels=3, image_size=(32, 64), fit="pad", intensity="percentile", low=1, high=99
    )
    assert Preprocessing.model_validate_json(p.model_dump_json()) == p


def test_nearest_index_by_hand():
    assert nearest_index(4, 2).tolist() == [1, 3]
    assert nearest_index(2, 4).tolist() == [0, 0, 1, 1]
    assert nearest_index(3, 3).tolist() == [0, 1, 2]


def test_every_channel_has_a_scale_of_its_own():
    """MRI sequences: values of one are hundreds, of the other fractions; both must be seen."""
    ramp = np.linspace(0, 1, 64, dtype=np.float32).reshape(1, 8, 8)
    image = np.stack([ramp * 900 + 100, ramp * 0.01])
    p = Preprocessing(channels=2, image_size=(8, 8), intensity="percentile", low=0, high=100)
    unit = p.unit_slices(image, p.intensity_range(image))
    np.testing.assert_allclose(unit[0, 0], ramp[0], atol=1e-5)
    np.testing.assert_allclose(unit[0, 1], ramp[0], atol=1e-5)


def test_the_pixel_size_of_training_by_hand():
    """512 pixels of 0.8 mm on 256 are 1.6 mm; 128 of 3.6 mm are 1.8 mm; √(1.6 × 1.8) = 1.697."""
    p = preprocessing((256, 256))
    assert p.training_pixel_mm([((512, 512), (0.8, 0.8))]) == pytest.approx((1.6, 1.6))
    two = p.training_pixel_mm([((512, 512), (0.8, 0.8)), ((128, 128), (3.6, 3.6))])
    assert two == pytest.approx((2.88**0.5, 2.88**0.5))
    # The longer side fills 256; the other is reduced as much, and surrounded.
    assert p.training_pixel_mm([((512, 256), (0.8, 0.5))]) == pytest.approx((1.6, 1.0))
    stretched = preprocessing((256, 128), fit="stretch", crop=0.5)
    assert stretched.training_pixel_mm([((512, 512), (0.8, 0.8))]) == pytest.approx((0.8, 1.6))
    assert p.training_pixel_mm([((512, 512), (0.8, 0.8)), ((512, 512), None)]) is None
    assert p.training_pixel_mm([]) is None


@given(SIDES, SIDES, st.floats(0.3, 4.0), st.sampled_from(["stretch", "pad"]))
def test_windows_of_the_training_scale_are_the_resized_image(height, width, mm, fit):
    """At the pixel size that one case gives, that case is looked at as it was when resized."""
    p = preprocessing(fit=fit)
    spacing_mm = (mm, 2 * mm)
    pixel_mm = p.training_pixel_mm([((height, width), spacing_mm)])
    windows = p.model_copy(update={"pixel_mm": pixel_mm})
    down, across = windows.window_placement((height, width), spacing_mm)
    resized = p.placement((height, width))
    assert (down.resized, across.resized) == (resized.rows.resized, resized.columns.resized)
    unit = _unit((2, height, width))
    looked_at = p.unit_slices(unit, (0, 1), windows.window_placement((height, width), spacing_mm))
    in_full = p.unit_slices(unit, (0, 1))
    shown = (..., resized.rows.paste, resized.columns.paste)
    np.testing.assert_array_equal(looked_at, in_full[shown])


def test_windows_of_unknown_scale_slide_over_the_image_as_it_is():
    p = preprocessing(resampling="spline", clip=False)
    unit = _unit((2, 70, 90))
    placement = p.window_placement((70, 90), (0.3, 0.7))
    assert placement.size == (70, 90)
    np.testing.assert_array_equal(p.unit_slices(unit, (0, 1), placement)[:, 0], unit[0])
    values = np.random.default_rng(0).random((2, 3, 70, 90), dtype=np.float32)
    assert np.array_equal(p.invert(values, (70, 90), placement=placement), values)


def test_the_middle_is_cut_out_before_windows_slide():
    p = preprocessing((32, 32), fit="stretch", crop=0.5)
    unit = _unit((1, 80, 60))
    placement = p.window_placement((80, 60), None)
    seen = p.unit_slices(unit, (0, 1), placement)
    np.testing.assert_allclose(seen[0, 0], unit[0, 0, 20:60, 15:45], atol=1e-6)
    back = p.invert(seen, (80, 60), placement=placement)[0, 0]
    np.testing.assert_allclose(back[20:60, 15:45], unit[0, 0, 20:60, 15:45], atol=1e-6)
    assert back.sum() == pytest.approx(seen.sum(), rel=1e-5)
    labels = p.invert_labels(np.ones((1, 40, 30), np.uint8), (80, 60), placement)
    assert labels.sum() == 40 * 30


def test_an_orientation_names_three_directions():
    assert preprocessing(orientation="RAS").orientation == "RAS"
    for wrong in ("LP", "LRS", "LPX", "lps", "LPSA"):
        with pytest.raises(ValueError, match="three letters"):
            preprocessing(orientation=wrong)
    with pytest.raises(ValueError, match="greater than 0"):
        preprocessing(pixel_mm=(1.0, 0.0))


def test_what_older_runs_wrote_is_read_as_it_was():
    content = preprocessing().model_dump(exclude={"orientation", "pixel_mm"})
    assert Preprocessing.model_validate(content) == preprocessing()


@pytest.mark.parametrize(
    ("values", "dtype", "window", "part"),
    [
        ([0, 255], np.uint8, (0, 255), None),
        ([0, 255], np.uint16, (0, 255), None),
        ([0, 256], np.uint16, (0, 255), "from 0 to 256"),
        ([-1000, 50], np.int16, (0, 255), "from -1000 to 50"),
        ([0, 1], np.float32, (0, 255), "multiply it by 255"),
        ([0, 0], np.float32, (0, 255), None),
        ([0, 1], np.int16, (0, 255), None),
        ([0, 255], np.uint8, (-125, 275), "8-bit values"),
        ([0, 1], np.float32, (-125, 275), "0…1"),
        ([-0.5, 1], np.float32, (-125, 275), None),
        ([-1024, 3071], np.int16, (-125, 275), None),
    ],
)
def test_units_are_told_apart_by_values_that_the_other_cannot_have(values, dtype, window, part):
    said = foreign_values(np.array(values, dtype), *window)
    assert said is None if part is None else part in said


def test_a_scale_of_its_own_takes_any_unit():
    own = Preprocessing(channels=1, image_size=(32, 32), intensity="percentile", low=0, high=99)
    own.check_values(np.array([0, 60000], np.uint16))
    with pytest.raises(DataError, match="8-bit images"):
        Preprocessing(channels=1, image_size=(32, 32)).check_values(np.array([300]))
