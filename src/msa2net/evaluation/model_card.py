"""`MODEL_CARD.md` of a run folder: what is known of a network, in words for people.

Written from `model.json`, `config.yaml` and, once there, `evaluation/summary.json`. It names no
person, no case and no path.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from msa2net.config import LEVELS_WORDS, PRECISION_WORDS, Config, load_config
from msa2net.evaluation.schema import Summary
from msa2net.evaluation.summary import read_summary
from msa2net.evaluation.tables.columns import (
    DISCLAIMER,
    HEADINGS,
    NOT_APPLICABLE,
    heading,
    legend,
    selection_note,
)
from msa2net.evaluation.tables.markdown import escaped, lay_out
from msa2net.evaluation.tables.rows import score_rows, shown
from msa2net.files import CONFIG_FILE, EVALUATIONS, write_text
from msa2net.inference.run_folder import ModelMetadata, read_facts
from msa2net.inference.validation_scores import network_warnings, validation_scores, with_scores
from msa2net.quality.features import name_feature, parts_of
from msa2net.quality.flags import format_number
from msa2net.quality.reference_ranges import Range, ReferenceRanges, describe_limits

CARD_FILE = "MODEL_CARD.md"

_WEIGHTS = {
    "best on val": "those with the highest mean Dice on the validation split",
    "best on test": "those with the highest mean Dice on the TEST split, which flatters its scores",
    "last": "the last of the training",
}


def write_card(run: Path) -> Path:
    """Write a run folder's model card, from what is known by now.

    Raises:
        WeightsError: not a run folder.
        ConfigError: its config.yaml is broken.
        DataError: its summary.json is broken, or the card cannot be written.
    """
    config_path, summary_path = run / CONFIG_FILE, run / EVALUATIONS["test"] / "summary.json"
    config = load_config(config_path) if config_path.is_file() else None
    summary = read_summary(summary_path) if summary_path.is_file() else None
    path = run / CARD_FILE
    write_text(path, model_card(with_scores(read_facts(run), run), config, summary))
    return path


def model_card(facts: ModelMetadata, config: Config | None, summary: Summary | None) -> str:
    """Write the card as Markdown.

    Args:
        facts: the content of model.json.
        config: the settings of the training; None of imported weights.
        summary: None before an evaluation.
    """
    on = f" on {facts.data['format']}" if facts.data.get("format") else ""
    parts = [
        f"# Model card: {escaped(facts.network.name + on)}",
        f"**{DISCLAIMER}** Nothing it answers may guide the diagnosis or treatment of a person.",
        *(f"**Warning:** {escaped(warning)}." for warning in network_warnings(facts)),
        *_part("What it is", _network(facts)),
        *_part("Intended use", _use(facts)),
        *_part("Data", _data(facts, config)),
        *_part("Training", _training(facts, config)),
        "## Scores",
        *_scores(summary),
        *_part("Confidence and flags", _assessments(facts.reference_ranges, summary)),
        *_part("Limits", _limits(facts, summary)),
    ]
    return "\n\n".join(parts) + "\n"


def _part(title: str, sentences: list[str]) -> list[str]:
    return [f"## {title}", "\n".join(f"- {escaped(sentence)}" for sentence in sentences)]


def _network(facts: ModelMetadata) -> list[str]:
    network, p = facts.network, facts.preprocessing
    sides = "×".join(map(str, network.image_size))
    scale = f"values from {p.low:g} to {p.high:g}"
    if p.intensity == "percentile":
        scale = f"the {p.low:g} to {p.high:g} percentiles of every image"
    known = [] if p.orientation is None else [f"Slices are cut along {p.orientation}."]
    encoder = f", encoder {network.encoder}" if network.encoder else ""
    levels = LEVELS_WORDS[network.levels]
    decoder = [f"Its decoder has {levels}."] if levels else []
    return [
        f"A network of msa2net that labels every pixel of a slice: {network.name}{encoder}.",
        *decoder,
        f"It finds: {', '.join(facts.label_names[1:])}. All else is {facts.label_names[0]}.",
        f"Its input has {network.in_channels} channel{'s' * (network.in_channels > 1)}, {scale}, "
        f"brought to {sides} pixels ({p.fit}).",
        *known,
        *_versions(facts),
    ]


def _versions(facts: ModelMetadata) -> list[str]:
    listed = ", ".join(f"{name} {version}" for name, version in facts.versions.items())
    return [f"Made with {listed}."] if listed else []


def _use(facts: ModelMetadata) -> list[str]:
    return [
        "Research on segmentation: comparing methods, preparing outlines that an expert corrects.",
        "Images as those it was trained on: the same kind of device, protocol, part of the body "
        "and population. Whatever differs has to be evaluated first.",
        f"Not for clinical decisions, and not for structures other than "
        f"{', '.join(facts.label_names[1:])}.",
    ]


def _data(facts: ModelMetadata, config: Config | None) -> list[str]:
    if "imported_from" in facts.training:
        return ["The weights were imported; of the data they were trained on nothing is known."]
    found = [f"Format {facts.data.get('format', 'unknown')}."]
    if facts.data.get("cases"):
        found.append(f"Cases: {facts.data['cases']}. {_patients(facts.data.get('format'))}")
    if config is not None:
        found.append(_split(config))
    if facts.data.get("hash"):
        found.append(f"Fingerprint of the prepared data: {facts.data['hash'][:16]}.")
    return [*found, *_seen(facts.reference_ranges)]


def _patients(data_format: str | None) -> str:
    """Say how images of one person were told apart from those of others."""
    if data_format in ("acdc", "btcv", "synapse", "phantom"):
        return "Those of one patient are in one split."
    return (
        "Patients are told apart by file names only: whether images of one person are in two "
        "splits is not known."
    )


def _split(config: Config) -> str:
    data = config.data
    if data.folds is not None:
        return f"Fold {data.fold} of {data.folds} validated, drawn with seed {data.split_seed}."
    if data.split_ratios is not None:
        ratios = "/".join(f"{ratio:g}" for ratio in data.split_ratios)
        return f"Patients were drawn into train/val/test by {ratios}, seed {data.split_seed}."
    return "The split is the data set's own, or that of its format."


def _seen(usual: ReferenceRanges | None) -> list[str]:
    """Say what the training's cases are like: middle, and the range that counts as usual."""
    if usual is None:
        return []
    words = []
    for feature, own in usual.ranges.items():
        name, which, of = parts_of(feature)
        single = which == "depth" and own.centre == 0  # photographs have one slice
        if name == "spacing" and which != "aspect" and not single:
            if which == "depth":
                words.append(f"Slices a case: {_between(own, 1, whole=True)}.")
            else:
                words.append(f"Distance of {which}: {_between(own, 1)} mm.")
        if name == "size":
            if which == "mm3":
                words.append(f"Size of {of}: {_between(own, 1000)} mL.")
            elif name_feature("size", "mm3", of) not in usual.ranges:
                share = _between(own, 0.01, most=100)
                words.append(f"Size of {of} in % of an image: {share}.")
    return words


def _between(own: Range, unit: float, *, most: float = math.inf, whole: bool = False) -> str:
    """Write the middle and the ends of a range of logarithms.

    Ranges go on beyond what was seen, so an end may lie where nothing can be: `most` is the largest
    value there is, and `whole` numbers are 1 at least.
    """
    ends = [own.centre if x is None else x for x in (own.low, own.high)]
    low, centre, high = (math.exp(x) / unit for x in (ends[0], own.centre, ends[1]))
    if whole:
        return f"about {centre:.0f}, usually {max(1, math.ceil(low))} to {math.floor(high)}"
    middle, least = format_number(min(centre, most), 3), format_number(min(low, most), 3)
    if high >= most:
        return f"about {middle}, usually {least} or more"
    return f"about {middle}, usually {least} to {format_number(high, 3)}"


def _training(facts: ModelMetadata, config: Config | None) -> list[str]:
    known = facts.training
    if "imported_from" in known:
        return ["Not trained here."]
    found = [
        f"{known.get('epochs_run', '?')} of {known.get('epochs', '?')} epochs, seed "
        f"{known.get('seed', '?')}, on {known.get('device', '?')}{_precision(known)}."
    ]
    chosen = _WEIGHTS.get(str(known.get("weights")))
    if chosen:
        found.append(f"Weights: {chosen}, of epoch {known.get('best_epoch', '?')}.")
    scores = validation_scores(facts)
    if scores is not None:
        each = ", ".join(
            f"{label} {NOT_APPLICABLE if dice is None else f'{dice:.4f}'}"
            for label, dice in scores.by_class.items()
        )
        classes = f", by class: {each}" if len(scores.by_class) > 1 else ""
        found.append(f"Mean Dice on {scores.split} then: {scores.dice:.4f}{classes}.")
    if "val" in known.get("trained_on", ()):
        found.append("The validation cases were trained on as well.")
    if config is not None:
        losses = ", ".join(f"{name} {weight:g}" for name, weight in config.loss.items())
        train = config.train
        found.append(
            f"Loss: {losses}. {train.optimizer}, highest learning rate {train.learning_rate:g}, "
            f"batches of {train.batch_size}."
        )
    mirrored = " and ".join(known.get("flips") or ())
    return [*found, f"Mirrored in training: {mirrored or 'never'}."]


def _precision(known: Mapping[str, Any]) -> str:
    name = str(known.get("precision") or "")
    return f", computed in {PRECISION_WORDS.get(name, name)}" if name else ""


def _scores(summary: Summary | None) -> list[str]:
    if summary is None:
        return ["Not evaluated yet: `msa2net evaluate` scores the test split and writes it here."]
    _, scores, metrics = shown(summary)
    rows = [
        [row.label, *row.names, *(cell.text for cell in row.cells.values()), row.counts[0]]
        for row in score_rows(summary.classes, scores, metrics)
    ]
    header = ["class", "protocol", *(HEADINGS[metric] for metric in metrics), "n"]
    warning, selection = selection_note(summary)
    said = [("**Warning:** " if warning else "") + escaped(selection)] if selection else []
    sums = ", in the line of the mean the sum over the classes" if len(rows) > len(scores) else ""
    explained = f"{legend(metrics)} n is the number of cases in the DSC{sums}."
    rules = [f"{entry.title}." for entry in scores.values()]
    return [
        f"{escaped(heading(summary))}.",
        *said,
        lay_out(header, rows),
        " ".join([explained, *rules]),
    ]


def _assessments(usual: ReferenceRanges | None, summary: Summary | None) -> list[str]:
    if usual is None:
        return ["What is usual was not noted for these weights, so no case is ever flagged."]
    words = [
        f"Cases that are unlike the {usual.train_cases} training cases looked at, or that the "
        "network is unsure of, are flagged: look at these first. A case without a flag may be "
        "wrong all the same."
    ]
    words.append(describe_limits(usual.val_cases, usual.target))
    if usual.val_cases:
        words.append(f"Of these validation cases {usual.flagged} are flagged.")
        words.append(_calibration(usual))
    if summary is not None and (assessments := summary.assessments):
        before, after = assessments.before.error, assessments.after.error
        words.append(f"On {summary.split}: {assessments.flagged} of {assessments.cases} flagged.")
        if usual.temperature != 1 and before is not None and after is not None:
            words.append(
                f"Expected calibration error on {summary.split}: {before:.4f} before that "
                f"division, {after:.4f} with it"
                + (", which made it worse here." if after > before else ".")
            )
    return words


def _calibration(usual: ReferenceRanges) -> str:
    if usual.temperature_reason:
        return f"Confidences are the network's own: {usual.temperature_reason}."
    return f"Confidences are of logits divided by {usual.temperature:.3g}."


def _limits(facts: ModelMetadata, summary: Summary | None) -> list[str]:
    found = [
        "It sees one slice at a time, reduced to its input's size: what is smaller than a few "
        "of those pixels is easily lost.",
        "It answers every image, also one that shows nothing it knows.",
        "Nothing here says how it does on groups of people, devices or hospitals that the "
        "scored cases do not hold.",
    ]
    standard = summary.standard if summary else None
    missed = [
        f"{label} {values['dice'].missed} of {values['dice'].n}"
        for label, values in (standard.classes if standard else {}).items()
        if values["dice"].missed
    ]
    if missed:
        found.append(f"Missed altogether in the scored cases: {', '.join(missed)}.")
    if facts.reference_ranges is None or not facts.reference_ranges.val_cases:
        found.append("How far its confidences are true is not known.")
    return found
