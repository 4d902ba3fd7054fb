"""What a recipe can ask for: supervision, averages, stochastic depth, balance, five levels."""

import csv
import json
from collections import Counter
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import resumed
from msa2net.config import load_config
from msa2net.data.loading.sampler import EpochSampler
from msa2net.data.phantom.files import write_phantom
from msa2net.errors import ConfigError
from msa2net.evaluation.run import evaluate_run
from msa2net.inference.predictor import Predictor
from msa2net.inference.run_folder import load_run, read_facts
from msa2net.losses import create_loss
from msa2net.losses.deep_supervision import SupervisedLoss
from msa2net.models.auxiliary_heads import SupervisedNetwork
from msa2net.models.registry import create_model
from msa2net.training.checkpoint import Checkpoints
from msa2net.training.ema import WeightAverage
from resumed import assert_same_run, cut_off

TINY = "test_maxvit"


@pytest.fixture(scope="module")
def workplace(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("recipes")
    write_phantom("isic2018", root / "raw", cases=13)
    return root


# Supervision --------------------------------------------------------------------------------------


def test_supervised_losses_by_their_definition():
    """Against subsets counted by bit masks; and one output is the plain loss either way."""
    loss = create_loss({"dice": 1.0, "cross_entropy": 0.5})
    outputs, target = torch.randn(4, 2, 3, 8, 8), torch.randint(0, 3, (2, 8, 8))
    alone = [loss(logits, target) for logits in outputs]
    torch.testing.assert_close(SupervisedLoss(loss, False)(tuple(outputs), target), sum(alone) / 4)
    masks = [[bool(mask >> bit & 1) for bit in range(4)] for mask in range(1, 16)]
    expected = sum(loss(outputs[torch.tensor(mask)].sum(0), target) for mask in masks) / 15
    torch.testing.assert_close(SupervisedLoss(loss, True)(tuple(outputs), target), expected)
    for mutation in (False, True):
        one = SupervisedLoss(loss, mutation)((outputs[0],), target)
        torch.testing.assert_close(one, alone[0])


@pytest.mark.parametrize(
    ("name", "encoder", "levels"),
    [
        ("msa2net", TINY, 4),
        ("msa2net", TINY, 5),
        ("msa2net_reference", TINY, 4),
        ("unet", "test_resnet", 4),
    ],
)
def test_every_level_of_every_network_answers(name: str, encoder: str, levels: int):
    model = create_model(name, 3, 1, encoder, 64, levels=levels)
    network = SupervisedNetwork(model, 3).eval()
    image = torch.randn(1, 1, 64, 64)
    outputs = network(image)
    assert [output.shape for output in outputs] == [(1, 3, 64, 64)] * len(model.widths)
    assert len(outputs) == (5 if name == "unet" or levels == 5 else 4)
    torch.testing.assert_close(outputs[-1], model(image))  # heads change nothing at inference
    SupervisedLoss(create_loss({"dice": 1.0}), False)(
        outputs, torch.randint(0, 3, (1, 64, 64))
    ).backward()
    assert all(head.weight.grad.abs().sum() > 0 for head in network.heads)


# A run with everything ----------------------------------------------------------------------------

TRAINING = {
    "train.deep_supervision": "mutation",
    "train.ema": 0.9,
    "train.oversample_foreground": 0.5,
}
EVERYTHING = TRAINING | {
    "model.drop_path": 0.3,
    "model.levels": 5,
    "train.checkpoint_minutes": 0,
}


@pytest.fixture(scope="module")
def everything(workplace: Path) -> Path:
    config = resumed.settings(workplace, **EVERYTHING)
    resumed.train(workplace, workplace / "everything", tiny=False, config=config)
    return workplace / "everything"


@pytest.fixture(scope="module")
def whole(workplace: Path) -> Path:
    config = resumed.settings(workplace, **TRAINING)
    resumed.train(workplace, workplace / "whole", config=config)
    return workplace / "whole"


@pytest.mark.parametrize("count", [13, 28, 40])
def test_it_resumes_to_the_same_end(workplace: Path, tmp_path: Path, whole: Path, count: int):
    config = resumed.settings(workplace, **TRAINING)
    assert cut_off(workplace, tmp_path / "run", count, config=config)
    resumed.train(workplace, tmp_path / "run", resume=True, config=config)
    assert_same_run(tmp_path / "run", whole)


def test_heads_are_in_checkpoints_and_not_in_the_network(everything: Path):
    states = torch.load(Checkpoints(everything).paths()[0], weights_only=True)["states"]
    assert set(states) >= {"model", "heads", "average", "optimizer"}
    assert len(states["heads"]) == 4 * 2
    kept = load_file(everything / "model.safetensors")
    assert set(kept) == set(states["model"])
    assert not torch.equal(kept["head.weight"], torch.zeros_like(kept["head.weight"]))


def test_both_scores_are_in_the_table_and_the_better_is_kept(everything: Path):
    rows = list(csv.DictReader((everything / "metrics.csv").open()))
    training = read_facts(everything).training
    pairs = [(float(row["average_val_dice"]), float(row["val_dice"])) for row in rows]
    assert pairs[0][0] != pairs[0][1]
    assert training["val_dice"] == max(max(pair) for pair in pairs)
    average, plain = pairs[training["best_epoch"] - 1]
    assert training["averaged"] is (average >= plain)
    assert float(rows[0]["average_val_dice_lesion"]) == pairs[0][0]
    again = evaluate_run(everything, split="val", device="cpu").protocols["standard"]
    assert again.mean["dice"] == pytest.approx(training["val_dice"], abs=1e-6)


def test_balance_is_told_and_kept(workplace: Path, everything: Path, tmp_path: Path):
    assert read_facts(everything).training["slices_with_class"] == {"lesion": 9}
    notices: list[str] = []
    config = resumed.settings(
        workplace, **{"train.oversample_foreground": 0.5, "train.max_steps": 1}
    )
    resumed.train(workplace, tmp_path / "run", config=config, notices=notices.append)
    assert notices == [
        "train.oversample_foreground: 50% of the samples are drawn for a class, each class as "
        "often as every other; of 9 slices lesion in 9"
    ]


def test_the_last_weights_are_the_average_where_there_is_one(workplace: Path, tmp_path: Path):
    config = resumed.settings(workplace, **{"train.ema": 0.9, "train.keep": "last"})
    resumed.train(workplace, tmp_path / "run", config=config)
    states = torch.load(Checkpoints(tmp_path / "run").paths()[0], weights_only=True)["states"]
    kept = load_file(tmp_path / "run" / "model.safetensors")
    assert all(torch.equal(kept[name], states["average"][f"model.{name}"]) for name in kept)
    training = read_facts(tmp_path / "run").training
    assert (training["weights"], training["averaged"]) == ("last", True)


def test_an_average_may_begin_later(workplace: Path, tmp_path: Path):
    run = tmp_path / "run"
    resumed.train(workplace, run)
    longer = {"train.epochs": 3, "train.ema": 0.9}
    with pytest.raises(ConfigError, match=r"train.ema was None and is 0.9"):
        resumed.train(workplace, run, resume=True, config=resumed.settings(workplace, **longer))
    config = resumed.settings(workplace, **longer)
    resumed.train(workplace, run, resume=True, accept_changes=True, config=config)
    rows = list(csv.DictReader((run / "metrics.csv").open()))
    assert [bool(row["average_val_dice"]) for row in rows] == [False, False, True]


def test_supervision_cannot_change_meanwhile(workplace: Path, everything: Path):
    config = resumed.settings(workplace, **EVERYTHING | {"train.deep_supervision": "none"})
    with pytest.raises(
        ConfigError, match="another network or optimiser: train.deep_supervision was"
    ):
        resumed.train(
            workplace, everything, tiny=False, resume=True, accept_changes=True, config=config
        )


# The average --------------------------------------------------------------------------------------


class Numbers(nn.Module):
    def __init__(self, value: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([value]))
        self.register_buffer("mean", torch.tensor([value]))
        self.register_buffer("count", torch.tensor(int(value)))


def test_the_average_by_hand():
    network, preprocessing = Numbers(8.0), mock.Mock(orientation=None)
    with mock.patch.object(Predictor, "__init__", return_value=None):
        predictor = Predictor()
        predictor.model, predictor.preprocessing, predictor.label_names = (
            network, preprocessing, ("background", "a"),
        )  # fmt: skip
        average = WeightAverage(predictor, 1, decay=0.25)
    expected = 8.0
    for step, value in enumerate([2.0, 4.0, 6.0, -1.0]):
        nn.init.constant_(network.weight, value)
        network.mean.fill_(value)
        network.count.fill_(int(value))
        average.follow(network, step)
        decay = [1 / 10, 2 / 11, 3 / 12, 0.25][step]
        expected = decay * expected + (1 - decay) * value
        assert average.model.weight.item() == pytest.approx(expected)
        assert average.model.mean.item() == pytest.approx(expected)
        assert average.model.count.item() == int(value)
    assert network.weight.item() == -1
    assert not average.model.weight.requires_grad


# Stochastic depth ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "encoder"), [("msa2net", TINY), ("unet", "test_resnet")])
def test_stochastic_depth_is_of_the_training_only(name: str, encoder: str):
    plain = create_model(name, 3, 1, encoder, 64)
    for parameter in plain.parameters():  # timm's residual branches begin at 0
        nn.init.normal_(parameter, std=0.1)
    deep = create_model(name, 3, 1, encoder, 64, drop_path=0.5)
    deep.load_state_dict(plain.state_dict())  # and adds no weights
    image = torch.randn(4, 1, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(deep.eval()(image), plain.eval()(image))
        deep.train()
        assert not torch.equal(deep(image), deep(image))


def test_stochastic_depth_falls_from_the_deepest_level_up():
    model = create_model("msa2net", 3, 1, TINY, 64, drop_path=0.4)
    parts = (model.bottleneck, model.decoder16, model.decoder8, model.decoder4)
    rates = [part.blocks[0].drop_path.drop_prob for part in parts]
    assert rates == pytest.approx([0.4, 0.3, 0.2, 0.1])
    everything = create_model("msa2net", 3, 1, TINY, 64, drop_path=0.999999).train()
    block = everything.bottleneck.blocks  # with nearly all left out, a block is the identity
    x = torch.randn(1, 128, 2, 2)
    torch.testing.assert_close(block(x), x)


# Balance ------------------------------------------------------------------------------------------


def test_balance_draws_for_rare_classes():
    """Class 0 is in every sample, class 1 in one of a hundred, class 2 in none."""
    common, rare = np.arange(1000), np.arange(0, 1000, 100)
    holders = [common, rare, np.array([], np.int64)]
    sampler = EpochSampler(1000, seed=3, balance=0.6, holders=holders)
    plain = [index for _, index in EpochSampler(1000, seed=3)]
    drawn = [index for _, index in sampler]
    assert len(drawn) == 1000
    assert drawn == [index for _, index in sampler]
    held = sum(count for index, count in Counter(drawn).items() if index % 100 == 0)
    assert held == pytest.approx(0.6 * 500 + 0.4 * 10, abs=50)  # half the places are for class 1
    same = sum(one == two for one, two in zip(drawn, plain, strict=True))
    assert same == pytest.approx(400, abs=10)  # the other places keep the plain order
    sampler.set_epoch(1)
    assert [index for _, index in sampler] != drawn
    assert [index for _, index in EpochSampler(1000, seed=3, balance=0, holders=holders)] == plain


def test_processes_share_a_balanced_order():
    holders = [np.arange(3)]
    whole = list(EpochSampler(21, 5, balance=0.5, holders=holders))
    parts = [
        list(EpochSampler(21, 5, rank=rank, world=2, balance=0.5, holders=holders))
        for rank in range(2)
    ]
    assert [pair for both in zip(*parts, strict=True) for pair in both] == whole[:20]
    rest = EpochSampler(21, 5, start=(0, 7), balance=0.5, holders=holders)
    assert list(rest) == whole[7:]


# Five levels --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "parameters"), [("msa2net", 103_352_449), ("msa2net_pico", 11_717_609)]
)
def test_parameters_of_five_levels(name: str, parameters: int):
    with torch.device("meta"):
        model = create_model(name, 9, 1, levels=5)
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters


def test_five_levels_are_saved_and_loaded(everything: Path, tmp_path: Path):
    facts = json.loads((everything / "model.json").read_text())
    assert (facts["schema_version"], facts["network"]["levels"]) == (2, 5)
    assert hasattr(load_run(everything, "cpu").model, "decoder2")


def test_older_networks_have_four(tmp_path: Path, workplace: Path):
    config = resumed.settings(workplace, **{"train.max_steps": 1})
    resumed.train(workplace, tmp_path / "run", tiny=False, config=config)
    path = tmp_path / "run" / "model.json"
    facts = json.loads(path.read_text())
    assert facts["network"].pop("levels") == 4
    path.write_text(json.dumps(facts | {"schema_version": 1}))
    assert not hasattr(load_run(tmp_path / "run", "cpu").model, "decoder2")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"levels": 3}, "'levels' is 3: .* be 4 or 5"),
        ({"name": "unet", "encoder": "test_resnet", "levels": 5}, "'unet' has no setting levels=5"),
        ({"name": "msa2net_github", "layer_scale": 1.0}, "has no setting layer_scale=1.0"),
        ({"name": "msa2net_github", "depthwise_init": "fan_in"}, "has no setting depthwise_init"),
        ({"depthwise_init": "kaiming"}, "'kaiming': .* be 'xavier' or 'fan_in'"),
        ({"encoder": "test_convnext", "levels": 5}, r"needs 2, 4, 8, 16, 32.*model.levels=4"),
        ({"name": "unet", "encoder": "nonsense"}, "timm knows no model 'nonsense'"),
    ],
)
def test_what_does_not_fit_is_refused(arguments: dict, message: str):
    with pytest.raises(ConfigError, match=message):
        create_model(**{"encoder": TINY, "image_size": 64, **arguments})


def test_layer_scales_begin_where_they_are_told():
    model = create_model("msa2net", 3, 1, TINY, 64, layer_scale=0.5)
    assert model.decoder4.blocks[1].layer_scale2.unique().tolist() == [0.5]


@pytest.mark.parametrize("start", ["fan_in", "xavier"])
def test_fan_in_keeps_the_size_of_a_signal_and_xavier_does_not(start: str):
    torch.manual_seed(0)
    model = create_model("msa2net", 3, 1, TINY, 64, depthwise_init=start)
    convolution = model.decoder4.blocks[1].ffn.depthwise
    channels = convolution.in_channels
    with torch.no_grad():
        answer_BCHW = convolution(torch.randn(8, channels, 32, 32))[:, :, 1:-1, 1:-1]  # no border
    expected = 1 if start == "fan_in" else ((1 + channels) / 2) ** -0.5
    assert answer_BCHW.std().item() == pytest.approx(expected, rel=0.1)


# The yardstick ------------------------------------------------------------------------------------


def test_the_unet_trains_by_the_same_recipe(workplace: Path, tmp_path: Path):
    changes = {"model.name": "unet", "model.encoder": "test_resnet", "train.max_steps": 2}
    config = resumed.settings(workplace, **EVERYTHING | {"model.levels": 4} | changes)
    resumed.train(workplace, tmp_path / "run", tiny=False, config=config)
    assert load_run(tmp_path / "run", "cpu").facts.network.name == "unet"


def test_the_unet_has_the_library_s_own_forward_pass():
    model = create_model("unet", 3, 1, "test_resnet", 64).eval()
    image = torch.randn(2, 1, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(model.head(model.decode(image)[-1]), model(image))
    with pytest.raises(ConfigError, match="takes images of 64×64"):
        model(torch.zeros(1, 1, 32, 32))
    with pytest.raises(ConfigError, match="in_channels=1 and was given 2"):
        model(torch.zeros(1, 2, 64, 64))


def test_the_unet_needs_an_extra():
    with (
        mock.patch.dict("sys.modules", {"segmentation_models_pytorch": None}),
        pytest.raises(ConfigError, match=r'pip install "\.\[baselines\]"'),
    ):
        create_model("unet", 3, 1, "test_resnet", 64)


@pytest.mark.parametrize("change", ["model.levels=3", "train.ema=1", "model.drop_path=1"])
def test_impossible_settings(workplace: Path, change: str):
    resumed.settings(workplace)
    with pytest.raises(ConfigError, match=change.split("=")[0].split(".")[1]):
        load_config(next(workplace.glob("settings-*.yaml")), [change])
