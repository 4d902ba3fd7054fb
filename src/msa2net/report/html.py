"""`write_report`: a run folder as one HTML page that needs nothing else, offline or printed.

The page is report.html.jinja; here what a run folder holds is turned into what the page shows.
A section whose file is missing becomes one sentence.
"""

import math
from importlib import resources
from pathlib import Path
from statistics import fmean
from statistics import median as median_of
from typing import Any

import numpy as np
from numpy.typing import NDArray

from msa2net.files import write_text
from msa2net.metrics.protocol import PUBLISHED, CaseRow
from msa2net.report.content import Example, RunContent, find, read_example, read_run
from msa2net.report.figures import (
    IGNORED,
    PALETTE,
    Curve,
    curve_chart,
    image_uri,
    outline_path,
    strip_chart,
)

MAX_SLICES = 24
MAX_SIDE = 512
MAX_PIXELS = MAX_SLICES * 192 * 192  # of one example, all slices: six volumes stay under 3 MB

METRICS = {
    "dice": "Dice",
    "iou": "IoU",
    "sensitivity": "Sensitivity",
    "specificity": "Specificity",
    "precision": "Precision",
    "accuracy": "Accuracy",
}
COLUMNS = {
    "mean": "Dice",
    "median": "Median",
    "n": "n",
    "missed": "Missed",
    "false_positives": "False pos.",
}
NOT_APPLICABLE = "–"


def write_report(run: Path, out: Path | None = None) -> Path:
    """Write a run folder as one self-contained HTML page.

    The page loads nothing: pictures, charts, style and script are inside it.

    Args:
        run: folder with config.yaml or model.json and, as far as there are, metrics.csv and
            evaluation/.
        out: the file to write; report.html in the run folder by default.

    Returns:
        The path of the page.

    Raises:
        DataError: `run` is not a run folder, a file in it is broken, or the page cannot be written.
    """
    from jinja2 import Environment, StrictUndefined

    content = read_run(run)
    template = resources.files("msa2net.report").joinpath("report.html.jinja")
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    text = environment.from_string(template.read_text(encoding="utf-8")).render(
        run=content,
        palette=PALETTE,
        classes=[(name, _style(index)) for index, name in enumerate(content.labels) if index],
        tiles=_tiles(content),
        facts=_facts(content),
        curves=_curves(content),
        scores=_scores(content.summary),
        strips=_strips(content),
        examples=[_card(read_example(path), content) for path in content.examples],
        reference=_reference(content.summary.get("reference")),
    )
    path = run / "report.html" if out is None else out
    write_text(path, text)
    return path


def _style(index: int) -> str:
    """Name the style-sheet class that has the colour of a class."""
    return f"c{(index - 1) % len(PALETTE) + 1}"


def _fraction(value: Any) -> str:
    return f"{value:.4f}" if isinstance(value, int | float) else NOT_APPLICABLE


def _model(run: RunContent) -> tuple[str, int | None]:
    """Name and size of the network, from whichever file knows them."""
    trees = (run.summary.get("model"), run.model, run.config.get("model"))
    names = (t if isinstance(t, str) else find(t, "name", "network", "model") for t in trees)
    sizes = (find(tree, "parameters") for tree in trees)
    return (
        next((name for name in names if isinstance(name, str)), "unknown network"),
        next((size for size in sizes if isinstance(size, int)), None),
    )


def _tiles(run: RunContent) -> list[tuple[str, str, str]]:
    """Headline numbers: (value, what it is, a remark)."""
    standard = run.summary.get("protocols", {}).get("standard", {})
    mean = standard.get("mean", {}).get("dice")
    tiles = []
    if mean is not None:
        missed, false = _total(standard, "missed"), _total(standard, "false_positives")
        remark = f"standard protocol; missed: {missed}, false positives: {false}"
        tiles.append((f"{mean:.3f}", "mean Dice", remark))
    if "cases" in run.summary:
        split = run.summary.get("split")
        tiles.append((f"{run.summary['cases']:,}", "cases", f"{split} split" if split else ""))
    name, parameters = _model(run)
    data = find(run.summary.get("data"), "format")
    tiles.append((name, "network", f"on {data}" if data else ""))
    if parameters:
        tiles.append((_short(parameters), "parameters", f"{parameters:,}"))
    return tiles


def _short(count: int) -> str:
    unit, name = (1_000_000, " M") if count >= 1_000_000 else (1_000, " k")
    if count < unit:
        return str(count)
    digits = max(1, 3 - len(str(count // unit)))
    return f"{count / unit:.{digits}f}{name}"


def _facts(run: RunContent) -> list[tuple[str, str]]:
    """What was run, as (name, value); what no file knows is left out."""

    def look(*names: str) -> Any:
        found = (find(tree, *names) for tree in (run.summary, run.model, run.config))
        return next((value for value in found if value is not None), None)

    name, _ = _model(run)
    data, size = look("data"), look("image_size", "size")
    seconds, kept = find(run.model, "training_seconds", "seconds"), find(run.model, "best_epoch")
    facts = {
        "Network": name,
        "Encoder": look("encoder"),
        "Data": _data(data) if isinstance(data, dict) else data,
        "Scored on": _scored_on(run.summary),
        "Image size": f"{size} × {size}" if isinstance(size, int) else size,
        "Epochs": _epochs(run),
        "Kept weights": "" if kept is None else f"of epoch {kept}",
        "Batch size": look("batch_size"),
        "Loss": look("loss"),
        "Optimiser": look("optimizer", "optimiser"),
        "Learning rate": look("learning_rate", "lr"),
        "Precision": find(run.config, "precision"),
        "Seed": look("seed"),
        "Device": look("device", "accelerator"),
        "Training time": _duration(seconds, kept) if isinstance(seconds, int | float) else seconds,
        "Versions": look("versions"),
        "Data hash": str(find(data, "hash") or look("data_hash") or "")[:16],
        "Weights hash": str(look("weights_sha256") or "")[:16],
    }
    return [(key, _plain(value)) for key, value in facts.items() if value not in (None, "", {}, [])]


def _data(data: dict[str, Any]) -> str:
    name = str(data.get("format") or data.get("name") or "")
    changed = data.get("same_as_training") is False
    return f"{name}, not the same as in training (another hash)" if changed else name


def _scored_on(summary: dict[str, Any]) -> str:
    cases, split = summary.get("cases"), summary.get("split")
    counted = f"{cases:,} {summary.get('image_kind', 'case')}s" if cases else ""
    return ", ".join(part for part in (f"{split} split" if split else "", counted) if part)


def _epochs(run: RunContent) -> str:
    planned = find(run.config, "epochs", "max_epochs")
    done = run.epochs[-1]["epoch"] if run.epochs else None
    if done is None:
        return "" if planned is None else f"{planned} planned"
    return f"{done:g}" if planned in (None, done) else f"{done:g} of {planned}"


def _duration(seconds: float, kept: Any) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    text = f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"
    return text if kept is None else f"{text} to the kept weights"  # model.json is written then


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_plain(part)}" for key, part in value.items())
    if isinstance(value, list | tuple):
        return " × ".join(map(_plain, value))
    return str(value)


def _curves(run: RunContent) -> list[tuple[str, str, str]]:
    """Charts as (title, remark, SVG); a quantity without one number has none."""

    def points(column: str) -> list[tuple[float, float]]:
        pairs = [(row["epoch"], row.get(column)) for row in run.epochs]
        return [(x, y) for x, y in pairs if x is not None and y is not None]

    charts = []
    loss = Curve("line", points("train_loss"))
    if loss.points:
        svg = curve_chart([loss], title="Training loss over epochs")
        charts.append(("Training loss", "by epoch", svg))
    mean = Curve("line", points("val_dice"))
    by_class = [
        Curve(f"line faint {_style(index)}", points(f"val_dice_{name}"))
        for index, name in enumerate(run.labels)
        if index and len(run.labels) > 2  # of one class, the mean says it all
    ]
    if mean.points:
        epoch, best = max(mean.points, key=lambda point: point[1])
        title = "Validation Dice over epochs"
        svg = curve_chart([*by_class, mean], title=title, mark_best=True)
        charts.append(("Validation Dice", f"by epoch; best {best:.3f} at epoch {epoch:g}", svg))
    return charts


def _scores(summary: dict[str, Any]) -> dict[str, Any] | None:
    """Lay out the standard and the published protocol, to stand side by side."""
    protocols = summary.get("protocols", {})
    wanted = ("standard", PUBLISHED.get(summary.get("image_kind", ""), ""))
    shown = [protocols[name] for name in wanted if name in protocols]
    if not shown:
        return None
    return {
        "protocols": [_protocol_view(entry) for entry in shown],
        "rules": _differing_rules(shown),
    }


def _protocol_view(entry: dict[str, Any]) -> dict[str, Any]:
    classes = {label: figures["dice"] for label, figures in entry["classes"].items()}
    keys = [key for key in COLUMNS if any(c.get(key) is not None for c in classes.values())]
    further = [name for name in METRICS if name in entry["mean"] and name != "dice"]
    over = entry.get("mean_over", {})
    return {
        "title": entry["title"],
        "unit": entry["unit"],
        "headings": [COLUMNS[key] for key in keys],
        "rows": {label: [_figure(c, key) for key in keys] for label, c in classes.items()},
        "mean": [
            _fraction(entry["mean"].get("dice")) if key == "mean" else _total(entry, key)
            for key in keys
        ],
        "metrics": {METRICS[name]: name for name in further},
        "further": {
            label: {name: _fraction(figures[name]["mean"]) for name in further}
            for label, figures in entry["classes"].items()
        },
        "further_mean": {name: _fraction(entry["mean"][name]) for name in further},
        "partial": [
            f"{METRICS[name]} over {over[name]} of {len(classes)}"
            for name in METRICS
            if over.get(name, len(classes)) < len(classes)
        ],
    }


def _figure(dice: dict[str, Any], key: str) -> str:
    value = dice.get(key)
    if key in ("mean", "median"):
        return _fraction(value)
    return NOT_APPLICABLE if value is None else f"{value:,}"


def _total(entry: dict[str, Any], key: str) -> str:
    """Add a count of failures up over the classes; other columns have no total."""
    if key not in ("missed", "false_positives"):
        return ""
    return f"{sum(figures['dice'].get(key) or 0 for figures in entry['classes'].values()):,}"


def _differing_rules(shown: list[dict[str, Any]]) -> list[list[str]]:
    """Situations that all shown protocols have a rule for, and not the same one."""
    rules = [dict(entry.get("rules", [])) for entry in shown]
    common = [situation for situation in rules[0] if all(situation in each for each in rules)]
    rows = [[situation, *(each[situation] for each in rules)] for situation in common]
    return [row for row in rows if len(set(row[1:])) > 1]


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
            (name, _style(index), _verdict(rows[name]))
            for index, name in enumerate(run.labels)
            if name in rows and rows[name]["outcome"] != "absent"
        ],
        "depth": depth,
        "height": height,
        "width": width,
        "start": depth // 2,
        "strip": image_uri(small.image.reshape(depth * height, width, 3)),
        "truth": [_outlines(labels_HW) for labels_HW in small.truth],
        "prediction": [_outlines(labels_HW) for labels_HW in small.prediction],
    }


def _verdict(row: CaseRow) -> str:
    if row["outcome"] == "scored" and row["dice"] is not None:
        return f"{row['dice']:.3f}"
    return "missed" if row["outcome"] == "missed" else "false pos."


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


def _reference(reference: dict[str, Any] | None) -> dict[str, Any] | None:
    if not reference:
        return None
    rows = [[str(row[0]), *map(_printed, row[1:])] for row in reference["rows"]]
    return {**reference, "rows": rows, "note": reference.get("note") or ""}


def _printed(value: float | None) -> str:
    """Fractions with four digits, others with two, or more where the paper has more."""
    if value is None:
        return NOT_APPLICABLE
    digits = 4 if abs(value) <= 1 else 2
    return f"{value:.{digits}f}" if round(value, digits) == value else str(value)
