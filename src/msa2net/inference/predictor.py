"""`Predictor`: from a path, an array or a Case to a Segmentation on the same grid.

Axes: C channels, Z slices, H rows, W columns, K classes; h, w are the network's rows and columns.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from msa2net.data.case import Case, Geometry, Segmentation
from msa2net.data.preprocessing import Preprocessing, ValueRange
from msa2net.data.readers import read_channels, read_path, stem
from msa2net.errors import DataError
from msa2net.inference.run_folder import load_run

WayBack = Literal["probabilities", "labels"]
"""What is resampled to a case's own grid: class probabilities, or only the most probable class."""


@dataclass
class _Pending:
    """A case of which some slices are still on their way through the network.

    Attributes:
        case: it.
        labels: (Z, H, W) for each way back to the case's grid that is asked for.
        done: slices finished.
    """

    case: Case
    labels: dict[WayBack, NDArray[np.uint8]]
    done: int = 0


class Predictor:
    """A network with everything needed to apply it.

    Attributes:
        model: the network, in evaluation mode and on its device while predicting.
        preprocessing: how images become inputs.
        label_names: one name per class, background first.
        batch_slices: slices that go through the network at once; they may be of several cases.
    """

    def __init__(
        self,
        model: nn.Module,
        preprocessing: Preprocessing,
        label_names: tuple[str, ...],
        batch_slices: int = 16,
    ) -> None:
        self.model = model
        self.preprocessing = preprocessing
        self.label_names = label_names
        self.batch_slices = batch_slices

    @classmethod
    def load(cls, run: str | Path, device: str = "auto", batch_slices: int = 16) -> "Predictor":
        """Load a run folder's network.

        Args:
            run: folder with `model.json` and `model.safetensors`.
            device: cpu, cuda, cuda:1, mps, or auto (the best there is).
            batch_slices: lower it when memory runs out.

        Raises:
            WeightsError: not a run folder, or its weights do not fit.
            ConfigError: no such device.
        """
        loaded = load_run(Path(run), device)
        return cls(loaded.model, loaded.preprocessing, loaded.label_names, batch_slices)

    def __call__(
        self,
        source: str | Path | Sequence[str | Path] | NDArray[Any] | Case,
        spacing_mm: tuple[float, ...] | None = None,
    ) -> Segmentation:
        """Segment one image.

        Args:
            source: a file, a list of files (the channels of one volume, in order), a Case, or an
                array (H, W), (H, W, 3) for colour, or (Z, H, W).
            spacing_mm: of an array's voxels along (Z, H, W); None if unknown.

        Raises:
            DataError: unreadable, or of another kind than the network was trained for.
        """
        if isinstance(source, str | Path):
            case = read_path(Path(source))
        elif isinstance(source, Case):
            case = source
        elif isinstance(source, Sequence):
            files = [Path(path) for path in source]
            case = read_channels(files, stem(files[0]))
        else:
            case = _case_from_array(source, spacing_mm)
        return next(self.segment([case]))

    def segment(self, cases: Iterable[Case]) -> Iterator[Segmentation]:
        """Segment cases one after another, filling batches across their borders.

        Memory holds one batch of slices and the labels of the cases in it; class probabilities
        exist for one batch only. Results come in the order of the cases.
        """
        return (segmentation for (segmentation,) in self._segment(cases, ("probabilities",)))

    def segment_both_ways(
        self, cases: Iterable[Case]
    ) -> Iterator[tuple[Segmentation, Segmentation]]:
        """Segment cases once, and go back to their grids twice: as `segment`, and as published.

        The published evaluation of volumes takes the most probable class at the network's size
        and enlarges that by nearest neighbour, see `Preprocessing.invert_labels`.
        """
        found = self._segment(cases, ("probabilities", "labels"))
        return ((own, published) for own, published in found)

    def _segment(
        self, cases: Iterable[Case], ways: tuple[WayBack, ...]
    ) -> Iterator[tuple[Segmentation, ...]]:
        was_training = self.model.training
        self.model.eval()
        try:
            yield from self._segment_in_evaluation_mode(cases, ways)
        finally:
            self.model.train(was_training)

    def _segment_in_evaluation_mode(
        self, cases: Iterable[Case], ways: tuple[WayBack, ...]
    ) -> Iterator[tuple[Segmentation, ...]]:
        pending: list[_Pending] = []
        queue: list[tuple[_Pending, int, NDArray[np.float32]]] = []
        for case in cases:
            shape = case.image.shape[1:]
            owner = _Pending(case, {way: np.zeros(shape, dtype=np.uint8) for way in ways})
            pending.append(owner)
            value_range = self._value_range(case)
            for index in range(shape[0]):
                image = case.image[:, index : index + 1]
                queue.append((owner, index, self.preprocessing.unit_slices(image, value_range)))
                if len(queue) == self.batch_slices:
                    self._run(queue)
                    queue.clear()
            while pending and pending[0].done == pending[0].case.image.shape[1]:
                yield self._finish(pending.pop(0))
        if queue:
            self._run(queue)
        yield from map(self._finish, pending)

    def _value_range(self, case: Case) -> ValueRange:
        """Look at the whole image once, before any of it is segmented."""
        try:
            self.preprocessing.check_channels(case.image.shape[0])
            return self.preprocessing.intensity_range(case.image)
        except DataError as error:
            raise DataError(f"{case.source or case.id}: {error}") from error

    def _run(self, queue: list[tuple[_Pending, int, NDArray[np.float32]]]) -> None:
        unit_BChw = np.concatenate([unit for _, _, unit in queue])
        probability_BKhw = self._probabilities(torch.from_numpy(unit_BChw))
        for start, end in _same_owner(queue):
            owner, first = queue[start][:2]
            for way, labels_ZHW in owner.labels.items():
                back = self._back_to_grid(probability_BKhw[start:end], labels_ZHW.shape[1:], way)
                labels_ZHW[first : first + end - start] = back
            owner.done += end - start

    @torch.inference_mode()
    def _probabilities(self, unit_BChw: Tensor) -> Tensor:
        device = next(self.model.parameters()).device
        image_BChw = self.preprocessing.standardise(unit_BChw.to(device))
        logits_BKhw: Tensor = self.model(image_BChw)
        return logits_BKhw.float().softmax(dim=1)

    @torch.inference_mode()
    def _back_to_grid(
        self, probability_ZKhw: Tensor, size: tuple[int, ...], way: WayBack
    ) -> NDArray[np.uint8]:
        """Return labels (Z, H, W) of the case's size (H, W)."""
        if way == "labels":
            labels_Zhw = probability_ZKhw.argmax(dim=1).to(torch.uint8).cpu().numpy()
            return self.preprocessing.invert_labels(labels_Zhw, (size[0], size[1]))
        device = probability_ZKhw.device
        resized_ZKHW = self.preprocessing.invert(
            probability_ZKhw,
            (size[0], size[1]),
            convert=lambda matrix: torch.tensor(matrix, device=device),
        )
        labels: NDArray[np.uint8] = resized_ZKHW.argmax(dim=1).to(torch.uint8).cpu().numpy()
        return labels

    def _finish(self, pending: _Pending) -> tuple[Segmentation, ...]:
        case = pending.case
        return tuple(
            Segmentation(case.id, labels_ZHW, self.label_names, case.geometry)
            for labels_ZHW in pending.labels.values()
        )


def _same_owner(queue: list[tuple[_Pending, int, Any]]) -> Iterator[tuple[int, int]]:
    """Yield (start, end) of the runs of slices that belong to the same case."""
    start = 0
    for end in range(1, len(queue) + 1):
        if end == len(queue) or queue[end][0] is not queue[start][0]:
            yield start, end
            start = end


def _case_from_array(array: NDArray[Any], spacing_mm: tuple[float, ...] | None) -> Case:
    """Make a Case of (H, W), (H, W, 3) or (Z, H, W); colour is told by its last axis of 3."""
    if array.ndim == 2:
        image_CZHW = array[None, None]
    elif array.ndim == 3 and array.shape[-1] == 3:
        image_CZHW = array.transpose(2, 0, 1)[:, None]
    elif array.ndim == 3 and array.shape[-1] != 4:
        image_CZHW = array[None]
    else:
        raise DataError(
            f"an array of shape {array.shape} is not understood: give (H, W), (H, W, 3) for "
            "colour without transparency, (Z, H, W) for a volume, or a Case"
        )
    if spacing_mm is None:
        return Case("array", image_CZHW)
    depth, height, width = spacing_mm
    return Case("array", image_CZHW, geometry=Geometry.from_spacing((depth, height, width)))
