"""Any folder of pictures and masks: `images/NAME.jpg`, `masks/NAME.png`.

Masks may be called `NAME_mask.png` and so on, see `names.MASK_ENDINGS`. Optional beside the folders
or among the masks: `labels.txt`, one class name a line, background first; mask values are then
class indices, and 255 is ignored, except for two classes if no mask holds a 1: 255 is then the
second. Without it masks are black and white, background and object.
Also optional: `splits/{train,val,test}.txt`.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from msa2net.config import DataConfig
from msa2net.data.formats.file_names import (
    MASK_ENDINGS,
    Files,
    find_labels_file,
    match_names,
    read_class_list,
)
from msa2net.data.formats.listing import by_name, raw_folder, subfolder, warn_of_unread
from msa2net.data.formats.source import (
    EIGHT_BIT,
    PERCENTILES,
    MeaningOf255,
    Source,
    pair_by_id,
    read_pair,
    source_cases,
)
from msa2net.data.io.readers import list_images, read_image, read_mask
from msa2net.data.prepared.splits import patient_of, split_by_ratio, splits_of_cases

LAYOUT = "images/ and masks/, with images of the same names"


def open_images(data: DataConfig) -> Source:
    """Open the data set; values of 8-bit pictures are scaled by 0–255, others by percentiles.

    Without lists in `splits/`, 70, 10 and 20 % are drawn once and for all; pictures whose names
    differ only in a last `_frame01` or `_slice001` are taken for one patient and never part.

    Raises:
        ConfigError: no folder given.
        DataError: folders, images, masks or the label list are missing or wrong.
    """
    root = raw_folder(data.root, LAYOUT)
    folder = subfolder(root, "masks", LAYOUT)
    pairs = read_pairs(subfolder(root, "images", LAYOUT), folder, match_names)
    labels_file = find_labels_file(folder)
    declared = None if labels_file is None else read_class_list(labels_file)
    label_names = declared or ("background", "object")
    patients = {case_id: patient_of(case_id) for case_id in pairs}
    default = split_by_ratio(sorted(set(patients.values())))
    splits = splits_of_cases(root, patients, default)
    eight_bit = read_image(next(iter(pairs.values()))[0]).image.dtype == "uint8"
    meaning_255 = None
    if declared is not None and len(declared) == 2:
        meaning_255 = MeaningOf255((mask for _, mask in pairs.values()), read_mask)
    read = partial(
        read_pair,
        num_classes=len(label_names),
        binary=declared is None,
        meaning_255=meaning_255,
    )
    return Source(
        kind="photograph",
        label_names=label_names,
        scaling=EIGHT_BIT if eight_bit else PERCENTILES,
        cases=source_cases(pairs, splits, read, patients),
        meaning_255=meaning_255,
    )


def read_pairs(
    images: Path,
    masks: Path,
    match: Callable[[Files, Files], tuple[Files, Files]],
) -> dict[str, tuple[Path, Path]]:
    """Find the pictures directly in two folders and join them by name; say what is not read.

    Args:
        images: folder of pictures.
        masks: folder of masks.
        match: takes both, by the names of their files, and gives them by the ids of their cases.

    Raises:
        DataError: no pictures in a folder, two of one name, or one without its partner.
    """
    by_folder = []
    for folder in (images, masks):
        paths = list_images(folder)
        warn_of_unread(folder, paths)
        by_folder.append(by_name(paths, (path.stem for path in paths)))
    return pair_by_id(
        *match(by_folder[0], by_folder[1]),
        lambda case_id: f"{case_id}.jpg, or of another kind of image, in {images}",
        lambda case_id: (
            f"{case_id}.png, or of another kind of image, or with {' or '.join(MASK_ENDINGS)} "
            f"after all names, in {masks}"
        ),
    )
