"""Prepared lesions that several files of tests read."""

from pathlib import Path

import pytest

from msa2net.config import DataConfig
from msa2net.data.phantom.files import write_phantom
from msa2net.data.prepared.prepare import prepare


@pytest.fixture(scope="session")
def lesions(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("lesions") / "isic"
    write_phantom("isic2018", root, cases=10)
    return root


@pytest.fixture(scope="session")
def prepared(lesions: Path) -> DataConfig:
    data = DataConfig(format="isic2018", root=lesions, prepared=lesions.parent / "prepared")
    prepare(data)
    return data
