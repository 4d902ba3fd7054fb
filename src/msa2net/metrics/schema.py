"""The scores of a set of cases as checked, frozen objects: what `summarise` returns."""

from pydantic import BaseModel, ConfigDict

from msa2net.metrics.bootstrap import Ends
from msa2net.metrics.protocol import Outcome


class Frozen(BaseModel):
    """A part of summary.json: never changed, unknown keys left out, infinity written as text."""

    model_config = ConfigDict(
        frozen=True, extra="ignore", protected_namespaces=(), ser_json_inf_nan="strings"
    )


class Counts(Frozen):
    """Cases, or cases times classes, by what became of them.

    Attributes:
        n: those in the value.
        not_applicable: those not in it; the two add up to all. None where that was not counted.
        missed: those with the class in the reference and not in the prediction, in `n` or not.
        false_positives: those the other way round.
    """

    n: int
    not_applicable: int | None = None
    missed: int
    false_positives: int


class MetricValue(Frozen):
    """One metric of one class under one protocol.

    Attributes:
        n, not_applicable, missed, false_positives: as in `Counts`, of cases.
        mean: over cases, or the pooled value; None over no case, or for 0/0 after pooling;
            infinite with an infinite distance in it.
        sd, lower_quartile, median, upper_quartile: None where pooled, see `Spread`.
        interval: 95 % interval of `mean`, lower and upper end; None where there is none.
        warning: why there is none, or what is wrong with it.
    """

    n: int
    not_applicable: int | None = None
    mean: float | None
    sd: float | None = None
    lower_quartile: float | None = None
    median: float | None
    upper_quartile: float | None = None
    missed: int
    false_positives: int
    interval: Ends = None
    warning: str | None = None


class ProtocolScores(Frozen):
    """The scores of all classes under one protocol.

    Attributes:
        title, unit: for people.
        rules: situation and what is counted, as in `Protocol.rules`.
        classes: class → metric → value.
        mean: metric → mean over the classes whose mean is not None.
        mean_over: metric → the number of these classes.
        mean_counts: metric → counts added up over all classes.
        mean_interval: metric → interval of that mean; {} where none was asked for.
        mean_warning: metric → why it has none, or what is wrong with it.
    """

    title: str
    unit: str
    rules: tuple[tuple[str, str], ...]
    classes: dict[str, dict[str, MetricValue]]
    mean: dict[str, float | None]
    mean_over: dict[str, int]
    mean_counts: dict[str, Counts] = {}
    mean_interval: dict[str, Ends] = {}
    mean_warning: dict[str, str | None] = {}

    @property
    def has_intervals(self) -> bool:
        """Whether intervals were asked for, be it that there is none."""
        return bool(self.mean_interval)

    @property
    def means(self) -> dict[str, MetricValue]:
        """Metric → its mean over the classes, with counts and interval, as of a single class."""
        return {
            metric: MetricValue(
                **dict(self.counts(metric)),
                mean=mean,
                median=None,
                interval=self.mean_interval.get(metric),
                warning=self.mean_warning.get(metric),
            )
            for metric, mean in self.mean.items()
        }

    def counts(self, metric: str = "dice") -> Counts:
        """Return the counts of a metric added up over the classes, in cases times classes."""
        return sum_of_counts([own[metric] for own in self.classes.values() if metric in own])


class WorstCase(Frozen):
    """One of the worst cases of a class."""

    case: str
    dice: float
    outcome: Outcome


class IntervalMethod(Frozen):
    """What intervals were made with."""

    level: float
    resamples: int
    seed: int
    method: str


def sum_of_counts(values: list[MetricValue]) -> Counts:
    """Add up the counts of some classes."""
    known = [value.not_applicable for value in values if value.not_applicable is not None]
    return Counts(
        n=sum(value.n for value in values),
        not_applicable=sum(known) if known else None,
        missed=sum(value.missed for value in values),
        false_positives=sum(value.false_positives for value in values),
    )
