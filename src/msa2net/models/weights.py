"""Reading and writing weight files."""

import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from msa2net.errors import WeightsError, is_out_of_memory
from msa2net.files import atomic_path
from msa2net.text import listed

_FRACTIONS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


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
        WeightsError: the file is unreadable, its keys, shapes or types are not the model's, or it
            holds what is not a finite number.
    """
    state = read_state_dict(path)
    check_entries(model.state_dict(), state, origin=str(path))
    model.load_state_dict(state)


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Read a `.safetensors` file, or a `.pth`/`.pt`/`.bin`/`.ckpt` pickle of tensors only.

    A pickle is opened with `weights_only=True`: it cannot run code. A dictionary inside one of
    the usual wrappers (`state_dict`, `model`, `model_state_dict`) is unwrapped, and the prefix
    `module.` that DataParallel leaves is removed. No tensor takes more memory than its file.

    Raises:
        WeightsError: the file is missing, damaged, or holds something other than tensors.
    """
    if not path.is_file():
        raise WeightsError(f"no weight file at {path}")
    try:
        if path.suffix.lower() == ".safetensors":
            return load_file(path)
        refuse_packed(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except WeightsError:
        raise
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
    wrong = [str(key) for key, value in content.items() if not _is_plain(value)]
    if wrong or not content:
        named = f"entries that are not tensors ({listed(wrong)})" if wrong else "no tensors"
        raise WeightsError(f"{path} holds {named}; it must be a model's state dict")
    return {str(key).removeprefix("module."): value for key, value in content.items()}


def refuse_packed(path: Path) -> None:
    """Refuse a file of torch's whose parts are compressed: it never does that, and bombs are.

    Raises:
        WeightsError: there are such parts.
        OSError, BadZipFile: the file cannot be read.
    """
    if not zipfile.is_zipfile(path):
        return  # torch's format before 1.6 has no parts
    with zipfile.ZipFile(path) as parts:
        if any(part.compress_type != zipfile.ZIP_STORED for part in parts.infolist()):
            raise WeightsError(f"{path} has compressed parts, which torch does not write")


def _is_plain(value: object) -> bool:
    """Tell whether something is a tensor that lies in memory number by number."""
    if not isinstance(value, Tensor) or value.layout != torch.strided or value.is_quantized:
        return False
    if value.device.type != "cpu":
        return False
    return value.numel() * value.element_size() <= value.untyped_storage().nbytes()


def check_entries(
    expected: Mapping[str, Tensor],
    state: Mapping[str, Tensor],
    *,
    origin: str,
    values: bool = True,
) -> None:
    """Refuse a state dict with missing, unexpected or misshapen entries, or with other numbers.

    Args:
        expected: entries of the right shape and type; their numbers are nothing.
        state: the entries that there are.
        origin: what to call them in an error.
        values: look at their numbers too.

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
    retyped = [
        f"{key} is {_type(state[key])}, the network's is {_type(value)}"
        for key, value in expected.items()
        if not same_kind(state[key], value)
    ]
    if retyped:
        raise WeightsError(
            f"{origin} is damaged: {len(retyped)} entries hold numbers of another kind "
            f"({listed(retyped)})"
        )
    if values:
        check_finite(state.items(), origin=origin)


def same_kind(one: Tensor, other: Tensor) -> bool:
    """Tell whether both hold fractions, or both whole numbers."""
    if other.is_floating_point():
        return one.dtype in _FRACTIONS
    return not one.is_floating_point() and not one.is_complex()


def check_finite(entries: Iterable[tuple[str, Tensor]], *, origin: str) -> None:
    """Refuse entries that hold NaN or infinity: a network answers them with a mask of nothing.

    Raises:
        WeightsError: naming them.
    """
    # A sum is not finite if any of its terms is not, and takes a tenth of the time; where it is
    # not, it may be too large itself.
    broken = [
        name
        for name, value in entries
        if value.dtype in _FRACTIONS
        and not bool(value.sum(dtype=torch.float32).isfinite())
        and not bool(value.isfinite().all())
    ]
    if broken:
        raise WeightsError(
            f"{origin} is damaged: {len(broken)} entries hold NaN or infinity ({listed(broken)})"
        )


def _type(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
