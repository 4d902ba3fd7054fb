"""The configuration of a run: one frozen, checked object, stored with its result.

A configuration is one YAML file; nothing inherits from anything. Unknown keys are errors that
name the nearest known one.
"""

from msa2net.config.fields import (
    LEVELS_WORDS,
    PRECISION_WORDS,
    LabelEncoding,
    LoggerName,
    PaperDefect,
    Precision,
)
from msa2net.config.reading import dump_config, known_keys, load_config, parse_section
from msa2net.config.sections import AugmentConfig, Config, DataConfig, ModelConfig
from msa2net.config.train import TrainConfig

__all__ = [
    "LEVELS_WORDS",
    "PRECISION_WORDS",
    "AugmentConfig",
    "Config",
    "DataConfig",
    "LabelEncoding",
    "LoggerName",
    "ModelConfig",
    "PaperDefect",
    "Precision",
    "TrainConfig",
    "dump_config",
    "known_keys",
    "load_config",
    "parse_section",
]
