"""Confidences beside the truth, slice by slice; needs torch, see `confidence`.

Axes: B slices of a batch (in tables: bins), Z slices of a case, K classes, N pixels; h, w are rows
and columns of the network's output, of which every `step`-th is asked.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from msa2net.data.resampling import ResizePad
from msa2net.metrics.calibration import BINS, COLUMNS, reliability_table
from msa2net.quality.confidence import (
    TINY,
    MemberOutputs,
    dice_error_logit,
    highest,
    overlap_counts,
    temperature_scaled,
    to_array,
    visible_pixels,
)


@dataclass(frozen=True, eq=False)
class CalibrationMeasurement:
    """What some slices add.

    Attributes:
        tables: (2, BINS, 3), see `CalibrationAccumulator`.
        samples: see there.
        agreement: with the truth, see `overlap_counts`.
    """

    tables: NDArray[np.float64]
    samples: list[tuple[NDArray[np.float32], NDArray[np.uint8]]]
    agreement: NDArray[np.float64]


class CalibrationAccumulator:
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
        self._agreement_2 = np.zeros(2)

    @property
    def error(self) -> float | None:
        """One minus the Dice of the output with the ground truth, as a logit; None of nothing."""
        return dice_error_logit(self._agreement_2)

    def measure(
        self, outputs: MemberOutputs, start: int, end: int, first: int, place: ResizePad
    ) -> CalibrationMeasurement:
        """Look at slices `start` to `end` of a batch, from the case's slice `first` on."""
        rows, columns = visible_pixels(place, outputs.step)
        probability_ZKhw = outputs.first_BKhw[start:end, :, rows, columns]
        labels_Zhw = outputs.labels[0][start:end, rows, columns]
        own = self._truth_Zhw[first : first + end - start, :: outputs.step, :: outputs.step]
        truth_Zhw = torch.from_numpy(own[:, rows, columns].copy()).to(labels_Zhw.device)
        known = truth_Zhw < probability_ZKhw.shape[1]
        right_N = to_array((labels_Zhw == truth_Zhw)[known])
        tables = [
            reliability_table(
                to_array(highest(temperature_scaled(probability_ZKhw, temperature))[known]), right_N
            )
            for temperature in (1.0, self._temperature)
        ]
        return CalibrationMeasurement(
            np.stack(tables),
            self._sample(probability_ZKhw, truth_Zhw, known) if self._each else [],
            overlap_counts([truth_Zhw[known], labels_Zhw[known]]),
        )

    def add(self, found: CalibrationMeasurement) -> None:
        """Take in what was measured."""
        self.tables_2B3 += found.tables
        self.samples += found.samples
        self._agreement_2 += found.agreement

    def _sample(
        self, probability_ZKhw: Tensor, truth_Zhw: Tensor, known: Tensor
    ) -> list[tuple[NDArray[np.float32], NDArray[np.uint8]]]:
        samples = []
        for probability_Khw, truth_hw, known_hw in zip(
            probability_ZKhw, truth_Zhw, known, strict=True
        ):
            truth_N = truth_hw[known_hw]
            every = max(1, -(-len(truth_N) // self._each))
            chosen_NK = probability_Khw[:, known_hw].T[::every]
            log_NK = chosen_NK.clamp_min(TINY).log()
            samples.append((to_array(log_NK), to_array(truth_N[::every])))
        return samples
