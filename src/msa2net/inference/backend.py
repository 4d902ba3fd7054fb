"""What the engine asks of networks, whatever computes them: torch, or the ONNX runtime.

Axes: B slices, C channels, K classes, k some of them; h, w are rows and columns of the network's
input, H and W of a case.
"""

from collections.abc import Callable
from typing import Any, Literal, Protocol, get_args

import numpy as np
from numpy.typing import NDArray

from msa2net.data.placement import ResizePad
from msa2net.data.preprocessing import Preprocessing
from msa2net.errors import ConfigError

Mode = Literal["resize", "sliding"]
"""Whether a slice is brought to the network's size, or windows of that size slide over it."""

Flip = tuple[int, ...]
"""The axes of (B, C, h, w) along which an image is mirrored: −1 left–right, −2 top–bottom."""

PredictionPrecision = Literal["float32", "bfloat16"]
"""What networks compute in. Softmax, resampling and averages are always float32."""

DEFAULT_BATCH = 16
"""Slices at once in the computer's own memory: larger batches are no faster on a CPU."""

ANSWER_BYTES = 64 * 2**20
"""What a network may answer at once there: of many classes, or large inputs, fewer slices."""


def default_batch_size(slice_bytes: int, most: int | None) -> int:
    """Return how many slices go through a network at once in the computer's own memory.

    That memory is bounded instead of measured: a program that takes too much of it is killed.

    Args:
        slice_bytes: of the answer to one slice, (K, h, w) float32.
        most: slices that somebody allows; None is `DEFAULT_BATCH`.
    """
    return max(1, min(most or DEFAULT_BATCH, ANSWER_BYTES // slice_bytes))


def require_precision(precision: str) -> None:
    """Refuse a precision that there is not.

    Raises:
        ConfigError: naming those that there are.
    """
    known = get_args(PredictionPrecision)
    if precision not in known:
        raise ConfigError(f"there is no precision '{precision}'; use {' or '.join(known)}")


def require_batch(batch_slices: int | None) -> None:
    """Refuse a number of slices at once that is none; None chooses.

    Raises:
        ConfigError: it is below 1.
    """
    if batch_slices is not None and batch_slices < 1:
        raise ConfigError(f"a batch of {batch_slices} slices is none; use 1 or more")


class Backend(Protocol):
    """Networks with the same preprocessing, and the arithmetic of what they answer.

    Their answers are arrays of their own kind, such as tensors on a GPU: the engine only hands
    them back.
    """

    @property
    def preprocessing(self) -> Preprocessing:
        """How images become their inputs."""

    @property
    def count(self) -> int:
        """How many networks the mean is of."""

    def probabilities(
        self,
        unit_BChw: NDArray[np.float32],
        batch: int,
        mode: Mode,
        overlap: float,
        answers: Any = None,
        /,
    ) -> Any:
        """Return the networks' mean class probabilities (B, K, h, w) for slices in [0, 1].

        `answers`, if there is one, takes down what each network says of resized slices; see
        `confidence.MemberOutputs`.
        """

    def on_grid(
        self,
        values_Bkhw: Any,
        size: tuple[int, int],
        placement: ResizePad,
        weight: int,
        band: slice,
        /,
    ) -> Any:
        """Resample an answer to a band of a case's rows (H, W), and multiply it by the weight."""

    def add(self, one: Any, other: Any, /) -> Any:
        """Return the sum of two answers on one grid; the other may be another group's."""

    def largest(self, values_BkHW: Any, /) -> tuple[Any, Any]:
        """Return the largest values (B, H, W), and as uint8 which they are, the first of equals."""

    def as_array(self, labels_BHW: Any, /) -> NDArray[np.uint8]:
        """Return labels in the computer's own memory."""

    def probe(self, count: int, /) -> None:
        """Send that many slices of nothing through the networks."""

    def choose_batch_size(
        self, run: Callable[[int], object], slice_bytes: int, most: int | None, /
    ) -> int:
        """Return how many slices may go through all networks at once.

        Args:
            run: sends that many slices through all of them, for measuring.
            slice_bytes: of the answer to one of them.
            most: slices that somebody allows.
        """

    def halved_batch_size(self, batch: int, /) -> int:
        """Return what to try after a batch that did not fit into memory.

        Raises:
            ConfigError: it was of a single slice.
        """


def count_windows(size: tuple[int, int], window: tuple[int, int], overlap: float) -> int:
    """Return how many windows MONAI lays over an image of (rows, columns)."""
    count = 1
    for length, side in zip(size, window, strict=True):
        step = max(1, int(side * (1 - overlap)))
        count *= 1 + max(0, -(-(length - side) // step))
    return count
