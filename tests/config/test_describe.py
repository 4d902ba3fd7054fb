"""The list of all settings: complete, true, readable, and the page is the code's own."""

import re
from pathlib import Path

import pytest

from commands import assert_one_sentence, msa2net
from msa2net.config import known_keys
from msa2net.config.describe import describe_settings, settings_page
from msa2net.data.formats.registry import FORMATS
from msa2net.losses import LOSSES
from paths import ROOT

PAGE = ROOT / "docs" / "settings.md"
SETTINGS = {one.key: one for section in describe_settings() for one in section.settings}


def test_the_page_is_what_the_code_says():
    """If this fails: msa2net settings --markdown > docs/settings.md"""
    renew = "docs/settings.md is old; renew it: msa2net settings --markdown > docs/settings.md"
    assert PAGE.read_text(encoding="utf-8") == settings_page(), renew


def test_every_setting_is_described():
    assert sorted(SETTINGS) == sorted(known_keys())
    assert [one.key for one in SETTINGS.values() if len(one.description.split()) < 3] == []
    rows = re.findall(r"^\| `([a-z_.]+)` \|.*\|.*\|.*\|$", PAGE.read_text(), re.MULTILINE)
    assert rows == list(SETTINGS)


def test_names_that_no_type_knows_are_complete():
    for name in FORMATS:
        assert name in SETTINGS["data.format"].description
    for name in LOSSES:
        assert name in SETTINGS["loss"].description


@pytest.mark.parametrize(
    ("key", "kind", "default"),
    [
        ("image_size", "whole number, or a list of 2", "must be set"),
        ("loss", "names with numbers", "{dice: 1.0, cross_entropy: 1.0}"),
        ("model.pretrained_file", "path", "not set"),
        ("model.levels", "4 or 5", "4"),
        ("data.crop", "number, 0.01 to 1", "1.0"),
        ("data.hold_out", "true or false", "true"),
        ("data.phantom_shape", "list of 3 whole numbers", "[32, 128, 128]"),
        ("augment.paper_defects", "list of noise or streams", "[]"),
        ("train.batch_size", "whole number, at least 1", "must be set"),
        ("train.momentum", "number, 0 to below 1", "0.9"),
        ("train.precision", "auto, 32-true, bf16-mixed or 16-mixed", "auto"),
        ("train.max_time", "minutes, or a time, above 0", "not set"),
    ],
)
def test_kinds_and_defaults_by_hand(key: str, kind: str, default: str):
    assert (SETTINGS[key].kind, SETTINGS[key].default) == (kind, default)


@pytest.mark.parametrize("width", [80, 120])
def test_the_terminal_shows_all_of_it(width: int, tmp_path: Path, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(width))
    text = msa2net("settings", cwd=tmp_path).stdout
    assert max(map(len, text.splitlines())) <= width
    shown = re.findall(r"^([a-z_]+\.?[a-z_]*)  +\S", text, re.MULTILINE)
    assert shown == list(SETTINGS)
    words = " ".join(text.split())
    assert "weight decay; biases" in words
    assert "whole number, at least 1 · default 16" in words


def test_a_section_a_setting_and_what_is_none(tmp_path: Path):
    text = msa2net("settings", "train", cwd=tmp_path).stdout
    assert text.startswith("train: how to train\ntrain.epochs ")
    assert "model." not in text.replace("model.safetensors", "")
    text = msa2net("settings", "loss", cwd=tmp_path).stdout
    assert text.startswith("The whole run\nloss  weights of the losses")
    for wrong, right in (("trian", "'train'"), ("epochs", "'train.epochs'"), ("xyz", "augment")):
        said = msa2net("settings", wrong, cwd=tmp_path)
        assert_one_sentence(said, f"there is no section or setting '{wrong}'", right)
    assert_one_sentence(msa2net("settings", "train", "--markdown", cwd=tmp_path), "leave SECTION")
    assert msa2net("settings", "--markdown", cwd=tmp_path).stdout == settings_page()
