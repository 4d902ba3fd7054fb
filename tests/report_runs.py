"""Run folders and evaluations as train and evaluate leave them, made in a second for the report."""

import csv
from functools import cache

import numpy as np
from torch import nn

from msa2net.config import Config, NetworkConfig, dump_config
from msa2net.data.preprocessing import Preprocessing
from msa2net.evaluation.examples import example_name, pack_example
from msa2net.evaluation.published_results import reference_for
from msa2net.evaluation.schema import Hashes, Origin, ScoredData, ScoredModel
from msa2net.evaluation.summary import build_summary, protocols_of, write_evaluation
from msa2net.files import sha256
from msa2net.inference.run_folder import ModelMetadata, save_run, software_versions
from msa2net.metrics.scoring import case_rows

ORGANS = ["aorta", "gallbladder", "left kidney", "right kidney", "liver", "pancreas", "spleen"]
NAMES = {
    "photograph": ["background", "<b>lesion</b> & skin"],
    "volume": ["background", *ORGANS, "stomach"],
}
FORMATS = {"photograph": "isic2018", "volume": "synapse"}
CASES = {"photograph": 40, "volume": 6}
# A volume as evaluate scores it: with distances, and each case in a group.
SPACING_MM = (3.0, 0.8, 0.8)
GROUPS = ("end diastole", "end systole")
HASHES = Hashes(predictions="a1" * 32, labels="b2" * 32)
NEW_IN_2 = ("source", "failed_distance", "intervals", "worst", "hashes", "note")
SELECTION = "The weights are those of the best epoch on the <test> split: these scores flatter."


def disc(grid, center, radius):
    y, x = np.mgrid[: grid[0], : grid[1]]
    return np.hypot(y - center[0], x - center[1]) < radius


def make_case(kind, rng, error):
    """A noisy image (Z, H, W, 3), a truth of discs, and a prediction that is off by `error`."""
    depth, height, width = (1, 150, 200) if kind == "photograph" else (24, 128, 128)
    truth = np.zeros((depth, height, width), np.uint8)
    prediction = np.zeros_like(truth)
    classes = range(1, len(NAMES[kind]))
    for index in classes:
        angle = 2 * np.pi * index / len(classes)
        center = np.array([np.sin(angle), np.cos(angle)]) * (0 if len(classes) == 1 else 36)
        center += np.array([height, width]) / 2
        shift = rng.normal(size=2) * error
        for z in range(depth):
            size = 45 if depth == 1 else 15 * np.sin(np.pi * (z + 1 + index % 3) / (depth + 4))
            truth[z][disc((height, width), center, size)] = index
            prediction[z][disc((height, width), center + shift, size * (1 - error / 60))] = index
    values = 90 + 12 * truth[..., None] + rng.normal(0, 12, (depth, height, width, 1))
    color = (1.1, 0.8, 0.7) if kind == "photograph" else (1, 1, 1)
    return np.clip(values * color, 0, 255).astype(np.uint8), truth, prediction


def make_config(data_format, **train):
    """A configuration whose encoder and precision are left to be decided."""
    settings = {"epochs": 40, "batch_size": 8, "learning_rate": 5e-4, "seed": 1234}
    return Config.model_validate(
        {
            "image_size": 128,
            "model": {"name": "msa2net_pico"},
            "data": {"format": data_format, "prepared": "prepared"},
            "loss": {"boundary_dou": 1, "cross_entropy": 0.5},
            "train": settings | train,
        }
    )


def make_facts(network, names, **changes):
    """A model.json as training leaves it."""
    facts = ModelMetadata(
        network=network,
        label_names=tuple(names),
        preprocessing=Preprocessing(channels=network.in_channels, image_size=network.image_size),
        data={"format": "synapse", "hash": "ef" * 32},
        training={
            "best_epoch": 38,
            "val_dice": 0.8765,
            "epochs": 40,
            "precision": "32-true",
            "seed": 1234,
            "device": "cpu",
            "seconds": 754.2,
        },
        versions={"msa2net": "0.1.0", "torch": "2.11.0"},
    )
    return facts.model_copy(update=changes)


def make_run(folder, kind, failed_distance="diagonal"):
    """A run folder as train and evaluate leave it, with six example cases."""
    names, rng = NAMES[kind], np.random.default_rng(7)
    folder.mkdir(parents=True)
    config = make_config(FORMATS[kind])
    (folder / "config.yaml").write_text(dump_config(config))
    network = NetworkConfig(
        name=config.model.name,
        encoder=config.model.encoder,
        num_classes=len(names),
        in_channels=3 if kind == "photograph" else 1,
        image_size=config.image_size,
    )
    model = nn.Linear(1, 1)
    nn.init.ones_(model.weight)
    nn.init.zeros_(model.bias)
    save_run(folder, model, make_facts(network, names))
    with (folder / "metrics.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(
            ["epoch", "step", "learning_rate", "train_loss", "val_dice"]
            + [f"val_dice_{name}" for name in names[1:]]
        )
        for epoch in range(1, 41):
            level = 0.9 - 0.8 * np.exp(-epoch / 9) + rng.normal(0, 0.012)
            each = [level - 0.02 * i + rng.normal(0, 0.015) for i in range(len(names) - 1)]
            scores = [np.mean(each), *each] if epoch % 2 == 0 else [""] * len(names)
            writer.writerow([epoch, epoch * 20, 5e-4, 0.15 + np.exp(-epoch / 8), *scores])
    weights = sha256(folder / "model.safetensors")
    origin = Origin(
        split="test",
        model=ScoredModel(name=config.model.name, parameters=1_234_567, weights_sha256=weights),
        data=ScoredData(format=FORMATS[kind], hash="cd" * 32, same_as_training=False),
        versions=software_versions(),
        selection=SELECTION if kind == "volume" else None,
        flattering=kind == "volume",
        hashes=HASHES.model_copy(update={"weights": weights, "split": "d4" * 32}),
        reference=reference_for(FORMATS[kind]),
    )
    make_scores(folder / "evaluation", kind, origin, failed_distance)
    return folder


def make_evaluation(folder, kind):
    """The folder that `evaluate` writes for two folders of masks: no model and no training."""
    names = {"predictions": "masks of <ours>", "labels": "masks of the expert"}
    origin = Origin(
        source="folders",
        split=None,
        model=None,
        data=ScoredData(format="folders", hash="b2" * 32, same_as_training=None, **names),
        versions=software_versions(),
        note="The published columns are of the given masks.",
        hashes=HASHES,
        reference=None,
    )
    make_scores(folder, kind, origin)
    return folder


@cache
def scored_cases(kind):
    """Every case as (id, prediction, truth), and the examples packed; slow enough to keep."""
    names, cases, rng = NAMES[kind], CASES[kind], np.random.default_rng(7)
    made, examples = [], {}
    for number in range(cases):
        image, truth, prediction = make_case(kind, rng, error=12 * (1 - number / cases))
        if number == 0:
            prediction[prediction == len(names) - 1] = 0  # a missed class
        if number == 1 and kind == "volume":
            truth[truth == 2] = 0  # a false positive
        case = f"case-{number:02d}"
        rank = {0: "worst", 1: "worst", cases // 2: "median", cases - 1: "best"}.get(number)
        rank = rank or ("best" if number == cases - 2 else "median" if number == 3 else None)
        if rank:
            examples[example_name(rank, case)] = pack_example(image, truth, prediction)
        made.append((case, prediction, truth))
    return made, examples


def make_scores(folder, kind, origin, failed_distance="diagonal"):
    """Write an evaluation with five or six examples."""
    names, rows = NAMES[kind], []
    cases, examples = scored_cases(kind)
    for number, (case, prediction, truth) in enumerate(cases):
        as_volume = {"distances": True, "spacing_mm": SPACING_MM, "group": GROUPS[number % 2]}
        as_volume["failed_distance"] = failed_distance
        rows += case_rows(case, prediction, truth, names, **(as_volume if kind == "volume" else {}))
    protocols = protocols_of(kind, failed_distance)
    summary = build_summary(rows, names, kind, protocols, failed_distance, origin)
    write_evaluation(folder, summary, examples)


def as_schema_1(summary):
    """The same as it was written before intervals."""
    summary = {key: value for key, value in summary.items() if key not in NEW_IN_2}
    for key in ("predictions", "labels", "missing", "left_out"):
        summary["data"].pop(key)
    groups = (summary.get("groups") or {}).values()
    for entry in (own for part in (summary, *groups) for own in part["protocols"].values()):
        for key in ("mean_interval", "mean_warning"):
            del entry[key]
        for figure in (f for figures in entry["classes"].values() for f in figures.values()):
            for key in ("sd", "lower_quartile", "upper_quartile", "interval", "warning"):
                del figure[key]
    return summary | {"schema": 1}
