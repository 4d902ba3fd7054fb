"""Splits: drawn, counted and listed."""

from pathlib import Path

import pytest

from msa2net.data.prepared.splits import read_split_lists, split_by_count, split_by_ratio
from msa2net.errors import DataError


def test_ratios_split_everything_once_and_repeat():
    ids = [f"c{i:03d}" for i in range(50)]
    splits = split_by_ratio(ids, seed=3)
    assert splits == split_by_ratio(list(reversed(ids)), seed=3)
    assert splits != split_by_ratio(ids, seed=4)
    counts = {name: list(splits.values()).count(name) for name in ("train", "val", "test")}
    assert counts == {"train": 35, "val": 5, "test": 10}
    with pytest.raises(DataError, match="at least 3"):
        split_by_ratio(["a", "b"])


def test_published_isic_counts():
    splits = split_by_count([f"{i:04d}" for i in range(2594)], 1815, 259)
    assert [list(splits.values()).count(name) for name in ("train", "val", "test")] == [
        1815,
        259,
        520,
    ]
    assert splits["1814"] == "train"
    assert splits["1815"] == "val"
    assert splits["2074"] == "test"


def test_split_lists(tmp_path: Path, caplog):
    folder = tmp_path / "splits"
    assert read_split_lists(folder, ["a"]) is None
    folder.mkdir()
    for name, text in (("train", "a\nb\n"), ("val", "c\n"), ("test", "d\n\n")):
        (folder / f"{name}.txt").write_text(text)
    expected = {"a": "train", "b": "train", "c": "val", "d": "test"}
    assert read_split_lists(folder, list("abcd")) == expected
    assert caplog.text == ""
    assert read_split_lists(folder, list("abcdef")) == expected
    assert "2 of 6 cases are in none of the lists and left out, first 'e'" in caplog.text
    with pytest.raises(DataError, match="names 'd', which has no image"):
        read_split_lists(folder, list("abc"))
    (folder / "val.txt").write_text("a\n")
    with pytest.raises(DataError, match="'a' is in train and again in val"):
        read_split_lists(folder, list("abcd"))
