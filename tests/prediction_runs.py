"""Run folders with small untrained networks, whose answers are noise and not nothing."""

from pathlib import Path

import torch

from msa2net.config import NetworkConfig
from msa2net.data.preprocessing import Preprocessing
from msa2net.inference.run_folder import ModelMetadata, save_run
from msa2net.models.registry import create_model

NAMES = ("background", "liver", "spleen")


def write_run(
    folder: Path, *, channels: int = 1, names=NAMES, seed: int = 0, scale: float = 30, **facts
) -> Path:
    """Write a run folder; a head `scale` times as strong keeps answers far from ties."""
    network = NetworkConfig(
        name="msa2net", encoder="test_maxvit", num_classes=len(names), in_channels=channels,
        image_size=(32, 32),
    )  # fmt: skip
    torch.manual_seed(seed)
    model = create_model(**network.model_dump())
    with torch.no_grad():
        model.head.weight *= scale
    preprocessing = {"low": -1000.0, "high": 1000.0} if channels == 1 else {}
    save_run(
        folder,
        model,
        ModelMetadata(
            network=network,
            label_names=names,
            preprocessing=Preprocessing(channels=channels, image_size=(32, 32), **preprocessing),
            **facts,
        ),
    )
    return folder
