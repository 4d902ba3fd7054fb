"""What predicts: run folders, or an exported network, which needs no torch."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from msa2net.config import load_config
from msa2net.errors import ConfigError
from msa2net.files import CONFIG_FILE
from msa2net.inference.predictor import Predictor, Segmenter
from msa2net.inference.run_folder import ModelMetadata, read_facts
from msa2net.inference.validation_scores import describe_networks
from msa2net.options import InferenceOptions
from msa2net.prediction.records import Maker


@dataclass(frozen=True)
class Source:
    """Networks that are named and checked, and perhaps not loaded yet.

    Attributes:
        facts: of the first network.
        maker: what decides its masks.
        load: makes it ready to segment.
        performance: see `Segmenter`.
        warnings: see `Segmenter`.
    """

    facts: ModelMetadata
    maker: Maker
    load: Callable[[], Segmenter]
    performance: tuple[str, ...]
    warnings: tuple[str, ...]


def is_exported(run: Path) -> bool:
    """Tell whether this names an exported network instead of a run folder."""
    return run.suffix.lower() == ".onnx" and not run.is_dir()


def open_source(run: str | Path | Sequence[str | Path], options: InferenceOptions) -> Source:
    """Look at run folders, or at one exported network.

    Raises:
        WeightsError: neither, or damaged.
        ConfigError: no run, or options that an exported network does not have.
    """
    runs = [Path(run)] if isinstance(run, str | Path) else [Path(one) for one in run]
    if not runs:
        raise ConfigError("no run is named; name at least one run folder")
    if any(map(is_exported, runs)):
        plain = InferenceOptions(
            device=options.device, batch_slices=options.batch_slices, threads=options.threads
        )
        if len(runs) > 1 or options != plain:
            raise ConfigError(
                "an exported network predicts by itself, without flips, windows, bfloat16 and "
                "--compile; name run folders for these"
            )
        if options.device not in ("auto", "cpu"):
            raise ConfigError(f"an exported network computes on the CPU, not on '{options.device}'")
        from msa2net.inference.onnx_backend import OnnxPredictor

        exported = OnnxPredictor.load(runs[0], options.batch_slices, options.threads)
        maker = Maker.of_exported(runs[0], exported.facts)
        return Source(
            exported.facts, maker, lambda: exported, exported.performance, exported.warnings
        )
    known = [(one, read_facts(one)) for one in runs]
    maker = Maker.of_runs(runs, options)
    if options.batch_slices is None:
        options = replace(options, batch_slices=_evaluated_batch(runs[0]))
    load = partial(Predictor.open, runs, options)
    return Source(known[0][1], maker, load, *describe_networks(known))


def _evaluated_batch(run: Path) -> int | None:
    """Return the batch that evaluating the run takes; another rounds otherwise in the last bits."""
    path = run / CONFIG_FILE
    return load_config(path).batch_slices if path.is_file() else None
