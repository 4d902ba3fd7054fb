"""The training task: what happens with a batch, a validation case, and the learning rate."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import lightning as L
import numpy as np
import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from msa2net.config import Precision, TrainConfig
from msa2net.data.case import Case
from msa2net.inference.predictor import Predictor
from msa2net.metrics.protocol import CaseRow
from msa2net.metrics.scoring import case_rows
from msa2net.models.weights import check_entries
from msa2net.training.checkpoint_state import check_optimizer_state
from msa2net.training.compiled import CompiledStep
from msa2net.training.distributed import gather_rows
from msa2net.training.ema import WeightAverage
from msa2net.training.loggers import PICTURES, sample_picture
from msa2net.training.nonfinite import LossWatch, Step


class SegmentationTask(L.LightningModule):
    """One network, one loss, one optimiser; validation is prediction on whole cases.

    Args:
        predictor: holds the network.
        network: what is trained: the predictor's network, or one around it with auxiliary heads.
        loss: of what `network` returns for a batch and labels (B, h, w).
        config: optimiser and schedule.
        total_steps: of the whole training, on which the schedule depends.
        watch: looks at every loss; None if nobody does.
        average: follows the predictor's network; None if nothing does.
        compiled: takes network and loss together; None if they are called as they are.

    Attributes:
        rows: the scores of the last validation, one row per case and class.
        average_rows: likewise of the average.
        pictures: case id → (H, 2·W, 3), ground truth beside prediction, of its first cases;
            empty without logs.
        at: the running step; the recorder sets it.
    """

    def __init__(
        self,
        predictor: Predictor,
        network: nn.Module,
        loss: nn.Module,
        config: TrainConfig,
        total_steps: int,
        watch: LossWatch | None = None,
        average: WeightAverage | None = None,
        compiled: CompiledStep | None = None,
    ) -> None:
        super().__init__()
        self.network = network
        self.average = average
        self.loss = loss
        self.predictor = predictor
        self.config = config
        self.total_steps = total_steps
        self.watch = watch
        self.rows: list[CaseRow] = []
        self.average_rows: list[CaseRow] = []
        self.pictures: dict[str, NDArray[np.uint8]] = {}
        self.at: Step | None = None
        self._compiled = compiled

    @property
    def model(self) -> nn.Module:
        """The network that is saved, without auxiliary heads."""
        return self.predictor.model

    @property
    def _encoder(self) -> nn.Module:
        return self.model.get_submodule("encoder")

    def training_step(self, batch: dict[str, Any]) -> Tensor:
        """Return the loss of a batch of slices (B, C, h, w) with labels (B, h, w).

        Raises:
            NonFiniteLossError: it is NaN or infinite, or an earlier one was.
        """
        if self.config.freeze_encoder and self._encoder.training:
            self._encoder.eval()  # batch norm keeps its statistics, dropout is off
        if self._compiled is None:
            loss: Tensor = self.loss(self.network(batch["image"]), batch["label"])
        else:
            loss = self._compiled(batch["image"], batch["label"])
        if self.watch is not None and self.at is not None:
            self.watch.look(loss, self.at)
        return loss

    def forget_compiled(self) -> None:
        """Give back the memory of a compiled step's graphs.

        Where there are any, everything that this process has compiled is forgotten.
        """
        recorded = self._compiled is not None and self._compiled.recorded
        self._compiled = None
        if recorded:
            torch.compiler.reset()

    def look_at_losses(self) -> None:
        """Look at every loss that is still on its way.

        Raises:
            NonFiniteLossError: one is not finite.
        """
        if self.watch is None or not self.watch.waits:
            return
        training = self.network.training  # off while a validation is interrupted
        self.network.train()
        if self.config.freeze_encoder:
            self._encoder.eval()
        with self.trainer.precision_plugin.train_step_context():
            self.watch.finish()
        self.network.train(training)

    def on_validation_epoch_start(self) -> None:
        """Forget the last validation."""
        self.rows, self.average_rows, self.pictures = [], [], {}

    def validation_step(self, cases: Sequence[Case]) -> None:
        """Segment whole cases and score them on their own grids."""
        for case, segmentation in zip(cases, self.predictor.segment(cases), strict=True):
            assert case.label is not None
            self.rows += case_rows(
                case.id, segmentation.labels, case.label, self.predictor.label_names
            )
            if self.config.loggers and len(self.pictures) < PICTURES:
                self.pictures[case.id] = sample_picture(self.predictor, case, segmentation.labels)
        if self.average is None:
            return
        for case, segmentation in zip(cases, self.average.predictor.segment(cases), strict=True):
            assert case.label is not None
            self.average_rows += case_rows(
                case.id, segmentation.labels, case.label, self.predictor.label_names
            )

    def on_validation_epoch_end(self) -> None:
        """Bring the scores of all processes together."""
        self.rows = gather_rows(self.rows, self.trainer)
        self.average_rows = gather_rows(self.average_rows, self.trainer)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Build optimiser and per-step schedule."""
        optimizer = create_optimizer(self.network, self.config, self.trainer.precision)
        schedule = LambdaLR(
            optimizer, lambda step: learning_rate_factor(step, self.total_steps, self.config)
        )
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,  # noqa: ARG002
    ) -> None:
        """Clip the norm of all gradients together.

        Lightning's own way refuses fused optimisers in all mixed precision, where only the scaler
        of 16-mixed stands in their way (see `create_optimizer`).
        """
        if gradient_clip_val is not None:
            parameters = [one for group in optimizer.param_groups for one in group["params"]]
            nn.utils.clip_grad_norm_(parameters, gradient_clip_val)

    def networks(self) -> dict[str, nn.Module]:
        """Name the networks that a checkpoint holds."""
        found = {"model": self.model}
        if self.network is not self.model:
            found["heads"] = self.network.get_submodule("heads")
        if self.average is not None:
            found["average"] = self.average
        return found

    def load_networks(self, saved: Mapping[str, Any]) -> None:
        """Load the states of `networks`; an average that nobody saved begins where the model is."""
        for name, network in self.networks().items():
            if name in saved:
                origin = f"the checkpoint's {name}"
                check_entries(network.state_dict(), saved[name], origin=origin, values=False)
                network.load_state_dict(saved[name])
        if self.average is not None and "average" not in saved:
            self.average.begin_at(self.model)

    def parts(self) -> dict[str, Any]:
        """Name what a checkpoint holds besides counters; each part saves and loads a state."""
        return {
            **self.networks(),
            "optimizer": self.trainer.optimizers[0],
            "schedule": self.trainer.lr_scheduler_configs[0].scheduler,
            "precision": self.trainer.precision_plugin,  # the scaler of 16-mixed
        }

    def restore(self, saved: Mapping[str, Any], step: int) -> None:
        """Load the states of `parts`; rates and decays stay those of the configuration.

        They are the same in a training that merely goes on. One that is lengthened, or whose
        settings were changed on purpose, gets the new ones.
        """
        self.load_networks(saved)
        parts = {name: part for name, part in self.parts().items() if name not in self.networks()}
        optimizer, schedule = parts["optimizer"], parts["schedule"]
        check_optimizer_state(saved["optimizer"], optimizer)
        rates = schedule.base_lrs
        for name, part in parts.items():
            if state := saved.get(name):  # of a scaler there may be none
                part.load_state_dict(
                    with_own_options(state, optimizer) if name == "optimizer" else state
                )
        schedule.base_lrs = rates
        schedule.last_epoch = step  # another, where changed batches let the epoch start again
        factor = learning_rate_factor(step, self.total_steps, self.config)
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate * factor


def create_optimizer(model: nn.Module, config: TrainConfig, precision: str) -> Optimizer:
    """Build SGD or AdamW; biases, norms and scales (one-dimensional) are not decayed unless asked.

    Frozen weights are left out: decay would change them even without a gradient.
    """
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    least = 0 if config.decay_all else 2
    decayed = [parameter for parameter in trained if parameter.ndim >= least]
    plain = [parameter for parameter in trained if parameter.ndim < least]
    groups = [
        {"params": decayed, "weight_decay": config.weight_decay},
        {"params": plain, "weight_decay": 0.0},
    ]
    # With 16-mixed a fused optimiser gets gradients that are still scaled, and so would clipping.
    fused = precision != "16-mixed"
    if config.optimizer == "sgd":
        return SGD(groups, lr=config.learning_rate, momentum=config.momentum, fused=fused)
    return AdamW(groups, lr=config.learning_rate, fused=fused)


def with_own_options(state: Mapping[str, Any], optimizer: Optimizer) -> dict[str, Any]:
    """Return an optimiser's saved state under this optimiser's rates, decays and kind of kernels.

    Before it is loaded, because by the state's own `fused` torch decides where to put its tensors.
    """
    groups = [
        own | {"params": saved["params"]}
        for saved, own in zip(state["param_groups"], optimizer.param_groups, strict=True)
    ]
    return {**state, "param_groups": groups}


def learning_rate_factor(step: int, total_steps: int, config: TrainConfig) -> float:
    """Return the share of the highest learning rate at `step` of `total_steps`, in [0, 1].

    A linear warm-up over the first `config.warmup` of all steps, then a half cosine or the
    polynomial (1 − t)^0.9 down to zero.
    """
    warmup_steps = round(config.warmup * total_steps)
    if step < warmup_steps:
        return (step + 1) / (warmup_steps + 1)
    progress = min(1.0, (step - warmup_steps) / max(1, total_steps - warmup_steps))
    if config.schedule == "poly":
        return float((1 - progress) ** 0.9)
    return 0.5 * (1 + math.cos(math.pi * progress))


def choose_precision(name: Literal["auto"] | Precision, device: torch.device) -> Precision:
    """Resolve `auto`: bfloat16 on GPUs that compute in it, float32 elsewhere.

    On CPUs bfloat16 pays for large networks only, and some kernels are not safe in it (see
    `DilatedDepthwiseConv2d`), so it has to be asked for.
    """
    if name != "auto":
        return name
    safe = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return "bf16-mixed" if safe else "32-true"
