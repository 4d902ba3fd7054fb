"""The summary that `evaluate` writes as a plain dict, as checked objects; more is not shown."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, model_validator

from msa2net.metrics.protocol import Outcome


class _Layout(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", protected_namespaces=())


class MetricValue(_Layout):
    """One metric of one class under one protocol; see `msa2net.metrics.summarise`.

    What follows `false_positives` came with schema 2; `interval` is that of the mean.
    """

    mean: float | None
    median: float | None
    n: int
    missed: int
    false_positives: int
    not_applicable: int | None = None
    lower_quartile: float | None = None
    upper_quartile: float | None = None
    interval: tuple[float, float] | None = None
    warning: str | None = None


class ProtocolScores(_Layout):
    """The scores under one protocol; see `msa2net.metrics.summarise`.

    Attributes:
        mean_interval: metric → interval of the mean over classes; {} before schema 2.
        mean_warning: metric → why it has none, or what is wrong with it.
    """

    title: str
    unit: str
    rules: list[tuple[str, str]]
    classes: dict[str, dict[str, MetricValue]]
    mean: dict[str, float | None]
    mean_over: dict[str, int]
    mean_interval: dict[str, tuple[float, float] | None] = {}
    mean_warning: dict[str, str | None] = {}

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


class LeftOut(_Layout):
    """What one of two folders has and the other has not."""

    cases: int
    of: int
    first: list[str]


class ScoredData(_Layout):
    """The data it was evaluated on.

    Attributes:
        same_as_training: None of folders, of whose training nothing is known.
        predictions, labels: names of the two folders; None of a run.
        left_out: side → what was not scored; None where all of both folders was to be.
    """

    format: str
    hash: str
    same_as_training: bool | None
    predictions: str | None = None
    labels: str | None = None
    left_out: dict[str, LeftOut] | None = None


class Compared(_Layout):
    """What is left out of a data set, of whatever was scored."""

    left_out: dict[str, LeftOut] | None = None


class Notes(_Layout):
    """What of a summary must be known where its scores are compared with others."""

    cases: int = 0
    data: Compared | None = None
    selection: str | None = None
    flattering: bool = False


class Intervals(_Layout):
    """How the intervals were made."""

    level: float
    resamples: int
    seed: int
    method: str


class WorstCase(_Layout):
    """A case of the list of worst ones."""

    case: str
    dice: float
    outcome: Outcome


class Hashes(_Layout):
    """SHA-256 of what the scores come from, as hexadecimal digits; None where there is none."""

    predictions: str | None = None
    labels: str | None = None
    weights: str | None = None
    split: str | None = None


class FlaggedCase(_Layout):
    """A case to look at first."""

    case: str
    suspicion: float
    flags: str


class Calibration(_Layout):
    """Confidences beside the truth; see `evaluation.trust`."""

    error: float | None
    points: list[tuple[float, float, float]]


class AssessmentSummary(_Layout):
    """How far answers are to be trusted; see `evaluation.trust`."""

    cases: int
    flagged: int
    target: float
    val_cases: int
    first: list[FlaggedCase]
    reasons: dict[str, int]
    temperature: float
    temperature_reason: str = ""
    before: Calibration
    after: Calibration


class Reference(_Layout):
    """The paper's own results on such data."""

    title: str
    columns: list[str]
    rows: list[list[str | float]]
    note: str


class Summary(_Layout):
    """The content of summary.json, schema 1 or 2; what came with 2 has a default.

    An infinite figure is the text "Infinity" in the file.

    Attributes:
        split: train, val or test; None of folders.
        model: None of folders.
        groups: group → the scores of its cases; none where cases have no groups.
        selection: a sentence on how the weights were chosen.
        flattering: the scored cases themselves chose them, so the scores flatter.
        source: a run, or two folders of masks.
        intervals: how they were made; None where there are none.
        worst: class → its worst cases under the standard protocol, worst first.
        note: what else a reader must know.
        trust: None of folders, and of a run that does not know what is usual.
    """

    split: str | None
    cases: int
    label_names: tuple[str, ...]
    image_kind: str
    model: ScoredModel | None
    data: ScoredData
    versions: dict[str, str]
    protocols: dict[str, ProtocolScores]
    reference: Reference | None
    groups: dict[str, GroupScores] | None = None
    selection: str | None = None
    flattering: bool = False
    source: Literal["run", "folders"] = "run"
    intervals: Intervals | None = None
    worst: dict[str, list[WorstCase]] = {}
    hashes: Hashes = Hashes()
    note: str | None = None
    trust: AssessmentSummary | None = None

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
