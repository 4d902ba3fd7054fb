"""What predicts: run folders, or an exported network, which needs no torch."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from msa2net.config import load_config
from msa2net.errors import ConfigError
from msa2net.inference.backend import Mode, PredictionPrecision, require_batch, require_precision
from msa2net.inference.onnx_backend import OnnxPredictor
from msa2net.inference.predictor import Predictor, Segmenter
from msa2net.inference.run_folder import CONFIG_FILE, ModelMetadata, read_facts
from msa2net.inference.validation_scores import describe_networks
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


def open_source(
    run: str | Path | Sequence[str | Path],
    mode: Mode,
    flips: bool,
    precision: PredictionPrecision,
    compile: bool,
    device: str,
    batch_slices: int | None,
    threads: int | None,
) -> Source:
    """Look at run folders, or at one exported network; see `predict_files` for the arguments.

    Raises:
        WeightsError: neither, or damaged.
        ConfigError: no run, no such precision, or options that an exported network does not have.
    """
    runs = [Path(run)] if isinstance(run, str | Path) else [Path(one) for one in run]
    if not runs:
        raise ConfigError("no run is named; name at least one run folder")
    require_precision(precision)
    require_batch(batch_slices)
    if any(map(is_exported, runs)):
        if len(runs) > 1 or mode != "resize" or flips or precision != "float32" or compile:
            raise ConfigError(
                "an exported network predicts by itself, without flips, windows, bfloat16 and "
                "--compile; name run folders for these"
            )
        if device not in ("auto", "cpu"):
            raise ConfigError(f"an exported network computes on the CPU, not on '{device}'")
        exported = OnnxPredictor.load(runs[0], batch_slices, threads)
        maker = Maker.of_exported(runs[0], exported.facts)
        return Source(
            exported.facts, maker, lambda: exported, exported.performance, exported.warnings
        )
    known = [(one, read_facts(one)) for one in runs]
    return Source(
        known[0][1],
        Maker.of_runs(runs, mode, flips, precision),
        partial(
            Predictor.load,
            runs,
            device,
            _evaluated_batch(runs[0]) if batch_slices is None else batch_slices,
            mode=mode,
            flips=flips,
            precision=precision,
            compile=compile,
        ),
        *describe_networks(known),
    )


def _evaluated_batch(run: Path) -> int | None:
    """Return the batch that evaluating the run takes; another rounds otherwise in the last bits."""
    path = run / CONFIG_FILE
    return load_config(path).batch_slices if path.is_file() else None
