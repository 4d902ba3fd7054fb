"""Drawn torsos and a network that needs no training: what flags are tested with.

Axes: C channels, Z slices, H rows, W columns, K classes.
"""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import nn

from msa2net.data.case import Case, Geometry
from msa2net.data.prepared.store import Store, StoredCase
from msa2net.data.preprocessing import Preprocessing

NAMES = ("background", "liver", "spleen", "aorta")
HU = (-60.0, 60.0, 130.0, 260.0)  # of each class; background within the body is fat
LOW, HIGH = -200.0, 300.0
PREPROCESSING = Preprocessing(channels=1, image_size=(64, 64), low=LOW, high=HIGH)


def torso(index: int) -> Case:
    """A large organ on the left of the slices, a smaller one on the right, a vessel at the back."""
    rng = np.random.default_rng([7, index])
    shape = (int(rng.integers(6, 9)), 64, 64)
    z, y, x = np.meshgrid(*(np.linspace(-1, 1, side) for side in shape), indexing="ij")

    def inside(center, radii, jitter=0.04):
        center = np.array(center) + rng.normal(0, jitter, 3)
        radii = np.array(radii) * rng.uniform(0.9, 1.1, 3)
        return (((np.stack([z, y, x], -1) - center) / radii) ** 2).sum(-1) < 1

    image = np.full(shape, -1000.0)
    body = inside((0, 0, 0), (9, 0.8, 0.95), 0.01)
    image[body] = HU[0]
    label = np.zeros(shape, np.uint8)
    label[inside((0.2, 0, -0.45), (0.7, 0.45, 0.35))] = 1
    label[inside((0.3, 0.1, 0.5), (0.5, 0.3, 0.2))] = 2
    label[inside((0, 0.45, 0.05), (9, 0.12, 0.1), 0.02)] = 3
    for value in (1, 2, 3):
        image[label == value] = HU[value] + rng.normal(0, 4)
    image += rng.normal(0, 8, shape)
    spacing_mm = (float(rng.uniform(7, 9)), 5.0, 5.0)
    geometry = Geometry.from_spacing(spacing_mm)
    return Case(f"torso_{index:03d}", image[None].round().astype(np.int16), label, geometry)


class ByValue(nn.Module):
    """Answers every pixel by its value, and is sure of the values it knows."""

    def __init__(self, sharpness: float = 900.0) -> None:
        super().__init__()
        unit = (torch.tensor([*HU[:1], -1000.0, *HU[1:]]) - LOW) / (HIGH - LOW)
        self.register_buffer("values", unit.clamp(0, 1) * 2 - 1)
        self.sharpness = sharpness

    def forward(self, image_BCHW: torch.Tensor) -> torch.Tensor:
        far_B5HW = self.sharpness / 4 * (image_BCHW[:, :1] - self.values.view(1, -1, 1, 1)) ** 2
        background = far_B5HW[:, :2].amin(dim=1, keepdim=True)  # fat or air
        return -torch.cat([background, far_B5HW[:, 2:]], dim=1)


@dataclass(frozen=True)
class MemoryStore(Store):
    """A store whose cases are drawn when they are asked for."""

    drawn: dict[str, Case] = field(default_factory=dict)

    def case(self, case_id: str) -> Case:
        return self.drawn[case_id]


def torsos(train: int, val: int, test: int) -> MemoryStore:
    """A store of drawn torsos."""
    counts = {"train": train, "val": val, "test": test}
    splits = [split for split, count in counts.items() for _ in range(count)]
    cases = [torso(index) for index in range(len(splits))]
    rows = tuple(
        StoredCase(
            id=case.id, split=split, shape=case.image.shape, geometry=case.geometry.to_json(),
            files=[], recipe="", patient=case.id,
        )
        for case, split in zip(cases, splits, strict=True)
    )  # fmt: skip
    return MemoryStore(
        root=Path("nowhere"), format="drawn", kind="volume", label_names=NAMES, channels=1,
        intensity="fixed", low=LOW, high=HIGH, cases=rows, drawn={case.id: case for case in cases},
    )  # fmt: skip
