"""The released networks, reproduced: parameters, outputs, idle weights, cost."""

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from timm.layers import set_fused_attn
from torch import nn

from golden_weights import published_state, weight_by_rule
from msa2net.errors import WeightsError
from msa2net.models.registry import create_model
from msa2net.models.released import (
    ReferenceGate,
    ReferenceNet,
    gate_names,
    load_published,
    published_names,
    recognise,
)

VARIANTS = {"msa2net_reference": "paper", "msa2net_github": "github"}


@pytest.fixture(scope="module", params=VARIANTS)
def released(request, golden: Path) -> tuple[str, ReferenceNet, dict]:
    name = request.param
    manifest = golden / f"{VARIANTS[name]}_manifest.json"
    model = create_model(name, num_classes=9, in_channels=3, image_size=224)
    load_published(model, published_state(manifest), origin="golden")
    return name, model.eval(), json.loads(manifest.read_text())


@pytest.fixture(scope="module")
def golden_image() -> torch.Tensor:
    noise = np.random.default_rng(0).standard_normal((2, 3, 224, 224))
    return torch.from_numpy(noise.astype(np.float32))


def test_parameter_count(released):
    _, model, manifest = released
    assert sum(p.numel() for p in model.parameters()) == manifest["parameters"]


def test_parameter_counts_as_published():
    expected = {
        "msa2net": 103_340_666,
        "msa2net_reference": 112_767_981,
        "msa2net_github": 93_660_877,
    }
    for name, count in expected.items():
        with torch.device("meta"):
            model = create_model(name, num_classes=9, in_channels=1)
        assert sum(p.numel() for p in model.parameters()) == count, name


def test_keys_and_shapes_are_the_manifest(released):
    _, model, manifest = released
    own = model.state_dict()
    shapes = {theirs: list(own[ours].shape) for theirs, ours in published_names(model).items()}
    assert shapes == {key: shape for key, shape, *_ in manifest["entries"]}


@torch.no_grad()
def test_logits(released, golden: Path, golden_image):
    name, model, _ = released
    expected = np.load(golden / f"{VARIANTS[name]}_logits.npz")
    logits = model(golden_image)
    # Float32 sums in another order: measured 1e-5, allowed 1e-4.
    np.testing.assert_allclose(logits[:, :, ::4, ::4], expected["logits"], atol=1e-4, rtol=0)
    assert logits.double().mean().item() == pytest.approx(expected["mean"].item(), abs=1e-6)
    assert logits.double().std().item() == pytest.approx(expected["std"].item(), abs=1e-6)


@torch.no_grad()
def test_a_grey_image_is_repeated_to_three_channels(released, golden: Path, golden_image):
    name, model, _ = released
    expected = np.load(golden / f"{VARIANTS[name]}_logits.npz")["logits_gray"]
    model.encoder.in_channels = 1
    logits = model(golden_image[:1, :1])
    model.encoder.in_channels = 3
    np.testing.assert_allclose(logits[:, :, ::4, ::4], expected, atol=1e-4, rtol=0)


@torch.no_grad()
def test_encoder_features_include_the_final_norm(released, golden: Path, golden_image):
    name, model, _ = released
    if name != "msa2net_reference":
        return  # the encoder is the same; its golden features are stored once
    expected = np.load(golden / "paper_logits.npz")
    features = model.encoder(golden_image)
    for stride, feature in zip((4, 8, 16, 32), features, strict=True):
        wanted = expected[f"encoder_stride{stride}"]
        np.testing.assert_allclose(feature[:, ::16], wanted, atol=1e-4, rtol=1e-4)


def test_idle_parameters_are_those_of_the_manifest(released, golden_image):
    _, model, manifest = released
    ours_to_published = {ours: theirs for theirs, ours in published_names(model).items()}
    for parameter in model.parameters():
        parameter.grad = None
    model(golden_image[:1]).square().mean().backward()
    idle = {ours_to_published[n] for n, p in model.named_parameters() if p.grad is None}
    assert idle == set(manifest["no_gradient"])


@torch.no_grad()
def test_gate(golden: Path):
    expected = np.load(golden / "masag.npz")
    entries = json.loads((golden / "masag_manifest.json").read_text())["entries"]
    gate = ReferenceGate(96).eval()
    names = gate_names(gate.state_dict())
    assert sorted(names) == sorted(key for key, _ in entries)
    gate.load_state_dict({names[key]: weight_by_rule(f"masag.{key}", s) for key, s in entries})
    y = gate(torch.from_numpy(expected["x"]), torch.from_numpy(expected["g"]))
    np.testing.assert_allclose(y, expected["y"], atol=1e-5, rtol=0)


# Multiply–adds of one 224² image as fvcore counts them, in 1e9: training mode, evaluation mode.
COST = {
    "msa2net": (16.31, 16.26),
    "msa2net_reference": (15.56, 15.51),
    "msa2net_github": (14.34, 14.28),
}


@pytest.mark.parametrize("name", COST)
def test_multiply_adds(name: str):
    from fvcore.nn import FlopCountAnalysis

    set_fused_attn(False)  # fvcore does not see the fused kernel
    try:
        model = create_model(name, num_classes=9, in_channels=1, image_size=224)
        for mode, expected in zip((True, False), COST[name], strict=True):
            assert _fvcore_count(FlopCountAnalysis, model.train(mode)) / 1e9 == pytest.approx(
                expected, abs=0.005
            )
    finally:
        set_fused_attn(True)


def _fvcore_count(analysis: type, model: nn.Module) -> float:
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        counter = analysis(model, torch.zeros(1, 1, 224, 224))
        return counter.unsupported_ops_warnings(False).uncalled_modules_warnings(False).total()


def test_recognise_names_the_network(golden: Path):
    for name, variant in VARIANTS.items():
        keys = json.loads((golden / f"{variant}_manifest.json").read_text())["entries"]
        assert recognise({key: torch.zeros(0) for key, *_ in keys}) == name
    with pytest.raises(WeightsError, match="decoder_2.tran_layer1"):
        recognise({"conv.weight": torch.zeros(1)})


def test_wrong_entries_are_named_as_published(released, golden: Path):
    name, model, _ = released
    state = published_state(golden / f"{VARIANTS[name]}_manifest.json")
    del state["decoder_0.last_layer.bias"]
    state["surprise"] = torch.zeros(1)
    state["decoder_0.last_layer.weight"] = torch.zeros(4, 96, 1, 1)
    message = (
        r"1 missing \(decoder_0.last_layer.bias\); 1 unexpected \(surprise\); "
        r"1 of another shape \(decoder_0.last_layer.weight is \(4, 96, 1, 1\)"
    )
    with pytest.raises(WeightsError, match=message):
        load_published(model, state, origin="file.pth")
