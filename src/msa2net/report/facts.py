"""What was run, in words: the headline numbers and the list of facts at the top of the page."""

from msa2net.models.registry import MODELS
from msa2net.report.content import RunContent
from msa2net.report.layouts import Summary


def headline_tiles(run: RunContent) -> list[tuple[str, str, str]]:
    """Return the headline numbers: (value, what it is, a remark)."""
    network = (run.network.name, "network", f"on {_format(run)}" if _format(run) else "")
    if run.summary is None:
        return [network]
    count = run.summary.model.parameters
    return [
        *_score_tiles(run.summary),
        (f"{run.summary.cases:,}", "cases", f"{run.summary.split} split"),
        network,
        (_short(count), "parameters", f"{count:,}"),
    ]


def run_facts(run: RunContent) -> list[tuple[str, str]]:
    """Return what was run as (name, value); what no file knows is left out."""
    facts = _network_facts(run) | _data_facts(run) | _training_facts(run) | _origin_facts(run)
    return [(name, value) for name, value in facts.items() if value]


def _score_tiles(summary: Summary) -> list[tuple[str, str, str]]:
    scores = summary.protocols.get("standard")
    mean = scores.mean["dice"] if scores else None
    if scores is None or mean is None:
        return []
    failures = f"missed: {scores.missed:,}, false positives: {scores.false_positives:,}"
    tiles = [(f"{mean:.3f}", "mean Dice", f"standard protocol; {failures}")]
    for metric, unit in (("hd95_mm", "mm"), ("hd95_voxels", "voxels")):
        distance = scores.mean.get(metric)
        if distance is not None:
            remark = "standard protocol; a failure counts the image's diagonal"
            return [*tiles, (f"{distance:.1f} {unit}", "mean HD95", remark)]
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
    name, encoder = run.network.name, run.network.encoder
    if encoder is None and name in MODELS:  # a network that we do not know has no default either
        encoder = MODELS[name].encoder
    settings = run.config.model if run.config else None
    pretrained = settings is not None and (settings.pretrained or settings.pretrained_file)
    size = run.model.network if run.model else run.config
    assert size is not None  # as in `RunContent.network`
    return {
        "Network": name,
        "Encoder": f"{encoder}, from ImageNet weights" if encoder and pretrained else encoder or "",
        "Image size": " × ".join(map(str, size.image_size)),
    }


def _data_facts(run: RunContent) -> dict[str, str]:
    summary = run.summary
    if summary is None:
        trained_on = run.model.data.get("hash", "") if run.model else ""
        return {"Data": _format(run), "Data hash": trained_on[:16]}
    changed = (
        "" if summary.data.same_as_training else ", not the same as in training (another hash)"
    )
    plural = "" if summary.cases == 1 else "s"
    return {
        "Data": summary.data.format + changed,
        "Data hash": summary.data.hash[:16],
        "Scored on": f"{summary.split} split, {summary.cases:,} {summary.image_kind}{plural}",
    }


def _training_facts(run: RunContent) -> dict[str, str]:
    facts = {
        "Epochs": _epochs(run),
        "Kept weights": _kept_weights(run),
        "Training time": _training_time(run),
        "Device": run.training.device or "",
        "Trained on": " and ".join(run.training.trained_on),
        "Precision": run.training.precision or "",
        "Seed": "" if run.training.seed is None else str(run.training.seed),
    }
    if run.config is None:
        return facts
    settings = run.config.train
    precision = "" if settings.precision == "auto" else settings.precision  # not what auto came to
    return facts | {
        "Precision": facts["Precision"] or precision,
        "Seed": facts["Seed"] or str(settings.seed),
        "Batch size": str(settings.batch_size),
        "Loss": " + ".join(f"{weight:g} × {name}" for name, weight in run.config.loss.items()),
        "Optimiser": settings.optimizer,
        "Learning rate": f"{settings.learning_rate:g}, {settings.schedule} schedule",
    }


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
    # model.json is written with the kept weights; only a count of epochs tells how far that is.
    return f"{text} to the kept weights" if epochs is None else f"{text} for {epochs} epochs"


def _origin_facts(run: RunContent) -> dict[str, str]:
    """Tell which files and which software the weights and scores come from."""
    trained = _listed(run.model.versions) if run.model else ""
    scored = _listed(run.summary.versions) if run.summary else ""
    return {
        "Imported from": run.training.imported_from or "",
        "Its SHA-256": (run.training.sha256 or "")[:16],
        "Weights hash": run.summary.model.weights_sha256[:16] if run.summary else "",
        "Versions": trained,
        "Scored with": "" if scored == trained else scored,
    }


def _listed(versions: dict[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in versions.items())
