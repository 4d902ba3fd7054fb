"""Any folder of pictures and masks: `images/NAME.jpg`, `masks/NAME.png`.

Optional beside them: `labels.txt`, one class name a line, background first (without it there are
two classes, background and object), and `splits/{train,val,test}.txt`.
"""

from pathlib import Path

from msa2net.config import DataConfig
from msa2net.data.formats.source import Source, pair_by_id, photograph_cases
from msa2net.data.readers import list_images, read_image
from msa2net.data.splits import read_split_lists, split_by_ratio
from msa2net.errors import ConfigError, DataError

MAX_CLASSES = 255  # 255 itself means "ignored"


def open_images(data: DataConfig) -> Source:
    """Open the data set; values of 8-bit pictures are scaled by 0–255, others by percentiles.

    Raises:
        ConfigError: no folder given.
        DataError: folders, images, masks or the label list are missing or wrong.
    """
    if data.root is None:
        raise ConfigError("data.root is missing: name the folder that holds images/ and masks/")
    images = _by_stem(list_images(data.root / "images"))
    masks = _by_stem(list_images(data.root / "masks"))
    pairs = pair_by_id(images, masks)
    label_names = _label_names(data.root / "labels.txt")
    splits = read_split_lists(data.root / "splits", sorted(pairs)) or split_by_ratio(sorted(pairs))
    eight_bit = read_image(next(iter(images.values()))).image.dtype == "uint8"
    return Source(
        kind="photograph",
        label_names=label_names,
        intensity="fixed" if eight_bit else "percentile",
        low=0.0 if eight_bit else 0.5,
        high=255.0 if eight_bit else 99.5,
        cases=photograph_cases(pairs, splits, len(label_names)),
    )


def _by_stem(paths: list[Path]) -> dict[str, Path]:
    by_stem: dict[str, Path] = {}
    for path in paths:
        if path.stem in by_stem:
            raise DataError(f"{by_stem[path.stem]} and {path} have the same name; rename one")
        by_stem[path.stem] = path
    return by_stem


def _label_names(path: Path) -> tuple[str, ...]:
    if not path.is_file():
        return ("background", "object")
    names = tuple(line.strip() for line in path.read_text(encoding="utf-8").splitlines())
    names = tuple(name for name in names if name)
    if not 2 <= len(names) <= MAX_CLASSES or len(set(names)) != len(names):
        raise DataError(
            f"{path} must name 2 to {MAX_CLASSES} different classes, one a line, background first"
        )
    return names
