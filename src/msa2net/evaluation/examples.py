"""Cases to look at: which ones, which of their slices, and the files that hold them."""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from msa2net.files import atomic_path
from msa2net.metrics.protocol import CaseRow
from msa2net.metrics.summary import mean_dice

MAX_EXAMPLE_SLICES = 24
MAX_EXAMPLE_BYTES = 2**29  # of a file's arrays: so many slices of 2048²
RANKS = ("worst", "median", "best")
PER_RANK = {"photograph": 2, "volume": 1}  # cases; a volume brings many slices of its own


def rank_cases(rows: list[CaseRow], count: int) -> dict[str, str]:
    """Choose the worst, median and best cases by mean Dice; returns id → rank.

    Cases without any applicable Dice are left out; no case is chosen twice.
    """
    by_case: dict[str, list[CaseRow]] = {}
    for row in rows:
        by_case.setdefault(row["case"], []).append(row)
    dice = {case_id: mean_dice(own) for case_id, own in by_case.items()}
    scored = {case_id: value for case_id, value in dice.items() if value is not None}
    order = sorted(scored, key=lambda case_id: (scored[case_id], case_id))
    middle = max(0, (len(order) - count) // 2)
    chosen = dict.fromkeys(order[:count], "worst")
    for rank, ids in (("best", order[-count:]), ("median", order[middle : middle + count])):
        for case_id in ids:
            chosen.setdefault(case_id, rank)
    return chosen


def example_slices(truth_ZHW: Any, prediction_ZHW: Any) -> list[int]:
    """Choose at most `MAX_EXAMPLE_SLICES`, evenly over the slices that hold any label."""
    labelled = np.flatnonzero(
        (truth_ZHW > 0).any(axis=(1, 2)) | (prediction_ZHW > 0).any(axis=(1, 2))
    )
    if not labelled.size:
        return [truth_ZHW.shape[0] // 2]
    count = min(MAX_EXAMPLE_SLICES, len(labelled))
    return [
        int(index)
        for index in labelled[np.linspace(0, len(labelled) - 1, count).round().astype(int)]
    ]


def pack_example(
    pictures_ZHW3: NDArray[np.uint8],
    truth_ZHW: NDArray[np.uint8],
    prediction_ZHW: NDArray[np.uint8],
) -> bytes:
    """Return an example's file, compressed, so that few of them wait in little memory."""
    packed = io.BytesIO()
    np.savez_compressed(packed, image=pictures_ZHW3, truth=truth_ZHW, prediction=prediction_ZHW)
    return packed.getvalue()


def example_name(rank: str, case_id: str) -> str:
    """Return the name of an example's file."""
    return f"{rank}-{case_id}.npz"


def write_examples(folder: Path, packed: Mapping[str, bytes]) -> None:
    """Write examples by their names; those of an earlier evaluation go, other files stay.

    Raises:
        DataError: the folder cannot be written.
    """
    for name, content in packed.items():
        with atomic_path(folder / name) as temporary:
            temporary.write_bytes(content)
    for rank in RANKS:
        for path in folder.glob(f"{rank}-*.npz"):
            if path.name not in packed:
                path.unlink()
