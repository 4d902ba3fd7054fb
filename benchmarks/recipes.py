"""Which choices of a recipe win: trains variants and compares them on validation data.

    python benchmarks/recipes.py isic2018 DATA --out OUT [--variants unet,base,…] [--seeds 1,2]
    python benchmarks/recipes.py acdc DATA --out OUT --epochs 12

Every variant is trained by the same recipe but for its own settings (`VARIANTS`), from scratch, for
as many epochs, from the same seeds. The weights of the end are scored (with `train.ema` their
average), so no epoch was chosen by the score. Trainings that are done are left alone and
interrupted ones go on, so the same command can be given again and again until the table is
complete. A difference is of each patient's mean over cases and the seeds that both have; its
interval is over patients (BCa), and says nothing of further seeds: their spread stands beside it.
ACDC's own validation split has ten patients, too few for a assessment, so there half of the
training and validation patients train and the other half validates.
"""

import argparse
import shutil
import statistics
import time
from collections import defaultdict
from itertools import chain
from pathlib import Path
from typing import Any

import torch

from msa2net.config import Config, load_config
from msa2net.data.prepared.splits import patient_of
from msa2net.evaluation.run import evaluate_run
from msa2net.files import write_json, write_text
from msa2net.metrics.bootstrap import mean_interval
from msa2net.metrics.summary import read_cases_csv
from msa2net.training.run import train

AGAINST = "unet", "base"  # what every variant is compared with
PICO = "maxvit_rmlp_pico_rw_256"
REFERENCE_LAYOUT = {"model.name": "msa2net_reference", "model.encoder": PICO}
GITHUB_LAYOUT = REFERENCE_LAYOUT | {"model.name": "msa2net_github"}
PAPER = {
    "loss": "{boundary_dou: 1.0}",
    "train.optimizer": "sgd",
    "train.learning_rate": "0.0417",
    "train.weight_decay": "0.0001",
    "train.schedule": "poly",
    "train.warmup": "0.0",
    "train.clip_norm": "null",
}
THREE_LOSSES = {"loss": "{dice: 1.0, cross_entropy: 1.0, boundary_dou: 1.0}"}

# As measured; the presets leave the average (ema) out: docs/training.md says why.
FOUR_LEVELS = {
    "model.layer_scale": "1.0",
    "model.depthwise_init": "fan_in",
    "train.deep_supervision": "sum",
    "train.ema": "0.99",
}
RECOMMENDED = FOUR_LEVELS | {"model.levels": "5"}
FASTER = {"train.learning_rate": "0.003"}
UNET = {"model.name": "unet", "model.encoder": "resnet18"}

VARIANTS: dict[str, dict[str, str]] = {
    "unet": UNET,
    "unet_faster": UNET | FASTER,
    "unet_pico": UNET | {"model.encoder": PICO},
    "base": {},
    "paper": PAPER,
    "sum": {"train.deep_supervision": "sum"},
    "mutation": {"train.deep_supervision": "mutation"},
    "ema": {"train.ema": "0.99"},
    "three_losses": THREE_LOSSES,
    "boundary_dou": {"loss": "{boundary_dou: 1.0}"},
    "drop_path": {"model.drop_path": "0.1"},
    "layer_scale": {"model.layer_scale": "1.0"},
    "fan_in": {"model.depthwise_init": "fan_in"},
    "levels5": {"model.levels": "5"},
    "levels5_sum": {"model.levels": "5", "train.deep_supervision": "sum"},
    "reference_layout": REFERENCE_LAYOUT,
    "github_layout": GITHUB_LAYOUT,
    "four_levels": FOUR_LEVELS,
    "four_levels_faster": FOUR_LEVELS | FASTER,
    "recommended": RECOMMENDED,
    "recommended_faster": RECOMMENDED | FASTER,
}

CONFIG = """
image_size: 96
batch_slices: 32
model: {name: msa2net_pico}
data: {format: FORMAT, prepared: PREPARED, fit: stretch}
augment:
  {horizontal_flip: 0.5, vertical_flip: 0.5, affine: 0.8, rotate_degrees: 30, translate: 0.1,
   scale: [0.8, 1.25], brightness: 0.2, contrast: 0.2}
train:
  {epochs: 8, batch_size: 16, learning_rate: 0.001, warmup: 0.05, keep: last, checkpoint_minutes: 2}
"""
SETTINGS = {
    "isic2018": {"augment.saturation": "0.2"},
    "acdc": {
        "data.fit": "pad",
        "data.crop": "0.75",
        "data.folds": "2",
        "train.learning_rate": "0.0015",
    },
}


def main() -> None:
    """Train what is not trained yet, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("format", choices=SETTINGS)
    parser.add_argument("data", type=Path, help="folder of the raw data")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--variants", default=",".join(VARIANTS))
    parser.add_argument("--seeds", default="1,2")
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--images", type=int, default=600, help="of ISIC's training images")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    source = options.data.resolve()
    if options.format == "isic2018":
        source = some_images(source, options.out / "data", options.images)
    common = SETTINGS[options.format] | {
        "data.root": str(source),
        "image_size": str(options.size),
        "train.epochs": str(options.epochs),
        "train.validate_every": str(options.epochs),
    }
    for seed in options.seeds.split(","):  # all variants of a seed first: an early table is fair
        for variant in options.variants.split(","):
            settings = common | VARIANTS[variant] | {"train.seed": seed}
            run_once(options.out, options.format, f"{variant}-{seed}", settings)
            write_table(options.out)


def some_images(source: Path, folder: Path, count: int) -> Path:
    """Make a data set of `count` training images, evenly over the list, and all validation ones."""
    lists = {
        split: (source / "splits" / f"{split}.txt").read_text().split()
        for split in ("train", "val", "test")
    }
    names = lists["train"]
    lists["train"] = [names[index * len(names) // count] for index in range(count)]
    lists["test"] = lists["test"][:1]  # the layout wants one; nothing reads it
    (folder / "splits").mkdir(parents=True, exist_ok=True)
    for split, chosen in lists.items():
        write_text(folder / "splits" / f"{split}.txt", "\n".join(chosen) + "\n")
    for part in ("ISIC2018_Task1-2_Training_Input", "ISIC2018_Task1_Training_GroundTruth"):
        (folder / part).mkdir(exist_ok=True)
        for name in chain(*lists.values()):
            for file in (source / part).glob(f"{name}*"):
                link = folder / part / file.name
                if not link.exists():
                    link.symlink_to(file)
    return folder


def run_once(out: Path, data_format: str, name: str, settings: dict[str, str]) -> None:
    """Train and score one variant with one seed, unless that was done before."""
    run = out / "runs" / name
    if (run / "evaluation" / "summary.json").is_file():
        return
    config = configure(out, data_format, settings)
    started = time.monotonic()
    resume = (run / "checkpoints").is_dir() and any((run / "checkpoints").iterdir())
    result = train(config, run, device="auto", resume=resume, overwrite=not resume)
    evaluate_run(run, split="val")
    shutil.rmtree(run / "checkpoints")  # hundreds of MB each; the weights stay
    print(f"{name}: {time.monotonic() - started:.0f} s, of which training {result.seconds:.0f} s")


def configure(out: Path, data_format: str, settings: dict[str, str]) -> Config:
    """Return the settings of one training."""
    path = out / "settings.yaml"
    prepared = out / "prepared"
    text = CONFIG.replace("FORMAT", data_format).replace("PREPARED", str(prepared))
    write_text(path, text)
    return load_config(path, [f"{key}={value}" for key, value in settings.items()])


def write_table(out: Path) -> None:
    """Write `table.md` and `results.json` of all runs that are scored."""
    scores: dict[str, dict[str, dict[str, float]]] = defaultdict(dict)
    for file in sorted((out / "runs").glob("*/evaluation/cases.csv")):
        variant, _, seed = file.parent.parent.name.rpartition("-")
        scores[variant][seed] = patient_dice(file)
    rows = []
    for variant in (name for name in VARIANTS if name in scores):
        means = [statistics.fmean(dice.values()) for dice in scores[variant].values()]
        row: dict[str, Any] = {
            "variant": variant,
            "seeds": len(means),
            "dice": statistics.fmean(means),
            "lowest": min(means),
            "highest": max(means),
        }
        for other in AGAINST:
            if other != variant and other in scores:
                row[other] = difference(scores[variant], scores[other])
        rows.append(row)
    write_json(out / "results.json", {"torch": torch.__version__, "rows": rows})
    titles = "".join(f" against `{other}` |" for other in AGAINST)
    lines = [f"| variant | seeds | Dice (lowest–highest) |{titles}", "|" + "---|" * 5]
    for row in rows:
        differences = " | ".join(shown(row.get(other)) for other in AGAINST)
        lines.append(
            f"| {row['variant']} | {row['seeds']} | {row['dice']:.4f} ({row['lowest']:.4f}–"
            f"{row['highest']:.4f}) | {differences} |"
        )
    write_text(out / "table.md", "\n".join(lines) + "\n")
    print("\n".join(lines), flush=True)


def difference(
    one: dict[str, dict[str, float]], other: dict[str, dict[str, float]]
) -> dict[str, Any] | None:
    """Return the mean difference over patients, of the seeds that both have, and its interval."""
    seeds = sorted(one.keys() & other.keys())
    if not seeds:
        return None
    gains = [
        statistics.fmean(one[seed][patient] - other[seed][patient] for seed in seeds)
        for patient in sorted(one[seeds[0]])
    ]
    return {"mean": statistics.fmean(gains), "interval": mean_interval(gains, 0)}


def shown(found: dict[str, Any] | None) -> str:
    """Write a difference."""
    if not found or not found["interval"]:
        return "–"
    low, high = found["interval"]
    return f"{found['mean']:+.4f} ({low:+.4f} to {high:+.4f})"


def patient_dice(path: Path) -> dict[str, float]:
    """Return each patient's mean Dice over cases and applicable classes, standard protocol."""
    values: dict[str, list[float]] = defaultdict(list)
    for row in read_cases_csv(path):
        dice = row["dice"]
        if dice is not None:
            values[patient_of(row["case"])].append(dice)
    return {patient: statistics.fmean(dice) for patient, dice in values.items()}


if __name__ == "__main__":
    main()
