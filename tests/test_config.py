"""Configurations: what is accepted, and what a mistake says."""

from pathlib import Path

import pytest

from msa2net.config import dump_config, known_keys, load_config
from msa2net.errors import ConfigError

CONFIGS = sorted((Path(__file__).parents[1] / "configs").glob("*.yaml"))
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
        ("train.epochs=many", "'train.epochs' is 'many'"),
        ("train.epochs=0", "greater than or equal to 1"),
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


def test_known_keys_are_dotted_paths():
    assert {"image_size", "train.epochs", "data.root", "loss"} <= set(known_keys())


def test_a_folder_names_the_configuration_in_it(tmp_path: Path):
    with pytest.raises(ConfigError, match="Is a directory$"):
        load_config(tmp_path)
    (tmp_path / "config.yaml").touch()
    with pytest.raises(ConfigError, match=r"Is a directory; name a file in it, such as .*config"):
        load_config(tmp_path)
