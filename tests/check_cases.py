"""Cases made up for `check`, stored without a source, and its findings."""

from pathlib import Path

import numpy as np

from msa2net.data.case import Case
from msa2net.data.check.dataset import check_store
from msa2net.data.check.findings import LEVELS, Finding
from msa2net.data.geometry import Geometry
from msa2net.data.prepared.intensity_statistics import count_labels, describe_channels
from msa2net.data.prepared.store import (
    Store,
    StoredCase,
    image_path,
    label_path,
    write_index,
)

SMALL = (32, 32)


PLACE = Geometry.from_spacing((2.0, 1.0, 1.0))


def make(
    folder: Path,
    cases: list[Case],
    *,
    splits: str = "train val test",
    names: tuple[str, ...] = ("background", "organ"),
    **facts,
) -> Store:
    """Store cases as they are, without a source; splits in turn."""
    (folder / "cases").mkdir(parents=True, exist_ok=True)
    rows = []
    order = splits.split()
    for number, case in enumerate(cases):
        np.save(image_path(folder, case.id), case.image)
        np.save(label_path(folder, case.id), case.label)
        voxels = {str(value): count for value, count in count_labels(case.label).items()}
        rows.append(
            StoredCase(
                id=case.id,
                split=order[number % len(order)],
                shape=case.image.shape,
                geometry=case.geometry.to_json(),
                files=[],
                recipe="",
                patient=case.id,
                intensity=describe_channels(case.image),
                voxels=voxels,
            )
        )
    defaults = {
        "format": "nnunet",
        "kind": "volume",
        "intensity": "percentile",
        "low": 0.5,
        "high": 99.5,
        "channels": max(row.shape[0] for row in rows),
    }
    store = Store(root=folder, label_names=names, cases=tuple(rows), **defaults | facts)
    write_index(store, complete=True)
    return store


def case(number: int, *, shape=(1, 4, 16, 16), geometry: Geometry = PLACE, **changes) -> Case:
    """A small volume of noise in which an organ fills a corner."""
    image = np.random.default_rng(number).normal(100, 20, shape).astype(np.float32)
    label = np.zeros(shape[1:], np.uint8)
    label[:2, :8, :8] = 1
    fields = {"image": image, "label": label, "geometry": geometry} | changes
    return Case(f"case{number}", **fields)


def three(**changes) -> list[Case]:
    """Two sound cases, and one (case0, in train) with the changes."""
    return [case(0, **changes), case(1), case(2)]


def found(store: Store, what: str, **options) -> list[Finding]:
    """Findings whose words contain `what`."""
    findings = check_store(store, **{"image_size": SMALL} | options)
    order = [LEVELS.index(finding.level) for finding in findings]
    assert order == sorted(order)
    return [finding for finding in findings if what in finding.what]


def the(store: Store, what: str, **options) -> Finding:
    findings = found(store, what, **options)
    assert len(findings) == 1, findings
    return findings[0]
