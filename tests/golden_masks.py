"""Stored pairs of masks and what other libraries say of them (see golden/README.md)."""

import json
import math

import numpy as np

from paths import GOLDEN

GOLDEN_CASES = json.loads((GOLDEN / "metrics.json").read_text(encoding="utf-8"))["cases"]


def golden_masks(name):
    """Return a stored (prediction, truth) pair as bool arrays."""
    shape = GOLDEN_CASES[name]["shape"]
    with np.load(GOLDEN / "metrics_masks.npz") as packed:
        return tuple(
            np.unpackbits(packed[f"{name}_{part}"])[: math.prod(shape)].reshape(shape).astype(bool)
            for part in ("pred", "true")
        )
