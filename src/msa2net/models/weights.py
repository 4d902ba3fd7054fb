"""Reading and writing weight files."""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from msa2net.errors import WeightsError, is_out_of_memory
from msa2net.files import atomic_path


def save_weights(model: nn.Module, path: Path) -> None:
    """Write a model's parameters and buffers as safetensors, all of it or nothing."""
    tensors = {key: value.detach().cpu().contiguous() for key, value in model.state_dict().items()}
    with atomic_path(path) as temporary:
        try:
            save_file(tensors, temporary)
        except SafetensorError as error:  # how it reports a full disk
            raise OSError(str(error)) from error


def load_weights(model: nn.Module, path: Path) -> None:
    """Fill `model` from a safetensors file written by `save_weights`.

    Raises:
        WeightsError: the file is unreadable, or its keys or shapes are not the model's.
    """
    state = read_state_dict(path)
    check_entries(model.state_dict(), state, origin=str(path))
    model.load_state_dict(state)


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Read a `.safetensors` file, or a `.pth`/`.pt`/`.bin`/`.ckpt` pickle of tensors only.

    A pickle is opened with `weights_only=True`: it cannot run code. A dictionary inside one of
    the usual wrappers (`state_dict`, `model`, `model_state_dict`) is unwrapped, and the prefix
    `module.` that DataParallel leaves is removed.

    Raises:
        WeightsError: the file is missing, damaged, or holds something other than tensors.
    """
    if not path.is_file():
        raise WeightsError(f"no weight file at {path}")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, OSError, RuntimeError, EOFError, KeyError) as error:
        if is_out_of_memory(error):
            raise
        raise WeightsError(f"{path} is not a readable weight file: {_first_line(error)}") from error
    except Exception as error:
        if is_out_of_memory(error):
            raise
        # torch reports a refused pickle as pickle.UnpicklingError and damaged ones in many ways
        raise WeightsError(
            f"{path} holds more than tensors or is damaged, so it was not opened "
            f"({_first_line(error)}); save only model.state_dict()"
        ) from error
    return _plain_state_dict(content, path)


def _plain_state_dict(content: object, path: Path) -> dict[str, Tensor]:
    for wrapper in ("state_dict", "model", "model_state_dict"):
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
    if not isinstance(content, Mapping):
        raise WeightsError(f"{path} holds a {type(content).__name__}, not a dictionary of tensors")
    wrong = [str(key) for key, value in content.items() if not isinstance(value, Tensor)]
    if wrong or not content:
        named = f"entries that are not tensors ({listed(wrong)})" if wrong else "no tensors"
        raise WeightsError(f"{path} holds {named}; it must be a model's state dict")
    return {str(key).removeprefix("module."): value for key, value in content.items()}


def check_entries(
    expected: Mapping[str, Tensor], state: Mapping[str, Tensor], *, origin: str
) -> None:
    """Refuse a state dict with missing, unexpected or misshapen entries.

    Raises:
        WeightsError: naming them.
    """
    problems = []
    if missing := sorted(expected.keys() - state.keys()):
        problems.append(f"{len(missing)} missing ({listed(missing)})")
    if unexpected := sorted(state.keys() - expected.keys()):
        problems.append(f"{len(unexpected)} unexpected ({listed(unexpected)})")
    reshaped = [
        f"{key} is {tuple(state[key].shape)}, the network's is {tuple(expected[key].shape)}"
        for key in sorted(expected.keys() & state.keys())
        if expected[key].shape != state[key].shape
    ]
    if reshaped:
        problems.append(f"{len(reshaped)} of another shape ({listed(reshaped)})")
    if problems:
        raise WeightsError(f"{origin} does not fit this network: {'; '.join(problems)}")


def listed(names: list[str], limit: int = 5) -> str:
    """Join names for a message, saying how many were left out after `limit`."""
    more = f", … and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
