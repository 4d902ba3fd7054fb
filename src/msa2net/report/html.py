"""`write_report`: a run folder as one HTML page that needs nothing else, offline or printed.

The page is report.html.jinja with report.css and report.js written into it; here what a run folder
holds is turned into what the page shows. A section whose file is missing becomes one sentence.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from statistics import fmean
from statistics import median as median_of
from typing import Any

import numpy as np
from numpy.typing import NDArray

from msa2net.data.display import PALETTE
from msa2net.evaluation.schema import PublishedResults
from msa2net.evaluation.tables.columns import reference_rows, selection_note, subset_note
from msa2net.files import EVALUATIONS, write_text
from msa2net.metrics.protocol import CaseRow
from msa2net.report.calibration_chart import calibration_part
from msa2net.report.facts import headline_tiles, run_facts
from msa2net.report.load import Example, RunContent, read_example, read_run
from msa2net.report.overlay import (
    IGNORED,
    Curve,
    curve_chart,
    image_uri,
    outline_path,
    strip_chart,
)
from msa2net.report.score_tables import score_tables, worst_tables

MAX_SLICES = 24
MAX_SIDE = 512
CARD_WIDTH = 350  # CSS pixels in a window of usual size: hatching is as wide in every card
MAX_PIXELS = MAX_SLICES * 192 * 192  # of one example, all slices: six volumes stay under 3 MB


def write_report(run: Path, out: Path | None = None, *, split: str = "test") -> Path:
    """Write a run folder, or an evaluation of two folders, as one self-contained HTML page.

    The page loads nothing: pictures, charts, style and script are inside it. It holds no path; it
    does hold the folder's name, those of folders of masks, and the cases' ids.

    Args:
        run: folder with config.yaml or model.json and, as far as there are, metrics.csv and
            evaluation/; or the folder of an evaluation alone, with summary.json and its like.
        out: the file to write; by default report.html in the folder or, for another split than
            test, in that of its scores.
        split: whose scores of a run folder are shown.

    Returns:
        The path of the page.

    Raises:
        DataError: `run` is no such folder, a file in it is broken, or the page cannot be written.
        ConfigError: config.yaml is broken.
        WeightsError: model.json is broken or newer than we are.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    content = read_run(run, split)
    environment = Environment(
        loader=PackageLoader("msa2net", "report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    text = environment.get_template("report.html.jinja").render(
        run=content,
        palette=PALETTE,
        classes=[(name, _style(index)) for index, name in enumerate(content.labels) if index],
        styles={name: _style(index) for index, name in enumerate(content.labels)},
        tiles=headline_tiles(content),
        facts=run_facts(content),
        curves=_curves(content),
        averaged=any(_has_average(row) for row in content.epochs),
        selection=selection_note(content.summary) if content.summary else (False, ""),
        subset=subset_note(content.summary) if content.summary else "",
        scores=score_tables(content.summary) if content.summary else None,
        assessments=calibration_part(content.summary.assessments) if content.summary else None,
        worst=worst_tables(content.summary),
        strips=_strips(content),
        examples=_cards([read_example(path) for path in content.examples], content),
        reference=_reference(content.summary.reference) if content.summary else None,
    )
    folder = run if split == "test" else run / EVALUATIONS[split]
    path = folder / "report.html" if out is None else out
    write_text(path, text)
    return path


def _style(index: int) -> str:
    """Name the style-sheet class that has the colour of a class."""
    return f"c{(index - 1) % len(PALETTE) + 1}"


def _curves(run: RunContent) -> list[tuple[str, str, str]]:
    """Charts as (title, remark, SVG); a quantity without one number has none.

    The network's mean and that of its averaged weights, where there are any, are lines of one
    chart; the highest point of both is marked, as of two equals training keeps the average.
    """

    def points(column: str) -> list[tuple[float, float]]:
        pairs = [(row["epoch"], row.get(column)) for row in run.epochs]
        return [(x, y) for x, y in pairs if x is not None and y is not None]

    charts = []
    loss = Curve("line", points("train_loss"))
    if loss.points:
        svg = curve_chart([loss], title="Training loss over epochs")
        charts.append(("Training loss", "by epoch", svg))
    for split, name in (("val", "Validation Dice"), ("test", "Test Dice while training")):
        mean = Curve("line", points(f"{split}_dice"))
        by_class = [
            Curve(f"line faint {_style(index)}", points(f"{split}_dice_{label}"))
            for index, label in enumerate(run.labels)
            if index and len(run.labels) > 2  # of one class, the mean says it all
        ]
        average = Curve("line average", points(f"average_{split}_dice"))
        if mean.points:
            of_both = [(*point, "") for point in mean.points]
            of_both += [(*point, ", averaged weights") for point in average.points]
            epoch, best, whose = max(reversed(of_both), key=lambda point: point[1])
            svg = curve_chart(
                [*by_class, mean, average], title=f"{name} over epochs", mark=(epoch, best)
            )
            charts.append((name, f"by epoch; best {best:.3f} at epoch {epoch:g}{whose}", svg))
    return charts


def _has_average(row: Mapping[str, float | None]) -> bool:
    return any(row.get(f"average_{split}_dice") is not None for split in ("val", "test"))


def _strips(run: RunContent) -> list[dict[str, Any]]:
    """Per class, its cases' Dice under the standard protocol; a class without one is left out."""
    strips = []
    for index, name in enumerate(run.labels):
        rows = [row for row in run.cases if row["class"] == name]
        scored = [r["dice"] for r in rows if r["dice"] is not None and r["outcome"] == "scored"]
        failed = [r["dice"] for r in rows if r["dice"] is not None and r["outcome"] != "scored"]
        if scored or failed:
            strips.append(
                {
                    "name": name,
                    "style": _style(index),
                    "svg": strip_chart(scored, failed),
                    "median": f"{median_of([*scored, *failed]):.3f}",
                    "n": len(scored) + len(failed),
                }
            )
    return strips


def _cards(examples: list[Example], run: RunContent) -> list[dict[str, Any]]:
    """Cases to look at, from worst to best; of two worst or best ones only one is that."""
    ranks = [example.rank for example in examples]
    cards = [_card(example, run) for example in examples]
    for index, card in enumerate(cards):
        rank = ranks[index]
        above = ranks[index + 1 :].count(rank) if rank == "best" else ranks[:index].count(rank)
        if rank == "median" and ranks.count(rank) > 1:
            card["rank"] = "near the median"
        elif above:
            card["rank"] = f"{'second' if above == 1 else f'{above + 1}th'} {rank}"
    return cards


def _card(example: Example, run: RunContent) -> dict[str, Any]:
    """One case to look at: pictures, outlines and scores."""
    small = _reduced(example)
    depth, height, width = small.truth.shape
    rows = {row["class"]: row for row in run.cases if row["case"] == example.case}
    dice = [row["dice"] for row in rows.values() if row["dice"] is not None]
    return {
        "rank": example.rank,
        "case": example.case,
        "dice": f"{fmean(dice):.3f}" if dice else "",
        "scores": [
            (name, _style(index), _verdict(rows[name]), _distance(rows[name]))
            for index, name in enumerate(run.labels)
            if name in rows and rows[name]["outcome"] != "absent"
        ],
        "depth": depth,
        "height": height,
        "width": width,
        "start": depth // 2,
        "scale": f"{2 * width / CARD_WIDTH:.3f}",
        "styles": [_style(index) for index in range(1, len(run.labels))][: len(PALETTE)],
        "strip": image_uri(small.image.reshape(depth * height, width, 3)),
        "truth": [_outlines(labels_HW) for labels_HW in small.truth],
        "prediction": [_outlines(labels_HW) for labels_HW in small.prediction],
    }


def _verdict(row: CaseRow) -> str:
    if row["outcome"] == "scored" and row["dice"] is not None:
        return f"{row['dice']:.3f}"
    return "missed" if row["outcome"] == "missed" else "false pos."


def _distance(row: CaseRow) -> str:
    """HD95 of a class that was found, in mm where the spacing is known; a failure has none."""
    if row["outcome"] != "scored" or row["hd95_voxels"] is None:
        return ""
    mm = row["hd95_mm"]
    return f"{row['hd95_voxels']:.1f} vox" if mm is None else f"{mm:.1f} mm"


def _outlines(labels_HW: NDArray[np.uint8]) -> list[tuple[str, str]]:
    """Outline of every class in a slice, as (style, SVG path)."""
    present = np.flatnonzero(np.bincount(labels_HW.reshape(-1))).tolist()
    classes = [index for index in present if index not in (0, IGNORED)]
    return [(_style(index), outline_path(labels_HW == index)) for index in classes]


def _reduced(example: Example) -> Example:
    """Take few and small enough slices for a page of modest size, labelled ones first."""
    from PIL import Image

    truth, prediction = example.truth, example.prediction
    labelled = np.flatnonzero((truth.any(axis=(1, 2))) | prediction.any(axis=(1, 2)))
    kept = labelled if len(labelled) else np.arange(len(truth))
    if len(kept) > MAX_SLICES:
        kept = kept[np.linspace(0, len(kept) - 1, MAX_SLICES).round().astype(int)]
    height, width = truth.shape[1:]
    shrink = min(
        1, MAX_SIDE / max(height, width), math.sqrt(MAX_PIXELS / len(kept) / height / width)
    )
    size = max(1, round(width * shrink)), max(1, round(height * shrink))

    def resized(stack: NDArray[np.uint8], method: Image.Resampling) -> NDArray[np.uint8]:
        return np.stack([np.asarray(Image.fromarray(stack[z]).resize(size, method)) for z in kept])

    return Example(
        example.rank,
        example.case,
        resized(example.image, Image.Resampling.LANCZOS),
        resized(truth, Image.Resampling.NEAREST),
        resized(prediction, Image.Resampling.NEAREST),
    )


def _reference(reference: PublishedResults | None) -> dict[str, Any] | None:
    if reference is None:
        return None
    return {**reference.model_dump(), "rows": reference_rows(reference.rows)}
