"""ISIC 2018 Task 1, skin lesions: the official folders and file names.

Source: https://challenge.isic-archive.com/data/#2018 (training input and ground truth).
"""

from functools import partial
from pathlib import Path

from msa2net.config import DataConfig
from msa2net.data.formats.file_names import Files, image_name
from msa2net.data.formats.images import read_pairs
from msa2net.data.formats.listing import by_name, raw_folder, subfolder
from msa2net.data.formats.source import EIGHT_BIT, Source, read_pair, source_cases
from msa2net.data.prepared.splits import read_split_lists, split_by_count, split_by_ratio

IMAGES = "ISIC2018_Task1-2_Training_Input"
MASKS = "ISIC2018_Task1_Training_GroundTruth"
LAYOUT = f"{IMAGES}/ and {MASKS}/"
LABEL_NAMES = ("background", "lesion")
# The published experiments sort 2,594 images by name and cut them at these counts.
PUBLISHED_TOTAL, PUBLISHED_TRAIN, PUBLISHED_VAL = 2594, 1815, 259


def open_isic2018(data: DataConfig) -> Source:
    """Open the data set; `splits/*.txt` decides who is tested, else the published counts.

    Raises:
        ConfigError: no folder given.
        DataError: folders, images or masks are missing.
    """
    root = raw_folder(data.root, LAYOUT)
    images, masks = (subfolder(root, name, LAYOUT) for name in (IMAGES, MASKS))
    pairs = read_pairs(images, masks, _without_endings)
    read = partial(read_pair, num_classes=len(LABEL_NAMES), binary=True)
    return Source(
        kind="photograph",
        label_names=LABEL_NAMES,
        scaling=EIGHT_BIT,
        cases=source_cases(pairs, _splits(root, sorted(pairs)), read),
    )


def _without_endings(images: Files, masks: Files) -> tuple[Files, Files]:
    return images, by_name(masks.values(), map(image_name, masks))


def _splits(root: Path, ids: list[str]) -> dict[str, str]:
    listed = read_split_lists(root / "splits", ids)
    if listed is not None:
        return listed
    if len(ids) == PUBLISHED_TOTAL:
        return split_by_count(ids, PUBLISHED_TRAIN, PUBLISHED_VAL)
    return split_by_ratio(ids)
