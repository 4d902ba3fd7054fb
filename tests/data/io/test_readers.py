"""2-D images and masks as files: what is read, and what is refused."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from image_files import save
from msa2net.data.io.readers import list_images, read_image, read_mask, read_path
from msa2net.errors import DataError


@pytest.mark.parametrize(
    ("mode", "channels", "dtype"),
    [("RGB", 3, "uint8"), ("RGBA", 3, "uint8"), ("L", 1, "uint8"), ("P", 3, "uint8"),
     ("1", 1, "uint8"), ("LA", 1, "uint8"), ("I;16", 1, "uint16"), ("CMYK", 3, "uint8")],
)  # fmt: skip
def test_every_picture_mode_is_read(tmp_path: Path, mode, channels, dtype):
    suffix = ".jpg" if mode == "CMYK" else ".png"
    picture = Image.new(mode, (7, 5))
    picture.save(tmp_path / f"x{suffix}")
    image = read_image(tmp_path / f"x{suffix}").image
    assert image.shape == (channels, 1, 5, 7)
    assert image.dtype == dtype


def test_the_camera_s_rotation_is_applied(tmp_path: Path):
    picture = Image.new("RGB", (8, 4))
    exif = picture.getexif()
    exif[0x0112] = 6  # rotate by 90° to show
    picture.save(tmp_path / "x.jpg", exif=exif)
    assert read_image(tmp_path / "x.jpg").image.shape == (3, 1, 8, 4)


def test_palette_masks_give_their_indices(tmp_path: Path):
    mask = Image.fromarray(np.array([[0, 1], [2, 3]], np.uint8), mode="P")
    mask.putpalette([9, 9, 9, 200, 0, 0, 0, 200, 0, 0, 0, 200])
    mask.save(tmp_path / "m.png")
    assert read_mask(tmp_path / "m.png").tolist() == [[0, 1], [2, 3]]


def test_broken_pictures_are_one_sentence(tmp_path: Path):
    whole = save(
        tmp_path / "whole.png", np.random.default_rng(0).integers(0, 255, (99, 99, 3), np.uint8)
    )
    (tmp_path / "short.png").write_bytes(whole.read_bytes()[:9000])
    (tmp_path / "text.png").write_text("not a picture")
    (tmp_path / "empty.jpg").write_bytes(b"")
    for name, message in (
        ("short.png", "may be damaged or truncated"),
        ("text.png", "not an image"),
        ("empty.jpg", "not an image"),
        ("none.png", "there is no file"),
        ("scan.dcm", "there is no file"),
        ("scans", "there is no file or folder"),
        ("scans.d", "there is no file or folder"),
        ("case0001.npy.h5", "become a data set with msa2net prepare synapse"),
    ):
        with pytest.raises(DataError, match=message) as caught:
            read_path(tmp_path / name)
        assert name in str(caught.value)
        assert "\n" not in str(caught.value)


def test_a_picture_that_declares_a_huge_size_is_refused(tmp_path: Path):
    data = bytearray(save(tmp_path / "x.png", np.zeros((4, 4), np.uint8)).read_bytes())
    data[16:24] = (60_000).to_bytes(4, "big") * 2
    import zlib

    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    (tmp_path / "bomb.png").write_bytes(data)
    with pytest.raises(DataError, match=r"bomb.png declares an implausibly large image"):
        read_image(tmp_path / "bomb.png")


def test_masks_with_colours_or_fractions_are_refused(tmp_path: Path):
    colour = np.zeros((4, 4, 3), np.uint8)
    colour[0, 0] = 1, 2, 3
    with pytest.raises(DataError, match="colour image, not a mask"):
        read_mask(save(tmp_path / "c.png", colour))
    Image.fromarray(np.full((2, 2), 0.99, np.float32)).save(tmp_path / "f.tif")
    with pytest.raises(DataError, match=r"such as 0.9900000\d+; a label holds whole class indices"):
        read_mask(tmp_path / "f.tif")
    Image.fromarray(np.full((2, 2), np.nan, np.float32)).save(tmp_path / "n.tif")
    with pytest.raises(DataError, match="4 of 4 values are NaN"):
        read_mask(tmp_path / "n.tif")


def test_values_that_were_rounded_are_the_number_that_was_meant(tmp_path: Path):
    Image.fromarray(np.array([[0, 0.9999999, 2.0009]], np.float32)).save(tmp_path / "f.tif")
    assert read_mask(tmp_path / "f.tif").tolist() == [[0, 1, 2]]


def test_no_other_kind_is_opened_whatever_a_file_is_called(tmp_path: Path, monkeypatch):
    """Pillow's reader of EPS starts a program, Ghostscript, that may do what the file says."""
    monkeypatch.setattr("PIL.EpsImagePlugin.Ghostscript", lambda *_, **__: pytest.fail("started"))
    (tmp_path / "photo.png").write_text(
        "%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 4 4\n%%EndComments\nshowpage\n%%EOF\n"
    )
    Image.new("L", (4, 4)).save(tmp_path / "animation.png", format="GIF")
    for name in ("photo.png", "animation.png"):
        for read in (read_image, read_mask):
            with pytest.raises(DataError, match=f"{name} is not an image that can be read"):
                read(tmp_path / name)


def test_empty_and_missing_folders(tmp_path: Path):
    with pytest.raises(DataError, match="holds no image"):
        list_images(tmp_path)
    with pytest.raises(DataError, match="there is no folder"):
        list_images(tmp_path / "none")


def test_pages_of_a_tiff_are_not_dropped_in_silence(tmp_path: Path):
    pages = [Image.new("L", (4, 4), value) for value in (0, 1)]
    pages[0].save(tmp_path / "x.tif", save_all=True, append_images=pages[1:])
    with pytest.raises(DataError, match="holds 2 pages"):
        read_image(tmp_path / "x.tif")
