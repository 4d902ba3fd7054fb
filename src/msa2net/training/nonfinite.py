"""A loss that is no longer a number: noticed at once, and traced to where it came from."""

import math
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from msa2net.errors import ConfigError
from msa2net.files import write_json

REPORT = "nonfinite.json"
OLDEST = 8  # batches whose losses may be on their way; a GPU is seldom more than one behind
NAMED_CASES = 3
THE_LOSS = "the loss itself"


class NonFiniteLossError(ConfigError):
    """The training loss is NaN or infinite; the run folder's `nonfinite.json` has the details."""


@dataclass(frozen=True)
class Step:
    """What is needed to run a step's forward pass again.

    Attributes:
        epoch: counted from 1.
        step: counted from 1.
        seed: of what the network draws in it, such as dropout.
        batch: `image`, `label`, `case`, `slice`.
    """

    epoch: int
    step: int
    seed: int
    batch: Mapping[str, Any]


@dataclass(frozen=True)
class _Waiting:
    at: Step
    loss: Tensor  # in pinned memory, valid once `copied` has happened
    copied: torch.cuda.Event

    def has_arrived(self) -> bool:
        return bool(self.copied.query())  # type: ignore[no-untyped-call]


class LossWatch:
    """Looks at the loss of every batch, without making a GPU wait.

    On a CPU the loss is known before the weights are changed by it. On CUDA its copy to the host
    runs beside the computation and is looked at when it has arrived, one step later as a rule. By
    then it has spoilt the weights, so the batch is run again with those of the last checkpoint.

    Args:
        report: the file for the details of a loss that is not finite.
        network: the network with its loss, see `_first_module`.
        loss: of logits and labels.
        go_back: loads the weights of the last checkpoint into the network.
        circumstances: what else the report says, such as the precision.
        writes: of several processes one does.
    """

    def __init__(
        self,
        report: Path,
        network: nn.Module,
        loss: nn.Module,
        go_back: Callable[[], None],
        circumstances: Mapping[str, Any],
        *,
        writes: bool = True,
    ) -> None:
        self.report, self.network, self.loss, self.go_back = report, network, loss, go_back
        self.circumstances, self.writes = circumstances, writes
        self._waiting: deque[_Waiting] = deque()

    def look(self, loss: Tensor, at: Step) -> None:
        """Look at the loss of a batch, and at earlier ones that have arrived.

        Raises:
            NonFiniteLossError: one is not finite.
        """
        if loss.device.type != "cuda":
            self._judge(float(loss.detach()), at, updated=False)
            return
        host = torch.empty((), dtype=loss.dtype, pin_memory=True)
        host.copy_(loss.detach(), non_blocking=True)
        copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
        copied.record()
        self._waiting.append(_Waiting(at, host, copied))
        while self._waiting and (len(self._waiting) > OLDEST or self._waiting[0].has_arrived()):
            self._take_first()

    @property
    def waits(self) -> bool:
        """Tell whether losses are on their way."""
        return bool(self._waiting)

    def finish(self) -> None:
        """Wait for the losses that are still on their way, before their weights are kept.

        Raises:
            NonFiniteLossError: one is not finite.
        """
        while self._waiting:
            self._take_first()

    def _take_first(self) -> None:
        first = self._waiting.popleft()
        first.copied.synchronize()
        self._judge(float(first.loss), first.at, updated=True)

    def _judge(self, loss: float, at: Step, *, updated: bool) -> None:
        if math.isfinite(loss):
            return
        broken = [name for name, value in self.network.named_parameters() if not _is_finite(value)]
        if spoilt := updated and bool(broken):  # every module would seem to be the first
            self.go_back()
        module, facts = _first_module(self.network, self.loss, at)
        cases = list(at.batch["case"])
        content = {
            "epoch": at.epoch,
            "step": at.step,
            "loss": str(loss),
            "batch": [
                {"case": case, "slice": int(index)}
                for case, index in zip(cases, at.batch["slice"], strict=True)
            ],
            "first_module": module,
            **facts,
            "found_with": "the last checkpoint's weights" if spoilt else "the step's weights",
            "parameters_not_finite": broken,
            **self.circumstances,
        }
        if self.writes:
            write_json(self.report, content)
        named = ", ".join(dict.fromkeys(cases[:NAMED_CASES]))
        if len(set(cases)) > NAMED_CASES:
            named += f", … ({len(set(cases))} cases)"
        where = f"the first module with values that are not finite is {module}"
        if module is None:
            where = "in a second run of it everything was finite"
        if spoilt:
            where += " (with the weights of the last checkpoint)"
        raise NonFiniteLossError(
            f"the training loss became {loss} in epoch {at.epoch}, step {at.step}, with {named}; "
            f"{where}; lower train.learning_rate or use train.precision=32-true; the checkpoint "
            f"before is kept, details are in {self.report}"
        )


def _first_module(
    network: nn.Module, loss: nn.Module, at: Step
) -> tuple[str | None, dict[str, Any]]:
    """Run a batch again and name the first module whose output is not finite.

    Modules are looked at in the order in which they finish, so an inner one comes before those
    around it.

    Returns:
        Its dotted name, and its type and how many of its values are wrong; no name if all are
        finite this time.
    """
    found: list[tuple[str, dict[str, Any]]] = []
    devices = [at.batch["image"].device] if at.batch["image"].device.type == "cuda" else []
    with torch.no_grad(), torch.random.fork_rng(devices=devices), _hooks(network, found):
        torch.manual_seed(at.seed)
        logits = network(at.batch["image"])
        value = loss(logits, at.batch["label"])
    if found:
        return found[0]
    if _is_finite(value):
        return None, {"module_type": None}
    return THE_LOSS, {"module_type": type(loss).__name__}


@contextmanager
def _hooks(network: nn.Module, found: list[tuple[str, dict[str, Any]]]) -> Iterator[None]:
    def watch(name: str, module: nn.Module) -> torch.utils.hooks.RemovableHandle:
        def look(_: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            if found or not (wrong := [x for x in _tensors(output) if not _is_finite(x)]):
                return
            facts = {
                "module_type": type(module).__name__,
                "output_shape": list(wrong[0].shape),
                "output_nan": int(wrong[0].isnan().sum()),
                "output_infinite": int(wrong[0].isinf().sum()),
                "inputs_finite": all(_is_finite(x) for x in _tensors(inputs)),
            }
            found.append((name or "the network", facts))

        return module.register_forward_hook(look)

    handles = [watch(name, module) for name, module in network.named_modules()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, tuple | list):
        for part in value:
            yield from _tensors(part)


def _is_finite(value: Tensor) -> bool:
    return not value.is_floating_point() or bool(value.isfinite().all())
