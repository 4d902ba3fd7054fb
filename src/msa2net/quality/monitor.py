"""Monitoring cases while they are segmented: out-of-distribution features, and confidence.

Axes: B slices of a batch, C channels, Z slices, H rows, W columns; h, w are the network's.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from msa2net.data.case import Case
from msa2net.data.preprocessing import Preprocessing
from msa2net.data.resampling import ResizePad
from msa2net.metrics.calibration import BINS, COLUMNS
from msa2net.quality.confidence import ConfidenceSums, MemberOutputs
from msa2net.quality.features import (
    SIDE,
    Features,
    InputSums,
    grid_features,
    layout_features,
    measured_slices,
    structure_features,
)
from msa2net.quality.flags import CaseAssessment, assess
from msa2net.quality.reference_ranges import ReferenceRanges

if TYPE_CHECKING:  # it needs torch, and whoever has none compares with no truth
    from msa2net.quality.calibration import CalibrationAccumulator


class CaseMonitor:
    """Sums over one case's slices and outputs; none of these is kept.

    Args:
        case: it, along the training's axes (`Preprocessing.to_plane`).
        preprocessing: of the network that is asked first.
        label_names: one per class, background first.
        temperature: for confidences.

    Attributes:
        case_id: of the case.
        truth: confidences beside the case's label; None unless they are asked for.
        thumbnail: of the input.
    """

    def __init__(
        self,
        case: Case,
        preprocessing: Preprocessing,
        label_names: Sequence[str],
        temperature: float = 1.0,
    ) -> None:
        self.case_id = case.id
        self.truth: CalibrationAccumulator | None = None
        self._names = label_names
        self._spacing_mm = case.geometry.spacing_mm
        shape_ZHW = case.image.shape[1:]
        oriented = case.geometry.affine is not None
        self._grid = grid_features(shape_ZHW, self._spacing_mm, oriented)
        self._looked_at = measured_slices(shape_ZHW[0])
        self._input = InputSums(preprocessing.channels)
        self._sure = ConfidenceSums(len(label_names), temperature)
        self._heard = False

    @property
    def thumbnail(self) -> NDArray[np.float64]:
        """What the input looks like from far away."""
        return self._input.thumbnail

    def measures_slice(self, index: int) -> bool:
        """Tell whether a slice of the input is measured."""
        return index in self._looked_at

    def observe_input(self, unit_1Chw: NDArray[np.float32], place: ResizePad) -> None:
        """Look at a slice as the network was trained on it."""
        self._input.add(unit_1Chw[0, :, place.rows.paste, place.columns.paste])

    def observe_output(
        self, outputs: MemberOutputs, start: int, end: int, first: int, place: ResizePad
    ) -> Callable[[], None]:
        """Measure the outputs for slices from `first` on: `start` to `end` of a batch.

        Returns:
            What notes it: to be called once it is sure that the batch does not come again.
        """
        sure = self._sure.measure(outputs, start, end, place)
        truth = self.truth
        beside = None if truth is None else truth.measure(outputs, start, end, first, place)

        def note() -> None:
            self._heard = True
            self._sure.add(sure)
            if truth is not None and beside is not None:
                truth.add(beside)

        return note

    def features(
        self, labels_ZHW: NDArray[np.uint8], thumbnail: NDArray[np.float64] | None
    ) -> Features:
        """Return all features.

        Args:
            labels_ZHW: the structures, along the training's axes.
            thumbnail: the training's; None if there is none yet.
        """
        found = self._grid | self._input.features()
        found |= structure_features(labels_ZHW, self._names, self._spacing_mm)
        if self._heard:
            found |= self._sure.features(self._names)
        if thumbnail is not None:
            found |= layout_features(self.thumbnail, thumbnail)
        return found


class QualityMonitor:
    """Assesses every case that a `Predictor` segments.

    Args:
        reference: the ranges that cases are assessed by; None collects features only.
        calibration: cases have labels, and confidences are compared with them.
        pixels: of each case that are kept to fit a temperature to.

    Attributes:
        assessments: case id → what is to be told of it.
        features: case id → its features, where there is nothing to assess by.
        tables_2B3: reliability of all cases, before and after, see `metrics.calibration`.
        samples, errors: see `CalibrationAccumulator`.
    """

    def __init__(
        self, reference: ReferenceRanges | None, *, calibration: bool = False, pixels: int = 0
    ) -> None:
        self.assessments: dict[str, CaseAssessment] = {}
        self.features: dict[str, Features] = {}
        self.tables_2B3 = np.zeros((2, BINS, COLUMNS))
        self.samples: list[tuple[NDArray[np.float32], NDArray[np.uint8]]] = []
        self.errors: list[float] = []
        self.temperature = 1.0 if reference is None else reference.temperature
        self.thumbnail: NDArray[np.float64] | None = None
        if reference is not None and reference.thumbnail:
            self.thumbnail = np.array(reference.thumbnail).reshape(SIDE, SIDE)
        self._reference = reference
        self._calibration = calibration
        self._pixels = pixels

    def begin(
        self, case: Case, preprocessing: Preprocessing, label_names: Sequence[str]
    ) -> CaseMonitor:
        """Begin with a case."""
        case = preprocessing.to_plane(case)
        watch = CaseMonitor(case, preprocessing, label_names, self.temperature)
        if self._calibration and case.label is not None:
            from msa2net.quality.calibration import CalibrationAccumulator

            truth_Zhw = preprocessing.label_slices(np.asarray(case.label))
            watch.truth = CalibrationAccumulator(truth_Zhw, self.temperature, self._pixels)
        return watch

    def finish(self, watch: CaseMonitor, labels_ZHW: NDArray[np.uint8]) -> None:
        """End with a case, whose structures are known now."""
        features = watch.features(labels_ZHW, self.thumbnail)
        if self._reference is None:
            self.features[watch.case_id] = features
        else:
            self.assessments[watch.case_id] = assess(features, self._reference)
        if watch.truth is not None:
            self.tables_2B3 += watch.truth.tables_2B3
            self.samples += watch.truth.samples
            error = watch.truth.error
            self.errors += [] if error is None else [error]
