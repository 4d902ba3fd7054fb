"""Weights by rule, so that golden outputs need no weight file (see golden/README.md)."""

import json
import math
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor


def weight_by_rule(key: str, shape: list[int]) -> Tensor:
    z = np.random.default_rng(zlib.crc32(key.encode())).standard_normal(shape)
    word = key.rsplit(".", 1)[-1]
    if word == "num_batches_tracked":
        return torch.zeros(shape, dtype=torch.int64)
    if word == "running_var":
        value = 1 + 0.25 * np.tanh(z)
    elif word == "running_mean":
        value = 0.1 * z
    elif word == "bias":
        value = 0.05 * z
    elif len(shape) <= 1 or word == "temperature":
        value = 1 + 0.1 * z
    else:
        value = z / math.sqrt(math.prod(shape[1:]))
    return torch.from_numpy(np.asarray(value, dtype=np.float32))


def published_state(manifest: Path) -> dict[str, Tensor]:
    """Make the state dict that a manifest lists."""
    entries = json.loads(manifest.read_text())["entries"]
    return {key: weight_by_rule(key, shape) for key, shape, *_ in entries}
