"""Figure 1: what must hold of the network whatever its weights."""

from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

from msa2net.errors import ConfigError, WeightsError
from msa2net.models.complexity import summarise_model
from msa2net.models.dual_attention import ChannelAttention, EfficientAttention, largest_head_count
from msa2net.models.masag import MASAG
from msa2net.models.patch_expand import PatchExpand
from msa2net.models.registry import MODELS, create_model
from msa2net.models.weights import load_weights, read_state_dict, save_weights

TINY = "test_maxvit"  # timm's smallest MaxViT, for tests


def tiny(num_classes: int = 3, in_channels: int = 1, image_size=64, **options) -> nn.Module:
    return create_model("msa2net", num_classes, in_channels, TINY, image_size, **options)


@pytest.mark.parametrize("size", [(64, 64), (32, 96), (128, 64)])
@pytest.mark.parametrize(("classes", "channels"), [(2, 3), (9, 1), (4, 5)])
def test_any_size_classes_and_channels(size, classes, channels):
    model = tiny(classes, channels, size)
    assert model(torch.randn(2, channels, *size)).shape == (2, classes, *size)


@pytest.mark.parametrize("encoder", ["test_resnet", "test_convnext", "test_efficientnet"])
def test_other_timm_encoders(encoder):
    model = create_model("msa2net", 3, 2, encoder, (64, 96))
    assert model(torch.randn(1, 2, 64, 96)).shape == (1, 3, 64, 96)


def test_channels_last_encoder_has_its_features_permuted():
    model = create_model("msa2net", 3, 3, "swin_tiny_patch4_window7_224", 64)
    features = model.encoder(torch.randn(1, 3, 64, 64))
    assert [f.shape[1:] for f in features] == [(96, 16, 16), (192, 8, 8), (384, 4, 4), (768, 2, 2)]


def test_every_parameter_of_msa2net_receives_a_gradient():
    model = create_model("msa2net", 9, 1, image_size=64)
    model(torch.randn(2, 1, 64, 64)).square().mean().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize("name", ["msa2net_tiny", "msa2net_pico"])
def test_small_networks_take_a_training_step(name):
    model = create_model(name, 2, 3, image_size=64)
    model(torch.randn(2, 3, 64, 64)).mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_gate_is_local():
    """One output position sees the encoder within radius 3 (3×3, then 3×3 dilated by 2).

    The reference networks' misread layout would spread it over the whole map.
    """
    gate = MASAG(8).eval()
    x = torch.randn(1, 8, 15, 17, requires_grad=True)
    gate(x, torch.randn(1, 8, 15, 17))[0, :, 7, 8].sum().backward()
    reached = x.grad[0].abs().sum(0) > 0
    inside = torch.zeros_like(reached)
    inside[4:11, 5:12] = True
    assert not (reached & ~inside).any()
    assert reached[4, 5]
    assert reached[10, 11]


def test_network_keeps_the_layout_of_its_skips():
    """In the assembled decoder too, a skip's pixel acts where it stands."""
    model = tiny().eval()
    seen = {}

    def note(name):
        return lambda module, inputs, output: seen.update({name: (inputs, output)})

    # The decoder's side sees all of the image through the deeper levels: leave it out.
    model.decoder4.gate.register_forward_pre_hook(lambda module, xg: (xg[0], xg[1].detach()))
    model.decoder4.gate.register_forward_hook(note("gate"))
    model.encoder.register_forward_hook(note("encoder"))
    model(torch.randn(1, 1, 64, 64))
    f4 = seen["encoder"][1][0]
    (skip, _), gated = seen["gate"]
    assert skip is f4  # the encoder's map itself, not a rearranged one
    (gradient,) = torch.autograd.grad(gated[0, :, 8, 8].sum(), skip)
    rows, columns = torch.nonzero(gradient[0].abs().sum(0), as_tuple=True)
    assert rows.min() >= 5
    assert rows.max() <= 11
    assert columns.min() >= 5
    assert columns.max() <= 11


def test_patch_expand_orders_channels_as_row_column_channel():
    expand = PatchExpand(2, 1, scale=2)
    expand.norm = nn.Identity()
    with torch.no_grad():
        expand.expand.weight.copy_(torch.tensor([[1.0, 0], [0, 1], [2, 0], [0, 2]]))
    x = torch.tensor([5.0, 7.0]).reshape(1, 2, 1, 1)
    assert expand(x).tolist() == [[[[5.0, 7.0], [10.0, 14.0]]]]


def test_efficient_attention_equals_its_definition():
    attention = EfficientAttention(4)
    x = torch.randn(2, 3, 5, 4)
    with torch.no_grad():
        tokens = x.flatten(1, 2)
        k, q, v = (
            tokens @ conv.weight.flatten(1).T + conv.bias
            for conv in (attention.keys, attention.queries, attention.values)
        )
        out = q.softmax(2) @ (k.softmax(1).transpose(1, 2) @ v)
        out = out @ attention.reprojection.weight.flatten(1).T + attention.reprojection.bias
        torch.testing.assert_close(attention(x).flatten(1, 2), out)


def test_channel_attention_does_not_see_positions():
    """Permuting positions permutes the output: channels attend to channels only."""
    attention = ChannelAttention(16)
    x = torch.randn(1, 4, 4, 16)
    order = torch.randperm(16)
    shuffled = x.flatten(1, 2)[:, order].unflatten(1, (4, 4))
    with torch.no_grad():
        expected = attention(x).flatten(1, 2)[:, order]
        torch.testing.assert_close(attention(shuffled).flatten(1, 2), expected)


@pytest.mark.parametrize(("channels", "heads"), [(768, 8), (12, 6), (35, 7), (11, 1), (4, 4)])
def test_head_count_divides_the_width(channels, heads):
    assert largest_head_count(channels) == heads


def test_batch_order_does_not_matter():
    model = tiny().eval()
    x = torch.randn(3, 1, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(model(x.flip(0)).flip(0), model(x), atol=1e-5, rtol=1e-5)


def test_saved_and_loaded_weights_are_identical(tmp_path: Path):
    one, two = tiny(), tiny()
    save_weights(one, tmp_path / "w.safetensors")
    assert (tmp_path / "w.safetensors").stat().st_mode & 0o444 == 0o444  # for colleagues too
    load_weights(two, tmp_path / "w.safetensors")
    assert all(
        torch.equal(a, b)
        for a, b in zip(one.state_dict().values(), two.state_dict().values(), strict=True)
    )


def test_pretrained_file_fills_the_encoder(tmp_path: Path):
    donor = timm.create_model(TINY)
    save_file(donor.state_dict(), tmp_path / "encoder.safetensors")
    model = tiny(in_channels=3, pretrained_file=tmp_path / "encoder.safetensors")
    expected = donor.stages[0].blocks[0].conv.conv1_1x1.weight
    assert torch.equal(model.encoder.backbone.stages[0].blocks[0].conv.conv1_1x1.weight, expected)


def test_summary_counts_without_building():
    summary = summarise_model("msa2net")
    assert summary.parameters == 103_340_666
    assert summary.multiply_adds / 1e9 == pytest.approx(16.1, abs=0.2)  # fvcore adds the norms


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "msa3net"}, "there are msa2net, msa2net_tiny"),
        ({"num_classes": 1}, "be greater than or equal to 2"),
        ({"in_channels": 0}, "be greater than or equal to 1"),
        ({"image_size": 100}, "near 100: 96 or 128"),
        ({"image_size": (64, 0)}, "multiples of 32"),
        ({"encoder": "resnet18.nonsense"}, "Invalid pretrained tag"),
        ({"encoder": "maxvit_nonsense"}, "timm knows no model 'maxvit_nonsense'; similar: "),
        ({"encoder": "vit_small_patch16_224"}, "needs 4, 8, 16, 32"),
    ],
)
def test_impossible_networks_are_refused(arguments, message):
    with pytest.raises(ConfigError, match=message):
        create_model(**{"encoder": TINY, "image_size": 64, **arguments})


def test_another_image_size_is_refused_by_name():
    with pytest.raises(
        ConfigError, match="takes images of 64×64 .* given 128×128; .* multiple of 32"
    ):
        tiny()(torch.zeros(1, 1, 128, 128))


def test_another_channel_count_is_refused():
    with pytest.raises(ConfigError, match="in_channels=1 and was given 3"):
        tiny()(torch.zeros(1, 3, 64, 64))


def test_pretrained_weights_without_a_connection_name_the_way_out():
    with pytest.raises(WeightsError, match="could not be downloaded.*pretrained_file"):
        create_model("msa2net_pico", 2, 3, image_size=64, pretrained=True)


def test_pretrained_file_of_another_network_is_refused(tmp_path: Path):
    save_file({"conv.weight": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(WeightsError, match="entries are missing"):
        tiny(in_channels=3, pretrained_file=tmp_path / "other.safetensors")


def _pickled_object(path: Path) -> None:
    torch.save({"state_dict": nn.Linear(1, 1)}, path)


def _truncated(path: Path) -> None:
    torch.save({"weight": torch.zeros(1000)}, path)
    path.write_bytes(path.read_bytes()[:600])


@pytest.mark.parametrize(
    ("name", "make", "message"),
    [
        ("missing.pth", lambda _: None, "no weight file"),
        ("object.pth", _pickled_object, "more than tensors"),
        ("short.pth", _truncated, "not a readable weight file|more than tensors or is damaged"),
        ("text.safetensors", lambda p: p.write_text("hello"), "not a readable weight file"),
        ("list.pth", lambda p: torch.save([torch.zeros(1)], p), "holds a list"),
        ("empty.pth", lambda p: torch.save({}, p), "no tensors"),
        ("numbers.pth", lambda p: torch.save({"lr": 0.1}, p), "not tensors .lr."),
    ],
)
def test_bad_weight_files(tmp_path: Path, name, make, message):
    make(tmp_path / name)
    with pytest.raises(WeightsError, match=message):
        read_state_dict(tmp_path / name)


def test_module_prefix_and_wrappers_are_removed(tmp_path: Path):
    torch.save({"state_dict": {"module.weight": torch.ones(2)}}, tmp_path / "w.pth")
    assert list(read_state_dict(tmp_path / "w.pth")) == ["weight"]


def test_the_table_of_networks_is_complete():
    assert list(MODELS) == [
        "msa2net",
        "msa2net_tiny",
        "msa2net_pico",
        "msa2net_reference",
        "msa2net_github",
        "unet",
    ]
