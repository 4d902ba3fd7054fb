"""The wheel: built, installed away from the repository, and used."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", out, ROOT],
        check=True,
        capture_output=True,
    )
    return next(out.glob("*.whl"))


def test_the_wheel_holds_code_and_its_data_only(wheel: Path):
    names = zipfile.ZipFile(wheel).namelist()
    for needed in (
        "cli/demo.yaml",
        "report/report.html.jinja",
        "report/report.css",
        "report/report.js",
        "py.typed",
        "__main__.py",
    ):
        assert f"msa2net/{needed}" in names
    assert all(name.startswith(("msa2net/", "msa2net-")) for name in names)


def test_the_demo_starts_from_an_installed_wheel(wheel: Path, tmp_path: Path):
    """Unpacked elsewhere and found before the working copy; the first steps of the demo run."""
    site = tmp_path / "site"
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", site, wheel],
        check=True,
        capture_output=True,
    )
    environment = os.environ | {"PYTHONPATH": str(site)}
    settings = [
        "data.phantom_cases=[1,1,1]", "data.phantom_shape=[8,64,64]", "model.name=msa2net",
        "model.encoder=test_maxvit", "image_size=32", "train.epochs=1", "train.batch_size=4",
    ]  # fmt: skip
    command = [sys.executable, "-m", "msa2net", "demo", "--device", "cpu", "--out", "run"]
    command += [word for setting in settings for word in ("--set", setting)]
    where = "import msa2net; print(msa2net.__file__)"
    found = subprocess.run(
        [sys.executable, "-c", where], env=environment, cwd=tmp_path, capture_output=True, text=True
    )
    assert found.stdout.startswith(str(site))
    result = subprocess.run(
        command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "run" / "report.html").is_file()
    assert (tmp_path / "run" / "prediction" / "phantom_9999.nii.gz").is_file()
