"""Runs become members of an ensemble: what they must have in common, and their flips."""

from collections.abc import Sequence
from pathlib import Path

from msa2net.config import load_config
from msa2net.errors import ConfigError
from msa2net.files import CONFIG_FILE
from msa2net.inference.run_folder import LoadedRun, ModelMetadata, choose_device, load_run
from msa2net.inference.torch_backend import EnsembleMember, Flip, TorchBackend, check_precision
from msa2net.options import InferenceOptions

_AXES = {"horizontal": -1, "vertical": -2}


def load_members(
    runs: Sequence[Path],
    options: InferenceOptions,
) -> tuple[list[EnsembleMember], tuple[str, ...]]:
    """Load runs whose probabilities can be averaged.

    Returns:
        The members, and the class names they have in common.

    Raises:
        WeightsError: not a run folder, or its weights do not fit.
        ConfigError: no such device or precision, a device that does not compute in it, no run,
            runs that differ in what they segment, or `flips` for a run that was not trained with
            any.
    """
    if not runs:
        raise ConfigError("no run is named; name at least one run folder")
    check_precision(options.precision, choose_device(options.device))
    loaded = [load_run(run, options.device) for run in runs]
    for run, other in zip(runs[1:], loaded[1:], strict=True):
        _require_alike((runs[0], loaded[0]), (run, other))
    members = []
    for run, one in zip(runs, loaded, strict=True):
        members.append(
            EnsembleMember(
                one.model,
                one.preprocessing,
                trained_flips(run, one.facts) if options.flips else (),
                one.facts.reference_ranges,
                options.precision,
                compile=options.compile,
            )
        )
    return members, loaded[0].label_names


def group_members(members: Sequence[EnsembleMember]) -> tuple[TorchBackend, ...]:
    """Put members with the same preprocessing together; the first member is in the first group.

    Raises:
        ConfigError: they do not all cut slices in the same orientation.
    """
    preprocessings = list(dict.fromkeys(member.preprocessing for member in members))
    codes = list(dict.fromkeys(preprocessing.orientation for preprocessing in preprocessings))
    if len(codes) > 1:
        shown = " and ".join("as they lie" if code is None else f"along {code}" for code in codes)
        raise ConfigError(
            f"these networks were trained on slices cut {shown}; their outputs cannot be averaged"
        )
    return tuple(
        TorchBackend([member for member in members if member.preprocessing == preprocessing])
        for preprocessing in preprocessings
    )


def trained_flips(run: Path, facts: ModelMetadata) -> tuple[Flip, ...]:
    """Return the mirrored copies that a network saw in training, all combinations of them.

    Its `model.json` says so under training, flips; of older runs the settings in `config.yaml`.

    Raises:
        ConfigError: neither says, or it was trained without flips.
    """
    recorded = facts.training.get("flips")
    if recorded is None and (run / CONFIG_FILE).is_file():
        recorded = load_config(run / CONFIG_FILE).augment.flips
    if recorded is None:
        raise ConfigError(
            f"{run} does not say whether it was trained with flips (it has no {CONFIG_FILE}); "
            "predict without them"
        )
    axes = [_AXES[name] for name in _AXES if name in recorded]
    if not axes:
        raise ConfigError(
            f"{run} was trained without flips, so it never saw a mirrored image; predict without "
            "them"
        )
    return ((axes[0],),) if len(axes) == 1 else ((axes[0],), (axes[1],), (axes[0], axes[1]))


def _require_alike(one: tuple[Path, LoadedRun], other: tuple[Path, LoadedRun]) -> None:
    (run, loaded), (other_run, other_loaded) = one, other
    for what, own, others in (
        ("classes", loaded.label_names, other_loaded.label_names),
        ("channels", loaded.preprocessing.channels, other_loaded.preprocessing.channels),
    ):
        if own != others:
            raise ConfigError(
                f"{run} and {other_run} cannot be averaged: their {what} are {_shown(own)} and "
                f"{_shown(others)}"
            )


def _shown(value: int | tuple[str, ...]) -> str:
    return str(value) if isinstance(value, int) else ", ".join(value)
