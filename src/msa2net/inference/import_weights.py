"""Published weights become a run folder."""

from pathlib import Path

from msa2net.config import NetworkConfig
from msa2net.data.formats.synapse_files import HU_HIGH, HU_LOW
from msa2net.data.labels import BACKGROUND, ENCODINGS
from msa2net.data.preprocessing import Preprocessing
from msa2net.errors import ConfigError, WeightsError
from msa2net.files import WEIGHTS_FILE, contents, sha256
from msa2net.inference.run_folder import ModelMetadata, save_run, software_versions, writing_run
from msa2net.models.registry import build_network
from msa2net.models.released import ReferenceNet, load_published, recognise
from msa2net.models.weights import read_state_dict

HEAD = "decoder_0.last_layer.weight"
# The paper uses TransUNet's encoding of the Synapse organs.
SYNAPSE_LABELS = (BACKGROUND, *ENCODINGS["transunet"].values())


def import_published(file: Path, out: Path, image_size: int = 224) -> ModelMetadata:
    """Turn a published `.pth` into a run folder.

    Nine classes are taken for Synapse, with the paper's intensity window and cubic resampling;
    other numbers for pictures scaled by 0–255, classes named by number.

    Args:
        file: state dict with the published keys, also with DataParallel's `module.` prefix.
        out: folder to make.
        image_size: side of the input it was trained at.

    Returns:
        What `model.json` says.

    Raises:
        WeightsError: not such weights, or entries are missing or unexpected.
        ConfigError: the folder holds something already.
    """
    if out.exists() and (not out.is_dir() or set(contents(out)) - {WEIGHTS_FILE}):
        raise ConfigError(f"{out} is not empty; name a new folder for the imported network")
    state = read_state_dict(file)
    name = recognise(state)
    if HEAD not in state:
        raise WeightsError(f"{file} has no entry {HEAD}, so its classes cannot be counted")
    num_classes = state[HEAD].shape[0]
    synapse = num_classes == len(SYNAPSE_LABELS)
    network = NetworkConfig(
        name=name,
        encoder=None,
        num_classes=num_classes,
        in_channels=1 if synapse else 3,
        image_size=(image_size, image_size),
    )
    model = build_network(network)
    assert isinstance(model, ReferenceNet)
    load_published(model, state, origin=str(file))
    facts = ModelMetadata(
        network=network,
        label_names=SYNAPSE_LABELS if synapse else _numbered(num_classes),
        preprocessing=Preprocessing(
            channels=network.in_channels,
            image_size=network.image_size,
            fit="stretch",
            resampling="spline",
            clip=False,
            low=HU_LOW if synapse else 0.0,
            high=HU_HIGH if synapse else 255.0,
        ),
        training={"imported_from": file.name, "sha256": sha256(file)},
        versions=software_versions(),
    )
    with writing_run(out):
        save_run(out, model, facts)
    return facts


def _numbered(num_classes: int) -> tuple[str, ...]:
    return ("background", *(f"class {index}" for index in range(1, num_classes)))
