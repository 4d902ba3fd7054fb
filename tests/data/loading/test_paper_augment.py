"""The paper's augmentation and settings, to the letter."""

from collections import Counter
from unittest import mock

import numpy as np
import pytest
import torch
from torch import nn

from msa2net.config import AugmentConfig, DataConfig, TrainConfig, load_config
from msa2net.data.loading import paper_augment
from msa2net.data.loading.native_resolution import FullResolutionDataset
from msa2net.data.loading.paper_augment import PaperAugmentation
from msa2net.data.loading.sampler import EpochSampler, sample_key
from msa2net.data.phantom.files import write_phantom
from msa2net.data.prepared.prepare import prepare
from msa2net.data.preprocessing import Preprocessing
from msa2net.errors import ConfigError
from msa2net.training.task import create_optimizer
from paths import ROOT

CONFIGS = ROOT / "configs"
GEOMETRIC = (
    "_flip_rows",
    "_flip_columns",
    "_scale",
    "_rotate",
    "_shear",
    "_piecewise_affine",
    "_translate",
)


def disc(size: int = 96) -> tuple[torch.Tensor, torch.Tensor]:
    """An image that is its own label, off the centre."""
    down, across = np.mgrid[:size, :size]
    inside = (down - 0.4 * size) ** 2 + (across - 0.6 * size) ** 2 < (0.2 * size) ** 2
    return torch.from_numpy(inside[None].astype(np.float32)), torch.from_numpy(inside.astype("u1"))


def test_none_to_four_of_ten_in_any_order():
    """4,000 samples: each number as often, each change as often, none twice, both orders."""
    augmentation, seen = PaperAugmentation(), []
    assert len(augmentation.changes) == 10

    def named(name: int):
        return lambda image, label, draw: (seen[-1].append(name), (image, label))[1]

    augmentation.changes = tuple(named(name) for name in range(10))
    for index in range(4000):
        seen.append([])
        augmentation(torch.zeros(1, 2, 2), torch.zeros(2, 2), (1, 0, index))
    counts = Counter(map(len, seen))
    assert set(counts) == {0, 1, 2, 3, 4}
    assert all(abs(count - 800) < 120 for count in counts.values())  # 5 standard deviations
    assert all(len(set(names)) == len(names) for names in seen)
    often = Counter(name for names in seen for name in names)
    assert all(abs(often[name] - 800) < 140 for name in range(10))
    pairs = [names.index(0) < names.index(1) for names in seen if {0, 1} <= set(names)]
    assert 0.3 < np.mean(pairs) < 0.7


@pytest.mark.parametrize("name", GEOMETRIC)
def test_image_and_label_move_together(name: str):
    change, (image, label), moved = getattr(paper_augment, name), disc(), 0
    for seed in range(6):
        new_image, new_label = change(image, label, np.random.default_rng(seed))
        assert new_image.shape == image.shape
        assert new_label.dtype == torch.uint8
        differs = (new_image[0] > 0.5) != (new_label > 0)
        # Where an interpolated value is about one half; a label left behind differs by 2 %.
        assert differs.float().mean() < 0.005
        moved += not torch.equal(new_label, label)
    assert moved >= 2


def test_flips_happen_half_the_time():
    image, label = disc(16)
    for change in (paper_augment._flip_rows, paper_augment._flip_columns):
        draws = [change(image, label, np.random.default_rng(seed))[1] for seed in range(400)]
        assert sum(torch.equal(drawn, label) for drawn in draws) == pytest.approx(200, abs=50)


def test_values_change_as_listed():
    image, label = torch.full((1, 64, 64), 0.5), torch.zeros(64, 64, dtype=torch.uint8)
    noise = PaperAugmentation()._add_noise(image, label, np.random.default_rng(0))[0] - image
    assert noise.std().item() == pytest.approx(0.005, rel=0.05)
    defective = PaperAugmentation(("noise",))
    noise = defective._add_noise(image, label, np.random.default_rng(0))[0] - image
    assert noise.std().item() == pytest.approx(1.275, rel=0.05)
    factors = [
        float(paper_augment._multiply(image, label, np.random.default_rng(seed))[0][0, 0, 0]) * 2
        for seed in range(200)
    ]
    assert 0.5 <= min(factors) < 0.6
    assert 1.4 < max(factors) <= 1.5
    dot = torch.zeros(1, 9, 9)
    dot[0, 4, 4] = 1
    blurred = paper_augment._blur(dot, label, np.random.default_rng(0))[0][0]
    weights = np.exp(-(np.arange(-2, 3) ** 2) / 2)
    expected = np.outer(weights, weights) / weights.sum() ** 2
    np.testing.assert_allclose(blurred[2:7, 2:7], expected, rtol=1e-5)


def test_ranges_of_the_maps():
    """What the drawn numbers can be, seen where an image's corner pattern goes."""
    label, ramp = torch.zeros(101, 101, dtype=torch.uint8), torch.arange(101.0)
    across = ramp.expand(1, 101, 101).clone()
    slopes, shifts = [], []
    for seed in range(200):
        scaled = paper_augment._scale(across, label, np.random.default_rng(seed))[0]
        slopes.append(1 / float(scaled[0, 50, 51] - scaled[0, 50, 50]))
        moved = paper_augment._translate(across + 1, label, np.random.default_rng(seed))[0]
        shifts.append(51 - float(moved[0, 50, 50]))
    assert 0.5 <= min(slopes) < 0.55
    assert 1.85 < max(slopes) <= 2.001
    assert -20.2 <= min(shifts) < -18
    assert 18 < max(shifts) <= 20.2


def test_bending_follows_its_points():
    """Values given at the points come back there, and are linear between them."""
    points = np.random.default_rng(0).normal(size=(4, 4, 2))
    field = paper_augment._between_points(points, (31, 61))
    np.testing.assert_allclose(field[::10, ::20], points)
    np.testing.assert_allclose(field[5, 10], (points[0, 0] + points[1, 1]) / 2)  # the diagonal
    np.testing.assert_allclose(field[0, 10], (points[0, 0] + points[0, 1]) / 2)
    np.testing.assert_allclose(field[5, 20], (points[0, 1] + points[1, 1]) / 2)


# Samples ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def native(tmp_path_factory) -> FullResolutionDataset:
    root = tmp_path_factory.mktemp("paper")
    write_phantom("isic2018", root / "raw", cases=4)
    data = DataConfig(format="isic2018", root=root / "raw", prepared=root / "prepared")
    store = prepare(data)
    preprocessing = Preprocessing(
        channels=3, image_size=(64, 64), fit="stretch", resampling="spline", clip=False
    )
    return FullResolutionDataset(store, preprocessing, PaperAugmentation(), 7, ("train",))


def test_samples_depend_on_seed_epoch_and_index_only(native: FullResolutionDataset):
    one, again, other = native[0, 1], native[0, 1], native[3, 1]
    assert torch.equal(one["image"], again["image"])
    assert one["image"].shape == (3, 64, 64)
    assert one["label"].shape == (64, 64)
    assert (one["image"].dtype, one["label"].dtype) == (torch.float32, torch.uint8)
    assert not torch.equal(one["image"], other["image"])


def test_without_changes_a_sample_is_what_prediction_sees(native: FullResolutionDataset):
    """The cubic zoom with its overshoot; labels as SciPy's order 0 takes them."""
    with mock.patch.object(native, "augmentation", lambda image, label, key: (image, label)):
        sample = native[0, 0]
    case = native.store.case(sample["case"])
    preprocessing = native.preprocessing
    value_range = preprocessing.intensity_range(case.image)
    expected = preprocessing.standardise(preprocessing.unit_slices(case.image, value_range)[0])
    np.testing.assert_allclose(sample["image"], expected, atol=1e-6)
    edge_1CHW = np.zeros((1, 1, 96, 96), np.float32)
    edge_1CHW[..., 48:] = 1
    assert preprocessing.resize_slices(edge_1CHW).max() > 1.01  # what splines overshoot is kept
    clipping = preprocessing.model_copy(update={"clip": True})
    assert clipping.resize_slices(edge_1CHW).max() == 1
    from scipy import ndimage

    factors = 64 / case.label.shape[1], 64 / case.label.shape[2]
    np.testing.assert_array_equal(sample["label"], ndimage.zoom(case.label[0], factors, order=0))


def test_repeated_streams():
    """Each worker draws from the start of the same stream, in every epoch."""
    sampler = EpochSampler(10, 1, used=8, streams=(2, 2))
    positions = list(sampler)
    assert [place for *_, place in positions] == [0, 1, 0, 1, 2, 3, 2, 3]
    plain = list(EpochSampler(10, 1, used=8))
    assert [position[:2] for position in positions] == plain
    assert sample_key(5, positions[0]) == sample_key(5, positions[2]) == (5, 0, 0)
    assert sample_key(5, plain[2]) == (5, 0, plain[2][1])
    rest = EpochSampler(10, 1, used=8, streams=(2, 2), start=(0, 4))
    assert list(rest) == positions[4:]  # resumed between two steps


# Settings -----------------------------------------------------------------------------------------


def test_everything_is_decayed_where_that_is_asked_for():
    model = nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2))
    config = TrainConfig(
        epochs=1, batch_size=1, learning_rate=1, weight_decay=0.3, decay_all=True, optimizer="sgd"
    )
    decayed, plain = create_optimizer(model, config, "32-true").param_groups
    assert (len(decayed["params"]), len(plain["params"])) == (4, 0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"recipe": "paper", "brightness": 0.5}, "remove augment.brightness"),
        ({"paper_defects": ["noise"]}, "are of augment.recipe=paper"),
    ],
)
def test_settings_of_two_recipes_are_refused(settings: dict, message: str):
    with pytest.raises(ValueError, match=message):
        AugmentConfig(**settings)


def test_mirrored_samples_are_told():
    assert AugmentConfig(recipe="paper").flips == ["horizontal", "vertical"]


@pytest.mark.parametrize("name", ["synapse-paper", "isic2018-paper"])
def test_presets_hold_what_the_paper_states(name: str):
    config = load_config(CONFIGS / f"{name}.yaml")
    train = config.train
    assert (train.optimizer, train.momentum, train.weight_decay) == ("sgd", 0.9, 1e-4)
    assert train.learning_rate == pytest.approx(0.05 * 20 / 24, abs=1e-4)
    assert (train.schedule, train.warmup, train.clip_norm) == ("poly", 0, None)
    assert (train.batch_size, train.seed, train.decay_all) == (20, 1234, True)
    assert (config.image_size, config.loss) == ((224, 224), {"boundary_dou": 1.0})
    assert (config.augment.recipe, config.augment.paper_defects) == ("paper", ())
    assert (config.data.resampling, config.data.clip, config.data.fit) == (
        "spline", False, "stretch",
    )  # fmt: skip
    with pytest.raises(ConfigError, match="recipe=paper has settings of its own"):
        load_config(CONFIGS / f"{name}.yaml", ["augment.affine=0.4"])
