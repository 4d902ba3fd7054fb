"""The built-in data set: synthetic abdominal CT, so that everything can be tried offline."""

from functools import partial

from msa2net.config import DataConfig
from msa2net.data.formats.source import HU_WINDOW, Source, SourceCase
from msa2net.data.phantom import ABDOMEN_LABELS, abdomen
from msa2net.data.prepared.splits import SPLITS


def open_phantom(data: DataConfig) -> Source:
    """Make `data.phantom_cases` volumes of `data.phantom_shape`, split as counted."""
    splits = [
        split for split, count in zip(SPLITS, data.phantom_cases, strict=True) for _ in range(count)
    ]
    return Source(
        kind="volume",
        label_names=ABDOMEN_LABELS,
        scaling=HU_WINDOW,
        encoding="transunet",
        cases=tuple(
            SourceCase(
                id=f"phantom_{index:04d}",
                split=split,
                files=(),
                read=partial(abdomen, index, shape=data.phantom_shape),
            )
            for index, split in enumerate(splits)
        ),
    )
