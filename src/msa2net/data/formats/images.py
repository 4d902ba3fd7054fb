"""Any folder of pictures and masks: `images/NAME.jpg`, `masks/NAME.png`.

Optional beside them: `labels.txt`, one class name a line, background first; mask values are then
class indices, and 255 is ignored. Without it masks are black and white, background and object.
Also optional: `splits/{train,val,test}.txt`.
"""

from pathlib import Path

from msa2net.config import DataConfig
from msa2net.data.formats.source import Source, pair_by_id, photograph_cases
from msa2net.data.readers import list_images, read_image
from msa2net.data.splits import patient_of, split_by_ratio, splits_of_cases
from msa2net.errors import ConfigError, DataError
from msa2net.files import read_lines

MAX_CLASSES = 255  # 255 itself means "ignored"


def open_images(data: DataConfig) -> Source:
    """Open the data set; values of 8-bit pictures are scaled by 0–255, others by percentiles.

    Without lists in `splits/`, 70, 10 and 20 % are drawn once and for all; pictures whose names
    differ only in a last `_frame01` or `_slice001` are taken for one patient and never part.

    Raises:
        ConfigError: no folder given.
        DataError: folders, images, masks or the label list are missing or wrong.
    """
    if data.root is None:
        raise ConfigError("data.root is missing: name the folder that holds images/ and masks/")
    images = _by_stem(list_images(data.root / "images"))
    masks = _by_stem(list_images(data.root / "masks"))
    pairs = pair_by_id(images, masks)
    declared = _declared_labels(data.root / "labels.txt")
    label_names = declared or ("background", "object")
    patients = {case_id: patient_of(case_id) for case_id in pairs}
    default = split_by_ratio(sorted(set(patients.values())))
    splits = splits_of_cases(data.root, patients, default)
    eight_bit = read_image(next(iter(images.values()))).image.dtype == "uint8"
    return Source(
        kind="photograph",
        label_names=label_names,
        intensity="fixed" if eight_bit else "percentile",
        low=0.0 if eight_bit else 0.5,
        high=255.0 if eight_bit else 99.5,
        cases=photograph_cases(
            pairs, splits, len(label_names), binary=declared is None, patients=patients
        ),
    )


def _by_stem(paths: list[Path]) -> dict[str, Path]:
    by_stem: dict[str, Path] = {}
    for path in paths:
        if path.stem in by_stem:
            raise DataError(f"{by_stem[path.stem]} and {path} have the same name; rename one")
        by_stem[path.stem] = path
    return by_stem


def _declared_labels(path: Path) -> tuple[str, ...] | None:
    """Read the class names; None when there is no such file."""
    if not path.is_file():
        return None
    names = tuple(read_lines(path))
    if not 2 <= len(names) <= MAX_CLASSES or len(set(names)) != len(names):
        raise DataError(
            f"{path} must name 2 to {MAX_CLASSES} different classes, one a line, background first"
        )
    return names
