"""The data formats by name, and a raw data set opened by one."""

from collections.abc import Callable

from msa2net.config import DataConfig
from msa2net.data.formats.acdc import open_acdc
from msa2net.data.formats.btcv import open_btcv
from msa2net.data.formats.images import open_images
from msa2net.data.formats.isic2018 import open_isic2018
from msa2net.data.formats.nnunet import open_nnunet
from msa2net.data.formats.phantom import open_phantom
from msa2net.data.formats.source import Source
from msa2net.data.formats.synapse import open_synapse
from msa2net.errors import ConfigError

FORMATS: dict[str, Callable[[DataConfig], Source]] = {
    "images": open_images,
    "isic2018": open_isic2018,
    "acdc": open_acdc,
    "btcv": open_btcv,
    "synapse": open_synapse,
    "nnunet": open_nnunet,
    "phantom": open_phantom,
}
ENCODED = ("btcv", "synapse")
"""Formats of which `data.labels` chooses the label encoding."""


def open_source(data: DataConfig) -> Source:
    """Open a raw data set by its format's name.

    Raises:
        ConfigError: there is no such format, or it has no label encodings to choose from.
        DataError: the data are not in that format.
    """
    if data.format not in FORMATS:
        raise ConfigError(
            f"there is no data format '{data.format}'; there are {', '.join(FORMATS)}"
        )
    if data.labels is not None and data.format not in ENCODED:
        raise ConfigError(
            f"data.labels = {data.labels} chooses the label encoding of {' and '.join(ENCODED)}; "
            f"'{data.format}' has its own classes, remove the setting"
        )
    return FORMATS[data.format](data)
