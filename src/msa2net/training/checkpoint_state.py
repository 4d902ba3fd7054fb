"""What a checkpoint must hold, so that a training can go on from it: checked before it does."""

import json
from collections.abc import Mapping
from itertools import chain
from typing import Annotated, Any

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)
from torch import Tensor
from torch.optim import Optimizer

from msa2net.compat import SCHEDULE_STATE
from msa2net.errors import WeightsError
from msa2net.parsing import first_mistake

Count = Annotated[int, Field(ge=0, lt=2**63)]
Seconds = Annotated[float, Field(ge=0)]
_NETWORKS = {"model", "heads", "average"}
Row = dict[str, float | None]


class _Layout(BaseModel):
    model_config = ConfigDict(frozen=True, allow_inf_nan=False)


class Kept(_Layout):
    """What is told of the weights in the run folder."""

    model_config = ConfigDict(extra="allow")

    best_epoch: Count


class ProgressState(_Layout):
    """See `Progress`; only what came with a later version has a default."""

    model_config = ConfigDict(extra="forbid")

    epoch: Count
    batch: Count
    step: Count
    losses: list[Annotated[float, Field(allow_inf_nan=True)]]
    table: list[Row]
    timing: list[dict[str, float]]
    best_dice: float | None
    kept: Kept | None
    train_seconds: Seconds
    waiting_seconds: Seconds = 0.0
    validation_seconds: Seconds
    seconds: Seconds

    @model_validator(mode="after")
    def _is_consistent(self) -> "ProgressState":
        if len(self.table) != self.epoch:
            raise ValueError(
                f"it counts {self.epoch} finished epochs and its table has {len(self.table)} rows"
            )
        return self


class _Data(_Layout):
    format: str
    hash: str
    classes: list[str]
    cases: list[str]


class TrainingState(_Layout):
    """See `training_facts` and `Recorder`; what came with later versions has a default."""

    config: dict[str, Any]
    data: _Data
    precision: str
    device: str
    processes: Count = 1
    versions: dict[str, str]
    steps_per_epoch: Annotated[int, Field(ge=1)]
    progress: ProgressState
    states: dict[str, dict[str, Any]]

    @field_validator("config")
    @classmethod
    def _is_plain(cls, config: dict[str, Any]) -> dict[str, Any]:
        try:
            json.dumps(config)
        except (TypeError, ValueError, RecursionError) as error:
            raise ValueError(f"config holds more than settings: {error}") from error
        return config

    @model_validator(mode="after")
    def _can_go_on(self) -> "TrainingState":
        train = self.config.get("train")
        if not isinstance(train, dict) or not isinstance(train.get("epochs"), int):
            raise ValueError("config does not say how many epochs were planned")
        if missing := {"model", "optimizer", "schedule"} - self.states.keys():
            raise ValueError(f"states lack {', '.join(sorted(missing))}")
        for name in _NETWORKS & self.states.keys():
            if not all(isinstance(value, Tensor) for value in self.states[name].values()):
                raise ValueError(f"states.{name} holds something else than tensors")
        if strange := self.states["schedule"].keys() - SCHEDULE_STATE:
            raise ValueError(f"states.schedule holds '{min(strange)}'")
        factors = self.states["schedule"].get("lr_lambdas")
        if not isinstance(factors, list) or any(factor is not None for factor in factors):
            raise ValueError("states.schedule is of another schedule")
        groups = self.states["optimizer"].get("param_groups")
        if not isinstance(groups, list) or not all(_is_group(group) for group in groups):
            raise ValueError("the optimiser's state has no groups of weights")
        return self


def what_is_missing(state: object) -> str:
    """Say what keeps a training from going on from this state; "" if nothing does."""
    try:
        TrainingState.model_validate(state)
    except ValidationError as error:
        return first_mistake(error)
    return ""


def check_optimizer_state(state: Mapping[str, Any], optimizer: Optimizer) -> None:
    """Refuse an optimiser's state that is not of this one's weights.

    Raises:
        WeightsError: it has other groups, or tensors of other shapes.
    """
    weights = [group["params"] for group in optimizer.param_groups]
    groups = [group["params"] for group in state["param_groups"]]
    if [len(own) for own in groups] != [len(own) for own in weights]:
        raise WeightsError(
            f"the checkpoint's optimiser has {_counts(groups)} weights and this one "
            f"{_counts(weights)}; start again with --overwrite"
        )
    of_index = dict(zip(chain(*groups), chain(*weights), strict=True))
    entries = state.get("state")
    for index, values in entries.items() if isinstance(entries, Mapping) else [(None, None)]:
        if index not in of_index or not _fits(values, of_index[index]):
            raise WeightsError(
                "the checkpoint's optimiser does not fit this network's weights; start again with "
                "--overwrite"
            )


def _counts(groups: list[list[Any]]) -> str:
    return " + ".join(str(len(own)) for own in groups)


def _is_group(group: object) -> bool:
    if not isinstance(group, dict) or not isinstance(group.get("lr"), float):
        return False
    weights = group.get("params")
    return isinstance(weights, list) and all(isinstance(index, int) for index in weights)


def _fits(values: object, weight: Tensor) -> bool:
    """Tell whether what is kept of a weight is as large as it, or a single number."""
    return isinstance(values, Mapping) and all(
        value.shape in (weight.shape, ()) for value in values.values() if isinstance(value, Tensor)
    )
