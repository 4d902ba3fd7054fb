"""What a training is built from: splits, preprocessing, network, auxiliary heads."""

from collections import Counter

import torch
from torch import nn

from msa2net.config import Config, NetworkConfig, NetworkOptions, TrainConfig
from msa2net.data.geometry import Geometry, common_orientation
from msa2net.data.loading.augment import derive_seed
from msa2net.data.prepared.splits import SPLITS
from msa2net.data.prepared.store import Store
from msa2net.data.preprocessing import Preprocessing
from msa2net.inference.run_folder import ModelMetadata, software_versions
from msa2net.losses.deep_supervision import SupervisedLoss
from msa2net.models.auxiliary_heads import SupervisedNetwork
from msa2net.models.base import Network
from msa2net.models.registry import build_network
from msa2net.training.gradient_checkpointing import checkpoint_blocks

HEAD_STREAM = 2  # keeps the seed of auxiliary heads apart from those of steps and samples


def training_splits(config: Config, store: Store) -> tuple[str, ...]:
    """Name the splits that are trained on: train, and val too where it is not held out.

    Raises:
        DataError: nobody is in them.
    """
    if config.data.hold_out:
        store.ids("train")
        return ("train",)
    present = {case.split for case in store.cases}
    splits = tuple(split for split in ("train", "val") if split in present)
    if not splits:
        store.ids("train")  # says what to do
    return splits


def create_preprocessing(config: Config, store: Store) -> Preprocessing:
    """Derive the network's preprocessing from the configuration and the data's own facts.

    Orientation and pixel size are those of all cases, so that folds share one preprocessing.
    """
    preprocessing = Preprocessing(
        channels=store.channels,
        image_size=config.image_size,
        fit=config.data.fit,
        crop=config.data.crop,
        resampling=config.data.resampling,
        clip=config.data.clip,
        intensity=store.intensity,
        low=store.low,
        high=store.high,
    )
    geometries = [Geometry.from_json(case.geometry) for case in store.cases]
    slices = [
        ((case.shape[2], case.shape[3]), at.spacing_mm and at.spacing_mm[1:])
        for case, at in zip(store.cases, geometries, strict=True)
    ]
    return preprocessing.model_copy(
        update={
            "orientation": common_orientation(geometries),
            "pixel_mm": preprocessing.training_pixel_mm(slices),
        }
    )


def create_network(
    config: Config, store: Store, preprocessing: Preprocessing, *, pretrained: bool = True
) -> tuple[Network, ModelMetadata]:
    """Build the network for a data set, its first weights drawn from `train.seed`.

    Pre-trained weights are not asked for where `pretrained` is off: a training that goes on has
    better ones.
    """
    network = NetworkConfig(
        name=config.model.name,
        encoder=config.model.encoder,
        num_classes=len(store.label_names),
        in_channels=store.channels,
        image_size=config.image_size,
        levels=config.model.levels,
    )
    options: NetworkOptions = config.model
    if not pretrained:
        options = options.model_copy(update={"pretrained": False, "pretrained_file": None})
    with torch.random.fork_rng():
        torch.manual_seed(config.train.seed)
        model = build_network(network, options)
    facts = ModelMetadata(
        network=network,
        label_names=store.label_names,
        preprocessing=preprocessing,
        data={"format": store.format, "hash": store.hash, "cases": _counted(store)},
        versions=software_versions(),
    )
    return model, facts


def supervise(
    model: nn.Module, loss: nn.Module, config: TrainConfig, num_classes: int
) -> tuple[nn.Module, nn.Module]:
    """Return what is trained and its loss: with auxiliary heads, or just as they are.

    Blocks are computed twice and the encoder's weights are frozen from here on, where the settings
    say so: what a training needs of memory is decided here and in `create_network`.

    The heads are drawn from a seed of their own, so that the network's weights are the same with
    and without them.
    """
    if config.gradient_checkpointing:
        checkpoint_blocks(model)
    if config.freeze_encoder:
        model.get_submodule("encoder").requires_grad_(False)
    if config.deep_supervision == "none":
        return model, loss
    assert isinstance(model, Network)
    with torch.random.fork_rng():
        torch.manual_seed(derive_seed(config.seed, HEAD_STREAM))
        network = SupervisedNetwork(model, num_classes)
    return network, SupervisedLoss(loss, mutation=config.deep_supervision == "mutation")


def _counted(store: Store) -> str:
    counts = Counter(case.split for case in store.cases)
    return ", ".join(f"{counts[split]} {split}" for split in SPLITS if counts[split])
