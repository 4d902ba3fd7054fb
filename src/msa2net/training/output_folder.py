"""The run folder of a training: what may be written into it, and what is removed."""

import shutil
from pathlib import Path

from msa2net.config import Config, dump_config
from msa2net.errors import ConfigError
from msa2net.evaluation.model_card import CARD_FILE
from msa2net.files import CONFIG_FILE, EVALUATIONS, MODEL_FILE, WEIGHTS_FILE, contents, write_text
from msa2net.inference.run_folder import EXPORT_FILES, clean_run
from msa2net.training import finetune, loggers, nonfinite
from msa2net.training.checkpoint import FOLDER, Checkpoints

# Everything a run folder holds; nothing else is ever removed from it.
RUN_ENTRIES = (
    CONFIG_FILE,
    MODEL_FILE,
    WEIGHTS_FILE,
    *EXPORT_FILES,
    "metrics.csv",
    "timing.csv",
    finetune.REPORT,
    nonfinite.REPORT,
    loggers.FOLDER,
    FOLDER,
    *EVALUATIONS.values(),
    "prediction",
    "report.html",
    CARD_FILE,
)


def check_run_folder(run: Path, *, overwrite: bool, resume: bool) -> None:
    """Refuse a folder that training must not write into.

    Raises:
        ConfigError: it holds something else, or holds a run and neither `overwrite`
            nor `resume` is on, or both are.
    """
    if overwrite and resume:
        raise ConfigError("--resume goes on with a run and --overwrite replaces it; choose one")
    names = set(contents(run))
    foreign = sorted(names - set(RUN_ENTRIES))
    if foreign:
        raise ConfigError(
            f"{run} holds something that is not of a run ({foreign[0]}); name a new folder"
        )
    if not names or overwrite or resume:
        return
    go_on = "go on with it by --resume, " if Checkpoints(run).paths() else ""
    if MODEL_FILE not in names:
        raise ConfigError(
            f"{run} holds a training that did not come to any weights; {go_on}replace it with "
            "--overwrite, or name another folder with --out"
        )
    raise ConfigError(
        f"{run} already holds a run; {go_on}name another folder with --out, or replace it with "
        "--overwrite"
    )


def prepare_run_folder(run: Path, config: Config, *, keep: bool) -> None:
    """Write `config.yaml`; remove what killed processes left, and an earlier run unless kept.

    What was told of a loss that was not finite is removed in any case: the training is on its way.

    Raises:
        ConfigError: something cannot be removed.
    """
    clean_run(run)
    # Checkpoints first: a kill in the middle must not leave a training that seems to go on.
    for name in sorted(contents(run), key=lambda name: name != FOLDER):
        path = run / name
        if name not in RUN_ENTRIES or (keep and name != nonfinite.REPORT):
            continue
        try:
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
        except OSError as error:
            raise ConfigError(f"cannot remove {path} of the earlier run: {error}") from error
    write_text(run / CONFIG_FILE, dump_config(_resolved(config)))


def _resolved(config: Config) -> Config:
    """Return the settings with whole paths where those cannot change a result (`resume.FREE`).

    A run can then be gone on with, and evaluated, from any folder.
    """
    data, model = config.data, config.model
    places = {"prepared": data.prepared.resolve()}
    if data.root is not None:
        places["root"] = data.root.resolve()
    if model.pretrained_file is not None:
        weights = {"pretrained_file": model.pretrained_file.resolve()}
        model = model.model_copy(update=weights)
    return config.model_copy(update={"data": data.model_copy(update=places), "model": model})
