"""The wheel: built, installed away from the repository, and used."""

import os
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from paths import ROOT

# Package → the first version without its known advisories, and which these are. One without a fixed
# release is left out: torch's CVE-2025-3000, of `torch.jit.script`, which is not used here.
SAFE_FROM = {
    "filelock": ("3.20.3", "CVE-2025-68146, CVE-2026-22701: links followed; torch needs it"),
    "h5py": ("3.13", "CVE-2026-26200, of HDF5 before 1.14.4-2, which earlier wheels hold"),
    "jinja2": ("3.1.6", "CVE-2025-27516: out of the sandbox"),
    "lightning": (
        "2.6.6",
        "CVE-2026-58659: code from a checkpoint; 2.6.2 and 2.6.3 were malicious",
    ),
    "mkdocs-material": ("9.7.7", "CVE-2026-73295: scripts by a search"),
    "mlflow-skinny": ("3.13", "CVE-2026-2635, CVE-2026-8147: of its server"),
    "monai": ("1.6", "CVE-2025-58755 to 58757, GHSA-89gg-p5r5-q6r4: code from pickles, paths"),
    "onnx": ("1.21", "CVE-2026-34445, CVE-2026-27489: files outside of the network's folder"),
    "pillow": ("12.3", "CVE-2026-25990, CVE-2026-40192, CVE-2026-55379, CVE-2026-59203"),
    "pydicom": ("3.0.2", "CVE-2026-32711: paths of a DICOMDIR"),
    "pytest": ("9.0.3", "CVE-2025-71176: foreseeable temporary folders"),
    "torch": ("2.10", "CVE-2025-32434, CVE-2026-24747: past weights_only"),
    "wandb": ("0.19.1", "CVE-2024-45337: of its service process"),
}


def requirements() -> list[Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = [line for lines in project["optional-dependencies"].values() for line in lines]
    return [Requirement(line) for line in [*project["dependencies"], *extras]]


def test_lower_bounds_leave_out_known_advisories():
    bounds = {}
    for requirement in requirements():
        (lowest,) = [one.version for one in requirement.specifier if one.operator == ">="]
        bounds.setdefault(requirement.name, []).append(Version(lowest))
    assert SAFE_FROM.keys() <= bounds.keys()
    too_low = [name for name, (safe, _) in SAFE_FROM.items() if min(bounds[name]) < Version(safe)]
    assert too_low == []


def test_the_versions_that_are_tested_with_are_within_the_bounds():
    pinned = dict(
        line.lower().split("==") for line in (ROOT / "constraints.txt").read_text().split()
    )
    for requirement in requirements():
        version = pinned.get(requirement.name.lower())
        assert version is None or requirement.specifier.contains(version), requirement


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
