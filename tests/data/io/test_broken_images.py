"""Pictures cut short or with changed bytes: one sentence or an array, whatever the bytes are."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from msa2net.data.io.readers import read_image, read_mask
from msa2net.errors import DataError

# Pillow also warns of what it finds; that is not what is looked at here.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

LIMITED = settings(
    deadline=None,
    max_examples=20,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
MOST_PIXELS = 2**28  # what a picture may declare; beyond, Pillow warns of a bomb

draw = np.random.default_rng(0)
GREY = draw.integers(0, 4, (23, 31), np.uint8)
COLOUR = draw.integers(0, 255, (23, 31, 3), np.uint8)
FILES = {
    "grey.png": Image.fromarray(GREY),
    "colour.png": Image.fromarray(COLOUR),
    "palette.png": Image.fromarray(GREY).convert("P"),
    "deep.png": Image.fromarray(GREY.astype(np.uint16) * 999),
    "x.jpg": Image.fromarray(COLOUR),
    "turned.jpg": Image.fromarray(COLOUR),
    "grey.tif": Image.fromarray(GREY),
    "float.tif": Image.fromarray(GREY.astype(np.float32)),
    "packed.tiff": Image.fromarray(COLOUR),
    "x.bmp": Image.fromarray(COLOUR),
}
TURNED = Image.Exif()
TURNED[0x0112] = 6  # how the camera was held
OPTIONS = {"turned.jpg": {"exif": TURNED}, "packed.tiff": {"compression": "tiff_lzw"}}


def content(folder: Path, name: str) -> bytes:
    path = folder / name
    FILES[name].save(path, **OPTIONS.get(name, {}))
    return path.read_bytes()


def outcome(path: Path) -> None:
    """Both readers give an array of a size that can be, or one sentence with the file's name."""
    for read in (read_image, read_mask):
        try:
            read_it = read(path)
        except DataError as error:
            said = str(error)
        else:
            array = read_it if read is read_mask else read_it.image
            assert array.dtype.kind in "uif"
            assert array.size <= 3 * MOST_PIXELS
            continue
        assert path.name in said
        assert "\n" not in said


def test_a_tiff_whose_second_page_has_no_size(tmp_path: Path):
    """Pillow raises a TypeError at this one when its pages are counted."""
    damaged = bytearray(content(tmp_path, "grey.tif"))
    directory = int.from_bytes(damaged[4:8], "little")
    entries = int.from_bytes(damaged[directory : directory + 2], "little")
    following = directory + 2 + 12 * entries
    damaged += bytes(len(damaged) % 2)
    damaged[following : following + 4] = len(damaged).to_bytes(4, "little")
    damaged += bytes(6)  # a directory of nothing, and none after it
    (tmp_path / "grey.tif").write_bytes(damaged)
    for read in (read_image, read_mask):
        with pytest.raises(DataError, match=r"grey.tif cannot be read as image, it may be damaged"):
            read(tmp_path / "grey.tif")


@pytest.mark.parametrize("name", FILES)
@LIMITED
@given(data=st.data())
def test_truncated(tmp_path: Path, name: str, data):
    whole = content(tmp_path, name)
    (tmp_path / name).write_bytes(whole[: data.draw(st.integers(0, len(whole) - 1))])
    outcome(tmp_path / name)


@pytest.mark.parametrize("name", FILES)
@LIMITED
@given(data=st.data())
def test_changed_bytes(tmp_path: Path, name: str, data):
    changed = bytearray(content(tmp_path, name))
    for _ in range(data.draw(st.integers(1, 4))):
        # headers and, in TIFF, the directory at the end are where it hurts
        near = st.integers(0, min(200, len(changed) - 1))
        place = data.draw(near | near.map(lambda at: len(changed) - 1 - at))
        patch = data.draw(st.binary(min_size=1, max_size=8))
        changed[place : place + len(patch)] = patch
    (tmp_path / name).write_bytes(changed)
    outcome(tmp_path / name)
