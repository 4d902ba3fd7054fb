"""A small untrained network as a run folder, and exported."""

from pathlib import Path

import numpy as np
import torch

from msa2net.config import NetworkConfig
from msa2net.data.preprocessing import Preprocessing
from msa2net.export.onnx import export_onnx
from msa2net.inference.run_folder import ModelMetadata, save_run
from msa2net.models.registry import create_model
from msa2net.quality.reference_ranges import Range, ReferenceRanges

SIZE = (64, 64)
NAMES = ("background", "lesion")
USUAL = ReferenceRanges(
    train_cases=9,
    val_cases=9,
    temperature=1.7,
    ranges={
        "spacing:depth:": Range(low=-0.4, centre=0.0, high=0.4),
        "confidence:structure:lesion": Range(low=None, centre=-9.0, high=-8.9),
    },
    limits={"spacing": 1.0, "confidence": 1.0},
)
"""Pictures are usual, and a network much surer than this one."""


def write_run(folder: Path, seed: int = 0) -> Path:
    """Write a run folder for pictures, or grey volumes in LPS.

    Its answers must be far from ties, and not background alone: no untrained network's are by
    themselves. So the head weighs its channels by a hundred times as much, and its bias is chosen
    such that half of the pixels of some noise is lesion.
    """
    network = NetworkConfig(
        name="msa2net", encoder="test_maxvit", num_classes=2, in_channels=3, image_size=SIZE
    )
    torch.manual_seed(seed)
    model = create_model(**network.model_dump()).eval()
    with torch.inference_mode():
        model.head.weight *= 100
        image_BCHW = torch.from_numpy(np.random.default_rng(0).uniform(-1, 1, (2, 3, *SIZE)))
        logits_B2HW = model(image_BCHW.float())
        model.head.bias[1] -= (logits_B2HW[:, 1] - logits_B2HW[:, 0]).median()
    # The window is neither that of pictures alone nor that of CT alone, as both are to be taken.
    preprocessing = Preprocessing(
        channels=3, image_size=SIZE, low=0.0, high=250.0, orientation="LPS", mean=0.4, std=0.6
    )
    training = {"epochs": 0}
    facts = ModelMetadata(
        network=network,
        label_names=NAMES,
        preprocessing=preprocessing,
        training=training,
        reference_ranges=USUAL,
    )
    save_run(folder, model, facts)
    return folder


def write_exported_run(folder: Path) -> Path:
    """Write a run folder with its exported network, `model.onnx`, in it."""
    export_onnx(write_run(folder))
    return folder
