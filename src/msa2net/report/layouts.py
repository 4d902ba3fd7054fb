"""The parts of a run folder that other modules write as plain dicts, as checked objects.

`evaluate` writes the `Summary` and `train` the `TrainingFacts`; what else is there is not shown.
"""

from pydantic import BaseModel, ConfigDict, model_validator


class _Layout(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", protected_namespaces=())


class TrainingFacts(_Layout):
    """`ModelFacts.training`: what is known of how the weights came about; all of it may be absent.

    Attributes:
        best_epoch: whose weights were kept, counted from 1.
        val_dice, test_dice: of that epoch, on the split that chose it; None if none did.
        weights: how they were chosen: best on val, best on test, last.
        trained_on: the splits whose cases were trained on.
        epochs: planned.
        epochs_run: done when the file was written.
        seconds: of training until the file was written.
        precision: what `auto` came to.
        imported_from: file name of published weights.
        sha256: of that file.
    """

    best_epoch: int | None = None
    val_dice: float | None = None
    test_dice: float | None = None
    weights: str | None = None
    trained_on: tuple[str, ...] = ()
    epochs: int | None = None
    epochs_run: int | None = None
    seconds: float | None = None
    precision: str | None = None
    seed: int | None = None
    device: str | None = None
    imported_from: str | None = None
    sha256: str | None = None


class Figure(_Layout):
    """One metric of one class under one protocol; see `msa2net.metrics.summarise`."""

    mean: float | None
    median: float | None
    n: int
    missed: int
    false_positives: int


class ProtocolScores(_Layout):
    """The scores under one protocol; see `msa2net.metrics.summarise`."""

    title: str
    unit: str
    rules: list[tuple[str, str]]
    classes: dict[str, dict[str, Figure]]
    mean: dict[str, float | None]
    mean_over: dict[str, int]

    @property
    def missed(self) -> int:
        """Missed objects of all classes."""
        return sum(figures["dice"].missed for figures in self.classes.values())

    @property
    def false_positives(self) -> int:
        """False positives of all classes."""
        return sum(figures["dice"].false_positives for figures in self.classes.values())


class GroupScores(_Layout):
    """The scores of one group of cases, for example of one phase of the heart."""

    cases: int
    protocols: dict[str, ProtocolScores]


class ScoredModel(_Layout):
    """The network that was evaluated."""

    name: str
    parameters: int
    weights_sha256: str


class ScoredData(_Layout):
    """The data it was evaluated on."""

    format: str
    hash: str
    same_as_training: bool


class Reference(_Layout):
    """The paper's own results on such data."""

    title: str
    columns: list[str]
    rows: list[list[str | float]]
    note: str


class Summary(_Layout):
    """The content of summary.json, schema 1.

    Attributes:
        groups: group → the scores of its cases; none where cases have no groups.
        selection: a sentence on how the weights were chosen.
        flattering: the scored cases themselves chose them, so the scores flatter.
    """

    split: str
    cases: int
    label_names: tuple[str, ...]
    image_kind: str
    model: ScoredModel
    data: ScoredData
    versions: dict[str, str]
    protocols: dict[str, ProtocolScores]
    reference: Reference | None
    groups: dict[str, GroupScores] | None = None
    selection: str | None = None
    flattering: bool = False

    @model_validator(mode="after")
    def _every_class_has_every_metric(self) -> "Summary":
        groups = (self.groups or {}).items()
        entries = [*self.protocols.items()]
        entries += [
            (f"{n} of {g}", entry) for g, own in groups for n, entry in own.protocols.items()
        ]
        for name, scores in entries:
            for label in self.label_names[1:]:
                figures = scores.classes.get(label, {})
                if not {"dice"} <= scores.mean.keys() <= figures.keys():
                    raise ValueError(f"protocol {name} lacks a figure of class {label!r}")
        for group, own in groups:
            if own.protocols.keys() != self.protocols.keys():
                raise ValueError(f"group {group!r} was not scored by the same protocols")
        return self
