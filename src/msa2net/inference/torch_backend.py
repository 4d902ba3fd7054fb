"""Networks that see the same inputs, and the mean of what they find probable.

Axes: B slices, C channels, K classes, k some of them; h, w are rows and columns of the network's
input, or of the whole slice at the input's scale where windows slide over it.
"""

import importlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from msa2net.data.placement import ResizePad
from msa2net.data.preprocessing import Preprocessing
from msa2net.errors import ConfigError
from msa2net.inference.backend import Flip, Mode, PredictionPrecision
from msa2net.inference.batch_size import choose_batch_size, halved_batch_size
from msa2net.inference.bfloat16 import check_precision, computing_in, to_bfloat16
from msa2net.inference.compiled import Answer, compile_network, in_full_batches
from msa2net.quality.confidence import MemberOutputs
from msa2net.quality.reference_ranges import ReferenceRanges


@dataclass(frozen=True, eq=False)
class EnsembleMember:
    """One network of an ensemble.

    In bfloat16 it holds a copy with to_bfloat16 weights: the network that was given stays as it is.

    Attributes:
        model: (B, C, h, w) → logits (B, K, h, w).
        preprocessing: how images become its inputs.
        flips: the mirrored copies of an input whose answers are averaged with the plain one's.
        usual: of its training's cases; None if it was not noted.
        precision: what the network computes in.
        compile: whether it is compiled at its first batch, see `compile_network`.

    Raises:
        ConfigError: no such precision, or the network's device does not compute in it.
    """

    model: nn.Module
    preprocessing: Preprocessing
    flips: tuple[Flip, ...] = ()
    usual: ReferenceRanges | None = None
    precision: PredictionPrecision = "float32"
    compile: bool = False
    _compiled: Answer | None = field(init=False, repr=False, default=None)

    def __post_init__(self) -> None:
        device = device_of(self.model)
        check_precision(self.precision, device)
        if self.precision == "bfloat16":
            object.__setattr__(self, "model", to_bfloat16(self.model))
        if self.compile:
            object.__setattr__(self, "_compiled", compile_network(self.model, device))

    def logits(self, image_BChw: Tensor, batch: int) -> Tensor:
        """Return (B, K, h, w) float32; a compiled network sees batches of `batch` only."""
        with computing_in(self.precision, image_BChw.device):
            if self._compiled is None:
                logits_BKhw: Tensor = self.model(image_BChw)
            else:
                logits_BKhw = in_full_batches(self._compiled, image_BChw, batch)
        return logits_BKhw.float()


class TorchBackend:
    """Members with the same preprocessing: their answers lie on one grid. See `Backend`.

    Attributes:
        preprocessing: theirs.
        members: at least one.
    """

    def __init__(self, members: Sequence[EnsembleMember]) -> None:
        self.preprocessing = members[0].preprocessing
        self.members = tuple(members)

    @property
    def count(self) -> int:
        """How many networks the mean is of."""
        return len(self.members)

    @property
    def device(self) -> torch.device:
        """Where the first network computes."""
        return device_of(self.members[0].model)

    @torch.inference_mode()
    def probabilities(
        self,
        unit_BChw: NDArray[np.float32] | Tensor,
        batch: int,
        mode: Mode = "resize",
        overlap: float = 0.5,
        answers: MemberOutputs | None = None,
    ) -> Tensor:
        """Return the members' mean class probabilities (B, K, h, w), on the first one's device.

        Args:
            unit_BChw: slices in [0, 1].
            batch: windows that go through a network at once; resized slices go all together.
            mode: see `Mode`.
            overlap: of neighbouring windows, as a share of their sides.
            answers: takes down what each member says, and of each mirrored copy; of resized slices.
        """
        mean_BKhw: Tensor | None = None
        if answers is not None:
            answers.networks = len(self.members)
        for member in self.members:
            device = device_of(member.model)
            image_BChw = self.preprocessing.standardise(torch.as_tensor(unit_BChw).to(device))
            with evaluating(member.model):
                if mode == "resize":
                    found_BKhw = _mirrored_mean(member, image_BChw, batch, answers)
                else:
                    found_BKhw = self._slide(member, image_BChw, batch, overlap)
            if mean_BKhw is None:
                mean_BKhw = found_BKhw
            else:
                mean_BKhw += found_BKhw.to(mean_BKhw.device)
        assert mean_BKhw is not None
        return mean_BKhw if len(self.members) == 1 else mean_BKhw / len(self.members)

    @torch.inference_mode()
    def on_grid(
        self,
        values_Bkhw: Tensor,
        size: tuple[int, int],
        placement: ResizePad,
        weight: int,
        band: slice = slice(None),
    ) -> Tensor:
        """Resample an answer to a band of a case's rows (H, W), and multiply it by the weight."""
        convert = partial(torch.tensor, device=values_Bkhw.device)
        resized_BkHW: Tensor = self.preprocessing.invert(
            values_Bkhw, size, convert, placement, band
        )
        return resized_BkHW if weight == 1 else resized_BkHW * weight

    @torch.inference_mode()
    def add(self, one: Tensor, other: Tensor) -> Tensor:
        """Return the sum of two answers on one grid, where the first one lies."""
        return one + other.to(one.device)

    @torch.inference_mode()
    def largest(self, values_BkHW: Tensor) -> tuple[Tensor, Tensor]:
        """Return the largest values (B, H, W), and as uint8 which they are, the first of equals."""
        found = values_BkHW.max(dim=1)  # on CPUs up to six times as fast as argmax
        return found.values, found.indices.to(torch.uint8)

    def as_array(self, labels_BHW: Tensor) -> NDArray[np.uint8]:
        """Return labels in the computer's own memory."""
        array_BHW: NDArray[np.uint8] = labels_BHW.cpu().numpy()
        return array_BHW

    def choose_batch_size(
        self, run: Callable[[int], object], slice_bytes: int, most: int | None
    ) -> int:
        """Return how many slices may go through all networks at once; see `batches`."""
        return choose_batch_size(self.device, run, slice_bytes, most)

    def halved_batch_size(self, batch: int) -> int:
        """Return half a batch; see `batches`."""
        return halved_batch_size(batch, self.device)

    def probe(self, count: int) -> None:
        """Send slices of nothing through the networks, to measure the memory it takes."""
        p = self.preprocessing
        self.probabilities(torch.zeros(count, p.channels, *p.image_size), count)

    def _slide(
        self, member: EnsembleMember, image_BChw: Tensor, batch: int, overlap: float
    ) -> Tensor:
        """Average windows, each weighted by a Gaussian about its centre; σ is 1/8 of a side."""
        answer: Tensor = sliding_window_inference()(
            image_BChw,
            roi_size=self.preprocessing.image_size,
            sw_batch_size=batch,
            predictor=lambda window_BChw: _mirrored_mean(member, window_BChw, batch),
            overlap=overlap,
            mode="gaussian",
            padding_mode="constant",
            cval=self.preprocessing.standardise(0.0),  # what `fit: pad` surrounds images with
        )
        return answer


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


def _mirrored_mean(
    member: EnsembleMember, image_BChw: Tensor, batch: int, answers: MemberOutputs | None = None
) -> Tensor:
    """Return the mean probabilities (B, K, h, w) of images and of their mirrored copies."""
    mean_BKhw = member.logits(image_BChw, batch).softmax(dim=1)
    if answers is not None:
        answers.add(mean_BKhw)
    for flip in member.flips:
        mirrored_BKhw = member.logits(image_BChw.flip(flip), batch).softmax(dim=1).flip(flip)
        if answers is not None:
            answers.add(mirrored_BKhw)
        mean_BKhw += mirrored_BKhw
    return mean_BKhw / (1 + len(member.flips)) if member.flips else mean_BKhw
