"""What a benchmark measures, and on what."""

from dataclasses import dataclass, replace

import torch

from msa2net.errors import ConfigError
from msa2net.options import PredictionPrecision


@dataclass(frozen=True)
class Settings:
    """One benchmark.

    Attributes:
        device: where networks compute.
        precision: what they compute in.
        model: a name of `msa2net models`.
        encoder: None is the network's own.
        image_size: side of its input.
        classes: background included.
        batch: of the training step, and of the loss.
        batch_slices: at once in prediction; None chooses for the device.
        slices: of the volume.
        side: of its slices.
        repeats: of every measurement.
        compile: whether prediction compiles the network, and on a GPU the training step and the
            loss too; the first call of each, not measured, then takes minutes.
    """

    device: torch.device
    precision: PredictionPrecision = "float32"
    model: str = "msa2net"
    encoder: str | None = None
    image_size: int = 224
    classes: int = 9
    batch: int = 20
    batch_slices: int | None = None
    slices: int = 148
    side: int = 512
    repeats: int = 5
    compile: bool = False

    def __post_init__(self) -> None:
        if self.repeats < 1 or self.batch < 2 or self.slices < 1:
            raise ConfigError(
                f"repeats={self.repeats}, batch={self.batch}, slices={self.slices} cannot be "
                "measured; use at least 1 repeat, a batch of 2 (batch norm needs them) and 1 slice"
            )

    @property
    def compiles_training(self) -> bool:
        """Whether the training step is compiled; on a CPU that takes longer than it gains."""
        return self.compile and self.device.type == "cuda"

    def on(self, device: torch.device) -> "Settings":
        """Return the same for another device."""
        return replace(self, device=device)


def settings_for(
    device: torch.device,
    *,
    quick: bool = False,
    precision: PredictionPrecision | None = None,
    model: str = "msa2net",
    batch: int | None = None,
    slices: int | None = None,
    repeats: int | None = None,
    compile: bool = False,
) -> Settings:
    """Choose what fits a device, where nothing is said: minutes on a CPU as on a GPU.

    Args:
        device: where networks compute.
        quick: a tiny network and a tiny volume, to see that everything runs; no figure of it says
            anything.
        precision: None is bfloat16 on GPUs that compute in it, float32 elsewhere.
        model: a name of `msa2net models`.
        batch: of a training step; None is 20 (4 on a CPU).
        slices: of the volume; None is 148 (16 on a CPU).
        repeats: of every measurement; None is 5 (3 on a CPU).
        compile: see `Settings`.
    """
    gpu = device.type == "cuda"
    if precision is None:
        has_it = gpu and torch.cuda.is_bf16_supported(including_emulation=False)
        precision = "bfloat16" if has_it else "float32"
    if quick:
        return Settings(
            device,
            precision,
            model,
            encoder="test_maxvit",
            image_size=64,
            batch=2 if batch is None else batch,
            slices=8 if slices is None else slices,
            side=96,
            repeats=2 if repeats is None else repeats,
            compile=compile,
        )
    return Settings(
        device,
        precision,
        model,
        batch=(20 if gpu else 4) if batch is None else batch,
        slices=(148 if gpu else 16) if slices is None else slices,
        repeats=(5 if gpu else 3) if repeats is None else repeats,
        compile=compile,
    )
