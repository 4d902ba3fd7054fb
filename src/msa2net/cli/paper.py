"""The two commands of the paper's repository, `train.py` and `test.py`, with their flags."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from msa2net.cli.console import console, say, set_up, track
from msa2net.cli.options import (
    DeviceOption,
    NetworkOption,
    ThreadsOption,
    VerboseOption,
    flag,
    option,
)
from msa2net.errors import ConfigError, DataError, WeightsError

if TYPE_CHECKING:
    from msa2net.config import DataConfig

IMPORTED = "imported-"
PAPER_BATCH = 24  # the batch that the base learning rate is meant for; it scales with the batch

PreparedOption = Annotated[
    Path,
    option("Folder for the prepared, memory-mapped copy.", "FOLDER", "--prepared"),
]
TrainingOption = Annotated[
    Path,
    option("The training slices, a folder train_npz.", "FOLDER", "--root_path"),
]
TestOption = Annotated[
    Path,
    option("The test volumes, a folder test_vol_h5 beside it.", "FOLDER", "--test_path"),
]
IntervalOption = Annotated[
    int,
    option("Epochs between looks at the test volumes.", "NUMBER", "--eval_interval", min=1),
]
RateOption = Annotated[
    float,
    option(
        "Learning rate for a batch of 24; scaled to the batch size.",
        "NUMBER",
        "--base_lr",
        min=1e-9,
    ),
]
PretrainedOption = Annotated[bool, flag("Start from ImageNet weights, downloaded once.")]
SelectOption = Annotated[
    bool,
    flag(
        "Keep the weights that do best on the test volumes, as the paper did; its scores "
        "flatter, and the report says so. Without it the last weights are kept.",
        "--select-on-test",
    ),
]
SettingsOption = Annotated[
    Path,
    option("Configuration with everything that has no option here.", "FILE", "--config"),
]
OutputOption = Annotated[Path, option("Folder of run folders.", "FOLDER", "--output_dir")]
BatchOption = Annotated[int, option("Slices a step.", "NUMBER", "--batch_size", min=1)]
EpochsOption = Annotated[int, option("How long to train.", "NUMBER", "--max_epochs", min=1)]
SizeOption = Annotated[
    int,
    option("Side of the network's input, a multiple of 32.", "PIXELS", "--img_size"),
]
SeedOption = Annotated[
    int,
    option("Another number gives another training.", "NUMBER", "--seed", min=0),
]


def train_as_published(
    root_path: TrainingOption = Path("data/Synapse/train_npz"),
    test_path: TestOption = Path("data/Synapse/test_vol_h5"),
    output_dir: OutputOption = Path("model_out"),
    batch_size: BatchOption = 20,
    max_epochs: EpochsOption = 700,
    eval_interval: IntervalOption = 20,
    base_lr: RateOption = 0.05,
    img_size: SizeOption = 224,
    seed: SeedOption = 1234,
    network: NetworkOption = "msa2net",
    pretrained: PretrainedOption = True,
    select_on_test: SelectOption = False,
    settings: SettingsOption = Path("configs/synapse-paper.yaml"),
    prepared: PreparedOption = Path("prepared/synapse"),
    device: DeviceOption = "auto",
    threads: ThreadsOption = None,
    verbose: VerboseOption = False,
) -> None:
    """Train on Synapse with the paper's settings; all 18 training cases, no validation."""
    from msa2net.config import load_config

    if not settings.is_file():  # started from elsewhere
        settings = Path(sys.argv[0]).resolve().parent / settings
    config = load_config(
        settings,
        [
            f"image_size={img_size}",
            f"model.name={network}",
            f"model.pretrained={str(pretrained).lower()}",
            f"data.root={_quoted(_common_root(root_path, test_path))}",
            f"data.prepared={_quoted(prepared)}",
            f"train.batch_size={batch_size}",
            f"train.learning_rate={base_lr * batch_size / PAPER_BATCH}",
            f"train.epochs={max_epochs}",
            f"train.validate_every={eval_interval}",
            f"train.seed={seed}",
            "train.monitor=test",
            f"train.keep={'best' if select_on_test else 'last'}",
            f"train.select_on_test={str(select_on_test).lower()}",
        ],
    )
    set_up(threads, verbose)
    from msa2net.cli.train import run_training

    try:
        run_training(config, _next_run(output_dir, network), device=device, verbose=verbose)
    except WeightsError as error:
        raise WeightsError(f"{error}; or start from random weights with --no-pretrained") from error
    say(f"next: python test.py --volume_path {root_path.parent} --output_dir {output_dir}")


def evaluate_as_published(
    volume_path: Annotated[
        Path,
        option("The folder that holds test_vol_h5.", "FOLDER", "--volume_path"),
    ] = Path("data/Synapse"),
    output_dir: Annotated[
        Path,
        option(
            "A run folder; or a folder of them, of which the newest is taken; or one with a "
            "published .pth file.",
            "FOLDER",
            "--output_dir",
        ),
    ] = Path("model_out"),
    prepared: Annotated[
        Path | None,
        option(
            "Folder for the prepared copy of data that the run was not trained on; "
            "prepared/test-NAME if not given.",
            "FOLDER",
        ),
    ] = None,
    device: DeviceOption = "auto",
    threads: ThreadsOption = None,
    verbose: VerboseOption = False,
) -> None:
    """Score a network on the Synapse test volumes: Dice and HD95 an organ, by both protocols."""
    root = _folder_of_test_volumes(volume_path)
    run = find_run(output_dir)
    set_up(threads, verbose)
    from msa2net.data.prepared.prepare import prepare
    from msa2net.evaluation.run import evaluate_run
    from msa2net.evaluation.tables.console import console_table
    from msa2net.report.html import write_report

    data = _other_data(run, root, prepared)
    if data is not None:
        prepare(data, lambda cases, total: track(cases, total, "preparing data"))
    summary = evaluate_run(
        run,
        data=data,
        device=device,
        progress=lambda cases, total: track(cases, total, "evaluating"),
    )
    say(f"run: {run}")
    console().print(console_table(summary))
    say(f"\ncases, summary and table: {run / 'evaluation'}")
    say(f"report: {write_report(run)}")


def find_run(folder: Path) -> Path:
    """Return the run folder meant by `folder`: itself, the newest below it, or imported weights.

    Weights are imported anew whenever their content is.

    Raises:
        WeightsError: there is none, or more than one file of weights.
    """
    if (folder / "model.json").is_file():
        return folder
    runs = sorted(folder.glob("*/model.json"), key=lambda path: path.stat().st_mtime_ns)
    trained = [path.parent for path in runs if not path.parent.name.startswith(IMPORTED)]
    if trained:
        return trained[-1]
    weights = sorted(folder.glob("*.pth"))
    if not weights:
        raise WeightsError(
            f"{folder} holds no run and no .pth file; train with train.py, or put published "
            "weights there"
        )
    if len(weights) > 1:
        raise WeightsError(
            f"{folder} holds {len(weights)} .pth files ({weights[0].name}, {weights[1].name}, …); "
            "leave the one to be tested"
        )
    from msa2net.files import sha256
    from msa2net.inference.import_weights import import_published

    imported = folder / f"{IMPORTED}{weights[0].stem}-{sha256(weights[0])[:8]}"
    if not (imported / "model.json").is_file():
        import_published(weights[0], imported)
        say(f"imported {weights[0]} as {imported}")
    return imported


def _folder_of_test_volumes(volume_path: Path) -> Path:
    """Return the folder that holds test_vol_h5, which may be named itself."""
    from msa2net.data.formats.synapse_files import TEST_FOLDER

    root = volume_path.parent if volume_path.name == TEST_FOLDER else volume_path
    if not (root / TEST_FOLDER).is_dir():
        raise DataError(f"{root} holds no folder {TEST_FOLDER}; name its parent as --volume_path")
    return root


def _other_data(run: Path, root: Path, prepared: Path | None) -> "DataConfig | None":
    """Say what to prepare for a run that was not trained on `root`; None if it was.

    The data set that a run was trained on stays as it is; other data get a folder of their own.
    """
    from msa2net.config import DataConfig, load_config
    from msa2net.data.labels import ENCODINGS, label_names
    from msa2net.files import CONFIG_FILE
    from msa2net.inference.run_folder import read_facts

    if prepared is None and (run / CONFIG_FILE).is_file():
        own = load_config(run / CONFIG_FILE).data
        if own.root is not None and own.root.resolve() == root.resolve():
            return None
    classes = read_facts(run).label_names
    encodings = [name for name in ENCODINGS if label_names(name) == classes]
    if not encodings or encodings[0] == "btcv":
        raise ConfigError(
            f"{run} knows the classes {', '.join(classes)}, which are not those of Synapse files; "
            "use msa2net evaluate"
        )
    return DataConfig(
        format="synapse",
        root=root,
        prepared=prepared or Path("prepared") / f"test-{root.resolve().name}",
        labels=encodings[0],
    )


def _common_root(training: Path, testing: Path) -> Path:
    from msa2net.data.formats.synapse_files import TEST_FOLDER, TRAIN_FOLDER

    together = training.parent.resolve() == testing.parent.resolve()
    if not together or (training.name, testing.name) != (TRAIN_FOLDER, TEST_FOLDER):
        raise ConfigError(
            f"--root_path is {training} and --test_path is {testing}; they must be called "
            f"{TRAIN_FOLDER} and {TEST_FOLDER} and lie in one folder"
        )
    for folder in (training, testing):
        if not folder.is_dir():
            raise DataError(
                f"there is no folder {folder}; TransUNet's repository says where its preprocessed "
                f"files are, and msa2net phantom {folder.parent} --format synapse draws some"
            )
    return training.parent


def _next_run(output_dir: Path, network: str) -> Path:
    """Name a run folder that is not there yet, such as model_out/msa2net-001."""
    taken = {path.name for path in output_dir.iterdir()} if output_dir.is_dir() else set()
    names = (f"{network}-{number:03d}" for number in range(1, len(taken) + 2))
    return output_dir / next(name for name in names if name not in taken)


def _quoted(path: Path) -> str:
    import json

    return json.dumps(str(path))
