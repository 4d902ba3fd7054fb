"""What Lightning says in every training and nobody needs; its warnings stay."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

LOGGERS = ("lightning.pytorch.utilities.rank_zero", "lightning.fabric.utilities.rank_zero")
NOISE = (  # how the messages begin: advertisement, and what the settings say anyway
    "💡 Tip:",
    "GPU available:",
    "TPU available:",
    "`Trainer.fit` stopped:",
)
OWN_MISTAKE = r"`isinstance\(treespec, LeafSpec\)` is deprecated"  # of Lightning's use of torch


@contextmanager
def suppress_lightning_messages() -> Iterator[None]:
    """Leave such messages out inside; other messages and warnings are as they were."""
    loggers = [logging.getLogger(name) for name in LOGGERS]
    for logger in loggers:
        logger.addFilter(_is_wanted)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=OWN_MISTAKE)
            yield
    finally:
        for logger in loggers:
            logger.removeFilter(_is_wanted)


def _is_wanted(record: logging.LogRecord) -> bool:
    return not (record.levelno <= logging.INFO and record.getMessage().startswith(NOISE))
