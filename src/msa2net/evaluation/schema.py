"""`Summary`: what an evaluation found, checked and frozen; the content of summary.json."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import BeforeValidator, Field, PrivateAttr, model_validator

from msa2net.errors import Msa2NetError
from msa2net.metrics.protocol import CaseRow, FailedDistance
from msa2net.metrics.schema import Frozen, IntervalMethod, ProtocolScores, WorstCase

if TYPE_CHECKING:
    import pandas as pd

_ABOUT_A_CASE = ("case", "class", "group", "outcome")
_NO_METRICS = (
    *_ABOUT_A_CASE,
    "outcome_transunet",
    "flags",
    "anomaly_score",
    "tp",
    "fp",
    "fn",
    "tn",
)


class GroupScores(Frozen):
    """The scores of one group of cases, for example of one phase of the heart."""

    cases: int
    protocols: dict[str, ProtocolScores]


class ScoredModel(Frozen):
    """The network that was evaluated."""

    name: str
    parameters: int
    weights_sha256: str


class LeftOut(Frozen):
    """What one of two folders has and the other has not: how many, of how many, the first names."""

    cases: int
    of: int
    first: tuple[str, ...]


class ScoredData(Frozen):
    """The data it was evaluated on.

    Attributes:
        same_as_training: None of folders, of whose training nothing is known.
        predictions, labels: names of the two folders; None of a run.
        missing: labels without a prediction, scored as if it were empty; None of a run.
        left_out: side → what was not scored; None where all of both folders was to be.
    """

    format: str
    hash: str
    same_as_training: bool | None
    predictions: str | None = None
    labels: str | None = None
    missing: int | None = None
    left_out: dict[str, LeftOut] | None = None


class Hashes(Frozen):
    """SHA-256 of what the scores come from, as hexadecimal digits; None where there is none.

    Of a run: `predictions` and `labels` over case id, shape and label array of every case,
    `weights` the file's. Of folders: over the name and the file of every case. `split` is over
    the names of the cases.
    """

    predictions: str | None = None
    labels: str | None = None
    weights: str | None = None
    split: str | None = None


class FlaggedCase(Frozen):
    """A case to look at first."""

    case: str
    anomaly_score: float
    flags: str


class Calibration(Frozen):
    """Confidences beside the ground truth.

    Attributes:
        error: expected calibration error over all pixels that the network was shown.
        points: mean confidence, accuracy and share of the pixels of each bin that holds any.
    """

    error: float | None
    points: tuple[tuple[float, float, float], ...]


class AssessmentSummary(Frozen):
    """The flags and the calibration of a run on the evaluated cases.

    Attributes:
        target: share of clean cases that may be flagged.
        val_cases: that the limits come from.
        first: the most suspicious flagged cases.
        reasons: criterion → cases, most frequent first.
        before, after: division by the temperature.
    """

    cases: int
    flagged: int
    target: float
    val_cases: int
    first: tuple[FlaggedCase, ...]
    reasons: dict[str, int]
    temperature: float
    temperature_reason: str = ""
    before: Calibration
    after: Calibration


class PublishedResults(Frozen):
    """The paper's own results on such data.

    Attributes:
        rows: a network's name, then one number a column.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str | float, ...], ...]
    note: str = ""


class Origin(Frozen):
    """Where scores come from.

    Attributes:
        source: a run, or two folders of masks.
        split: train, val or test; None of folders.
        model: None of folders.
        versions: of the software that scored.
        selection: a sentence on how the weights were chosen.
        flattering: the scores need a warning: the cases themselves chose the weights, or the run
            has others by now.
        note: what else a reader must know.
        reference: None where the paper has no results on such data.
        assessments: None of folders, and of a run without reference ranges.
    """

    source: Literal["run", "folders"] = "run"
    split: str | None
    model: ScoredModel | None
    data: ScoredData
    versions: dict[str, str]
    hashes: Hashes = Hashes()
    selection: str | None = None
    flattering: bool = False
    note: str | None = None
    reference: PublishedResults | None
    assessments: AssessmentSummary | None = None


class Summary(Origin):
    """The scores of an evaluation under every protocol, and where they come from.

    Attributes:
        cases: how many were scored.
        label_names: one name per class, background first.
        image_kind: photograph or volume.
        failed_distance: what a distance counts where a class failed; None before schema 2.
        intervals: how they were made; None where there are none.
        protocols: name → scores; with two, the standard one first.
        worst: class → its worst cases under the standard protocol, worst first.
        groups: group → the scores of its cases; none where cases have no groups.
    """

    cases: int
    label_names: tuple[str, ...]
    image_kind: str
    failed_distance: FailedDistance | None = None
    intervals: IntervalMethod | None = None
    protocols: dict[str, ProtocolScores]
    worst: dict[str, tuple[WorstCase, ...]] = Field({})
    groups: Annotated[dict[str, GroupScores], BeforeValidator(lambda own: own or {})] = Field({})

    _rows: tuple[CaseRow, ...] | None = PrivateAttr(None)

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes without the background."""
        return self.label_names[1:]

    @property
    def standard(self) -> ProtocolScores | None:
        """The scores under the standard protocol; None where another one alone was asked for."""
        return self.protocols.get("standard")

    @property
    def rows(self) -> tuple[CaseRow, ...]:
        """One row per case and class, as in cases.csv.

        Raises:
            Msa2NetError: the summary was read from a file, which has no cases.
        """
        if self._rows is None:
            raise Msa2NetError(
                "a summary that was read from summary.json holds no cases; read them from the "
                "cases.csv beside it with msa2net.metrics.summary.read_cases_csv, or evaluate again"
            )
        return self._rows

    def with_rows(self, rows: Sequence[CaseRow]) -> "Summary":
        """Return the same summary with the rows that its scores were taken from."""
        summary = self.model_copy()
        summary._rows = tuple(rows)
        return summary

    def to_dataframe(self) -> "pd.DataFrame":
        """Return a pandas table with one row per case, class and metric.

        Its columns are case, class, group, outcome, metric and value; what is not applicable is
        NaN, and metrics that were not computed of any case are left out.

        Raises:
            Msa2NetError: pandas is not installed, or the summary was read from a file.
        """
        try:
            import pandas as pd
        except ImportError as error:
            raise Msa2NetError(
                "a table of pandas needs pandas, which is not installed; install it with "
                "`pip install pandas`"
            ) from error
        columns = [column for column in CaseRow.__annotations__ if column not in _NO_METRICS]
        metrics = [m for m in columns if any(row.get(m) is not None for row in self.rows)]
        return pd.DataFrame(
            [
                {**{key: row.get(key) for key in _ABOUT_A_CASE}, "metric": m, "value": row.get(m)}
                for row in self.rows
                for m in metrics
            ],
            columns=[*_ABOUT_A_CASE, "metric", "value"],
        ).astype({"value": float})

    @model_validator(mode="after")
    def _every_class_has_every_metric(self) -> "Summary":
        entries = [*self.protocols.items()]
        entries += [
            (f"{name} of {group}", scores)
            for group, own in self.groups.items()
            for name, scores in own.protocols.items()
        ]
        for name, scores in entries:
            for label in self.classes:
                if not {"dice"} <= scores.mean.keys() <= scores.classes.get(label, {}).keys():
                    raise ValueError(f"protocol {name} lacks a figure of class {label!r}")
        for group, own in self.groups.items():
            if own.protocols.keys() != self.protocols.keys():
                raise ValueError(f"group {group!r} was not scored by the same protocols")
        return self
