"""The settings of a run, section by section, with what must hold between them."""

from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from msa2net.config.train import TrainConfig
from msa2net.config.types import (
    MAX_CHANNELS,
    MAX_CLASSES,
    ImageSize,
    LabelEncoding,
    Name,
    PaperDefect,
    Range,
    SectionModel,
)
from msa2net.renamed import current_keys


class Architecture(SectionModel):
    """Which network, whatever the data."""

    name: Name = Field("msa2net", description="network, a name from `msa2net models`")
    encoder: Name | None = Field(
        None,
        description="another encoder, by its timm name, with features at strides 4 to 32; not "
        "set: the network's own",
    )
    levels: Literal[4, 5] = Field(
        4,
        description="levels of the decoder: 4 is Figure 1; 5, our extension, adds a gate on a "
        "feature at stride 2",
    )


class NetworkConfig(Architecture):
    """Everything that decides a network's weights, in names and shapes; `model.json` stores it.

    Attributes:
        num_classes: channels of the logits, background included.
        in_channels: channels of the images; 1 is repeated to 3 inside.
        image_size: (H, W) of the images.
    """

    name: Name
    encoder: Name | None
    num_classes: int = Field(ge=2, le=MAX_CLASSES)
    in_channels: int = Field(ge=1, le=MAX_CHANNELS)
    image_size: ImageSize


class NetworkOptions(SectionModel):
    """How a network's weights start, and what is left out of it while training."""

    pretrained: bool = Field(
        False, description="initialise the encoder with timm's ImageNet weights, downloaded once"
    )
    pretrained_file: Path | None = Field(
        None,
        description="initialise the encoder with ImageNet weights from a file, without a download",
    )
    drop_path: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="stochastic depth: the largest probability that a block is left out while "
        "training",
    )
    layer_scale: float = Field(
        0.01, gt=0, description="initial LayerScale value of the LKA blocks; 0.01 in the paper"
    )
    depthwise_init: Literal["xavier", "fan_in"] = Field(
        "xavier",
        description="initialisation of the decoder's depthwise kernels: xavier as in the paper, "
        "or fan_in, of variance 1 / kernel size",
    )


KIND = "configuration"  # in the table of former names


class ModelConfig(NetworkOptions, Architecture):
    """Which network."""

    init_from: Path | None = Field(
        None,
        description="fine-tuning: start from the weights of another network, a run folder or a "
        "file, also of other classes or channels; entries that fit are loaded",
    )

    @model_validator(mode="after")
    def _one_beginning(self) -> Self:
        if self.init_from is not None and (self.pretrained or self.pretrained_file is not None):
            raise ValueError(
                "model.init_from brings an encoder of its own; remove it, or model.pretrained "
                "and model.pretrained_file"
            )
        return self

    @property
    def knows_something(self) -> bool:
        """Tell whether the encoder starts from weights rather than from chance."""
        return self.pretrained or self.pretrained_file is not None or self.init_from is not None


class DataConfig(SectionModel):
    """Which data, and how an image becomes an input."""

    format: str = Field(
        description="data set layout: phantom (synthetic), isic2018, images, acdc, btcv, synapse "
        "or nnunet"
    )
    root: Path | None = Field(
        None, description="folder of the raw data; phantom needs none, other formats must have one"
    )
    prepared: Path = Field(description="folder for the prepared, memory-mapped copy of the data")
    max_side: int = Field(
        1024, ge=32, description="longest side of stored 2-D images; larger ones are downsampled"
    )
    labels: LabelEncoding | None = Field(
        None,
        description="label encoding of the abdominal data sets: btcv is converted to it, synapse "
        "files hold it; not set: btcv keeps all 13 organs, synapse files hold transunet",
    )
    fit: Literal["stretch", "pad"] = Field(
        "pad",
        description="how images are fitted to the network's input: pad keeps the aspect ratio, "
        "stretch (the paper) does not",
    )
    crop: float = Field(
        1.0,
        ge=0.01,
        le=1,
        description="centre crop that the network sees, as a fraction of the image; outside is "
        "background",
    )
    resampling: Literal["linear", "spline"] = Field(
        "linear",
        description="interpolation to the network's input size; spline (cubic) is the published "
        "one",
    )
    clip: bool = Field(
        True,
        description="clip intensities to their range after spline interpolation; false as for the "
        "published networks",
    )
    split_ratios: tuple[float, float, float] | None = Field(
        None,
        description="shares of train, val and test, by which all patients are drawn anew; not "
        "set: the data set's own split",
    )
    split_seed: int = Field(
        0, ge=0, lt=2**63, description="seed of what split_ratios and folds draw"
    )
    folds: int | None = Field(
        None,
        ge=2,
        description="draw the patients of train and val into this many folds; not set: no folds",
    )
    fold: int = Field(
        0, ge=0, description="the fold that validates, counted from 0; the others train"
    )
    hold_out: bool = Field(
        True,
        description="keep the val cases out of the training; false trains on them too, as the "
        "paper did, and leaves none to choose weights by",
    )
    phantom_cases: tuple[int, int, int] = Field(
        (24, 4, 6), description="of format phantom: how many cases to draw for train, val and test"
    )
    phantom_shape: tuple[int, int, int] = Field(
        (32, 128, 128), description="of format phantom: slices, rows and columns of each case"
    )

    @field_validator("split_ratios")
    @classmethod
    def _whole(cls, value: tuple[float, float, float] | None) -> tuple[float, float, float] | None:
        if value is not None and not (min(value) > 0 and abs(sum(value) - 1) <= 1e-6):
            raise ValueError("three numbers above 0 that add up to 1 are needed")
        return value

    @model_validator(mode="after")
    def _fold_exists(self) -> Self:
        if self.fold and self.folds is None:
            raise ValueError(f"fold is {self.fold}, but there are no folds; set data.folds=5, say")
        if self.folds is not None and self.fold >= self.folds:
            raise ValueError(
                f"fold is {self.fold}, folds is {self.folds}: folds count from 0, to folds - 1"
            )
        if self.folds and not self.hold_out:
            raise ValueError("folds choose who validates, hold_out=false that nobody does")
        return self


class AugmentConfig(SectionModel):
    """Random changes to a training sample; each is drawn anew from (seed, epoch, index)."""

    recipe: Literal["settings", "paper"] = Field(
        "settings",
        description="settings: the changes named below, at the network's size; paper: 0 to 4 of "
        "ten fixed ones, at the image's own size",
    )
    paper_defects: tuple[PaperDefect, ...] = Field(
        (),
        description="defects of the public code to repeat, with recipe=paper only; "
        "docs/training.md says what they are",
    )
    horizontal_flip: float = Field(
        0.0, ge=0, le=1, description="probability of mirroring left and right"
    )
    vertical_flip: float = Field(
        0.0, ge=0, le=1, description="probability of mirroring top and bottom"
    )
    affine: float = Field(
        0.0,
        ge=0,
        le=1,
        description="probability of rotation, shift, scale and shear, drawn together",
    )
    rotate_degrees: float = Field(20.0, ge=0, le=180, description="largest angle of rotation")
    translate: float = Field(0.1, ge=0, le=1, description="largest shift, as a share of the side")
    scale: Range = Field((0.8, 1.25), description="smallest and largest factor of size")
    shear_degrees: float = Field(0.0, ge=0, le=60, description="largest angle of shear")
    brightness: float = Field(
        0.0, ge=0, le=1, description="largest change of the brightness, as a share of it"
    )
    contrast: float = Field(
        0.0, ge=0, le=1, description="largest change of the contrast, as a share of it"
    )
    saturation: float = Field(
        0.0,
        ge=0,
        le=1,
        description="largest change of the saturation, as a share of it; colour images only",
    )
    noise_std: float = Field(
        0.0, ge=0, le=1, description="standard deviation of added noise, of images from 0 to 1"
    )

    @property
    def flips(self) -> list[str]:
        """Name the directions in which samples are mirrored."""
        chances = {"horizontal": self.horizontal_flip, "vertical": self.vertical_flip}
        if self.recipe == "paper":
            return list(chances)
        return [direction for direction, chance in chances.items() if chance > 0]

    @field_validator("scale")
    @classmethod
    def _ascending(cls, value: Range) -> Range:
        if not 0 < value[0] <= value[1]:
            raise ValueError("two factors above 0 are needed, the smaller first")
        return value

    @model_validator(mode="after")
    def _one_recipe(self) -> Self:
        own = {"recipe", "paper_defects"}
        if self.recipe == "settings":
            if self.paper_defects:
                raise ValueError("augment.paper_defects are of augment.recipe=paper; remove them")
            return self
        for name, info in type(self).model_fields.items():
            if name not in own and getattr(self, name) != info.default:
                raise ValueError(
                    f"augment.recipe=paper has settings of its own; remove augment.{name}"
                )
        return self


class Config(SectionModel):
    """A whole run."""

    image_size: ImageSize = Field(
        description="size of the network's input in pixels: one side, or [height, width]; "
        "multiples of 32"
    )
    batch_slices: int = Field(
        16,
        ge=1,
        description="slices that go through the network at once in validation and prediction; on "
        "a CPU fewer where the outputs would take more than 64 MB (many classes, "
        "large inputs)",
    )
    model: ModelConfig = ModelConfig()
    data: DataConfig
    augment: AugmentConfig = AugmentConfig()
    loss: dict[str, float] = Field(
        {"dice": 1.0, "cross_entropy": 1.0},
        description="weights of the losses that are summed: boundary_dou, cross_entropy, dice; "
        "a file names all of them, and --set loss.dice=2 leaves the others as they are",
    )
    train: TrainConfig

    @model_validator(mode="before")
    @classmethod
    def _current_names(cls, content: Any) -> Any:
        return current_keys(KIND, content)

    @field_validator("loss")
    @classmethod
    def _none_below_zero(cls, weights: dict[str, float]) -> dict[str, float]:
        if min(weights.values(), default=0) < 0:
            raise ValueError("a weight below 0 would reward mistakes; use 0 or more")
        return weights

    @model_validator(mode="after")
    def _somebody_to_choose_by(self) -> Self:
        train, by_test = self.train, self.train.monitor == "test" and self.train.keep == "best"
        if train.monitor == "val" and not self.data.hold_out:
            raise ValueError(
                "data.hold_out is false, so no val cases are left to score; set train.monitor to "
                "test and train.keep to last"
            )
        if by_test and not train.select_on_test:
            raise ValueError(
                "choosing weights by the test split flatters every score on it; set train.keep to "
                "last, or train.select_on_test to true to do it all the same"
            )
        if train.select_on_test and not by_test:
            raise ValueError(
                "train.select_on_test has no effect without train.monitor=test and "
                "train.keep=best; set these too or remove it"
            )
        if train.early_stopping and train.monitor == "test" and not train.select_on_test:
            raise ValueError(
                "stopping by the test split flatters every score on it; remove "
                "train.early_stopping, or set train.select_on_test to true to do it all the same"
            )
        return self

    @model_validator(mode="after")
    def _something_to_freeze(self) -> Self:
        if self.train.freeze_encoder and not self.model.knows_something:
            raise ValueError(
                "train.freeze_encoder would freeze random weights; set model.init_from, "
                "model.pretrained or model.pretrained_file too"
            )
        return self
