"""The configuration of a run: one frozen, checked object, stored with its result.

A configuration is one YAML file; nothing inherits from anything. Unknown keys are errors that
name the nearest known one.
"""

from msa2net.config.loading import dump_config, known_keys, load_config, parse_section
from msa2net.config.schema import (
    Architecture,
    AugmentConfig,
    Config,
    DataConfig,
    ModelConfig,
    NetworkConfig,
    NetworkOptions,
)
from msa2net.config.train import TrainConfig
from msa2net.config.types import (
    LEVELS_WORDS,
    PRECISION_WORDS,
    LabelEncoding,
    LoggerName,
    PaperDefect,
    Precision,
)

__all__ = [
    "LEVELS_WORDS",
    "PRECISION_WORDS",
    "Architecture",
    "AugmentConfig",
    "Config",
    "DataConfig",
    "LabelEncoding",
    "LoggerName",
    "ModelConfig",
    "NetworkConfig",
    "NetworkOptions",
    "PaperDefect",
    "Precision",
    "TrainConfig",
    "dump_config",
    "known_keys",
    "load_config",
    "parse_section",
]
