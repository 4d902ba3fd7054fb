"""Going on with a training: is it still the same one?"""

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from msa2net.config import Config
from msa2net.data.loading.augment import SAMPLING
from msa2net.data.prepared.store import Store
from msa2net.errors import ConfigError
from msa2net.inference.run_folder import software_versions
from msa2net.training.progress import Progress

# Settings that cannot change the result: the data set is known by its contents, not its place.
FREE = {
    "data.root",
    "data.prepared",
    "model.pretrained_file",
    "train.workers",
    "train.checkpoint_minutes",
    "train.max_time",
    "train.loggers",
    "train.devices",  # how many processes there were is a circumstance
    "train.nodes",
    "train.strategy",
}
# What the saved tensors belong to.
FIXED = {
    "image_size",
    "model.name",
    "model.encoder",
    "model.levels",
    "train.optimizer",
    "train.deep_supervision",
    "train.freeze_encoder",  # decides which weights the optimiser has
    "data classes",
}
EPOCHS = "train.epochs"


def training_facts(
    config: Config, store: Store, precision: str, device: str, processes: int
) -> dict[str, Any]:
    """Return what a checkpoint says of the training it belongs to."""
    return {
        "config": config.model_dump(mode="json"),
        "data": {
            "format": store.format,
            "hash": store.hash,
            "classes": [*store.label_names, f"{store.channels} channels"],
            "cases": [f"{case.split} {case.id}" for case in store.cases],
        },
        "precision": precision,
        "device": device,
        "processes": processes,
        "versions": software_versions(),
        "sampling": SAMPLING,
    }


def check_same_training(
    then: Mapping[str, Any], now: Mapping[str, Any], progress: Progress, accept_changes: bool
) -> list[str]:
    """Compare what two calls of `training_facts` returned.

    Returns:
        Sentences about what may differ but should be known.

    Raises:
        ConfigError: settings or data that decide the result are others, and that is not accepted
            or cannot be.
    """
    old, new = _settings(then["config"]), _settings(now["config"])
    lengthened = new[EPOCHS] > old[EPOCHS]
    keys = [key for key in sorted(old | new) if key not in FREE and old.get(key) != new.get(key)]
    if lengthened:
        keys.remove(EPOCHS)
    changes = {key: f"{key} was {old.get(key)} and is {new.get(key)}" for key in keys}
    changes |= _data_changes(then["data"], now["data"])
    if then.get("sampling") != now["sampling"] and progress.epoch < new[EPOCHS]:
        changes["sampling"] = (
            "an older msa2net drew its samples from another hash, so those still to come will be "
            f"others (msa2net {then['versions'].get('msa2net')} goes on exactly)"
        )
    text = "; ".join(changes.values())
    if fixed := FIXED & set(changes):
        raise ConfigError(
            f"the training cannot go on with another network or optimiser: "
            f"{'; '.join(changes[key] for key in sorted(fixed))}; begin a new run with --out"
        )
    if changes and not accept_changes:
        raise ConfigError(
            f"the training was begun otherwise: {text}; put it back, or go on all the same with "
            "--accept-changes"
        )
    notes = [f"resuming despite changes: {text}"] if changes else []
    if lengthened:
        notes.append(
            f"lengthened from {old[EPOCHS]} to {new[EPOCHS]} epochs: the learning rate now follows "
            f"the schedule of {new[EPOCHS]} epochs, so the result is not what {new[EPOCHS]} epochs "
            "without a stop would have given"
            + (
                ""
                if progress.epoch < old[EPOCHS]
                else ", and the learning rate had already decayed to 0"
            )
        )
    return notes + _circumstances(then, now)


def _settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Flatten a configuration to dotted keys; settings that it does not know have defaults."""
    try:
        content: Mapping[str, Any] = Config.model_validate(config).model_dump(mode="json")
    except ValidationError:  # of another version: compared as it is
        content = config
    return dict(_flat(content))


def _flat(content: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for key, value in content.items():
        if isinstance(value, Mapping):
            found += _flat(value, f"{prefix}{key}.")
        else:
            found.append((f"{prefix}{key}", value))
    return found


def _data_changes(then: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, str]:
    """Name what is different about the data set, by its cases where they are others."""
    if then["classes"] != now["classes"]:
        classes = [", ".join(facts["classes"]) for facts in (then, now)]
        return {"data classes": f"the data set's classes were {classes[0]} and are {classes[1]}"}
    if then["hash"] == now["hash"]:
        return {}
    old, new = set(then["cases"]), set(now["cases"])
    moved = sorted(old ^ new)
    why = f"{len(old - new)} cases are gone or in another split and {len(new - old)} are new there"
    if moved:
        why += f", for example '{moved[0]}'"
    else:
        why = "the same cases with other contents"
    hashes = f"the data set was {then['hash'][:12]} and is {now['hash'][:12]}"
    return {"data": f"{hashes} ({why})"}


def _circumstances(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Say where the arithmetic may be other in its last digits, or more."""
    changes = [
        f"{name} was {then.get(name, 1)} and is {now[name]}"
        for name in ("device", "precision", "processes")
        if then.get(name, 1) != now[name]
    ]
    changes += [
        f"{name} was {then['versions'].get(name)} and is {version}"
        for name, version in now["versions"].items()
        if then["versions"].get(name) != version
    ]
    if not changes:
        return []
    return [
        f"the result may not be the uninterrupted one's to the last digit: {'; '.join(changes)}"
    ]
