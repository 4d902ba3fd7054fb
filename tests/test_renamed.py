"""Former names: found at their path, at every depth, and nowhere else."""

import pytest

from msa2net import renamed


@pytest.fixture
def table(monkeypatch):
    former = {"cases.csv": {"hd": "hd95_mm"}, "a.json": {"usual": "ranges", "by.*.good": "dice"}}
    monkeypatch.setattr(renamed, "FORMER", former)
    monkeypatch.setattr(renamed, "_noted", set())


@pytest.mark.usefixtures("table")
def test_keys_and_columns_get_their_names_of_now(caplog):
    content = {"usual": 1, "by": {"liver": {"good": 2}, "usual": [{"good": 3}]}, "good": 4}
    expected = {"ranges": 1, "by": {"liver": {"dice": 2}, "usual": [{"dice": 3}]}, "good": 4}
    assert renamed.current_keys("a.json", content) == expected
    assert renamed.current_keys("b.json", content) is content
    assert renamed.current_columns("cases.csv", ["case", "hd"]) == ["case", "hd95_mm"]
    assert [one.getMessage().split(";")[0] for one in caplog.records] == [
        "a.json: usual is called ranges now, by.liver.good is called by.liver.dice now, "
        "by.usual.good is called by.usual.dice now",
        "cases.csv: hd is called hd95_mm now",
    ]
