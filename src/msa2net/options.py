"""How networks are applied: one checked object, made where a user says it and handed down whole."""

from dataclasses import dataclass
from typing import Literal, TypedDict, get_args

from msa2net.errors import ConfigError

Mode = Literal["resize", "sliding"]
"""Whether a slice is brought to the network's size, or windows of that size slide over it."""

PredictionPrecision = Literal["float32", "bfloat16"]
"""What networks compute in. Softmax, resampling and averages are always float32."""


@dataclass(frozen=True)
class InferenceOptions:
    """How networks are applied to images.

    Attributes:
        mode: `resize` brings slices to the network's size, as in training. `sliding` lays windows
            of that size over slices whose pixels are as large as in training, or, if that is not
            known (`Preprocessing.pixel_mm`), over the pixels as they are: then only for networks
            that were trained on images of this resolution. Slices smaller than a window are
            surrounded as by `fit: pad`.
        overlap: of neighbouring windows, as a share of their sides.
        flips: test-time augmentation: average with the outputs for mirrored images, along the axes
            that were mirrored in training.
        precision: `bfloat16` is nearly twice as fast where the device computes in it; single
            pixels at the borders of structures may come out otherwise.
        compile: let torch.compile fuse the networks' operations at the first batch, which takes
            minutes on a CPU and pays for hundreds of slices.
        device: cpu, cuda, cuda:1, mps, or auto (the best there is).
        batch_slices: slices (or windows) that go through a network at once, perhaps of several
            cases. None chooses for the device, and halves it where memory runs out. Except on
            CUDA, fewer where the outputs would take more than 64 MB.
        threads: of an exported network; None takes all cores. Torch's are a setting of the process.
        block_bytes: what probabilities on an image's own grid may take at any one time.

    Raises:
        ConfigError: no such mode or precision, an overlap outside [0, 1), or fewer than one slice
            or thread.
    """

    mode: Mode = "resize"
    overlap: float = 0.5
    flips: bool = False
    precision: PredictionPrecision = "float32"
    compile: bool = False
    device: str = "auto"
    batch_slices: int | None = None
    threads: int | None = None
    block_bytes: int = 128 * 2**20

    def __post_init__(self) -> None:
        for what, value, known in (
            ("mode", self.mode, get_args(Mode)),
            ("precision", self.precision, get_args(PredictionPrecision)),
        ):
            if value not in known:
                raise ConfigError(f"there is no {what} '{value}'; use {' or '.join(known)}")
        if not 0 <= self.overlap < 1:
            raise ConfigError(f"windows cannot overlap by {self.overlap}; use 0 or more, below 1")
        if self.batch_slices is not None and self.batch_slices < 1:
            raise ConfigError(f"a batch of {self.batch_slices} slices is none; use 1 or more")
        if self.threads is not None and self.threads < 1:
            raise ConfigError(f"{self.threads} threads are none; use 1 or more")


class NetworkKeywords(TypedDict, total=False):
    """What `Predictor` takes by keyword; see `InferenceOptions`."""

    mode: Mode
    overlap: float
    precision: PredictionPrecision
    compile: bool
    block_bytes: int


class InferenceKeywords(NetworkKeywords, total=False):
    """The fields of `InferenceOptions`, as `predict_files` takes them by keyword."""

    flips: bool
    device: str
    batch_slices: int | None
    threads: int | None
