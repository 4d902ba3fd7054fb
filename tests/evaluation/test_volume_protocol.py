"""The published evaluation of volumes, from the image to the table, equal to the golden values."""

import json
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from golden_weights import published_state
from msa2net.data.case import Case
from msa2net.data.preprocessing import Preprocessing
from msa2net.inference.predictor import Predictor
from msa2net.metrics.scoring import case_rows
from msa2net.metrics.summary import summarise
from msa2net.models.registry import create_model
from msa2net.models.released import load_published

PAPER = Preprocessing(
    channels=1,
    image_size=(224, 224),
    fit="stretch",
    resampling="spline",
    clip=False,
    low=0.0,
    high=1.0,
)
NAMES = ("background", *(f"class {index}" for index in range(1, 9)))


@pytest.fixture(scope="module")
def volume(golden: Path) -> dict[str, np.ndarray]:
    with np.load(golden / "volume_protocol.npz") as archive:
        return dict(archive)


@pytest.fixture(scope="module")
def predictor(golden: Path) -> Predictor:
    model = create_model("msa2net_reference", num_classes=9, in_channels=1, image_size=224)
    load_published(model, published_state(golden / "paper_manifest.json"), origin="golden")
    return Predictor(model.eval(), PAPER, NAMES, batch_slices=2)  # a batch that does not divide 3


@pytest.fixture(scope="module")
def both(predictor: Predictor, volume) -> tuple[np.ndarray, np.ndarray]:
    own, published = next(predictor.segment_both_ways([Case("golden", volume["image"][None])]))
    return own.labels, published.labels


def test_the_published_path_gives_the_published_labels(both, volume):
    """Random weights make near-ties: 99.9 % was expected of an independent implementation."""
    assert (both[1] == volume["prediction"]).mean() >= 0.999


def test_the_published_rules_give_the_published_scores(volume):
    rows = case_rows("golden", volume["prediction"], volume["label"], NAMES, distances=True)
    ours = [[row["dice_transunet"], row["hd95_voxels_transunet"]] for row in rows]
    np.testing.assert_allclose(ours, volume["per_class_dice_hd95"], rtol=0, atol=1e-9)


def test_from_image_to_table(both, volume):
    """Both ways stand side by side: the published columns are of the published path only."""
    own, published = both
    rows = case_rows(
        "golden", own, volume["label"], NAMES, published=published, distances=True,
        spacing_mm=(3.0, 0.8, 0.8),
    )  # fmt: skip
    mean = summarise(rows, NAMES, "transunet").mean
    dice, hd95 = volume["per_class_dice_hd95"].mean(axis=0)
    assert mean["dice"] == pytest.approx(dice, abs=2e-4)
    assert mean["hd95_voxels"] == pytest.approx(hd95, abs=0.2)
    standard = summarise(rows, NAMES, "standard").mean
    assert standard["hd95_mm"] is not None
    assert standard["dice"] != pytest.approx(mean["dice"], abs=1e-4)
    json.dumps(rows)


@pytest.mark.parametrize("size", [(300, 276), (224, 224), (224, 300), (97, 131)])
def test_labels_go_back_as_scipy_zooms_them(size):
    labels = np.random.default_rng(0).integers(0, 9, (2, 224, 224)).astype(np.uint8)
    factor = (1, size[0] / 224, size[1] / 224)
    expected = ndimage.zoom(labels, factor, order=0)
    np.testing.assert_array_equal(PAPER.invert_labels(labels, size), expected)


def test_spline_slices_are_scipy_s_zoom_overshoot_included():
    image = np.zeros((1, 1, 64, 48), np.float32)
    image[..., 20:40, 10:30] = 1.0  # an edge from 0 to 1, where cubic splines overshoot
    small = PAPER.model_copy(update={"image_size": (32, 40)})
    ours = small.unit_slices(image, (0.0, 1.0))[0, 0]
    expected = ndimage.zoom(image[0, 0], (32 / 64, 40 / 48), order=3)
    np.testing.assert_allclose(ours, expected, atol=2e-6)
    assert ours.max() > 1.001
    assert ours.min() < -0.001
    clipped = small.model_copy(update={"clip": True}).unit_slices(image, (0.0, 1.0))[0, 0]
    np.testing.assert_array_equal(clipped, ours.clip(0, 1))


def test_what_the_input_did_not_show_is_background():
    padded = Preprocessing(channels=1, image_size=(32, 32), fit="pad", crop=0.5)
    labels = np.ones((1, 32, 32), np.uint8)
    back = padded.invert_labels(labels, (64, 48))
    assert back.shape == (1, 64, 48)
    assert back[0, 16:48, 8:40].all()
    assert not back[0, :15].any()
    assert not back[0, 49:].any()


def test_a_crop_is_cutting_out_the_middle():
    """At a size where nothing is resampled: for the image, the label and the way back."""
    p = Preprocessing(channels=1, image_size=(32, 32), fit="pad", crop=0.5)
    image = np.random.default_rng(1).random((1, 1, 64, 48)).astype(np.float32)
    label = (image[0] > 0.5).astype(np.uint8)
    unit = p.unit_slices(image, (0.0, 1.0))
    np.testing.assert_allclose(unit[0, 0], image[0, 0, 16:48, 8:40], atol=1e-6)
    np.testing.assert_array_equal(p.label_slices(label)[0], label[0, 16:48, 8:40])
    back = p.invert(unit, (64, 48))[0, 0]
    np.testing.assert_allclose(back[16:48, 8:40], image[0, 0, 16:48, 8:40], atol=1e-6)
    assert not back[:16].any()
    assert not back[:, 40:].any()


@pytest.mark.parametrize("fit", ["pad", "stretch"])
@pytest.mark.parametrize("crop", [0.3, 0.75, 0.9])
def test_probabilities_outside_a_crop_say_background(fit, crop):
    p = Preprocessing(channels=1, image_size=(32, 64), fit=fit, crop=crop)
    certain_KHW = np.stack([np.zeros((32, 64)), np.ones((32, 64))]).astype(np.float32)
    labels = p.invert(certain_KHW[None], (70, 50))[0].argmax(axis=0)
    shown = p.invert_labels(np.ones((1, 32, 64), np.uint8), (70, 50))[0]
    assert labels[35, 25] == 1
    assert labels[0, 25] == labels[35, 0] == 0 or fit == "pad"
    assert labels.mean() == pytest.approx(shown.mean(), abs=0.1)
    assert labels.mean() < 1
