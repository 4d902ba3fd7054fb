"""Configurations: what is accepted, and what a mistake says."""

import time
from pathlib import Path

import pytest

from msa2net.config import dump_config, known_keys, load_config
from msa2net.errors import ConfigError
from paths import ROOT

CONFIGS = sorted((ROOT / "configs").glob("*.yaml"))
MINIMAL = """
image_size: 64
data: {format: phantom, prepared: p}
train: {epochs: 1, batch_size: 2, learning_rate: 0.001}
"""


@pytest.fixture
def minimal(tmp_path: Path) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text(MINIMAL)
    return path


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_shipped_configuration_is_valid_and_round_trips(path: Path, tmp_path: Path):
    config = load_config(path)
    (tmp_path / "again.yaml").write_text(dump_config(config))
    assert load_config(tmp_path / "again.yaml") == config


def test_one_number_is_a_square(minimal: Path):
    assert load_config(minimal).image_size == (64, 64)
    assert load_config(minimal, ["image_size=[64, 96]"]).image_size == (64, 96)


def test_overrides_reach_every_depth(minimal: Path):
    changed = [
        "train.epochs=5",
        "loss={boundary_dou: 1}",
        "model.name=msa2net_pico",
        "train.clip_norm=null",
    ]
    config = load_config(minimal, changed)
    assert config.train.epochs == 5
    assert config.loss == {"boundary_dou": 1}
    assert config.model.name == "msa2net_pico"
    assert config.train.clip_norm is None


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.epoch=5", "there is no setting 'train.epoch'; did you mean 'train.epochs'?"),
        ("train.fit=pad", "did you mean 'data.fit'?"),
        ("epochs=5", "did you mean 'train.epochs'?"),
        ("train.lr=5", "did you mean 'train.learning_rate'?"),
        ("qqq=5", "there are image_size"),
        ("train.epochs=many", "'train.epochs' is 'many': must be a whole number"),
        ("data.split_ratios=3", "'data.split_ratios' is 3: must be a list"),
        ("train.keep=all", "'all': must be 'best' or 'last'"),
        ("train.epochs=0", "greater than or equal to 1"),
        (f"train.max_time={'9' * 400}:00:00", "HOURS:MM:SS"),
        ("train.precision=fp8", "'train.precision' is 'fp8'"),
        ("train.epochs", "takes key=value"),
        ("=3", "takes key=value"),
        ("image_size.x=3", "'image_size' is a value, not a section"),
        ("train.epochs=[", "not valid YAML"),
        ("data.format=null", "'data.format'"),
        ("data.hold_out=false", "so no val cases are left to score"),
        ("train.select_on_test=true", "has no effect without train.monitor=test"),
        ("train.monitor=test", "choosing weights by the test split flatters every score"),
        ("data.fold=2", "fold is 2, but there are no folds"),
        ("data.split_ratios=[1, 0, 0]", "three numbers above 0 that add up to 1"),
        ("augment.scale=[2, 1]", "the smaller first"),
    ],
)
def test_mistakes_are_one_sentence_with_the_way_out(minimal: Path, override: str, message: str):
    with pytest.raises(ConfigError) as caught:
        load_config(minimal, [override])
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_is_computed_twice_is_not_compiled(minimal: Path):
    with pytest.raises(ConfigError, match=r"do not work together.*leave one out$"):
        load_config(minimal, ["train.compile=true", "train.gradient_checkpointing=true"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- 1", "holds no settings"),
        ("", "holds no settings"),
        ("a: [", "not valid YAML"),
        ("image_size: 32", "'data' is missing"),
    ],
)
def test_broken_files(tmp_path: Path, text: str, message: str):
    path = tmp_path / "c.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        load_config(path)
    with pytest.raises(ConfigError, match="cannot read the configuration"):
        load_config(tmp_path / "none.yaml")


BOMB = "\n".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}' if n else 'x'] * 9)}]" for n in range(30))
CHAIN = "\n".join(f"a{n}: &a{n} [{f'*a{n - 1}' if n else 'x'}]" for n in range(99))
DEEP = "[" * 1500
DIGITS = "9" * 5000


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        (BOMB, 5, "more than 10000 values, counting what aliases repeat"),
        (f"{MINIMAL}loss: {DEEP}", 5, "more than 20 deep"),
        (f"loss: [{'1,' * 100_000}]", 1, "more than 10000 values"),
        (CHAIN, 20, "more than 20 deep"),
        ("a: &a [*a]", 1, "an alias stands within what it names"),
        (f"# size\nimage_size: {DIGITS}", 2, "'image_size' is '9+…9+', which is no whole number"),
        ("image_size: 0x_", 1, "'image_size' is '0x_', which is no whole number"),
        ("image_size: !!bool maybe", 1, "'image_size' is 'maybe', which is no true or false"),
        ("image_size: !!float abc", 1, "'image_size' is 'abc', which is no number"),
        ("image_size: !!python/name:os.system", 1, "could not determine a constructor"),
        (f"{MINIMAL}train: {{epochs: 3}}", 5, "the key 'train' stands there twice; remove one"),
        (MINIMAL.replace("epochs: 1", "epochs: 1, epochs: 2"), 4, "the key 'epochs' stands there"),
        (MINIMAL.replace("64", "2024-99-99"), 2, "'image_size' is '2024-99-99'"),
        (MINIMAL.replace("64", "!!timestamp x"), 2, "'image_size' is 'x'"),
        (MINIMAL.replace("64", "100000"), 2, "'image_size' is 100000: a side of more than 4096"),
        (MINIMAL.replace("0.001", ".inf"), 4, "'train.learning_rate' is inf"),
        (f"{MINIMAL}augment:\n  affine: 0.5\n  scale: [2,\n    1]", 7, "'augment.scale' is"),
        (f"{MINIMAL}trian: 1", 5, "there is no setting 'trian'"),
    ],
)
def test_what_is_wrong_in_a_file_is_said_at_once_with_its_line(
    tmp_path: Path, text: str, line: int, message: str
):
    path = tmp_path / "c.yaml"
    path.write_text(text)
    start = time.monotonic()
    with pytest.raises(ConfigError, match=rf"c\.yaml, line {line}\b.*{message}") as caught:
        load_config(path)
    assert time.monotonic() - start < 5
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 800


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("0x_", "'0x_', which is no whole number"),
        ("2024-99-99", "'train.epochs' is '2024-99-99'"),
        (DIGITS, "which is no whole number of at most 64 bits"),
        ("!!bool maybe", "'maybe', which is no true or false"),
        (DEEP, "more than 20 deep"),
        ("{a: 1, a: 2}", "the key 'a' stands there twice"),
        (".nan", "'train.epochs' is nan"),
    ],
)
def test_what_is_wrong_on_the_command_line_is_said_with_its_key(
    minimal: Path, value: str, message: str
):
    with pytest.raises(ConfigError, match=rf"^--set train\.epochs=.*{message}") as caught:
        load_config(minimal, [f"train.epochs={value}"])
    assert len(str(caught.value)) < 800


def test_one_loss_is_changed_and_the_others_stay(minimal: Path):
    assert load_config(minimal, ["loss.dice=2"]).loss == {"dice": 2, "cross_entropy": 1}
    assert load_config(minimal, ["loss.boundary_dou=1", "loss.cross_entropy=0"]).loss == {
        "dice": 1, "cross_entropy": 0, "boundary_dou": 1
    }  # fmt: skip
    minimal.write_text(MINIMAL + "loss: {dice: 3}\n")
    assert load_config(minimal).loss == {"dice": 3}
    assert load_config(minimal, ["loss.boundary_dou=1"]).loss == {"dice": 3, "boundary_dou": 1}
    with pytest.raises(ConfigError, match="below 0 would reward mistakes"):
        load_config(minimal, ["loss.dice=-1"])


def test_of_one_key_set_twice_the_last_counts(minimal: Path):
    assert load_config(minimal, ["train.epochs=3", "train.epochs=4"]).train.epochs == 4


def test_files_may_begin_with_a_mark_and_hold_aliases_and_times(tmp_path: Path):
    path = tmp_path / "c.yaml"
    text = MINIMAL.replace("batch_size: 2", "batch_size: 2, max_time: 1-06:00:00")
    path.write_text(f"\ufeff{text}augment: {{brightness: &share 0.1, contrast: *share}}")
    config = load_config(path)
    assert config.augment.contrast == 0.1
    assert config.train.max_time == 1800


def test_known_keys_are_dotted_paths():
    assert {"image_size", "train.epochs", "data.root", "loss"} <= set(known_keys())


def test_a_folder_names_the_configuration_in_it(tmp_path: Path):
    with pytest.raises(ConfigError, match="Is a directory$"):
        load_config(tmp_path)
    (tmp_path / "config.yaml").touch()
    with pytest.raises(ConfigError, match=r"Is a directory; name a file in it, such as .*config"):
        load_config(tmp_path)


def noted(caplog) -> list[str]:
    return [one.getMessage() for one in caplog.records if one.name == "msa2net.renamed"]


def test_former_names_of_settings_are_read_and_noted_once(minimal: Path, caplog, monkeypatch):
    monkeypatch.setattr("msa2net.renamed._noted", set())
    minimal.write_text(MINIMAL.replace("epochs: 1", "epochs: 1, balance: 0.5, supervision: sum"))
    config = load_config(minimal, ["model.start_from=runs/other", "train.balance=0.25"])
    assert config.model.init_from == Path("runs/other")
    assert config.train.deep_supervision == "sum"
    assert config.train.oversample_foreground == 0.25
    assert load_config(minimal, ["train.oversample_foreground=0"]).train.oversample_foreground == 0
    assert noted(caplog) == [
        "configuration: train.balance is called train.oversample_foreground now, train.supervision "
        "is called train.deep_supervision now; former names are read by this version only",
        "configuration: model.start_from is called model.init_from now; former names are read by "
        "this version only",
    ]


def test_a_wrong_value_under_a_former_name_is_found(minimal: Path):
    minimal.write_text(MINIMAL.replace("epochs: 1", "epochs: 1, balance: 5"))
    with pytest.raises(ConfigError, match=r"config\.yaml, line 4: 'train\.oversample_foreground'"):
        load_config(minimal)
    text = MINIMAL.replace("epochs: 1", "epochs: 1, balance: 1, oversample_foreground: 1")
    minimal.write_text(text)
    with pytest.raises(ConfigError, match=r"train\.balance is the former name of train\.over"):
        load_config(minimal)
