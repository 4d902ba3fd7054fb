"""`msa2net export`."""

from pathlib import Path
from typing import Annotated

from msa2net.cli.console import DISCLAIMER, say, say_networks, set_up
from msa2net.cli.options import OverwriteOption, RunArgument, VerboseOption, option
from msa2net.errors import ConfigError

FORMATS = ("onnx",)


def export(
    run: RunArgument,
    file_format: Annotated[
        str, option("Kind of file; there is onnx.", "NAME", "--format")
    ] = "onnx",
    out: Annotated[
        Path | None,
        option("File to write; model.onnx in the run folder if not given.", "FILE"),
    ] = None,
    overwrite: OverwriteOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Write a run's network as an ONNX file.

    onnxruntime runs it without torch; classes, intensities and sizes are in it.

    It is compared with the network on images in batches of 1, 2 and 5, and
    written only if the outputs of both are the same.
    """
    if file_format not in FORMATS:
        raise ConfigError(f"there is no format '{file_format}'; use {', '.join(FORMATS)}")
    set_up(None, verbose)
    from msa2net.export.onnx import export_onnx

    exported = export_onnx(run, out, overwrite=overwrite)
    say_networks(exported.performance, exported.warnings)
    file = exported.files[0]
    size = sum(path.stat().st_size for path in exported.files) / 1e6
    say(f"{file}: {size:.0f} MB" + (f" with {exported.files[1]}" if exported.files[1:] else ""))
    say(
        f"compared with {run}: {exported.equal_labels:.4%} of labels equal, probabilities within "
        f"{exported.largest_difference:.0e}"
    )
    say(f"next: msa2net predict {file} IMAGE --out masks")
    say(DISCLAIMER)
