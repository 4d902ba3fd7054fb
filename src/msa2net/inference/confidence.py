"""How sure a network is of its answers, added up slice by slice from the pass that labels them.

The confidences are those of the first network's plain answer, the one whose temperature and
limits are known; how far mirrored copies and other networks differ from the common answer is
counted beside it. Probabilities exist for one batch only.

Axes: B slices of a batch, Z slices of a case, K classes; h, w are rows and columns of the network's
answer, of which every `step`-th is asked.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from msa2net.data.preprocessing import Placement
from msa2net.inference.features import Features
from msa2net.metrics.calibration import BINS, COLUMNS

_FINE = 64  # rows and columns of an answer that are asked, at least
_LEAST = 1e-3  # of an image's pixels: less of a structure to be expected is none
_TINY = 1e-12


class Answers:
    """The single answers to one batch, noted while they are averaged.

    Attributes:
        first_BKhw: class probabilities of the first network's plain answer.
        labels: of every answer, (B, h, w) uint8.
        networks: that answer; with one, further answers are to mirrored copies.
        step: between the rows and columns that are kept.
    """

    def __init__(self) -> None:
        self.first_BKhw: Tensor | None = None
        self.labels: list[Tensor] = []
        self.networks = 1
        self.step = 1

    def add(self, probability_BKhw: Tensor) -> None:
        """Note an answer; it may be changed afterwards."""
        self.step = max(1, min(2, min(probability_BKhw.shape[2:]) // _FINE))
        few_BKhw = probability_BKhw[:, :, :: self.step, :: self.step]
        if self.first_BKhw is None:
            self.first_BKhw = few_BKhw.clone()
        self.labels.append(few_BKhw.argmax(dim=1).to(torch.uint8))


class ConfidenceSums:
    """What is added up over the slices of one case.

    Args:
        classes: with background.
        temperature: that the logits are divided by; 1 leaves them.
    """

    def __init__(self, classes: int, temperature: float) -> None:
        self.temperature = temperature
        # Of each class: probability within its own pixels, in the whole image, and pixels.
        self._sums_K3 = np.zeros((classes, 3))
        self._entropy = 0.0
        self._pixels = 0
        self._agreement = np.zeros(2)
        self._among = "flips"

    def add(self, answers: Answers, start: int, end: int, place: Placement) -> None:
        """Take in slices `start` to `end` of a batch, without what surrounds the image."""
        assert answers.first_BKhw is not None
        self._among = "flips" if answers.networks == 1 else "networks"
        rows, columns = shown(place, answers.step)
        probability_ZKhw = sharpened(
            answers.first_BKhw[start:end, :, rows, columns], self.temperature
        )
        labels = [labels_Bhw[start:end, rows, columns] for labels_Bhw in answers.labels]
        top_Zhw = probability_ZKhw.amax(dim=1)
        classes = probability_ZKhw.shape[1]
        sums_K3 = torch.stack(
            [
                torch.stack([(top_Zhw * (labels[0] == k)).sum() for k in range(classes)]),
                probability_ZKhw.sum(dim=(0, 2, 3)),
                torch.stack([(labels[0] == k).sum() for k in range(classes)]).float(),
            ],
            dim=1,
        )
        self._sums_K3 += sums_K3.double().cpu().numpy()
        self._entropy += float(torch.special.entr(probability_ZKhw).sum())
        self._pixels += top_Zhw.numel()
        if len(labels) > 1:
            self._agreement += _agreement(labels)

    def features(self, names: Sequence[str]) -> Features:
        """Return doubts as logits, so that none has an end: 0 is even odds; none of nothing found.

        `confidence:NAME` is one minus the Dice to be expected of a structure, if the
        probabilities are true: 2 Σ p over its own pixels / (Σ p over all + its pixels).
        `confidence:` is of their mean, `confidence:entropy` the mean entropy of a structure's
        pixel, as a logarithm. `disagreement:flips` or `:networks` is one minus the Dice of
        single answers with the first.
        """
        doubts: Features = {}
        for index, name in enumerate(names[1:], start=1):
            inside, mass, pixels = self._sums_K3[index].tolist()
            if pixels or mass > _LEAST * self._pixels:
                doubts[name] = 1 - 2 * inside / (mass + pixels)
        if not doubts:
            return {}
        mean = sum(doubts.values()) / len(doubts)
        found = {f"confidence:{name}": _logit(doubt) for name, doubt in doubts.items()}
        expected = float(self._sums_K3[1:, 1].sum())
        entropy = self._entropy / (expected + _LEAST * self._pixels + 1)
        found |= {"confidence:": _logit(mean), "confidence:entropy": math.log(entropy + _LEAST)}
        doubt = _doubt(self._agreement)
        return found if doubt is None else found | {f"disagreement:{self._among}": doubt}


class TruthSums:
    """Confidences beside the truth: reliability before and after, and pixels to fit to.

    Attributes:
        tables_2B3: reliability before (T = 1) and after, see `metrics.calibration`.
        samples: (log-probabilities (N, K), true classes (N,)) of at most `pixels` a case.
    """

    def __init__(self, truth_Zhw: NDArray[np.uint8], temperature: float, pixels: int = 0) -> None:
        self._truth_Zhw = truth_Zhw
        self._temperature = temperature
        self._each = math.ceil(pixels / len(truth_Zhw))
        self.tables_2B3 = np.zeros((2, BINS, COLUMNS))
        self.samples: list[tuple[NDArray[np.float32], NDArray[np.uint8]]] = []
        self._agreement = np.zeros(2)

    @property
    def error(self) -> float | None:
        """One minus the Dice of the answer with the truth, as a logit; None of nothing."""
        return _doubt(self._agreement)

    def add(self, answers: Answers, start: int, end: int, first: int, place: Placement) -> None:
        """Take in slices `start` to `end` of a batch, from the case's slice `first` on."""
        assert answers.first_BKhw is not None
        rows, columns = shown(place, answers.step)
        probability_ZKhw = answers.first_BKhw[start:end, :, rows, columns]
        labels_Zhw = answers.labels[0][start:end, rows, columns]
        own = self._truth_Zhw[first : first + end - start, :: answers.step, :: answers.step]
        truth_Zhw = torch.from_numpy(own[:, rows, columns].copy()).to(labels_Zhw.device)
        known = truth_Zhw < probability_ZKhw.shape[1]
        right = (labels_Zhw == truth_Zhw)[known].double()
        self._agreement += _agreement([truth_Zhw[known], labels_Zhw[known]])
        for number, temperature in enumerate((1.0, self._temperature)):
            top = sharpened(probability_ZKhw, temperature).amax(dim=1)[known].double()
            self.tables_2B3[number] += _table(top, right)
        if self._each:
            self._sample(probability_ZKhw, truth_Zhw, known)

    def _sample(self, probability_ZKhw: Tensor, truth_Zhw: Tensor, known: Tensor) -> None:
        for probability_Khw, truth_hw, known_hw in zip(
            probability_ZKhw, truth_Zhw, known, strict=True
        ):
            truth_N = truth_hw[known_hw]
            every = max(1, -(-len(truth_N) // self._each))
            chosen_NK = probability_Khw[:, known_hw].T[::every]
            log_NK = chosen_NK.clamp_min(_TINY).log()
            self.samples.append((log_NK.cpu().numpy(), truth_N[::every].cpu().numpy()))


def sharpened(probability_BKhw: Tensor, temperature: float) -> Tensor:
    """Return the probabilities that logits divided by a temperature have."""
    if temperature == 1:
        return probability_BKhw
    return (probability_BKhw.clamp_min(_TINY).log() / temperature).softmax(dim=1)


def shown(place: Placement, step: int) -> tuple[slice, slice]:
    """Return the rows and columns of an answer, `step` apart, that lie within the image."""
    rows, columns = (
        slice(-(-axis.filled.start // step), -(-axis.filled.stop // step)) for axis in place
    )
    return rows, columns


def _agreement(labels: Sequence[Tensor]) -> NDArray[np.float64]:
    """Return the pixels of structures that answers have in common with the first, and all sizes."""
    first, same, sizes = labels[0], 0, 0
    for other in labels[1:]:
        same += int(((first == other) & (first > 0)).sum())
        sizes += int((first > 0).sum()) + int((other > 0).sum())
    return np.array([same, sizes], np.float64)


def _doubt(agreement_2: NDArray[np.float64]) -> float | None:
    same, sizes = agreement_2.tolist()
    return _logit(1 - 2 * same / sizes) if sizes else None


def _table(confidence_N: Tensor, right_N: Tensor) -> NDArray[np.float64]:
    """Return `metrics.calibration.reliability_table`, computed where the answers are."""
    index_N = (confidence_N * BINS).long().clamp_max(BINS - 1)
    columns = (torch.ones_like(right_N), confidence_N, right_N)
    table = torch.stack([index_N.bincount(column, BINS) for column in columns], dim=1)
    return table.cpu().numpy()


def _logit(share: float) -> float:
    inside = min(max(share, 1e-3), 1 - 1e-3)
    return math.log(inside / (1 - inside))
