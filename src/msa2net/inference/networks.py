"""Networks that see the same inputs, and the mean of what they find probable.

Axes: B slices, C channels, K classes; h, w are rows and columns of the network's input, or of the
whole slice at the input's scale where windows slide over it.
"""

import importlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from typing import Any, Literal

import torch
from torch import Tensor, nn

from msa2net.data.preprocessing import Preprocessing
from msa2net.errors import ConfigError

Mode = Literal["resize", "sliding"]
"""Whether a slice is brought to the network's size, or windows of that size slide over it."""

Flip = tuple[int, ...]
"""The axes of (B, C, h, w) along which an image is mirrored: −1 left–right, −2 top–bottom."""


@dataclass(frozen=True, eq=False)
class Member:
    """One network of an ensemble.

    Attributes:
        model: (B, C, h, w) → logits (B, K, h, w).
        preprocessing: how images become its inputs.
        flips: the mirrored copies of an input whose answers are averaged with the plain one's.
    """

    model: nn.Module
    preprocessing: Preprocessing
    flips: tuple[Flip, ...] = ()


class Group:
    """Members with the same preprocessing: their answers lie on one grid.

    Attributes:
        preprocessing: theirs.
        members: at least one.
    """

    def __init__(self, members: Sequence[Member]) -> None:
        self.preprocessing = members[0].preprocessing
        self.members = tuple(members)

    @torch.inference_mode()
    def probabilities(
        self, unit_BChw: Tensor, batch: int, mode: Mode = "resize", overlap: float = 0.5
    ) -> Tensor:
        """Return the members' mean class probabilities (B, K, h, w), on the first one's device.

        Args:
            unit_BChw: slices in [0, 1].
            batch: windows that go through a network at once; resized slices go all together.
            mode: see `Mode`.
            overlap: of neighbouring windows, as a share of their sides.
        """
        mean_BKhw: Tensor | None = None
        for member in self.members:
            image_BChw = self.preprocessing.standardise(unit_BChw.to(device_of(member.model)))
            with evaluating(member.model):
                if mode == "resize":
                    found_BKhw = _mirrored_mean(member, image_BChw)
                else:
                    found_BKhw = self._slide(member, image_BChw, batch, overlap)
            if mean_BKhw is None:
                mean_BKhw = found_BKhw
            else:
                mean_BKhw += found_BKhw.to(mean_BKhw.device)
        assert mean_BKhw is not None
        return mean_BKhw if len(self.members) == 1 else mean_BKhw / len(self.members)

    def _slide(self, member: Member, image_BChw: Tensor, batch: int, overlap: float) -> Tensor:
        """Average windows, each weighted by a Gaussian about its centre; σ is 1/8 of a side."""
        answer: Tensor = sliding_window_inference()(
            image_BChw,
            roi_size=self.preprocessing.image_size,
            sw_batch_size=batch,
            predictor=lambda window_BChw: _mirrored_mean(member, window_BChw),
            overlap=overlap,
            mode="gaussian",
            padding_mode="constant",
            cval=self.preprocessing.standardise(0.0),  # what `fit: pad` surrounds images with
        )
        return answer


def count_windows(size: tuple[int, int], window: tuple[int, int], overlap: float) -> int:
    """Return how many windows MONAI lays over an image of (rows, columns)."""
    count = 1
    for length, side in zip(size, window, strict=True):
        step = max(1, int(side * (1 - overlap)))
        count *= 1 + max(0, -(-(length - side) // step))
    return count


def sliding_window_inference() -> Any:
    """Return MONAI's function of that name.

    Raises:
        ConfigError: MONAI is not installed.
    """
    try:
        return importlib.import_module("monai.inferers.utils").sliding_window_inference
    except ImportError as error:
        raise ConfigError(
            "sliding windows need MONAI; install it with pip install monai"
        ) from error


def device_of(model: nn.Module) -> torch.device:
    """Return where a network computes; one without any numbers computes on the CPU."""
    tensor = next(chain(model.parameters(), model.buffers()), None)
    return torch.device("cpu") if tensor is None else tensor.device


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Keep a network in evaluation mode for a while, such as one that is being trained."""
    was_training = model.training
    if was_training:
        model.eval()
    try:
        yield
    finally:
        if was_training:
            model.train()


def _mirrored_mean(member: Member, image_BChw: Tensor) -> Tensor:
    """Return the mean probabilities (B, K, h, w) of images and of their mirrored copies."""
    logits_BKhw: Tensor = member.model(image_BChw)
    mean_BKhw = logits_BKhw.float().softmax(dim=1)
    for flip in member.flips:
        logits_BKhw = member.model(image_BChw.flip(flip))
        mean_BKhw += logits_BKhw.float().softmax(dim=1).flip(flip)
    return mean_BKhw / (1 + len(member.flips)) if member.flips else mean_BKhw
