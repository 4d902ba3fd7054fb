"""Several processes of one training: who started them, which one this is, how they work together.

One process a GPU. Started by Lightning itself (`train.devices` on one machine), by torchrun or by
srun; the last two say by environment variables how many there are.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import groupby, zip_longest
from typing import Any

import torch
from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning.pytorch.strategies import DDPStrategy, Strategy
from torch import distributed

from msa2net.config import TrainConfig
from msa2net.errors import ConfigError
from msa2net.inference.sharding import world_from_environment
from msa2net.metrics.protocol import CaseRow

CHILD = "LOCAL_RANK"  # Lightning gives it to the processes that it starts by itself


@dataclass(frozen=True)
class Processes:
    """The processes of a training.

    Attributes:
        devices: processes on a machine.
        nodes: machines.
        rank: this process, counted from 0 over all machines.
        environment: what tells Lightning the same.
    """

    devices: int
    nodes: int
    rank: int
    environment: ClusterEnvironment

    @property
    def size(self) -> int:
        """Return how many there are."""
        return self.devices * self.nodes

    @property
    def first(self) -> bool:
        """Tell whether this is the one that writes and speaks."""
        return self.rank == 0


def find_processes(config: TrainConfig, environment: Mapping[str, str] | None = None) -> Processes:
    """Find out which processes train together.

    Args:
        config: `devices` and `nodes`.
        environment: its variables; None is the process's own, which `train` reads: its one hidden
            input. Lightning starts the other processes by running the caller's script anew, and
            tells each by a variable which one it is; no caller could hand that on.

    Raises:
        ConfigError: torchrun or srun started another number than the settings name.
    """
    variables = os.environ if environment is None else environment
    if CHILD in variables and "RANK" not in variables and "SLURM_PROCID" not in variables:
        devices = config.devices or 1
        rank = int(variables.get("NODE_RANK", "0")) * devices + int(variables[CHILD])
        return Processes(devices, config.nodes, rank, LightningEnvironment())
    # WORLD_SIZE without RANK is what an earlier training of this process left.
    hidden = set() if "RANK" in variables else {"WORLD_SIZE"}
    world = world_from_environment({k: v for k, v in variables.items() if k not in hidden})
    if world.size == 1:
        # Under SLURM Lightning would save and requeue by itself at a signal, past our checkpoints.
        return Processes(config.devices or 1, config.nodes, 0, LightningEnvironment())
    cluster: ClusterEnvironment
    if "RANK" in variables:
        devices = int(variables.get("LOCAL_WORLD_SIZE", world.size))
        who, cluster = "torchrun", TorchElasticEnvironment()
    else:
        machines = int(variables.get("SLURM_STEP_NUM_NODES", variables.get("SLURM_NNODES", 1)))
        devices = world.size // machines
        who, cluster = "srun", SLURMEnvironment(auto_requeue=False)
    found = Processes(devices, world.size // devices, world.rank, cluster)
    if config.devices not in (None, devices) or config.nodes not in (1, found.nodes):
        raise ConfigError(
            f"train.devices is {config.devices} and train.nodes {config.nodes}, but {who} started "
            f"{devices} processes on each of {found.nodes} machines; remove both, {who} decides"
        )
    return found


def check_devices(processes: Processes, device: torch.device) -> None:
    """Refuse more processes than there are GPUs.

    Raises:
        ConfigError: saying how many there are.
    """
    if processes.size == 1:
        return
    if device.type == "mps" or device.index is not None:
        raise ConfigError(
            f"{processes.size} processes cannot share the device '{device}'; use --device cuda or "
            "cpu, or train.devices=1"
        )
    if device.type == "cuda" and processes.devices > torch.cuda.device_count():
        raise ConfigError(
            f"train.devices is {processes.devices} and this machine has "
            f"{torch.cuda.device_count()} GPUs"
        )


def create_strategy(
    config: TrainConfig, processes: Processes, *, idle_weights: bool
) -> Strategy | str:
    """Choose how the processes work together; one alone needs nothing.

    Args:
        config: `strategy`.
        processes: how many.
        idle_weights: the network has some that never get a gradient.
    """
    if processes.size == 1 and config.strategy == "auto":
        return "auto"
    return DDPStrategy(find_unused_parameters=idle_weights)


def agree(value: int, trainer: Any) -> int:
    """Return the largest value of any process; they must all call this at the same time."""
    if trainer.world_size == 1:
        return value
    largest = torch.tensor(value, device=trainer.strategy.root_device)
    distributed.all_reduce(largest, op=distributed.ReduceOp.MAX)
    return int(largest)


def gather_rows(rows: list[CaseRow], trainer: Any) -> list[CaseRow]:
    """Put together the rows of cases that were dealt out by `share_to_score`, in their order."""
    if trainer.world_size == 1:
        return rows
    parts: list[Any] = [None] * trainer.world_size
    distributed.all_gather_object(parts, rows)
    cases = [[list(of_case) for _, of_case in groupby(part, _case)] for part in parts]
    found: dict[str, list[CaseRow]] = {}
    for of_place in zip_longest(*cases):
        for rows_of_case in of_place:
            if rows_of_case is not None:
                found.setdefault(_case(rows_of_case[0]), rows_of_case)
    return [row for rows_of_case in found.values() for row in rows_of_case]


def share_to_score(ids: list[str], rank: int, world: int) -> list[str]:
    """Return the cases that a process scores: each `world`-th, or the first if none is left.

    Lightning passes over a validation without cases, and the others would wait for this process.
    """
    return ids[rank::world] or ids[:1]


def _case(row: CaseRow) -> str:
    return row["case"]
