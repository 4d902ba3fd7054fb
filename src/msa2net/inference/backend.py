"""What the engine asks of networks, whatever computes them: torch, or the ONNX runtime.

Axes: B slices, C channels, K classes, k some of them; h, w are rows and columns of the network's
input, H and W of a case.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from msa2net.data.preprocessing import Preprocessing
from msa2net.data.resampling import ResizePad
from msa2net.errors import MORE_MEMORY, ConfigError
from msa2net.options import Mode
from msa2net.quality.confidence import MemberOutputs

DEFAULT_BATCH = 16
"""Slices at once in the computer's own memory: larger batches are no faster on a CPU."""

OUTPUT_BYTES = 64 * 2**20
"""What a network may put out at once there: of many classes, or large inputs, fewer slices."""


class Backend(ABC):
    """Networks with the same preprocessing, and the arithmetic of their outputs.

    Outputs are arrays of the backend's own kind, such as tensors on a GPU: the engine only hands
    them back.

    Attributes:
        preprocessing: how images become inputs.
        count: how many networks the mean is of.
        device: where the first network computes.
    """

    device: Any = "cpu"

    def __init__(self, preprocessing: Preprocessing, count: int = 1) -> None:
        self.preprocessing = preprocessing
        self.count = count

    @abstractmethod
    def probabilities(
        self,
        unit_BChw: NDArray[np.float32],
        batch: int,
        mode: Mode = "resize",
        overlap: float = 0.5,
        outputs: MemberOutputs | None = None,
    ) -> Any:
        """Return the networks' mean class probabilities (B, K, h, w).

        Args:
            unit_BChw: slices in [0, 1].
            batch: windows that go through a network at once; resized slices go all together.
            mode: see `Mode`.
            overlap: of neighbouring windows, as a share of their sides.
            outputs: takes down those of each network, and for each mirrored copy; of resized
                slices.
        """

    @abstractmethod
    def largest(self, values_BkHW: Any) -> tuple[Any, Any]:
        """Return the largest values (B, H, W), and as uint8 which they are, the first of equals."""

    @abstractmethod
    def as_array(self, labels_BHW: Any) -> NDArray[np.uint8]:
        """Return labels in the computer's own memory."""

    def like(self, matrix: NDArray[np.float32], _values: Any) -> Any:
        """Return a matrix as an array of the values' kind, where they lie."""
        return matrix

    def on_grid(
        self,
        values_Bkhw: Any,
        size: tuple[int, int],
        placement: ResizePad,
        weight: int,
        band: slice = slice(None),
    ) -> Any:
        """Resample values to a band of a case's rows (H, W), and multiply them by the weight."""
        resized_BkHW = self.preprocessing.invert(
            values_Bkhw, size, lambda matrix: self.like(matrix, values_Bkhw), placement, band
        )
        return resized_BkHW if weight == 1 else resized_BkHW * weight

    def add(self, one: Any, other: Any) -> Any:
        """Return the sum of two outputs on one grid; the other may be another backend's."""
        return one + other

    def probe(self, count: int) -> None:
        """Send that many empty slices through the networks, to measure the memory it takes."""
        p = self.preprocessing
        self.probabilities(np.zeros((count, p.channels, *p.image_size), np.float32), count)

    def choose_batch_size(
        self, _run: Callable[[int], object], slice_bytes: int, most: int | None
    ) -> int:
        """Return how many slices may go through all networks at once.

        The computer's own memory is bounded instead of measured: a program that takes too much of
        it is killed.

        Args:
            _run: sends that many slices through all of them, for measuring.
            slice_bytes: of the output for one slice, (K, h, w) float32.
            most: slices that somebody allows; None is `DEFAULT_BATCH`.
        """
        return max(1, min(most or DEFAULT_BATCH, OUTPUT_BYTES // slice_bytes))

    def halved_batch_size(self, batch: int) -> int:
        """Return half a batch, after one did not fit into memory.

        Raises:
            ConfigError: it was of a single slice.
        """
        if batch == 1:
            elsewhere = "end what else runs there, or use the device cpu"
            remedy = MORE_MEMORY if str(self.device) == "cpu" else elsewhere
            raise ConfigError(
                f"a single slice does not fit into the memory of {self.device}; {remedy}"
            )
        return batch // 2
