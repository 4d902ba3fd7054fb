"""Fine-tuning: what fits of another network is loaded, and every entry is accounted for."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from msa2net.data.labels import BACKGROUND
from msa2net.errors import WeightsError
from msa2net.files import MODEL_FILE, WEIGHTS_FILE, sha256
from msa2net.inference.import_weights import HEAD, SYNAPSE_LABELS
from msa2net.inference.run_folder import ModelMetadata, check_weights, read_facts
from msa2net.models.registry import create_model
from msa2net.models.released import ReferenceNet, published_names, recognise
from msa2net.models.weights import check_finite, read_state_dict, same_kind
from msa2net.text import listed

REPORT = "start_from.json"
CLASSES = ("head.weight", "head.bias")  # one row for each class
LEAST_SHARE = 0.01  # below, it is another network: only counters and the like agree
PUBLISHED = "decoder_0."  # begins some key of every published file, and none of ours


@dataclass(frozen=True)
class Source:
    """A network to start from.

    Attributes:
        file: of its weights.
        state: by our names.
        label_names: one per class; None if nobody knows.
    """

    file: Path
    state: Mapping[str, Tensor]
    label_names: tuple[str, ...] | None


@dataclass(frozen=True)
class FineTuneReport:
    """What became of each entry of a network that started from another.

    Attributes:
        file: the weights it started from.
        sha256: of that file.
        loaded: entries that were copied as they were.
        adapted: entry → how.
        reinitialised: entry → why it stays as it was drawn at random.
        unused: entries of the other network that this one has no place for.
        share: of this network's numbers that lie in loaded or adapted entries, 0 to 1.
    """

    file: str
    sha256: str
    loaded: list[str] = field(default_factory=list)
    adapted: dict[str, str] = field(default_factory=dict)
    reinitialised: dict[str, str] = field(default_factory=dict)
    unused: list[str] = field(default_factory=list)
    share: float = 0.0

    def content(self) -> dict[str, object]:
        """Return everything as plain data, by the names that the file has."""
        names = {"loaded": "taken", "reinitialised": "left"}
        return {names.get(name, name): value for name, value in asdict(self).items()}

    def lines(self) -> list[str]:
        """Say in a few lines what the lists hold."""
        total = len(self.loaded) + len(self.adapted) + len(self.reinitialised)
        lines = [
            f"started from {self.file}: {len(self.loaded)} of {total} entries were taken over, "
            f"{len(self.adapted)} adapted, {len(self.reinitialised)} left at random "
            f"({100 * self.share:.1f} % of the weights are known); all are in {REPORT}"
        ]
        lines += [f"adapted: {name}, {how}" for name, how in self.adapted.items()]
        if self.reinitialised:
            lines.append(f"left at random: {listed(list(self.reinitialised))}")
        if self.unused:
            lines.append(f"not used: {listed(self.unused)}")
        return lines


def check_source(path: Path) -> None:
    """Refuse what is no network, at once: preparing the data may take long.

    Raises:
        WeightsError: there is neither a run folder nor a file.
    """
    if path.is_dir():
        read_facts(path)
    elif not path.is_file():
        raise WeightsError(
            f"there is no {path}; model.init_from names a run folder or a file of weights"
        )


def read_source(path: Path) -> Source:
    """Read a run folder, its weight file, a published `.pth`, or a state dict with our names.

    Raises:
        WeightsError: it is none of these, or damaged.
    """
    folder = path if path.is_dir() else path.parent
    if path.is_dir() or (path.name == WEIGHTS_FILE and (folder / MODEL_FILE).is_file()):
        facts = read_facts(folder)
        check_weights(folder, facts)
        file = folder / WEIGHTS_FILE
        return Source(file, read_state_dict(file), facts.label_names)
    state = read_state_dict(path)
    if not any(key.startswith(PUBLISHED) for key in state):
        return Source(path, state, None)
    name = recognise(state)
    if HEAD not in state:
        raise WeightsError(f"{path} has no entry {HEAD}, so its classes cannot be counted")
    num_classes = state[HEAD].shape[0]
    with torch.device("meta"):  # only its names are wanted
        model = create_model(name, num_classes)
    assert isinstance(model, ReferenceNet)
    names = published_names(model)
    ours = {names[key]: value for key, value in state.items() if key in names}
    synapse = num_classes == len(SYNAPSE_LABELS)
    return Source(path, ours, SYNAPSE_LABELS if synapse else None)


@torch.no_grad()
def init_from(model: nn.Module, facts: ModelMetadata, path: Path) -> FineTuneReport:
    """Initialise from another network what fits; its classes and channels may be others.

    Entries of the same name and shape are copied. Of the head, the rows of classes that both
    networks name alike are. A first convolution for another number of channels gets, for each new
    channel, the mean over the old ones times old/new: a grey image then gives what it gave before.
    The rest stays as it was drawn.

    Args:
        model: changed in place.
        facts: its classes.
        path: see `read_source`.

    Raises:
        WeightsError: the other network cannot be read, or less than 1 % of it fits.
    """
    source = read_source(path)
    check_finite(source.state.items(), origin=str(source.file))
    own = model.state_dict()  # shares the model's memory
    report = FineTuneReport(str(source.file), sha256(source.file))
    first = _first_convolution(own)
    for name, target in own.items():
        given = source.state.get(name)
        if given is None:
            report.reinitialised[name] = "the other network has no such entry"
        elif not same_kind(given, target):
            report.reinitialised[name] = f"its numbers are {target.dtype} and were {given.dtype}"
        elif name in CLASSES and source.label_names != facts.label_names:
            _load_classes(name, target, given, source.label_names, facts.label_names, report)
        elif given.shape == target.shape:
            target.copy_(given)
            report.loaded.append(name)
        elif name == first and _only_channels_differ(given, target):
            old, new = given.shape[1], target.shape[1]
            target.copy_(given.float().mean(dim=1, keepdim=True) * (old / new))
            report.adapted[name] = (
                f"the mean of its {old} channels for each of {new}, × {old}/{new}"
            )
        else:
            report.reinitialised[name] = _other_shape(given, target)
    report.unused.extend(sorted(source.state.keys() - own.keys()))
    known = sum(own[name].numel() for name in [*report.loaded, *report.adapted])
    share = known / sum(value.numel() for value in own.values())
    if share < LEAST_SHARE:
        raise WeightsError(
            f"{source.file} does not fit this network: {100 * (1 - share):.0f} % of its weights "
            f"have other names or shapes ({listed(list(report.reinitialised))}); is model.name or "
            "model.encoder another?"
        )
    return FineTuneReport(**asdict(report) | {"share": share})


def _load_classes(
    name: str,
    target: Tensor,
    given: Tensor,
    old: Sequence[str] | None,
    new: Sequence[str],
    report: FineTuneReport,
) -> None:
    """Copy the rows of the head whose classes both networks know by name."""
    if given.shape[1:] != target.shape[1:]:
        report.reinitialised[name] = _other_shape(given, target)
        return
    if old is None and len(given) == len(target):
        target.copy_(given)
        report.adapted[name] = "all rows; what the classes were called there is not known"
        return
    known = list(old) if old is not None else [BACKGROUND]
    taken = [label for label in new if label in known]
    for label in taken:
        target[new.index(label)] = given[known.index(label)].to(target)
    others = [label for label in new if label not in taken]
    report.adapted[name] = f"the rows of {listed(taken)}" + (
        f"; those of {listed(others)} are left at random" if others else ""
    )
    if not taken:
        del report.adapted[name]
        report.reinitialised[name] = "the two networks have no class of the same name"


def _other_shape(given: Tensor, target: Tensor) -> str:
    return f"its shape is {tuple(target.shape)} and was {tuple(given.shape)}"


def _first_convolution(own: Mapping[str, Tensor]) -> str | None:
    """Name the convolution that sees the image: the encoder's first."""
    names = (name for name, value in own.items() if name.startswith("encoder.") and value.ndim == 4)
    return next(names, None)


def _only_channels_differ(one: Tensor, two: Tensor) -> bool:
    return one.ndim == two.ndim == 4 and (one.shape[0], *one.shape[2:]) == (
        two.shape[0],
        *two.shape[2:],
    )
