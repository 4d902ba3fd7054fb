"""The settings of a run, section by section, with what must hold between them."""

import re
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    field_validator,
    model_validator,
)


def _as_pair(value: object) -> object:
    return (value, value) if isinstance(value, int) else value


def _as_minutes(value: object) -> object:
    """Read a limit on time: a number of minutes, or text such as 11:30:00 or 1-06:00:00."""
    if not isinstance(value, str):
        return value
    found = re.fullmatch(r"(?:(\d+)-)?(\d+):([0-5]\d):([0-5]\d)", value)
    if found is None:
        raise ValueError("minutes, or HOURS:MM:SS, or DAYS-HH:MM:SS are needed")
    days, hours, minutes, seconds = (int(part or 0) for part in found.groups())
    return days * 1440 + hours * 60 + minutes + seconds / 60


Minutes = Annotated[float, BeforeValidator(_as_minutes)]
ImageSize = Annotated[tuple[int, int], BeforeValidator(_as_pair)]
Range = tuple[float, float]


Precision = Literal["32-true", "bf16-mixed", "16-mixed"]
PRECISION_WORDS: dict[str, str] = {
    "32-true": "32-bit floating point",
    "bf16-mixed": "bfloat16 (16 bits) mixed with 32-bit floating point",
    "16-mixed": "16-bit mixed with 32-bit floating point",
}
"""Precision → what it means, for people."""
LabelEncoding = Literal["btcv", "transunet", "cascade", "samed"]
PaperDefect = Literal["noise", "streams"]
LoggerName = Literal["tensorboard", "wandb", "mlflow"]


class SectionModel(BaseModel):
    """What all sections have in common."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class ModelConfig(SectionModel):
    """Which network."""

    name: str = Field("msa2net", description="a name from `msa2net models`")
    encoder: str | None = Field(None, description="a timm name; the network's own if empty")
    pretrained: bool = Field(False, description="start from timm's ImageNet weights")
    pretrained_file: Path | None = Field(None, description="the same weights as a file")
    start_from: Path | None = Field(
        None,
        description="a run folder or a file of weights, also of other classes or channels; what "
        "fits is taken over",
    )
    levels: Literal[4, 5] = Field(
        4, description="4 is Figure 1; 5, our extension, adds a gate on a feature at stride 2"
    )
    drop_path: float = Field(
        0.0, ge=0, lt=1, description="stochastic depth while training, at most this in any block"
    )
    layer_scale: float = Field(
        0.01, gt=0, description="where the layer scales of the LKA blocks start"
    )

    @model_validator(mode="after")
    def _one_beginning(self) -> Self:
        if self.start_from is not None and (self.pretrained or self.pretrained_file is not None):
            raise ValueError(
                "model.start_from brings an encoder of its own; remove it, or model.pretrained "
                "and model.pretrained_file"
            )
        return self

    @property
    def knows_something(self) -> bool:
        """Tell whether the encoder starts from weights rather than from chance."""
        return self.pretrained or self.pretrained_file is not None or self.start_from is not None


class DataConfig(SectionModel):
    """Which data, and how an image becomes an input."""

    format: str = Field(description="phantom | isic2018 | images | acdc | btcv | synapse | nnunet")
    root: Path | None = Field(None, description="folder of the raw data; none for phantom")
    prepared: Path = Field(description="folder for the prepared, memory-mapped copy")
    max_side: int = Field(1024, ge=32, description="larger photographs are stored reduced to this")
    labels: LabelEncoding | None = Field(
        None, description="label encoding of the abdominal data sets, btcv and synapse"
    )
    fit: Literal["stretch", "pad"] = Field("pad", description="pad keeps the aspect ratio")
    crop: float = Field(
        1.0, gt=0, le=1, description="central share of the image to use; outside is background"
    )
    resampling: Literal["linear", "spline"] = Field(
        "linear", description="of images to the network's size; spline is the published one"
    )
    clip: bool = Field(
        True, description="what splines overshoot; the published networks saw it as it is"
    )
    split_ratios: tuple[float, float, float] | None = Field(
        None, description="train, val, test: draw all patients anew; else the data set's own split"
    )
    split_seed: int = Field(0, ge=0, description="of split_ratios and folds")
    folds: int | None = Field(
        None, ge=2, description="draw the patients of train and val into this many folds"
    )
    fold: int = Field(0, ge=0, description="the fold that validates; the others train")
    hold_out: bool = Field(
        True, description="false: the val cases train too, as in the paper; none are left to choose"
    )
    phantom_cases: tuple[int, int, int] = Field((24, 4, 6), description="train, val, test")
    phantom_shape: tuple[int, int, int] = Field((32, 128, 128), description="slices, rows, columns")

    @field_validator("split_ratios")
    @classmethod
    def _whole(cls, value: tuple[float, float, float] | None) -> tuple[float, float, float] | None:
        if value is not None and not (min(value) > 0 and abs(sum(value) - 1) <= 1e-6):
            raise ValueError("three numbers above 0 that add up to 1 are needed")
        return value

    @model_validator(mode="after")
    def _fold_exists(self) -> Self:
        if self.fold >= (self.folds or 1):
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
        description="settings: those below, at the network's size; paper: 0 to 4 of ten, at the "
        "image's own size",
    )
    paper_defects: tuple[PaperDefect, ...] = Field(
        (), description="of the public code, with recipe=paper: noise | streams; see docs"
    )
    horizontal_flip: float = Field(0.0, ge=0, le=1, description="probability")
    vertical_flip: float = Field(0.0, ge=0, le=1, description="probability")
    affine: float = Field(0.0, ge=0, le=1, description="probability of the four below together")
    rotate_degrees: float = Field(20.0, ge=0, le=180, description="largest angle")
    translate: float = Field(0.1, ge=0, le=1, description="largest shift, fraction of the side")
    scale: Range = Field((0.8, 1.25), description="smallest and largest factor, above 0")
    shear_degrees: float = Field(0.0, ge=0, le=60, description="largest angle")
    brightness: float = Field(0.0, ge=0, le=1, description="largest relative change")
    contrast: float = Field(0.0, ge=0, le=1, description="largest relative change")
    saturation: float = Field(0.0, ge=0, le=1, description="largest relative change; colour only")
    noise_std: float = Field(0.0, ge=0, le=1, description="of images in [0, 1]")

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


class TrainConfig(SectionModel):
    """How to train."""

    epochs: int = Field(ge=1)
    batch_size: int = Field(ge=1, description="slices a step, of all processes together")
    learning_rate: float = Field(gt=0, description="the highest of the schedule")
    optimizer: Literal["adamw", "sgd"] = "adamw"
    momentum: float = Field(0.9, ge=0, lt=1, description="sgd only")
    weight_decay: float = Field(0.05, ge=0, description="not applied to biases and norms")
    decay_all: bool = Field(False, description="decay biases, norms and scales too, as the paper")
    schedule: Literal["cosine", "poly"] = Field("cosine", description="per step, down to zero")
    warmup: float = Field(0.05, ge=0, lt=1, description="fraction of all steps")
    clip_norm: float | None = Field(1.0, gt=0, description="of all gradients together")
    devices: int | None = Field(
        None, ge=1, description="processes on this machine, one a GPU; torchrun and srun tell it"
    )
    nodes: int = Field(1, ge=1, description="machines; torchrun and srun tell it")
    strategy: Literal["auto", "ddp"] = Field(
        "auto", description="how processes work together; auto is ddp where there are several"
    )
    sync_batch_norm: bool = Field(
        True, description="statistics over the whole batch where there are several GPUs"
    )
    accumulate: int = Field(
        1, ge=1, description="parts that a batch is computed in, one after the other"
    )
    gradient_checkpointing: bool = Field(
        False, description="compute blocks twice rather than keep what is inside of them"
    )
    compile: bool = Field(False, description="let torch.compile make the training step faster")
    precision: Literal["auto", "32-true", "bf16-mixed", "16-mixed"] = Field(
        "auto", description="auto is bf16-mixed on GPUs that have it, 32-true elsewhere"
    )
    supervision: Literal["none", "sum", "mutation"] = Field(
        "none",
        description="sum: every decoder level answers and is judged; mutation: every sum of some "
        "of their answers; the added heads are left out at inference",
    )
    ema: float | None = Field(
        None, gt=0, lt=1, description="decay of a moving average of the weights, scored alongside"
    )
    balance: float = Field(
        0.0, ge=0, le=1, description="share of the samples drawn for a class, rare as often as not"
    )
    seed: int = Field(1234, ge=0)
    workers: int = Field(0, ge=0, description="processes that load and augment")
    max_steps: int | None = Field(None, ge=1, description="stop after this many; for trials")
    validate_every: int = Field(1, ge=1, description="epochs between validations")
    monitor: Literal["val", "test"] = Field(
        "val", description="the split that is scored while training; test is for information only"
    )
    keep: Literal["best", "last"] = Field("best", description="the weights that become the run's")
    early_stopping: int | None = Field(
        None, ge=1, description="end after this many validations in a row without a higher Dice"
    )
    freeze_encoder: bool = Field(
        False, description="train the decoder only; the encoder's weights and statistics stay"
    )
    loggers: tuple[LoggerName, ...] = Field(
        (), description="tensorboard | wandb | mlflow, besides metrics.csv"
    )
    checkpoint_minutes: float = Field(
        1.0,
        ge=0,
        description="between checkpoints, and ten times what saving takes; 0: only between epochs",
    )
    max_time: Minutes | None = Field(
        None, gt=0, description="stop before this is over: minutes, or 11:30:00, or 1-06:00:00"
    )
    select_on_test: bool = Field(
        False, description="with monitor=test, let the test split choose; every report says so"
    )


class Config(SectionModel):
    """A whole run."""

    image_size: ImageSize = Field(description="network input, S or [H, W], multiples of 32")
    batch_slices: int = Field(16, ge=1, description="slices at once in validation and prediction")
    model: ModelConfig = ModelConfig()
    data: DataConfig
    augment: AugmentConfig = AugmentConfig()
    loss: dict[str, float] = Field(
        {"dice": 1.0, "cross_entropy": 1.0}, description="weights of boundary_dou, dice, …"
    )
    train: TrainConfig

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
                "train.freeze_encoder would freeze random weights; set model.start_from, "
                "model.pretrained or model.pretrained_file too"
            )
        return self
