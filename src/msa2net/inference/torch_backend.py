"""Torch networks that see the same inputs, and the mean of their class probabilities.

Axes: B slices, C channels, K classes, k some of them; h, w are rows and columns of the network's
input, or of the whole slice at the input's scale where windows slide over it.
"""

import copy
import importlib
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from msa2net.data.preprocessing import Preprocessing
from msa2net.errors import ConfigError, is_out_of_memory
from msa2net.inference.backend import Backend
from msa2net.inference.compiled import Forward, compile_network, in_full_batches
from msa2net.models.lka import DilatedDepthwiseConv2d
from msa2net.options import Mode, PredictionPrecision
from msa2net.quality.confidence import MemberOutputs
from msa2net.quality.reference_ranges import ReferenceRanges

Flip = tuple[int, ...]
"""The axes of (B, C, h, w) along which an image is mirrored: −1 left–right, −2 top–bottom."""

LARGEST = 64
"""Slices at once; more gain nothing that could be measured, on any device."""

_SHARE = 0.8  # of the free memory: what comes after the network needs some too
_PROBE = 4


@dataclass(frozen=True, eq=False)
class EnsembleMember:
    """One network of an ensemble.

    In bfloat16 it holds a copy with reduced weights: the network that was given stays as it is.

    Attributes:
        model: (B, C, h, w) → logits (B, K, h, w).
        preprocessing: how images become its inputs.
        flips: the mirrored copies of an input whose outputs are averaged with the plain one's.
        reference_ranges: of its training's cases; None if they were not noted.
        precision: what the network computes in.
        compile: whether it is compiled at its first batch, see `compile_network`.

    Raises:
        ConfigError: no such precision, or the network's device does not compute in it.
    """

    model: nn.Module
    preprocessing: Preprocessing
    flips: tuple[Flip, ...] = ()
    reference_ranges: ReferenceRanges | None = None
    precision: PredictionPrecision = "float32"
    compile: bool = False
    _compiled: Forward | None = field(init=False, repr=False, default=None)

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


class TorchBackend(Backend):
    """Members with the same preprocessing: their outputs lie on one grid.

    Attributes:
        members: at least one.
    """

    def __init__(self, members: Sequence[EnsembleMember]) -> None:
        super().__init__(members[0].preprocessing, len(members))
        self.members = tuple(members)

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
        outputs: MemberOutputs | None = None,
    ) -> Tensor:
        """Return mean class probabilities, on the first member's device; see `Backend`."""
        mean_BKhw: Tensor | None = None
        if outputs is not None:
            outputs.networks = self.count
        for member in self.members:
            device = device_of(member.model)
            image_BChw = self.preprocessing.standardise(torch.as_tensor(unit_BChw).to(device))
            with evaluating(member.model):
                if mode == "resize":
                    found_BKhw = _mirrored_mean(member, image_BChw, batch, outputs)
                else:
                    found_BKhw = self._slide(member, image_BChw, batch, overlap)
            if mean_BKhw is None:
                mean_BKhw = found_BKhw
            else:
                mean_BKhw += found_BKhw.to(mean_BKhw.device)
        assert mean_BKhw is not None
        return mean_BKhw if self.count == 1 else mean_BKhw / self.count

    def like(self, matrix: NDArray[np.float32], values: Tensor) -> Tensor:
        """Return a matrix as a tensor beside others."""
        return torch.tensor(matrix, device=values.device)

    def add(self, one: Tensor, other: Tensor) -> Tensor:
        """Return the sum of two outputs on one grid, where the first one lies."""
        return one + other.to(one.device)

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
        """Return how many slices may go through all networks at once; CUDA's memory is measured.

        CUDA says itself when `most` are too many. Measuring resets its record of the highest
        memory use.
        """
        if self.device.type != "cuda":
            return super().choose_batch_size(run, slice_bytes, most)
        if most is not None:
            return most
        try:
            run(1)  # libraries allocate their workspaces at the first call
            one, several = _peak(self.device, run, 1), _peak(self.device, run, _PROBE)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            return 1
        free = torch.cuda.mem_get_info(self.device)[0]
        free += torch.cuda.memory_reserved(self.device) - torch.cuda.memory_allocated(self.device)
        return largest_batch_size(one, several, free)

    def halved_batch_size(self, batch: int) -> int:
        """Return half a batch, after one did not fit into memory; see `Backend`."""
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        return super().halved_batch_size(batch)

    def _slide(
        self, member: EnsembleMember, image_BChw: Tensor, batch: int, overlap: float
    ) -> Tensor:
        """Average windows, each weighted by a Gaussian about its centre; σ is 1/8 of a side."""
        mean_BKhw: Tensor = sliding_window_inference()(
            image_BChw,
            roi_size=self.preprocessing.image_size,
            sw_batch_size=batch,
            predictor=lambda window_BChw: _mirrored_mean(member, window_BChw, batch),
            overlap=overlap,
            mode="gaussian",
            padding_mode="constant",
            cval=self.preprocessing.standardise(0.0),  # what `fit: pad` surrounds images with
        )
        return mean_BKhw


def largest_batch_size(one: int, several: int, free: int) -> int:
    """Return the batch size that uses most of the free memory, from 1 to `LARGEST`.

    Args:
        one: bytes that a batch of 1 took at its highest.
        several: bytes that a batch of 4 took.
        free: bytes there are.
    """
    a_slice = max(1.0, (several - one) / (_PROBE - 1))
    fixed = max(0.0, one - a_slice)
    return int(min(LARGEST, max(1, (_SHARE * free - fixed) // a_slice)))


def _peak(device: torch.device, run: Callable[[int], object], count: int) -> int:
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    run(count)
    torch.cuda.synchronize(device)
    return torch.cuda.max_memory_allocated(device) - before


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
    member: EnsembleMember, image_BChw: Tensor, batch: int, outputs: MemberOutputs | None = None
) -> Tensor:
    """Return the mean probabilities (B, K, h, w) of images and of their mirrored copies."""
    mean_BKhw = member.logits(image_BChw, batch).softmax(dim=1)
    if outputs is not None:
        outputs.add(mean_BKhw)
    for flip in member.flips:
        mirrored_BKhw = member.logits(image_BChw.flip(flip), batch).softmax(dim=1).flip(flip)
        if outputs is not None:
            outputs.add(mirrored_BKhw)
        mean_BKhw += mirrored_BKhw
    return mean_BKhw / (1 + len(member.flips)) if member.flips else mean_BKhw


def check_precision(precision: PredictionPrecision, device: torch.device) -> None:
    """Check that a device computes in a precision.

    Raises:
        ConfigError: it does not.
    """
    if precision == "bfloat16" and not _computes_in_bfloat16(device):
        raise ConfigError(
            f"the device {device} does not compute in bfloat16; predict in float32 (without "
            "--bfloat16)"
        )


def to_bfloat16(model: nn.Module) -> nn.Module:
    """Return a copy with the weights of convolutions and linear layers in bfloat16.

    Autocast would reduce them anew for every batch, to the same numbers. What autocast leaves in
    float32 stays: norms, scales, and dilated depthwise convolutions (see there). A network that is
    to_bfloat16 already is returned itself.
    """
    if all(module.weight.dtype == torch.bfloat16 for module in _reducible(model)):
        return model
    model = copy.deepcopy(model)
    for module in _reducible(model):
        module.to(torch.bfloat16)
    return model


def _reducible(model: nn.Module) -> list[nn.Conv2d | nn.Linear]:
    return [
        module
        for module in model.modules()
        if isinstance(module, nn.Conv2d | nn.Linear)
        and not isinstance(module, DilatedDepthwiseConv2d)
    ]


def _computes_in_bfloat16(device: torch.device) -> bool:
    """Try it: there is no question that all kinds of devices answer."""
    image_BChw = torch.zeros(1, 1, 1, 1, device=device)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # MPS says so and goes on in float32
            with torch.autocast(device.type, torch.bfloat16):
                found_BChw = nn.functional.conv2d(image_BChw, image_BChw)
    except (RuntimeError, TypeError) as error:
        if is_out_of_memory(error):
            raise
        return False
    return found_BChw.dtype == torch.bfloat16


def computing_in(
    precision: PredictionPrecision, device: torch.device
) -> AbstractContextManager[Any]:
    """Return the context for a network's forward pass; of float32, what is around it counts."""
    if precision == "float32":
        return nullcontext()
    return torch.autocast(device.type, torch.bfloat16)
