"""What leaves the house: page, tables, scores and what commands print name no patient and no path.

The phantom writers put no name into their files, so the tests write one into every header field
that takes text, into an extension, and into the name of the folder that everything lies in. Ids of
cases are the names of files and do appear.
"""

import base64
import io
import re
from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image

from commands import msa2net
from msa2net.data.phantom.files import write_phantom

NAME = re.compile(rb"mustermann|erika|1964-08-12", re.IGNORECASE)
PERSON = b"Mustermann^Erika 1964-08-12"
CONFIG = """
image_size: 32
model: {name: msa2net, encoder: test_maxvit}
data: {format: nnunet, prepared: ROOT/prepared, root: ROOT/raw}
train: {epochs: 1, batch_size: 8, learning_rate: 0.003}
"""
RUN_OUTPUTS = ("metrics.csv", "model.json")
OUTPUTS = ("cases.csv", "summary.json", "table.md", "table.tex")


def sign(path: Path) -> None:
    """Write the person into all that a NIfTI file has room for."""
    image = nibabel.load(path)
    for field, length in (("descrip", 80), ("db_name", 18), ("aux_file", 24), ("intent_name", 16)):
        image.header[field] = PERSON[:length]
    image.header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", PERSON))
    whole = nibabel.Nifti1Image(np.asanyarray(image.dataobj), image.affine, image.header)
    nibabel.save(whole, path)


@pytest.fixture(scope="module")
def scored(tmp_path_factory):
    """A run, and its masks against labels, all under a folder with the person's name.

    Returns the folder, what the commands printed, and the files to look into.
    """
    root = tmp_path_factory.mktemp("house") / "Mustermann_Erika"
    write_phantom("nnunet", root / "raw", cases=5)
    for path in root.rglob("*.nii.gz"):
        sign(path)
    (root / "small.yaml").write_text(CONFIG.replace("ROOT", str(root)))
    said = ""
    for step in (
        ("prepare", "nnunet", "raw", "prepared"),
        ("train", "small.yaml", "--device", "cpu"),
        ("evaluate", "runs/small", "--split", "train"),
        ("predict", "runs/small", "raw/imagesTr", "--out", "masks"),
        (
            "evaluate",
            "masks",
            "--labels",
            "raw/labelsTr",
            "--images",
            "pictures",
            "--out",
            "scores",
        ),
    ):
        if step[0] == "evaluate" and step[1] == "masks":
            (root / "pictures").mkdir()
            for path in (root / "raw/imagesTr").iterdir():
                path.rename(root / "pictures" / path.name.replace("_0000", ""))
        result = msa2net(*step, cwd=root)
        assert result.returncode == 0, f"{step}: {result.stderr}\n{result.stdout}"
        said += result.stdout + result.stderr
    files = [root / "runs/small" / name for name in RUN_OUTPUTS]
    for scores in ("runs/small/evaluation-train", "scores"):
        files += [root / scores / name for name in ("report.html", *OUTPUTS)]
    return root, said, files


def test_the_name_is_there_to_be_found(scored):
    root, _, _ = scored
    paths = [*root.glob("raw/labelsTr/*.nii.gz"), *root.glob("pictures/*.nii.gz")]
    assert len(paths) == 6
    for path in paths:
        image = nibabel.load(path)
        assert NAME.search(image.header["descrip"].item())
        assert NAME.search(image.header.extensions[0].get_content())
    assert NAME.search((root / "runs/small/config.yaml").read_bytes())  # for the machine, not sent


def test_nothing_that_is_passed_on_has_the_name(scored):
    _, said, files = scored
    assert len(said) > 1000
    assert not NAME.search(said.encode())
    for path in files:
        content = path.read_bytes()
        assert len(content) > 50, path
        assert not NAME.search(content), path.name


def test_nothing_that_is_passed_on_has_a_path(scored, tmp_path):
    root, _, files = scored
    places = (root, root.parents[1], tmp_path.parents[1], Path.home(), Path.cwd())
    for path in files:
        text = path.read_text(encoding="utf-8")
        found = [str(place) for place in places if re.search(rf"{re.escape(str(place))}\b", text)]
        assert found == [], path.name
        assert not re.search(r"file://|[A-Z]:\\|/(home|Users|tmp|root|var|mnt|work)/", text), path


def test_pictures_in_the_page_carry_nothing_but_pixels(scored):
    root, _, _ = scored
    html = (root / "scores/report.html").read_text()
    pictures = re.findall(r"data:image/jpeg;base64,([A-Za-z0-9+/=]+)", html)
    assert pictures
    for text in pictures:
        content = base64.b64decode(text)
        with Image.open(io.BytesIO(content)) as picture:
            assert not picture.getexif()
            assert "comment" not in picture.info
        assert not NAME.search(content)


def test_ids_of_cases_do_appear(scored):
    root, _, _ = scored
    case = min(path.name.removesuffix(".nii.gz") for path in root.glob("raw/labelsTr/*.nii.gz"))
    assert case in (root / "scores/report.html").read_text()
    assert case in (root / "scores/cases.csv").read_text()
