"""The two networks that were released under this name, with all their oddities.

`ReferenceNet` is what the paper measured, `GithubNet` what the public repository builds. They
exist to load published weights and reproduce their outputs; for new work use `msa2net`. They
differ from Figure 1 in four ways, and every one of them changes the outputs:

1. the bottleneck runs only its patch expand; its gate and blocks exist but never run;
2. the gated levels read tokens (B, N, C) as (B, C, H, W) *without* a transpose, so that a
   "pixel" mixes channels and positions: `misread` below is that defect, and its only home;
3. the gate's dilated convolution is dense, not depthwise;
4. DAE attention runs with one head whatever the configured count (as does ours).

GithubNet has, besides, LKA blocks instead of DAE-Former at strides 32 and 16, and at stride 16
it adds the skip without the gate, whose weights exist unused.

Axes: B batch, C channels, H rows, W columns, N = H·W positions.
"""

from collections.abc import Iterable, Mapping

from timm.layers import LayerNorm2d
from torch import Tensor, nn

from msa2net.errors import WeightsError
from msa2net.models.base import Network
from msa2net.models.dual_attention import DAEFormerBlock
from msa2net.models.encoder import Encoder
from msa2net.models.lka import LKABlock
from msa2net.models.masag import MASAG
from msa2net.models.patch_expand import PatchExpand
from msa2net.models.weights import check_entries


def misread(x_BCHW: Tensor) -> Tensor:
    """Read the token memory of a map (position-major) as if it were channel-major.

    The published code calls `tokens_BNC.reshape(B, C, H, W)`; this repeats it on a map.
    """
    tokens_BNC = x_BCHW.flatten(2).transpose(1, 2)
    return tokens_BNC.reshape(x_BCHW.shape)


def undo_misread(x_BCHW: Tensor) -> Tensor:
    """Invert `misread`."""
    batch, channels, height, width = x_BCHW.shape
    tokens_BNC = x_BCHW.reshape(batch, height * width, channels)
    return tokens_BNC.permute(0, 2, 1).reshape(batch, channels, height, width)


class ReferenceGate(MASAG):
    """MASAG with a dense dilated convolution, as released."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.dilated = nn.Conv2d(channels, channels, 3, padding=2, dilation=2)


class ReferenceLevel(nn.Module):
    """One decoder level on misread maps.

    LKA blocks run on the misread layout, which is then undone; DAE-Former blocks run on the
    plain one and their result is taken as it is.
    """

    def __init__(self, block: type[nn.Module], c_below: int, c_skip: int, expand: PatchExpand):
        super().__init__()
        self.proj = nn.Linear(c_below, c_skip)
        self.gate = ReferenceGate(c_skip)
        self.norm = LayerNorm2d(c_skip, eps=1e-5)
        self.blocks = nn.Sequential(block(c_skip), block(c_skip))
        self.expand = expand
        self.undoes_misread = block is LKABlock

    def forward(self, x_BCHW: Tensor, skip: Tensor) -> Tensor:
        """Join x with skip; returns the level's output after patch expand."""
        g = misread(self.project(x_BCHW))
        return self.refine(g + self.gate(misread(skip), g))

    def project(self, x_BCHW: Tensor) -> Tensor:
        """Bring what comes from below to the skip's width."""
        return self.proj(x_BCHW.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)

    def refine(self, z_BCHW: Tensor) -> Tensor:
        """Norm, two blocks, patch expand."""
        y = self.blocks(self.norm(z_BCHW))
        return self.expand(undo_misread(y) if self.undoes_misread else y)


class UngatedLevel(ReferenceLevel):
    """GithubNet at stride 16: the skip is added and the gate stands idle."""

    def forward(self, x_BCHW: Tensor, skip: Tensor) -> Tensor:
        """Join x with skip; returns the level's output after patch expand."""
        return self.refine(misread(self.project(x_BCHW)) + misread(skip))


class ReferenceNet(Network):
    """The network the paper measured: 112,767,981 parameters, 36.16 M of them idle."""

    deep_block: type[nn.Module] = DAEFormerBlock
    level16: type[ReferenceLevel] = ReferenceLevel

    def __init__(self, encoder: Encoder, num_classes: int, image_size: tuple[int, int]) -> None:
        c4, c8, c16, c32 = encoder.channels
        super().__init__(image_size, widths=(c32 // 2, c16 // 2, c8 // 2, c4))
        self.encoder = encoder
        self.unused_stem = nn.Sequential(nn.Conv2d(1, 3, 1), nn.BatchNorm2d(3))
        self.bottleneck = ReferenceLevel(
            self.deep_block, c32, c32, PatchExpand(c32, c32 // 2, scale=2)
        )
        self.decoder16 = self.level16(
            self.deep_block, c32 // 2, c16, PatchExpand(c16, c16 // 2, scale=2)
        )
        self.decoder8 = ReferenceLevel(LKABlock, c16 // 2, c8, PatchExpand(c8, c8 // 2, scale=2))
        self.decoder4 = ReferenceLevel(LKABlock, c8 // 2, c4, PatchExpand(c4, c4, scale=4))
        self.head = nn.Conv2d(c4, num_classes, 1)

    def decode(self, image_BCHW: Tensor) -> tuple[Tensor, ...]:
        """Return the output of each level; see `Network.decode`."""
        self.check_size(image_BCHW)
        f4, f8, f16, f32 = self.encoder(image_BCHW)
        x16 = self.bottleneck.expand(f32)  # oddity 1: nothing else of it runs
        x8 = self.decoder16(x16, skip=f16)
        x4 = self.decoder8(x8, skip=f8)
        return x16, x8, x4, self.decoder4(x4, skip=f4)


class GithubNet(ReferenceNet):
    """What the public repository builds today: 93,660,877 parameters."""

    deep_block = LKABlock
    level16 = UngatedLevel


# Our names → the published ones, part by part.
_LEVELS = {
    "bottleneck": "decoder_3",
    "decoder16": "decoder_2",
    "decoder8": "decoder_1",
    "decoder4": "decoder_0",
}
_LEVEL = {"proj": "x1_linear", "norm": "ag_attn_norm", "expand": "layer_up"}
_GATE = {
    "depthwise": "multi.local.dconv.0",
    "depthwise_norm": "multi.local.dconv.1",
    "dilated": "multi.local.dconv.3",
    "dilated_norm": "multi.local.dconv.4",
    "local_proj": "multi.local.proj",
    "global_proj": "multi.global_.proj",
    "fusion_norm": "multi.bn",
    "selection": "selection",
    "interaction_proj.0": "proj",
    "interaction_proj.1": "bn",
    "output_proj.0": "conv_block.0",
    "output_proj.1": "bn_2",
}
_LKA = {
    "norm1": "norm1",
    "attention.proj_in": "attn.proj_1",
    "attention.local": "attn.spatial_gating_unit.conv0",
    "attention.long_range": "attn.spatial_gating_unit.conv_spatial",
    "attention.mix": "attn.spatial_gating_unit.conv1",
    "attention.proj_out": "attn.proj_2",
    "layer_scale1": "layer_scale_1",
    "norm2": "norm2",
    "ffn.expand": "mlp.fc1",
    "ffn.depthwise": "mlp.dwconv.dwconv",
    "ffn.reduce": "mlp.fc2",
    "layer_scale2": "layer_scale_2",
}
_DAE = {
    **{f"norm{index}": f"norm{index}" for index in (1, 2, 3, 4)},
    "spatial_attention": "attn",
    "channel_attention": "channel_attn",
    **{f"ffn{index}.expand": f"mlp{index}.fc1" for index in (1, 2)},
    **{f"ffn{index}.depthwise": f"mlp{index}.dwconv.dwconv" for index in (1, 2)},
    **{f"ffn{index}.reduce": f"mlp{index}.fc2" for index in (1, 2)},
}


def gate_names(state_keys: Iterable[str]) -> dict[str, str]:
    """Map a gate's published keys to ours."""
    return {_renamed(key, _GATE): key for key in state_keys}


def published_names(model: ReferenceNet) -> dict[str, str]:
    """Map every key of the published state dict to ours."""
    deep, shallow = ("tran_layer", _DAE), ("layer_lka_", _LKA)
    table = {
        "encoder.backbone": "backbone.backbone",
        "unused_stem": "backbone.conv",
        "head": "decoder_0.last_layer",
    }
    for ours, theirs in _LEVELS.items():
        is_deep = ours in ("bottleneck", "decoder16") and model.deep_block is DAEFormerBlock
        layer, parts = deep if is_deep else shallow
        table |= {f"{ours}.{part}": f"{theirs}.{name}" for part, name in _LEVEL.items()}
        table |= {f"{ours}.gate.{part}": f"{theirs}.ag_attn.{name}" for part, name in _GATE.items()}
        for index in (0, 1):
            table |= {
                f"{ours}.blocks.{index}.{part}": f"{theirs}.{layer}{index + 1}.{name}"
                for part, name in parts.items()
            }
    return {_renamed(key, table): key for key in model.state_dict()}


def _renamed(key: str, table: Mapping[str, str]) -> str:
    """Replace the longest leading part of a dotted key that the table knows."""
    words = key.split(".")
    for length in range(len(words), 0, -1):
        start = ".".join(words[:length])
        if start in table:
            return ".".join([table[start], *words[length:]])
    raise KeyError(key)


def recognise(state: Mapping[str, Tensor]) -> str:
    """Tell by its keys which network a published state dict belongs to.

    Returns:
        "msa2net_reference" or "msa2net_github".

    Raises:
        WeightsError: it is neither.
    """
    for marker, name in (
        ("decoder_2.tran_layer1.", "msa2net_reference"),
        ("decoder_2.layer_lka_1.", "msa2net_github"),
    ):
        if any(key.startswith(marker) for key in state):
            return name
    raise WeightsError(
        "these are not MSA²Net weights of the paper's repository: no key starts with "
        "'decoder_2.tran_layer1.' (the paper's network) or 'decoder_2.layer_lka_1.' (the "
        "repository's)"
    )


def load_published(model: ReferenceNet, state: Mapping[str, Tensor], *, origin: str) -> None:
    """Load a published state dict into its network.

    Raises:
        WeightsError: entries are missing, unexpected or misshapen, named as published.
    """
    names = published_names(model)
    own = model.state_dict()
    check_entries({theirs: own[ours] for theirs, ours in names.items()}, state, origin=origin)
    model.load_state_dict({ours: state[theirs] for theirs, ours in names.items()})
