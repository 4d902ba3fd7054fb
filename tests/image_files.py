"""Files of 2-D images and masks, small enough to be drawn anew for every test."""

from pathlib import Path

import numpy as np
from PIL import Image
from PIL.Image import Transpose as Turn

from msa2net.config import DataConfig
from msa2net.data.io.readers import read_image

TWO_CLASSES = "background\nobject\n"


def save(path: Path, array: np.ndarray, mode: str | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).convert(mode or Image.fromarray(array).mode).save(path)
    return path


def image_pairs(root: Path, image=(8, 9, 3), mask=None, labels: str | None = None) -> DataConfig:
    """Write three equal pairs of image and mask."""
    mask = np.zeros((8, 9), np.uint8) if mask is None else mask
    for index in range(3):
        save(root / "images" / f"{index}.png", np.zeros(image, np.uint8))
        save(root / "masks" / f"{index}.png", mask)
    if labels:
        (root / "labels.txt").write_text(labels)
    return DataConfig(format="images", root=root, prepared=root / "prepared")


def camera_image(path: Path, shown: np.ndarray, orientation: int) -> None:
    """Write what viewers show as `shown` (H, W), as a camera that is held so stores it."""
    back = {2: Turn.FLIP_LEFT_RIGHT, 3: Turn.ROTATE_180, 4: Turn.FLIP_TOP_BOTTOM}
    back |= {5: Turn.TRANSPOSE, 6: Turn.ROTATE_90, 7: Turn.TRANSVERSE, 8: Turn.ROTATE_270}
    stored = Image.fromarray(shown).transpose(back[orientation])
    exif = stored.getexif()
    exif[0x0112] = orientation
    path.parent.mkdir(parents=True, exist_ok=True)
    stored.save(path, exif=exif, quality=95)
    assert np.abs(read_image(path).image[0, 0].astype(int) - shown).max() < 40
