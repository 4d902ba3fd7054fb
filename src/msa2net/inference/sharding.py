"""Sharing cases, and a machine's GPUs, among processes that torchrun or SLURM started together."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypeVar

from msa2net.errors import ConfigError

Item = TypeVar("Item")


class World(NamedTuple):
    """The processes that share the work.

    Attributes:
        rank: this one, counted from 0.
        size: how many there are.
    """

    rank: int = 0
    size: int = 1


def share_of(cases: Sequence[Item], rank: int, world: int) -> list[Item]:
    """Return the cases of one process: every `world`-th, so that each is in exactly one share.

    All processes must hand in the same cases in the same order: take the share first, and leave
    out afterwards what is done already.

    Raises:
        ConfigError: there is no process of that rank.
    """
    if not 0 <= rank < world:
        raise ConfigError(f"process {rank} of {world} does not exist; ranks count from 0")
    return list(cases[rank::world])


def world_from_environment(environment: Mapping[str, str]) -> World:
    """Read from the environment's variables which process this is, and of how many.

    torchrun sets RANK and WORLD_SIZE. srun sets SLURM_PROCID and SLURM_STEP_NUM_TASKS (older ones
    SLURM_NTASKS only), and SLURM_STEP_ID. In the script given to sbatch SLURM_PROCID is 0 and
    SLURM_NTASKS the number asked for, but one process runs, which must take all cases: without
    a step's id SLURM's numbers are not meant for us.

    Args:
        environment: such as `os.environ`.

    Raises:
        ConfigError: a number is missing, is none, or contradicts the other.
    """
    in_step = "SLURM_STEP_ID" in environment or "SLURM_STEPID" in environment
    if "RANK" in environment or "WORLD_SIZE" in environment:
        names = "RANK", "WORLD_SIZE"
    elif in_step and "SLURM_PROCID" in environment:
        counted = "SLURM_STEP_NUM_TASKS" in environment
        names = "SLURM_PROCID", "SLURM_STEP_NUM_TASKS" if counted else "SLURM_NTASKS"
    else:
        return World()
    values = [environment.get(name, "") for name in names]
    if not all(value.isascii() and value.isdigit() for value in values):
        raise ConfigError(
            f"{names[0]} is {values[0]!r} and {names[1]} is {values[1]!r}; both must be numbers: "
            "start with torchrun or srun, which set them, or unset them"
        )
    rank, size = map(int, values)
    if rank >= size:
        raise ConfigError(
            f"{names[0]} is {rank} and {names[1]} is {size}; ranks count from 0 and stay below it"
        )
    return World(rank, size)


def device_of_process(device: str, environment: Mapping[str, str]) -> str:
    """Return the device of this process: with `auto`, each on a machine takes its own GPU.

    Args:
        device: as asked for; anything but auto stays as it is.
        environment: torchrun sets LOCAL_RANK in it, srun SLURM_LOCALID.
    """
    local = environment.get("LOCAL_RANK") or environment.get("SLURM_LOCALID") or ""
    if device != "auto" or not (local.isascii() and local.isdigit()):
        return device
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return f"cuda:{int(local) % count}" if count else device
