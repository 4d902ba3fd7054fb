"""Starting from another network, and training only a part of one."""

import json
import sys
from pathlib import Path

import lightning as L
import pytest
import torch
from torch import nn

import commands
from golden_weights import published_state
from msa2net.config import Config, NetworkConfig, load_config
from msa2net.data.phantom.files import write_phantom
from msa2net.data.preprocessing import Preprocessing
from msa2net.errors import ConfigError, WeightsError
from msa2net.inference.run_folder import ModelMetadata, load_run, save_run
from msa2net.models.registry import create_model
from msa2net.training.finetune import init_from, read_source
from msa2net.training.run import train

SETTINGS = """
image_size: 32
batch_slices: 5
model: {name: msa2net, encoder: test_maxvit, init_from: START}
data: {format: isic2018, root: ROOT, prepared: PREPARED, fit: stretch}
train: {epochs: 2, batch_size: 4, learning_rate: 0.01}
"""
ORGANS = ("background", "liver", "spleen", "stomach")


def network(
    labels: tuple[str, ...], channels: int = 1, encoder: str = "test_maxvit", seed: int = 0
):
    """Return a network with random weights, and its facts."""
    torch.manual_seed(seed)
    sizes = NetworkConfig(
        name="msa2net",
        encoder=encoder,
        num_classes=len(labels),
        in_channels=channels,
        image_size=(32, 32),
    )
    facts = ModelMetadata(
        network=sizes,
        label_names=labels,
        preprocessing=Preprocessing(
            channels=channels, image_size=(32, 32), fit="stretch", intensity="fixed"
        ),
    )
    return create_model(**sizes.model_dump()), facts


@pytest.fixture(scope="module")
def organs(tmp_path_factory) -> Path:
    """A run folder with random weights for grey images of four classes."""
    run = tmp_path_factory.mktemp("organs") / "run"
    save_run(run, *network(ORGANS))
    return run


@pytest.fixture(scope="module")
def workplace(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("finetune")
    write_phantom("isic2018", root / "raw", cases=16)
    return root


def small_config(root: Path, start: Path | None = None, **changes) -> Config:
    text = SETTINGS.replace("ROOT", str(root / "raw")).replace("PREPARED", str(root / "prepared"))
    path = root / "finetune.yaml"
    path.write_text(text.replace("START", "null" if start is None else str(start)))
    return load_config(path, [f"{key}={value}" for key, value in changes.items()])


def all_entries(report) -> list[str]:
    return sorted([*report.loaded, *report.adapted, *report.reinitialised])


# What is taken over -------------------------------------------------------------------------------


def test_the_same_network_is_taken_over_whole(organs: Path):
    model, facts = network(ORGANS, seed=1)
    report = init_from(model, facts, organs)
    source = load_run(organs, "cpu").model.state_dict()
    assert all(torch.equal(value, source[name]) for name, value in model.state_dict().items())
    assert (len(report.loaded), report.adapted, report.reinitialised, report.unused) == (
        len(source), {}, {}, [],
    )  # fmt: skip
    assert report.share == 1


def test_rows_of_the_head_go_by_name(organs: Path):
    """Not by number: spleen is row 2 there and row 1 here."""
    model, facts = network(("background", "spleen", "tumour"), seed=1)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    report = init_from(model, facts, organs)
    source = load_run(organs, "cpu").model.state_dict()
    for name in ("head.weight", "head.bias"):
        ours = model.state_dict()[name]
        assert torch.equal(ours[0], source[name][0])
        assert torch.equal(ours[1], source[name][2])
        assert torch.equal(ours[2], before[name][2])
        assert report.adapted[name] == (
            "the rows of background, spleen; those of tumour are left at random"
        )
    assert all_entries(report) == sorted(before)
    assert report.reinitialised == {}


def test_as_many_classes_of_other_names_are_not_mistaken(organs: Path):
    """The shapes agree, the meaning does not."""
    model, facts = network(("background", "stomach", "liver", "kidney"), seed=1)
    init_from(model, facts, organs)
    source = load_run(organs, "cpu").model.state_dict()["head.weight"]
    assert torch.equal(model.state_dict()["head.weight"][[0, 1, 2]], source[[0, 3, 1]])


@pytest.mark.parametrize(("old", "new"), [(3, 4), (4, 3), (2, 5), (1, 2)])
def test_other_channels_by_hand(tmp_path: Path, old: int, new: int):
    """Each new channel is the mean of the old ones, times old / new (1 is repeated to 3 inside)."""
    save_run(tmp_path / "run", *network(ORGANS, channels=old))
    model, facts = network(ORGANS, channels=new, seed=1)
    report = init_from(model, facts, tmp_path / "run")
    (name, how), *others = report.adapted.items()
    assert others == []
    assert name == "encoder.backbone.stem.conv1.weight"
    inside = 3 if old == 1 else old
    assert how == f"the mean of its {inside} channels for each of {new}, × {inside}/{new}"
    source = load_run(tmp_path / "run", "cpu").model.state_dict()[name]
    expected = source.sum(dim=1, keepdim=True).expand(-1, new, -1, -1) / new
    assert torch.allclose(model.state_dict()[name], expected, atol=1e-6)


@pytest.mark.parametrize(("old", "new"), [(3, 1), (1, 4), (3, 4), (4, 2)])
def test_a_grey_image_gives_what_it_gave(tmp_path: Path, old: int, new: int):
    """The law behind the rule, through the whole network."""
    save_run(tmp_path / "run", *network(ORGANS, channels=old))
    model, facts = network(ORGANS, channels=new, seed=1)
    init_from(model, facts, tmp_path / "run")
    grey = torch.randn(2, 1, 32, 32)
    source = load_run(tmp_path / "run", "cpu").model
    with torch.no_grad():
        before = source(grey.expand(-1, old, -1, -1))
        after = model.eval()(grey.expand(-1, new, -1, -1))
    assert torch.allclose(before, after, atol=1e-4)


def test_what_does_not_fit_is_listed_with_its_reason(organs: Path, tmp_path: Path):
    source, _ = network(ORGANS)
    state = source.state_dict()
    state["decoder4.proj.weight"] = torch.zeros(2, 2)
    state["surplus"] = torch.zeros(1)
    del state["decoder8.proj.bias"]
    torch.save(state, tmp_path / "own.pth")
    model, facts = network(ORGANS, seed=1)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    report = init_from(model, facts, tmp_path / "own.pth")
    assert set(report.reinitialised) == {"decoder4.proj.weight", "decoder8.proj.bias"}
    assert "and was (2, 2)" in report.reinitialised["decoder4.proj.weight"]
    assert report.reinitialised["decoder8.proj.bias"] == "the other network has no such entry"
    assert report.unused == ["surplus"]
    for name in report.reinitialised:
        assert torch.equal(model.state_dict()[name], before[name])
    assert all_entries(report) == sorted(before)
    assert 0 < report.share < 1
    assert "not known" in report.adapted["head.weight"]  # a bare file names no classes


def test_another_encoder_is_another_network(organs: Path):
    """Its decoder has other widths, so that only counters and temperatures would agree."""
    model, facts = network(ORGANS, encoder="resnet18")
    with pytest.raises(WeightsError, match=r"100 % of its weights have other .*model.encoder"):
        init_from(model, facts, organs)


def test_nothing_that_fits_is_refused(tmp_path: Path):
    model, facts = network(ORGANS)
    torch.save({"weight": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(WeightsError, match=r"other.pth does not fit this network: 100 %"):
        init_from(model, facts, tmp_path / "other.pth")
    with pytest.raises(WeightsError, match="no weight file at"):
        init_from(model, facts, tmp_path / "nothing.pth")
    (tmp_path / "folder").mkdir()
    with pytest.raises(WeightsError, match="is not a run folder"):
        init_from(model, facts, tmp_path / "folder")


def test_published_weights_are_read_by_our_names(golden: Path, tmp_path: Path, monkeypatch):
    """Nine classes of Synapse, into a network with three of them."""
    state = published_state(golden / "github_manifest.json")
    monkeypatch.setattr(
        "msa2net.training.finetune.read_state_dict", lambda _: state
    )  # saves 375 MB
    source = read_source(tmp_path / "best.pth")
    assert source.label_names is not None
    assert source.label_names[6] == "pancreas"
    with torch.device("meta"):
        own = create_model("msa2net_github", 9).state_dict()
    assert source.state.keys() == own.keys()
    assert all(source.state[name].shape == own[name].shape for name in own)
    assert torch.equal(source.state["head.weight"], state["decoder_0.last_layer.weight"])


# A training that starts from another --------------------------------------------------------------


def test_a_training_says_and_writes_what_it_started_from(
    organs: Path, workplace: Path, tmp_path: Path
):
    """Another number of channels and of classes."""
    notices: list[str] = []
    config = small_config(workplace, organs, **{"train.epochs": 1})
    result = train(config, tmp_path / "run", device="cpu", notices=notices.append)
    report = json.loads((tmp_path / "run" / "start_from.json").read_text())
    assert result.start is not None
    assert report == result.start.content()
    entries = load_run(tmp_path / "run", "cpu").model.state_dict()
    assert sorted([*report["taken"], *report["adapted"], *report["left"]]) == sorted(entries)
    assert f"started from {organs / 'model.safetensors'}: " in notices[0]
    assert f"{len(report['taken'])} of {len(entries)} entries were taken over" in notices[0]
    assert len(notices) <= 5
    assert "adapted: head.weight, the rows of background" in "\n".join(notices)


def test_the_command_says_it(organs: Path, workplace: Path, tmp_path: Path):
    small_config(workplace, organs)
    result = commands.msa2net(
        "train", workplace / "finetune.yaml", "--out", "run", "--set", "train.max_steps=1",
        cwd=tmp_path,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert "started from " in result.stdout
    assert "all are in start_from.json" in result.stdout
    assert (tmp_path / "run" / "start_from.json").is_file()


@pytest.mark.parametrize("frozen", [False, True])
def test_it_goes_on_exactly_and_without_the_other_network(
    organs: Path, workplace: Path, tmp_path: Path, frozen: bool
):
    """Once begun, the checkpoint has everything."""
    save_run(tmp_path / "other", *network(ORGANS))
    config = small_config(workplace, tmp_path / "other", **{"train.freeze_encoder": frozen})
    train(config, tmp_path / "whole", device="cpu")

    class Cut(L.Callback):
        def on_train_epoch_start(self, trainer, pl_module) -> None:
            if trainer.current_epoch == 1:
                raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        train(config, tmp_path / "run", device="cpu", callbacks=[Cut()])
    before = (tmp_path / "run" / "start_from.json").read_text()
    (tmp_path / "other" / "model.safetensors").unlink()
    train(config, tmp_path / "run", device="cpu", resume=True)
    for name in ("metrics.csv", "model.safetensors"):
        same = (tmp_path / "run" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
        assert same, name
    assert (tmp_path / "run" / "start_from.json").read_text() == before


def test_a_beginning_that_is_not_there_is_found_before_the_data_are_prepared(tmp_path: Path):
    (tmp_path / "empty").mkdir()
    for path, why in (
        ("nothing", "there is no .*model.init_from names"),
        ("empty", "not a run f"),
    ):
        with pytest.raises(WeightsError, match=why):
            train(small_config(tmp_path, tmp_path / path), tmp_path / "run", device="cpu")
    assert not (tmp_path / "prepared").exists()
    assert not (tmp_path / "run").exists()


def test_the_two_beginnings_exclude_each_other(organs: Path, workplace: Path):
    with pytest.raises(ConfigError, match=r"model.init_from brings an encoder of its own; remove"):
        small_config(workplace, organs, **{"model.pretrained": True})


# A frozen encoder ---------------------------------------------------------------------------------


def test_a_frozen_encoder_keeps_weights_and_statistics(
    organs: Path, workplace: Path, tmp_path: Path
):
    """Validation in between switches modes; weight decay would move what has no gradient."""
    changes = {"train.freeze_encoder": True, "train.keep": "last", "train.weight_decay": 0.5}
    modes = []

    class Watch(L.Callback):
        def on_train_batch_end(self, trainer, pl_module, *_) -> None:
            encoder = pl_module.model.encoder
            modes.append({module.training for module in encoder.modules()})
            assert pl_module.model.head.training
            assert all(parameter.grad is None for parameter in encoder.parameters())

    config = small_config(workplace, organs, **changes)
    train(config, tmp_path / "run", device="cpu", callbacks=[Watch()])
    assert modes
    assert all(mode == {False} for mode in modes)
    trained = load_run(tmp_path / "run", "cpu").model
    model, facts = network(("background", "lesion"), channels=3)
    init_from(model, facts, organs)
    assert any(isinstance(module, nn.BatchNorm2d) for module in trained.encoder.modules())
    for name, value in model.encoder.state_dict().items():
        assert torch.equal(trained.encoder.state_dict()[name], value), name
    moved = [
        name
        for name, value in model.bottleneck.named_parameters()
        if not torch.equal(trained.bottleneck.get_parameter(name), value)
    ]
    assert len(moved) > 10


def test_freezing_chance_is_refused(workplace: Path):
    with pytest.raises(ConfigError, match=r"train.freeze_encoder would freeze random weights; set"):
        small_config(workplace, None, **{"train.freeze_encoder": True})


def test_thawing_in_the_middle_is_refused(organs: Path, workplace: Path, tmp_path: Path):
    config = small_config(workplace, organs, **{"train.freeze_encoder": True, "train.epochs": 1})
    train(config, tmp_path / "run", device="cpu")
    thawed = small_config(workplace, organs, **{"train.epochs": 2})
    with pytest.raises(ConfigError, match="train.freeze_encoder was True and is False; begin a"):
        train(thawed, tmp_path / "run", device="cpu", resume=True, accept_changes=True)


# Worth it? ----------------------------------------------------------------------------------------

VOLUMES = """
image_size: 64
batch_slices: 32
model: {name: msa2net, encoder: test_maxvit}
data: {format: phantom, prepared: PREPARED, fit: stretch,
       phantom_cases: [8, 1, 1], phantom_shape: [16, 64, 64]}
train: {epochs: 10, batch_size: 8, learning_rate: 0.002, validate_every: 100}
"""


@pytest.mark.slow
def test_fine_tuning_beats_starting_anew(tmp_path: Path, capfd):
    """Eight organs first, then thirteen: the same two epochs from there and from nothing."""
    write_phantom("btcv", tmp_path / "raw", cases=8)
    path = tmp_path / "volumes.yaml"
    path.write_text(VOLUMES.replace("PREPARED", str(tmp_path / "eight")))
    train(load_config(path), tmp_path / "before", device="cpu")
    thirteen = {
        "data.format": "btcv",
        "data.labels": "btcv",
        "data.root": tmp_path / "raw",
        "data.prepared": tmp_path / "thirteen",
        "train.epochs": 2,
    }
    for seed in (1, 2):
        dice = []
        for start in ("null", tmp_path / "before"):
            changes = {**thirteen, "train.seed": seed, "model.init_from": start}
            config = load_config(path, [f"{key}={value}" for key, value in changes.items()])
            result = train(config, tmp_path / f"{seed}-{len(dice)}", device="cpu")
            assert result.best_dice is not None
            dice.append(result.best_dice)
        with capfd.disabled():
            sys.stdout.write(f"\nseed {seed}: Dice anew {dice[0]:.3f}, fine-tuned {dice[1]:.3f}\n")
        assert dice[1] > dice[0] + 0.1
