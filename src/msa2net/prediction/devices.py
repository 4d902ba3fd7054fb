"""Which accelerator a process takes when several were started on one machine."""

from collections.abc import Mapping


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
