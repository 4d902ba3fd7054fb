"""What was run, in words: the headline numbers and the list of facts at the top of the page."""

from msa2net.evaluation.schema import Summary
from msa2net.evaluation.tables.columns import (
    NOT_APPLICABLE,
    format_interval,
    format_metric,
    shown_protocols,
)
from msa2net.report.load import RunContent
from msa2net.report.score_tables import distance_of_failure
from msa2net.text import count_noun


def headline_tiles(run: RunContent) -> list[tuple[str, str, str]]:
    """Return the headline numbers: (value, what it is, a remark)."""
    summary = run.summary
    tiles = []
    if summary is not None:
        scored = f"{summary.split} split" if summary.split else ""
        tiles = [*_score_tiles(summary), (f"{summary.cases:,}", "cases", scored)]
    if run.network is not None:
        tiles.append((run.network.name, "network", f"on {_format(run)}" if _format(run) else ""))
    if summary is not None and summary.model is not None:
        count = summary.model.parameters
        tiles.append((_short(count), "parameters", f"{count:,}"))
    return tiles


def run_facts(run: RunContent) -> list[tuple[str, str]]:
    """Return what was run, or scored, as (name, value); what no file knows is left out."""
    if run.is_run:
        facts = _network_facts(run) | _data_facts(run) | _training_facts(run) | _origin_facts(run)
    else:
        facts = _data_facts(run) | _origin_facts(run)
    return [(name, value) for name, value in facts.items() if value]


def _score_tiles(summary: Summary) -> list[tuple[str, str, str]]:
    scores = summary.standard
    mean = scores.mean["dice"] if scores else None
    if scores is None or mean is None:
        return []
    counts = scores.counts()
    failures = f"missed: {counts.missed:,}, false positives: {counts.false_positives:,}"
    interval = format_interval("dice", scores.mean_interval.get("dice"))
    between = "" if interval == NOT_APPLICABLE else f"95 % interval {interval}; "
    tiles = [(format_metric("dice", mean), "mean Dice", f"standard protocol; {between}{failures}")]
    for metric, unit in (("hd95_mm", "mm"), ("hd95_voxels", "vox")):
        distance = scores.mean.get(metric)
        if distance is not None:
            counted = distance_of_failure(scores)
            remark = "standard protocol" + (f"; a failure counts {counted}" if counted else "")
            return [*tiles, (f"{format_metric(metric, distance)} {unit}", "mean HD95", remark)]
    return tiles


def _short(count: int) -> str:
    unit, name = (1_000_000, " M") if count >= 1_000_000 else (1_000, " k")
    if count < unit:
        return str(count)
    digits = max(1, 3 - len(str(count // unit)))
    return f"{count / unit:.{digits}f}{name}"


def _format(run: RunContent) -> str:
    if run.summary is not None:
        return run.summary.data.format
    trained_on = run.model.data.get("format", "") if run.model else ""
    return trained_on or (run.config.data.format if run.config else "")


def _network_facts(run: RunContent) -> dict[str, str]:
    if run.network is None:
        return {}
    from msa2net.config import LEVELS_WORDS
    from msa2net.models.registry import MODELS

    name, encoder = run.network.name, run.network.encoder
    if encoder is None and name in MODELS:  # a network that we do not know has no default either
        encoder = MODELS[name].encoder
    settings = run.config.model if run.config else None
    pretrained = settings is not None and (settings.pretrained or settings.pretrained_file)
    size = run.model.network if run.model else run.config
    assert size is not None  # one of them has the network
    return {
        "Network": name,
        "Encoder": f"{encoder}, from ImageNet weights" if encoder and pretrained else encoder or "",
        "Decoder": LEVELS_WORDS[run.network.levels],
        "Image size": " × ".join(map(str, size.image_size)),
    }


def _data_facts(run: RunContent) -> dict[str, str]:
    summary = run.summary
    if summary is None:
        trained_on = run.model.data.get("hash", "") if run.model else ""
        return {"Data": _format(run), "Data hash": trained_on[:16]}
    plural = "" if summary.cases == 1 else "s"
    cases = f"{summary.cases:,} {summary.image_kind}{plural}"
    hashes = summary.hashes
    of_files = {
        "Predictions hash": (hashes.predictions or "")[:16],
        "Labels hash": (hashes.labels or "")[:16],
        "Split hash": (hashes.split or "")[:16],
    }
    if summary.source == "folders":
        return {
            "Predictions": summary.data.predictions or "",
            "Labels": summary.data.labels or "",
            "Scored": cases,
            **_left_out(summary),
            **of_files,
        }
    changed = summary.data.same_as_training is False
    return {
        "Data": summary.data.format
        + (", not the same as in training (another hash)" if changed else ""),
        "Data hash": summary.data.hash[:16],
        "Scored on": f"{summary.split} split, {cases}" if summary.split else cases,
        **of_files,
    }


def _left_out(summary: Summary) -> dict[str, str]:
    """Say of either folder how much of it was left out, where only common cases are scored."""
    sides = summary.data.left_out or {}
    words = [f"{own.cases} of {own.of} {side}" for side, own in sides.items()]
    return {"Left out": ", ".join(words)} if words else {}


def _training_facts(run: RunContent) -> dict[str, str]:
    from msa2net.inference.validation_scores import network_warnings

    facts = {
        "Warning": "" if run.model is None else "; ".join(network_warnings(run.model)),
        "Epochs": _epochs(run),
        "Kept weights": _kept_weights(run),
        "Training time": _training_time(run),
        "Device": run.training.device or "",
        "Trained on": " and ".join(run.training.trained_on),
        "Mirrored": " and ".join(run.training.flips),
        "Precision": _precision(run.training.precision),
        "Seed": "" if run.training.seed is None else str(run.training.seed),
    }
    if run.config is None:
        return facts
    settings = run.config.train
    foreground = settings.oversample_foreground
    asked = "" if settings.precision == "auto" else settings.precision  # not what auto came to
    return facts | {
        "Precision": facts["Precision"] or _precision(asked),
        "Seed": facts["Seed"] or str(settings.seed),
        "Batch size": str(settings.batch_size),
        "Loss": " + ".join(f"{weight:g} × {name}" for name, weight in run.config.loss.items()),
        "Optimiser": settings.optimizer,
        "Learning rate": f"{settings.learning_rate:g}, {settings.schedule} schedule",
        "Supervision": "" if settings.deep_supervision == "none" else settings.deep_supervision,
        "Weight average": "" if settings.ema is None else f"decay {settings.ema:g}",
        "Balanced samples": f"{foreground:.0%}" if foreground else "",
        "Stochastic depth": f"{run.config.model.drop_path:g}" if run.config.model.drop_path else "",
    }


def _precision(name: str | None) -> str:
    """Write a precision in words, with the setting's value behind them."""
    from msa2net.config import PRECISION_WORDS

    return f"{PRECISION_WORDS[name]} ({name})" if name in PRECISION_WORDS else name or ""


def _epochs(run: RunContent) -> str:
    done = run.epochs[-1]["epoch"] if run.epochs else run.training.epochs_run
    planned = run.config.train.epochs if run.config else run.training.epochs
    if done is None:
        return "" if planned is None else f"{planned} planned"
    return f"{done:g}" if planned in (None, done) else f"{done:g} of {planned}"


def _kept_weights(run: RunContent) -> str:
    facts = run.training
    if facts.best_epoch is None:
        return ""
    text = f"of epoch {facts.best_epoch}"
    if facts.weights == "last":
        text += ", the last"
    if facts.averaged:
        text += ", their average"
    if facts.val_dice is not None:
        text += f", validation Dice {facts.val_dice:.3f}"
    if facts.test_dice is not None:
        by = "chosen by the TEST split" if facts.weights == "best on test" else "test"
        text += f", {by} Dice {facts.test_dice:.3f}"
    return text


def _training_time(run: RunContent) -> str:
    seconds, epochs = run.training.seconds, run.training.epochs_run
    if seconds is None:
        return ""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    text = f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"
    if epochs is None:  # runs of older versions: model.json was written with the kept weights
        return f"{text} to the kept weights"
    return f"{text} for {count_noun(epochs, 'epoch')}"


def _origin_facts(run: RunContent) -> dict[str, str]:
    """Tell which files and which software the weights and scores come from."""
    summary = run.summary
    trained = _listed(run.model.versions) if run.model else ""
    scored = _listed(summary.versions) if summary else ""
    weights = summary.model.weights_sha256 if summary and summary.model else ""
    protocols = shown_protocols(summary.image_kind, summary.protocols) if summary else []
    return {
        "Protocols": "" if run.is_run else " and ".join(protocols),
        "Imported from": (run.training.imported_from or "") if run.model else "",
        "Its SHA-256": (run.training.sha256 or "")[:16] if run.model else "",
        "Weights hash": weights[:16],
        "Versions": trained,
        "Scored with": "" if scored == trained else scored,
    }


def _listed(versions: dict[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in versions.items())
