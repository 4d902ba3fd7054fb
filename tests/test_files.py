"""Files that are whole or not there, what killed processes leave, permissions, and locks."""

import errno
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from msa2net import files, locks
from msa2net.data.geometry import Geometry
from msa2net.data.io.writers import write_jpeg, write_labels, write_png
from msa2net.errors import DataError
from msa2net.files import atomic_path, clean_temporaries, staging, write_json, write_text
from msa2net.inference.run_folder import clean_run
from msa2net.locks import LOCK_FILE, alone_in
from msa2net.metrics.summary import write_cases_csv
from msa2net.models.weights import save_weights
from msa2net.training.checkpoint import Checkpoints

fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")

# What kills itself in the middle of writing `a.txt` into the folder that is its argument.
KILLED = (
    "import os, signal, sys; from pathlib import Path; from msa2net.files import atomic_path\n"
    "with atomic_path(Path(sys.argv[1]) / 'a.txt') as path:\n"
    "    path.write_text('half')\n"
    "    os.kill(os.getpid(), signal.SIGKILL)\n"
)


def left_in(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def kill_while_writing(folder: Path) -> None:
    assert subprocess.run([sys.executable, "-c", KILLED, str(folder)], timeout=60).returncode != 0
    assert (folder / files.WRITING).is_dir()


# Whole or not there -------------------------------------------------------------------------------


def test_threads_may_remove_each_other_s_folder_of_the_moment(tmp_path: Path, monkeypatch):
    """One finds the folder there, and before it looks again another has removed it."""
    made, raced = Path.mkdir, []

    def mkdir(self: Path, *arguments, **options) -> None:
        if self.name == files.WRITING and not raced:
            raced.append(self)
            raise FileExistsError(errno.EEXIST, "File exists")
        made(self, *arguments, **options)

    monkeypatch.setattr(Path, "mkdir", mkdir)
    write_text(tmp_path / "a.txt", "x")
    assert raced
    assert left_in(tmp_path) == ["a.txt"]


def test_nothing_is_seen_before_all_is_written(tmp_path: Path):
    write_text(tmp_path / "a.txt", "before")
    with atomic_path(tmp_path / "a.txt") as path:
        assert path.name == "a.txt"
        path.write_text("after")
        assert (tmp_path / "a.txt").read_text() == "before"
    assert (tmp_path / "a.txt").read_text() == "after"
    with pytest.raises(TypeError), atomic_path(tmp_path / "a.txt") as path:
        path.write_text(5)
    assert (tmp_path / "a.txt").read_text() == "after"
    assert left_in(tmp_path) == ["a.txt"]


def test_errors_of_staged_files_name_their_places(tmp_path: Path):
    with (
        pytest.raises(DataError, match=f"^{tmp_path}/out/a.png: wrong$"),
        staging(tmp_path / "out") as staged,
    ):
        raise DataError(f"{staged / 'a.png'}: wrong")
    assert left_in(tmp_path / "out") == []


def test_a_killed_writer_leaves_what_the_next_removes(tmp_path: Path):
    kill_while_writing(tmp_path)
    clean_temporaries(tmp_path)
    assert left_in(tmp_path) == []
    kill_while_writing(tmp_path)
    write_text(tmp_path / "b.txt", "another file of another command")
    assert left_in(tmp_path) == ["b.txt"]
    kill_while_writing(tmp_path / "below")
    (tmp_path / ".writing-abc.json").write_text("of an earlier version")
    (tmp_path / ".writing-def").mkdir()
    (tmp_path / "below" / LOCK_FILE).touch()
    (tmp_path / ".tmpA5cYww").write_text("perhaps of another program")
    clean_temporaries(tmp_path, "below", "not there")
    assert left_in(tmp_path) == [".tmpA5cYww", "b.txt", "below"]
    clean_run(tmp_path)
    assert left_in(tmp_path) == ["b.txt", "below"]


def test_what_a_living_process_writes_stays(tmp_path: Path):
    with atomic_path(tmp_path / "a.txt") as path:
        path.write_text("whole")
        clean_temporaries(tmp_path)
        write_text(tmp_path / "b.txt", "beside it")
        with alone_in(tmp_path):
            clean_temporaries(tmp_path)
            assert (tmp_path / LOCK_FILE).is_file()
    assert (tmp_path / "a.txt").read_text() == "whole"
    assert left_in(tmp_path) == ["a.txt", "b.txt"]


def test_many_writers_in_one_folder_lose_nothing(tmp_path: Path):
    def write(worker: int) -> None:
        for number in range(40):
            write_text(tmp_path / f"{worker}-{number}", "whole")

    threads = [threading.Thread(target=write, args=(worker,)) for worker in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(left_in(tmp_path)) == 160


def test_what_cannot_be_written_is_one_sentence(tmp_path: Path, monkeypatch):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"cannot write .*file/a.txt: .*; check that the folder"):
        write_text(tmp_path / "file" / "a.txt", "")

    def full(*_) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(DataError, match=r"cannot write .*b.json: No space left"):
            write_json(tmp_path / "b.json", {})
    assert left_in(tmp_path) == ["file"]


# Permissions --------------------------------------------------------------------------------------


def write_all(folder: Path) -> None:
    pixels = np.zeros((4, 4, 3), np.uint8)
    write_png(pixels, folder / "png/a.png")
    write_jpeg(pixels, folder / "jpg/a.jpg")
    write_text(folder / "text/a.txt", "")
    write_cases_csv(folder / "csv/cases.csv", [])
    save_weights(torch.nn.Linear(2, 2), folder / "weights/a.safetensors")
    Checkpoints(folder).save({}, 0, 0)
    with atomic_path(folder / "array/a.npy") as path:
        np.save(path, pixels)
    with atomic_path(folder / "hdf5/a.h5") as path, h5py.File(path, "w") as file:
        file["pixels"] = pixels
    geometry = Geometry((1.0, 1.0, 1.0), np.eye(4))
    write_labels(folder / "nifti/a.nii.gz", pixels[..., 0][None], 2, geometry)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no umask")
@pytest.mark.parametrize(
    ("umask", "file", "folder"), [(0o077, 0o600, 0o700), (0o022, 0o644, 0o755)]
)
def test_permissions_are_those_of_the_umask(tmp_path: Path, umask: int, file: int, folder: int):
    before = os.umask(umask)
    try:
        write_all(tmp_path / "out")
    finally:
        os.umask(before)
    found = [tmp_path / "out", *(tmp_path / "out").rglob("*")]
    assert {path.stat().st_mode & 0o777 for path in found if path.is_file()} == {file}
    assert {path.stat().st_mode & 0o777 for path in found if path.is_dir()} == {folder}
    assert len(found) == 19


# Locks --------------------------------------------------------------------------------------------


def test_the_second_is_told_who_is_first(tmp_path: Path):
    folder = tmp_path / "made" / "for it"
    with alone_in(folder):
        with pytest.raises(DataError) as error, alone_in(folder):
            pass
        sentence = str(error.value)
        assert sentence.startswith(f"{folder} is being written to by process {os.getpid()} on ")
        assert ", since 20" in sentence
        assert sentence.endswith("; wait until that is done, or name another folder")
    assert left_in(tmp_path) == []  # nor the folders that were made in vain
    with alone_in(folder):
        (folder / "file").touch()
    assert left_in(tmp_path) == ["made", "made/for it", "made/for it/file"]


def test_the_lock_of_a_killed_process_is_none(tmp_path: Path):
    code = (
        "import os, signal, sys; from pathlib import Path; from msa2net.locks import alone_in\n"
        "with alone_in(Path(sys.argv[1])): os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], timeout=60)
    assert (tmp_path / LOCK_FILE).is_file()
    with alone_in(tmp_path):
        assert f"process {os.getpid()} on" in (tmp_path / LOCK_FILE).read_text()
    assert left_in(tmp_path) == []


@fork
def test_a_forked_process_does_not_hold_the_lock(tmp_path: Path):
    """Loading processes live a few seconds longer than a training that is killed."""
    with alone_in(tmp_path):
        child = multiprocessing.get_context("fork").Process(target=signal.pause)
        child.start()
    try:
        with alone_in(tmp_path):
            assert child.is_alive()
    finally:
        child.kill()
        child.join()


def test_a_lock_that_is_a_link_is_not_followed(tmp_path: Path):
    (tmp_path / "file").write_text("of somebody")
    (tmp_path / LOCK_FILE).symlink_to(tmp_path / "file")
    with pytest.raises(DataError, match="cannot write into"), alone_in(tmp_path):
        pass
    assert (tmp_path / "file").read_text() == "of somebody"


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK])
def test_without_locks_of_the_file_system_a_line_says_so(
    tmp_path: Path, monkeypatch, caplog, number: int
):
    def missing(_) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(locks, "_take", missing)
    with alone_in(tmp_path / "out"), alone_in(tmp_path / "out", wait=True):
        write_text(tmp_path / "out" / "a.txt", "whole")
    said = f"the file system of {tmp_path / 'out'} offers no locks ({os.strerror(number)}): see to"
    assert caplog.text.count(said) == 2
    assert left_in(tmp_path / "out") == ["a.txt"]
    kill_while_writing(tmp_path / "out")
    clean_temporaries(tmp_path / "out")  # it may be alive
    (left,) = (tmp_path / "out" / files.WRITING).iterdir()
    os.utime(left, (0, 0))
    clean_temporaries(tmp_path / "out")
    assert left_in(tmp_path / "out") == ["a.txt"]
