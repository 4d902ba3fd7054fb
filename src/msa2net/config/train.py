"""The settings of how to train."""

from typing import Literal, Self

from pydantic import Field, model_validator

from msa2net.config.types import LoggerName, Minutes, SectionModel


class TrainConfig(SectionModel):
    """How to train."""

    epochs: int = Field(ge=1, description="passes through all training slices")
    batch_size: int = Field(ge=1, description="slices a step, of all processes together")
    learning_rate: float = Field(gt=0, description="peak learning rate, after the warm-up")
    optimizer: Literal["adamw", "sgd"] = Field(
        "adamw", description="optimizer; sgd, with momentum, is the paper's"
    )
    momentum: float = Field(0.9, ge=0, lt=1, description="momentum of sgd")
    weight_decay: float = Field(
        0.05,
        ge=0,
        description="weight decay; biases and norms have none, see train.decay_all",
    )
    decay_all: bool = Field(
        False, description="decay biases, norms and scales too, as the paper did"
    )
    schedule: Literal["cosine", "poly"] = Field(
        "cosine",
        description="learning rate decay to zero, step by step; poly is the paper's",
    )
    warmup: float = Field(
        0.05,
        ge=0,
        lt=1,
        description="fraction of all steps in which the learning rate rises linearly from zero",
    )
    clip_norm: float | None = Field(
        1.0,
        gt=0,
        description="gradient clipping: the largest norm of all gradients together; null: no limit",
    )
    devices: int | None = Field(
        None,
        ge=1,
        description="processes on this machine, one a GPU; not set: one, or what torchrun or srun "
        "started",
    )
    nodes: int = Field(
        1, ge=1, description="how many machines train together; torchrun and srun say it themselves"
    )
    strategy: Literal["auto", "ddp"] = Field(
        "auto", description="how processes work together; auto is ddp where there are several"
    )
    sync_batch_norm: bool = Field(
        True, description="synchronise the statistics of batch norms over all GPUs"
    )
    accumulate: int = Field(
        1,
        ge=1,
        description="gradient accumulation: parts in which a batch is computed, to save memory",
    )
    gradient_checkpointing: bool = Field(
        False,
        description="recompute activations inside blocks in the backward pass: less memory, more "
        "time",
    )
    compile: bool = Field(False, description="compile the training step with torch.compile")
    precision: Literal["auto", "32-true", "bf16-mixed", "16-mixed"] = Field(
        "auto",
        description="number format; auto is bf16-mixed on GPUs that compute in it, 32-true "
        "elsewhere",
    )
    deep_supervision: Literal["none", "sum", "mutation"] = Field(
        "none",
        description="auxiliary outputs in the loss; sum: the output of every decoder level; "
        "mutation: every sum of a subset of them (logits); the auxiliary heads are "
        "used in training only",
    )
    ema: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="decay of an exponential moving average of the weights, which is validated "
        "beside them; not set: no average",
    )
    oversample_foreground: float = Field(
        0.0,
        ge=0,
        le=1,
        description="fraction of the samples that are drawn for a foreground class, every class "
        "equally often (class-balanced sampling)",
    )
    seed: int = Field(
        1234,
        ge=0,
        lt=2**63,
        description="seed of the first weights, order of samples, augmentation and dropout",
    )
    workers: int = Field(
        0,
        ge=0,
        description="processes that load and augment samples; 0: the training does it itself",
    )
    max_steps: int | None = Field(None, ge=1, description="end after this many steps, for trials")
    validate_every: int = Field(1, ge=1, description="epochs between validations")
    monitor: Literal["val", "test"] = Field(
        "val", description="the split that is scored while training; test is for information only"
    )
    keep: Literal["best", "last"] = Field(
        "best",
        description="the weights that become the run's: those that scored best in a validation, "
        "or the last",
    )
    early_stopping: int | None = Field(
        None,
        ge=1,
        description="end after this many validations in a row without a higher Dice; not set: "
        "never",
    )
    freeze_encoder: bool = Field(
        False,
        description="train the decoder only; the encoder's weights and statistics stay as they are",
    )
    loggers: tuple[LoggerName, ...] = Field(
        (), description="where curves and images are logged besides metrics.csv"
    )
    checkpoint_minutes: float = Field(
        1.0,
        ge=0,
        description="minutes between checkpoints, but at least ten times what saving one takes; "
        "0: only after epochs",
    )
    max_time: Minutes | None = Field(
        None,
        gt=0,
        description="stop before this time is over, and save: minutes, or 11:30:00, or 1-06:00:00 "
        "with days",
    )
    select_on_test: bool = Field(
        False,
        description="with monitor=test, let the test split choose the weights; every report says "
        "so",
    )

    @model_validator(mode="after")
    def _compiled_or_computed_twice(self) -> Self:
        if self.compile and self.gradient_checkpointing:
            raise ValueError(
                "train.compile and train.gradient_checkpointing do not work together, because "
                "torch.compile cannot keep batch norms from counting a batch twice; leave one out"
            )
        return self
