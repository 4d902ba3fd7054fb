"""Fixtures shared by all tests."""

import gc
import os
import shutil
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from unittest import mock

import pytest
import torch
from filelock import FileLock
from hypothesis import settings

from paths import GOLDEN

# The same examples in every run: a test fails for a change, not for a draw. `make test-all` asks
# for the thorough profile.
settings.register_profile("quick", derandomize=True, deadline=None, max_examples=25)
settings.register_profile("thorough", derandomize=True, deadline=None, max_examples=200)
settings.load_profile("quick")

# Beside other workers one thread each is fastest, in the processes that tests start as well.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)


def pytest_collection_finish() -> None:
    """Keep what was imported out of every later garbage collection: a tenth of the time."""
    gc.collect()
    gc.freeze()


def pytest_sessionfinish() -> None:
    gc.unfreeze()  # libraries look for leaks when the process ends


# No test may reach for a network: the hub's client then fails at once instead of retrying.
os.environ["HF_HUB_OFFLINE"] = "1"


@pytest.fixture(scope="session", autouse=True)
def _without_waiting_for_the_disk() -> Iterator[None]:
    """No test cuts the power, and a disk that others use takes 10 ms for every file."""
    with mock.patch("os.fsync"):
        yield


@pytest.fixture(scope="session")
def golden() -> Path:
    return GOLDEN


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real data sets; tests that need it skip themselves without it."""
    folder = os.environ.get("MSA2NET_DATA")
    if not folder:
        pytest.skip("MSA2NET_DATA is not set: it names the folder of real data sets")
    return Path(folder)


@pytest.fixture(scope="session")
def exported_run(tmp_path_factory) -> Path:
    """A run folder with its exported network in it, made once for all workers: it takes a while."""
    from onnx_runs import write_exported_run

    run = tmp_path_factory.mktemp("exported") / "run"
    if "PYTEST_XDIST_WORKER" not in os.environ:
        return write_exported_run(run)
    made = tmp_path_factory.getbasetemp().parent / "exported-run"
    with FileLock(f"{made}.lock"):
        if not made.exists():
            write_exported_run(made)
    return shutil.copytree(made, run)


@pytest.fixture(scope="session", autouse=True)
def _phantoms_drawn_once() -> Iterator[None]:
    """Each is a function of its arguments alone, and most tests ask for the same few."""
    from msa2net.data.formats import phantom
    from msa2net.data.phantom import files

    abdomen, skin_lesion = (cache(draw) for draw in (files.abdomen, files.skin_lesion))
    with (
        mock.patch.object(files, "skin_lesion", skin_lesion),
        mock.patch.object(phantom, "abdomen", abdomen),
        mock.patch.object(files, "abdomen", abdomen),
    ):
        yield


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)
