"""Data formats: how a raw data set becomes a list of cases."""

from collections.abc import Callable

from msa2net.config import DataConfig
from msa2net.data.formats.images import open_images
from msa2net.data.formats.isic2018 import open_isic2018
from msa2net.data.formats.phantom import open_phantom
from msa2net.data.formats.source import Source
from msa2net.errors import ConfigError

FORMATS: dict[str, Callable[[DataConfig], Source]] = {
    "images": open_images,
    "isic2018": open_isic2018,
    "phantom": open_phantom,
}


def open_source(data: DataConfig) -> Source:
    """Open a raw data set by its format's name.

    Raises:
        ConfigError: there is no such format.
        DataError: the data are not in that format.
    """
    if data.format not in FORMATS:
        raise ConfigError(
            f"there is no data format '{data.format}'; there are {', '.join(FORMATS)}"
        )
    return FORMATS[data.format](data)
