"""How sure a network is of its outputs, added up slice by slice from the pass that labels them.

The confidences are those of the first network's plain output, the one whose temperature and
limits are known; how far mirrored copies and other networks differ from the common output is
counted beside it. Probabilities exist for one batch only.

Answers are tensors, where a network left them, or arrays of an exported one, for which no torch is
there. What is written here is in both of them; `_log`, `highest` and others are where they differ.

Axes: B slices of a batch, Z slices of a case, K classes; h, w are rows and columns of the network's
output, of which every `step`-th is asked.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from msa2net.data.resampling import ResizePad
from msa2net.quality.features import DICE_ERROR, Features, name_feature

TINY = 1e-12
"""Stands for a probability of zero, which has no logarithm."""

_FINE = 64  # rows and columns of an output that are asked, at least
_LEAST = 1e-3  # of an image's pixels: less of a structure to be expected is none


class MemberOutputs:
    """The single outputs for one batch, noted while they are averaged.

    Attributes:
        first_BKhw: class probabilities of the first network's plain output.
        labels: of every output, (B, h, w) uint8.
        networks: that output; with one, further outputs are of mirrored copies.
        step: between the rows and columns that are kept.
    """

    def __init__(self) -> None:
        self.first_BKhw: Any = None
        self.labels: list[Any] = []
        self.networks = 1
        self.step = 1

    def add(self, probability_BKhw: Any) -> None:
        """Note an output; it may be changed afterwards."""
        self.step = max(1, min(2, min(probability_BKhw.shape[2:]) // _FINE))
        few_BKhw = probability_BKhw[:, :, :: self.step, :: self.step]
        if self.first_BKhw is None:
            self.first_BKhw = _copy(few_BKhw)
        self.labels.append(_most_probable(few_BKhw))


@dataclass(frozen=True, eq=False)
class ConfidenceMeasurement:
    """What confidences of some slices add up to.

    Attributes:
        sums: (K, 3), probability within a class's own pixels, in the whole image, and pixels.
        entropy: of all pixels.
        pixels: how many.
        agreement: see `overlap_counts`.
        among: what the further outputs are of, `flips` or `networks`.
    """

    sums: NDArray[np.float64]
    entropy: float
    pixels: int
    agreement: NDArray[np.float64]
    among: str


class ConfidenceSums:
    """What is added up over the slices of one case.

    Args:
        classes: with background.
        temperature: that the logits are divided by; 1 leaves them.
    """

    def __init__(self, classes: int, temperature: float) -> None:
        self.temperature = temperature
        self._sums_K3 = np.zeros((classes, 3))
        self._entropy = 0.0
        self._pixels = 0
        self._agreement_2 = np.zeros(2)
        self._among = "flips"

    def measure(
        self, outputs: MemberOutputs, start: int, end: int, place: ResizePad
    ) -> ConfidenceMeasurement:
        """Look at slices `start` to `end` of a batch, without what surrounds the image."""
        rows, columns = visible_pixels(place, outputs.step)
        probability_ZKhw = temperature_scaled(
            outputs.first_BKhw[start:end, :, rows, columns], self.temperature
        )
        labels = [labels_Bhw[start:end, rows, columns] for labels_Bhw in outputs.labels]
        top_Zhw = highest(probability_ZKhw)
        of_each = [labels[0] == k for k in range(probability_ZKhw.shape[1])]
        sums_3K = (
            _joined([(top_Zhw * inside).sum() for inside in of_each]),
            to_array(probability_ZKhw.sum((0, 2, 3))),
            _joined([inside.sum() for inside in of_each]),
        )
        entropy = -(probability_ZKhw * _log(probability_ZKhw.clip(TINY))).sum()
        return ConfidenceMeasurement(
            np.stack(sums_3K, axis=1).astype(np.float64),
            float(entropy),
            math.prod(top_Zhw.shape),
            overlap_counts(labels),
            "flips" if outputs.networks == 1 else "networks",
        )

    def add(self, found: ConfidenceMeasurement) -> None:
        """Take in what was measured."""
        self._sums_K3 += found.sums
        self._entropy += found.entropy
        self._pixels += found.pixels
        self._agreement_2 += found.agreement
        self._among = found.among

    def features(self, names: Sequence[str]) -> Features:
        """Return doubts as logits, so that none has an end: 0 is even odds; none of nothing found.

        `confidence:structure:NAME` is one minus the Dice to be expected of a structure, if the
        probabilities are true: 2 Σ p over its own pixels / (Σ p over all + its pixels).
        `confidence:all:` is of their mean, `confidence:entropy:` the mean entropy of a
        structure's pixel, as a logarithm. `disagreement:flips:` or `:networks:` is one minus the
        Dice of single outputs with the first.
        """
        doubts: Features = {}
        for index, name in enumerate(names[1:], start=1):
            inside, mass, pixels = self._sums_K3[index].tolist()
            if pixels or mass > _LEAST * self._pixels:
                doubts[name] = 1 - 2 * inside / (mass + pixels)
        if not doubts:
            return {}
        mean = sum(doubts.values()) / len(doubts)
        found = {
            name_feature("confidence", "structure", name): _logit(doubt)
            for name, doubt in doubts.items()
        }
        expected = float(self._sums_K3[1:, 1].sum())
        entropy = self._entropy / (expected + _LEAST * self._pixels + 1)
        found[DICE_ERROR] = _logit(mean)
        found[name_feature("confidence", "entropy")] = math.log(entropy + _LEAST)
        doubt = dice_error_logit(self._agreement_2)
        return (
            found if doubt is None else found | {name_feature("disagreement", self._among): doubt}
        )


def temperature_scaled(probability_BKhw: Any, temperature: float) -> Any:
    """Return the probabilities that logits divided by a temperature have."""
    if temperature == 1:
        return probability_BKhw
    power_BKhw = probability_BKhw.clip(TINY) ** (1 / temperature)
    return power_BKhw / power_BKhw.sum(1)[:, None]


def visible_pixels(place: ResizePad, step: int) -> tuple[slice, slice]:
    """Return the rows and columns of an output, `step` apart, that lie within the image."""
    rows, columns = (
        slice(-(-axis.paste.start // step), -(-axis.paste.stop // step)) for axis in place
    )
    return rows, columns


def overlap_counts(labels: Sequence[Any]) -> NDArray[np.float64]:
    """Return the pixels of structures that outputs have in common with the first, and all sizes."""
    first, same, sizes = labels[0], 0, 0
    for other in labels[1:]:
        same += int(((first == other) & (first > 0)).sum())
        sizes += int((first > 0).sum()) + int((other > 0).sum())
    return np.array([same, sizes], np.float64)


def dice_error_logit(agreement_2: NDArray[np.float64]) -> float | None:
    """Return one minus the Dice, as a logit; None of nothing."""
    same, sizes = agreement_2.tolist()
    return _logit(1 - 2 * same / sizes) if sizes else None


def highest(values_BKhw: Any) -> Any:
    """Return the largest value (B, h, w) over the classes."""
    is_array = isinstance(values_BKhw, np.ndarray)
    return values_BKhw.max(axis=1) if is_array else values_BKhw.amax(dim=1)


def to_array(values: Any) -> NDArray[Any]:
    """Return numbers as an array, from wherever they are."""
    return np.asarray(values if isinstance(values, np.ndarray) else values.cpu())


def _copy(values: Any) -> Any:
    return values.copy() if isinstance(values, np.ndarray) else values.clone()


def _most_probable(values_BKhw: Any) -> Any:
    if isinstance(values_BKhw, np.ndarray):
        return values_BKhw.argmax(axis=1).astype(np.uint8)
    return values_BKhw.argmax(dim=1).byte()


def _log(values: Any) -> Any:
    return np.log(values) if isinstance(values, np.ndarray) else values.log()


def _joined(numbers: Sequence[Any]) -> NDArray[Any]:
    """Return single numbers together, brought from a device at once."""
    if isinstance(numbers[0], np.generic):
        return np.array(numbers)
    import torch  # it is there: these are its tensors

    return to_array(torch.stack(list(numbers)))


def _logit(share: float) -> float:
    inside = min(max(share, 1e-3), 1 - 1e-3)
    return math.log(inside / (1 - inside))
