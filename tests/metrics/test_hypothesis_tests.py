"""Summaries, intervals, tests: by hand, against scipy and brute force, and laws."""

import math
from itertools import chain, combinations, product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from msa2net.errors import ConfigError
from msa2net.metrics.bootstrap import (
    class_mean_intervals,
    interval_warning,
    mean_interval,
    mean_intervals,
    pooled_intervals,
)
from msa2net.metrics.hypothesis_tests import (
    applicable_scores,
    holm,
    signed_rank_p,
    spread,
    which_is_better,
    worst_cases,
)
from msa2net.metrics.protocol import PROTOCOLS

# --- describe --------------------------------------------------------------------------------


def describe(values, seed=0):
    """Return the spread of some scores with the interval of their mean, as `summarise` does."""
    values = list(values)
    scores = applicable_scores(values)
    interval = mean_interval(scores, seed)
    return {
        **spread(values),
        "interval": None if interval is None else list(interval),
        "warning": interval_warning(scores),
    }


def test_describe_by_hand():
    found = describe([4, None, 1, 3, math.nan, 2])
    assert found["n"] == 4
    assert found["not_applicable"] == 2
    assert found["mean"] == 2.5
    assert found["sd"] == pytest.approx(math.sqrt(5 / 3), abs=1e-15)  # 2.25 + .25 + .25 + 2.25
    quartiles = [found[key] for key in ("lower_quartile", "median", "upper_quartile")]
    assert quartiles == [1.75, 2.5, 3.25]
    assert "n = 4 is below 20" in found["warning"]


def test_twenty_cases_need_no_warning():
    scores = np.linspace(0, 1, 20)
    assert describe(scores)["warning"] is None
    assert describe([*scores[:19], None])["warning"].startswith("n = 19")


@pytest.mark.parametrize(
    ("values", "mean", "median", "sd", "warning"),
    [
        ([], None, None, None, "no interval: no applicable case"),
        ([None, math.nan], None, None, None, "no interval: no applicable case"),
        ([0.7], 0.7, 0.7, None, "no interval: one case does not say how others vary"),
        ([1.0] * 30, 1, 1, 0, "no interval: all 30 values are the same"),
        ([1, 2, math.inf], math.inf, 2, None, "no interval: 1 of 3 values is infinite"),
        ([math.inf, 2, math.inf], math.inf, math.inf, None, "2 of 3 values are infinite"),
    ],
)
def test_degenerate_values_have_no_interval_and_say_why(values, mean, median, sd, warning):
    found = describe(values)
    assert (found["mean"], found["median"], found["sd"]) == (mean, median, sd)
    assert found["interval"] is None
    assert warning in found["warning"]


def test_values_equal_up_to_rounding_are_equal():
    assert mean_interval([0.1 + 0.2, 0.3, 0.3], 0) is None
    assert mean_interval([0.3001, 0.3, 0.3], 0) is not None


@given(st.lists(st.floats(-100, 100), min_size=1, max_size=12))
def test_describe_agrees_with_numpy(values):
    found = describe(values)
    shown = [found[key] for key in ("lower_quartile", "median", "upper_quartile")]
    expected = np.quantile(values, [0.25, 0.5, 0.75])
    # 1e-12: sums and interpolations of numbers up to 100
    np.testing.assert_allclose(shown, expected, rtol=0, atol=1e-12)
    assert found["mean"] == pytest.approx(np.mean(values), abs=1e-12)
    if len(values) > 1:
        assert found["sd"] == pytest.approx(np.std(values, ddof=1), abs=1e-12)


# --- the interval ----------------------------------------------------------------------------


def test_interval_of_two_values_by_hand():
    # Means of two draws from 0 and 1: 0, ½, ½, 1. No skew, so 2.5 % and 97.5 % of these.
    assert mean_interval([0, 1], 0) == (0, 1)


def test_interval_of_ten_values_by_hand():
    """Three ones and seven zeros: ten times a resampled mean is binomial, n = 10, p = 0.3.

    Its cumulative shares are .028 .149 .383 .650 .850 .953 .989 .998 …. Bias: half of those equal
    to 3 count below, Φ⁻¹(.383 + .267/2) = .0406. Acceleration: Σd³ = 3·.343 - 7·.027 = .84 and
    Σd² = 3·.49 + 7·.09 = 2.1, so .84 / (6·2.1^1.5) = .0460. The ends are at
    Φ(.0406 - 1.9194/1.0883) = .042 and Φ(.0406 + 2.0006/.9080) = .9876: a tenth, and six tenths.
    Without correction the lower end would be at .025 and so at 0.
    """
    ends = mean_interval([1, 1, 1, 0, 0, 0, 0, 0, 0, 0], 0, resamples=200_000)
    assert ends == pytest.approx((0.1, 0.6), abs=1e-12)


def every_resample_s_interval(cases, figure=lambda cases: np.mean(cases, axis=0)):
    """BCa without chance: all n^n samples, and Efron's formulas with scipy's distribution.

    `figure` takes cases along the first axis, and is nan where it has none.
    """
    n = len(cases)
    figures = figure(cases[np.indices((n,) * n).reshape(n, -1)])
    figures, observed = figures[~np.isnan(figures)], figure(cases)
    same = np.isclose(figures, observed, rtol=1e-12, atol=0)
    bias = stats.norm.ppf(((figures < observed) & ~same).mean() + same.mean() / 2)
    left_out = np.array([figure(np.delete(cases, i, axis=0)) for i in range(n)])
    left_out = left_out[~np.isnan(left_out)]
    inwards = left_out.mean() - left_out
    acceleration = (inwards**3).sum() / (6 * (inwards**2).sum() ** 1.5)
    z = bias + stats.norm.ppf([0.025, 0.975])
    return np.quantile(figures, stats.norm.cdf(bias + z / (1 - acceleration * z)))


@pytest.mark.parametrize("values", [[1, 2, 4, 8, 16, 32], [0.1, 0.6, 0.7, 0.75, 0.9, 0.95]])
def test_interval_agrees_with_that_of_every_resample(values):
    values = np.array(values, float)
    ends = mean_interval(values, 0, resamples=400_000)
    # The 462 different means lie up to .04 standard errors of the mean apart near the ends, and
    # few draws can settle on a neighbour; without the bias, here .08 and .1, an end moves by more.
    allowed = 0.05 * values.std() / math.sqrt(len(values))
    np.testing.assert_allclose(ends, every_resample_s_interval(values), atol=allowed)


@pytest.mark.parametrize("n", [8, 30, 200])
@pytest.mark.parametrize("draw", ["normal", "skewed", "missed"])
def test_interval_agrees_with_scipy(n, draw):
    values = DRAWS[draw][0](np.random.default_rng(n), n)
    # random_state: the name that all supported versions of scipy understand
    theirs = stats.bootstrap(
        (values,), np.mean, method="BCa", n_resamples=20_000, vectorized=True, random_state=1
    ).confidence_interval
    # An end of 20 000 draws wanders by .026 standard errors of the mean: .019 for the 2.5 %
    # quantile, .018 for twice the bias. Two of them by .037; allowed are four times that.
    allowed = 0.15 * values.std() / math.sqrt(n)
    np.testing.assert_allclose(mean_interval(values, 0, resamples=20_000), theirs, atol=allowed)


thousandths = st.lists(st.integers(0, 1000).map(lambda i: i / 1000), min_size=2, max_size=12)


@given(thousandths, st.integers(0, 2**32), st.floats(0.5, 3), st.floats(-5, 5), st.randoms())
def test_laws_of_the_interval(values, seed, scale, shift, random):
    ends = mean_interval(values, seed, resamples=1000)
    shuffled = random.sample(values, len(values))
    assert mean_interval(shuffled, seed, resamples=1000) == ends
    if ends is None:
        assert len(set(values)) == 1
        return
    low, high = ends
    rounding = 1e-15  # of a mean of equal numbers up to 1
    assert min(values) - rounding <= low <= high <= max(values) + rounding
    moved = mean_interval([scale * v + shift for v in values], seed, resamples=1000)
    negated = mean_interval([-v for v in values], seed, resamples=1000)
    # 1e-9: shares that differ by 1e-15 move along the steepest piece of 1000 sorted means
    assert moved == pytest.approx((scale * low + shift, scale * high + shift), abs=1e-9)
    assert negated == pytest.approx((-high, -low), abs=1e-9)


def test_the_seed_decides():
    values = np.random.default_rng(0).normal(size=25)
    assert describe(values, 3) == describe(values, 3)
    assert describe(values, 3)["interval"] != describe(values, 4)["interval"]


def test_many_cases_are_drawn_in_pieces():
    values = np.random.default_rng(0).normal(size=5000)
    low, high = mean_interval(values, 0, resamples=1000)
    # So many that it is the normal interval; 1000 draws leave about 5 % of its width.
    error = 1.96 * values.std() / math.sqrt(5000)
    assert (low, high) == pytest.approx((values.mean() - error, values.mean() + error), abs=0.004)


def missed(rng, n):
    return np.where(rng.random(n) < 0.1, 0, rng.beta(8, 1.5, n))


# How scores are drawn, and the mean that an interval should hold.
DRAWS = {
    "normal": (lambda rng, n: rng.normal(size=n), 0),
    "skewed": (lambda rng, n: rng.beta(8, 1.5, n), 8 / 9.5),
    "missed": (missed, 0.9 * 8 / 9.5),
}
# As measured with 20 000 data sets of 2000 resamples each, and as bootstrap.py has it.
COVERAGE = {
    ("normal", 20): 0.927,
    ("normal", 40): 0.937,
    ("skewed", 20): 0.925,
    ("skewed", 40): 0.939,
    ("missed", 20): 0.881,
    ("missed", 40): 0.948,
}


def coverage(name, n, sets, resamples):
    """Share of data sets whose interval holds the true mean."""
    draw, mean = DRAWS[name]
    rng = np.random.default_rng(0)
    held = 0
    for seed in range(sets):
        low, high = mean_interval(draw(rng, n), seed, resamples=resamples)
        held += low <= mean <= high
    return held / sets


@pytest.mark.parametrize(("name", "n"), COVERAGE)
def test_coverage(name, n):
    measured = coverage(name, n, sets=1000, resamples=1000)
    # One standard deviation of 1000 data sets is .008 at 93 %.
    assert measured == pytest.approx(COVERAGE[name, n], abs=0.025)
    if name != "missed":
        assert measured >= 0.9


# --- several intervals at once ----------------------------------------------------------------


def test_intervals_at_once_are_those_one_by_one():
    rng = np.random.default_rng(0)
    samples = [rng.normal(size=n) for n in (7, 12, 7, 7, 0, 1, 12)] + [[1, 2, math.inf], [3.0] * 7]
    together = mean_intervals(samples, 3, resamples=1000)
    alone = [mean_interval(sample, 3, resamples=1000) for sample in samples]
    assert together[4:6] == alone[4:6] == together[7:] == [None, None]
    for one, other in zip(together[:4] + together[6:7], alone[:4] + alone[6:7], strict=True):
        assert one == pytest.approx(other, abs=1e-12)  # sums in another order


# Six cases of three classes; the last two classes are not in all of them.
NAN = math.nan
SCORES = np.array(
    [
        [0.91, 0.70, NAN],
        [0.85, NAN, 0.30],
        [0.40, 0.65, NAN],
        [0.77, 0.20, 0.90],
        [0.88, NAN, 0.55],
        [0.93, 0.81, NAN],
    ]
)


def mean_over_classes(scores):
    """Loop over classes, leaving out what has no score; cases come first, classes last."""
    with np.errstate(invalid="ignore"):
        of_classes = np.nansum(scores, axis=0) / (~np.isnan(scores)).sum(axis=0)
        return np.nansum(of_classes, axis=-1) / (~np.isnan(of_classes)).sum(axis=-1)


def test_interval_of_the_mean_over_classes_agrees_with_every_resample():
    (found,) = class_mean_intervals(SCORES[..., np.newaxis], 0, resamples=400_000)
    expected = every_resample_s_interval(SCORES, mean_over_classes)
    # As above: .05 of the standard error, here about .06; drawing classes apart moves ends by more.
    np.testing.assert_allclose(found.ends, expected, atol=0.003)
    assert found.warning.startswith("n = 3 in one class is below 20")


def test_the_mean_over_classes_draws_cases_with_all_their_classes():
    # Two classes that make up for each other: their mean hardly varies, each by itself does.
    first = np.linspace(0.2, 0.8, 25)
    against = 1 - first + 0.001 * np.arange(25)
    low, high = class_mean_intervals(np.stack([first, against], 1)[..., None], 0)[0].ends
    assert high - low < 0.01
    low, high = mean_interval(first, 0)
    assert high - low > 0.1


def test_laws_of_the_mean_over_classes():
    rng = np.random.default_rng(1)
    values = rng.normal(size=(25, 3, 2))
    values[rng.random(values.shape) < 0.2] = NAN
    found = class_mean_intervals(values, 5, resamples=1000)
    negated = class_mean_intervals(-values, 5, resamples=1000)
    moved = class_mean_intervals(2 * values + 1, 5, resamples=1000)
    for one, other, third in zip(found, negated, moved, strict=True):
        low, high = one.ends
        assert other.ends == pytest.approx((-high, -low), abs=1e-12)
        assert third.ends == pytest.approx((2 * low + 1, 2 * high + 1), abs=1e-9)
    # A class alone, or alone with values: its own interval, to the last digit.
    values[:, 1:, 0] = NAN
    own = values[~np.isnan(values[:, 0, 0]), 0, 0]
    alone = class_mean_intervals(values, 5)[0]
    assert alone.ends == mean_interval(own, 5)
    assert (alone.warning is None) == (len(own) >= 20)


@pytest.mark.parametrize(
    ("scores", "why"),
    [
        ([[NAN, NAN], [NAN, NAN]], "no applicable case"),
        ([[0.5, 0.7]], "one case does not say how others vary"),
        ([[1, math.inf], [2, 3]], "1 of 4 values is infinite"),
        ([[1, 2], [1, 2], [1, 2]], "leaving out any one case changes nothing, which does not say"),
        ([[1, NAN], [1, NAN]], "all 2 values are the same"),
    ],
)
def test_why_a_mean_over_classes_has_no_interval(scores, why):
    (found,) = class_mean_intervals(np.array(scores, float)[..., np.newaxis], 0)
    assert found.ends is None
    assert found.warning.startswith(f"no interval: {why}")


# --- pooled figures ----------------------------------------------------------------------------


def dice_of_sums(counts):
    tp, fp, fn = (counts[..., k] for k in range(3))
    whole = 2 * tp + fp + fn
    return np.divide(2 * tp, whole, out=np.full(whole.shape, NAN), where=whole > 0)


def pooled(counts, **options):
    """Intervals of the Dice of each class, and of their mean."""
    counts = np.array(counts, float)
    of_classes, (mean,) = pooled_intervals(
        counts, lambda sums: dice_of_sums(sums)[..., np.newaxis], 0, **options
    )
    return [interval for (interval,) in of_classes], mean


def test_pooled_interval_of_two_cases_by_hand():
    # Samples: twice the first (Dice 1), both (8/12), twice the second (0), the ends by a quarter.
    (found,), mean = pooled([[[4, 0, 0]], [[0, 2, 2]]])
    assert found.ends == mean.ends == (0, 1)
    assert found.warning.startswith("n = 2 is below 20")


COUNTS = np.array(
    [
        [[50, 5, 3], [0, 0, 0]],
        [[20, 9, 9], [8, 1, 0]],
        [[3, 0, 4], [0, 3, 0]],
        [[70, 30, 1], [0, 0, 0]],
        [[12, 2, 2], [0, 0, 6]],
        [[0, 4, 9], [30, 5, 9]],
    ]
)


def test_pooled_intervals_agree_with_every_resample():
    found, mean = pooled(COUNTS, resamples=400_000)
    for k, interval in enumerate(found):
        expected = every_resample_s_interval(
            COUNTS[:, k].astype(float), lambda cases: dice_of_sums(cases.sum(axis=0))
        )
        np.testing.assert_allclose(interval.ends, expected, atol=0.005)  # of a tenth and more
    expected = every_resample_s_interval(
        COUNTS.astype(float),
        lambda cases: np.nanmean(dice_of_sums(cases.sum(axis=0)), axis=-1),
    )
    np.testing.assert_allclose(mean.ends, expected, atol=0.005)


@pytest.mark.parametrize(
    ("counts", "why"),
    [
        (np.zeros((0, 1, 3)), "no applicable case"),
        ([[[0, 0, 0]], [[0, 0, 0]]], "no applicable case"),
        ([[[4, 1, 1]]], "one case does not say how others vary"),
        ([[[4, 1, 1]], [[8, 2, 2]]], "leaving out any one case changes nothing"),
        ([[[4, 1, 1]], [[0, 0, 0]]], "one case does not say how others vary"),
        ([[[4, 1, 1]], [[0, 0, 0]], [[0, 0, 0]]], "one case does not say how others vary"),
    ],
)
def test_why_a_pooled_figure_has_no_interval(counts, why):
    (found,), mean = pooled(counts)
    assert found == mean
    assert found.ends is None
    assert found.warning.startswith(f"no interval: {why}")


def test_pooled_interval_holds_the_true_figure():
    """Cases of unequal sizes, each with its own share of hits; thirty of them."""
    rng = np.random.default_rng(0)
    held = 0
    for seed in range(400):
        sizes, shares = rng.integers(50, 500, 30), rng.beta(8, 1.5, 30)
        tp = np.round(sizes * shares)
        counts = np.stack([tp, sizes - tp, sizes - tp], axis=1)[:, np.newaxis]
        of_classes, _ = pooled_intervals(
            counts, lambda sums: dice_of_sums(sums)[..., np.newaxis], seed, resamples=500
        )
        low, high = of_classes[0][0].ends
        held += low <= 8 / 9.5 <= high  # 2tp / (2tp + fp + fn) is tp / size here
    # One standard deviation of 400 data sets is .012; a few in 100 short of 95 as for means.
    assert held / 400 == pytest.approx(0.93, abs=0.04)


# --- tests -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("differences", "expected"),
    [
        ([1, 2, 3], 2 / 8),
        ([-3, -1, -2], 2 / 8),
        ([1, 2, -3], 1),  # 3 against 3
        ([1, 2, 3, -1.5], 2 * 3 / 16),  # ranks 1 3 4 against 2: sums of {}, {1}, {2}
        ([1, 1, 1, 1, 1, -1], 2 * 7 / 64),  # six equal ranks: none or one of them
        ([0, 0, 1, 2, 3], 2 / 8),  # zeros are left out
        ([0, 0], 1),
        ([], 1),
        ([math.inf, 1, -2, math.inf], 2 * 3 / 16),  # ranks 3.5 1 3.5 against 2: {}, {1}, {2}
    ],
)
def test_signed_rank_by_hand(differences, expected):
    assert signed_rank_p(differences) == expected


def brute_signed_rank_p(differences):
    """Try every way to give the magnitudes their signs."""
    magnitudes = [abs(d) for d in differences if d]
    ranks = stats.rankdata(magnitudes)
    rises = [d > 0 for d in differences if d]
    middle = sum(ranks) / 2

    def distance(signs):
        return abs(sum(rank for rank, up in zip(ranks, signs, strict=True) if up) - middle)

    every = [distance(signs) for signs in product([False, True], repeat=len(ranks))]
    return sum(other >= distance(rises) for other in every) / len(every)


@given(st.lists(st.integers(-4, 4), max_size=9))
def test_signed_rank_agrees_with_every_choice_of_signs(differences):
    p = signed_rank_p(differences)
    assert p == brute_signed_rank_p(differences)
    assert p == signed_rank_p([-d for d in differences])
    assert p == signed_rank_p(differences[::-1])


@pytest.mark.parametrize("n", [6, 17, 50])
def test_signed_rank_agrees_with_scipy_s_exact(n):
    differences = np.random.default_rng(n).normal(0.3, 1, n)
    theirs = stats.wilcoxon(differences, method="exact").pvalue
    assert signed_rank_p(differences) == pytest.approx(theirs, rel=1e-9)


def test_many_differences_meet_the_exact_ones():
    rng = np.random.default_rng(0)
    differences = np.round(rng.normal(0.2, 1, 51), 2)
    theirs = stats.wilcoxon(differences).pvalue
    assert signed_rank_p(differences) == pytest.approx(theirs, rel=1e-12)
    distinct = rng.normal(0.2, 1, 51)
    exact = stats.wilcoxon(distinct, method="exact").pvalue
    assert signed_rank_p(distinct) == pytest.approx(exact, abs=0.002)


def test_holm_by_hand():
    # .01·3; then .03·2; then .04·1, which must not fall below the one before.
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06], abs=1e-15)
    assert holm([0.6, 0.9]) == [1, 1]
    assert holm([0.2]) == [0.2]
    assert holm([]) == []


def closed_test(p_values):
    """Holm's method is the closed test of Bonferroni's: the worst over all families with one."""
    indices = range(len(p_values))
    families = list(chain.from_iterable(combinations(indices, k) for k in range(1, 6)))
    return [
        max(
            min(1, len(family) * min(p_values[j] for j in family))
            for family in families
            if i in family
        )
        for i in indices
    ]


p_lists = st.lists(st.floats(0, 1), min_size=1, max_size=5)


@given(p_lists, st.data())
def test_holm_agrees_with_the_closed_test(p_values, data):
    corrected = holm(p_values)
    assert corrected == pytest.approx(closed_test(p_values), rel=1e-12)
    # Smaller p values never give a larger correction: what `smallest_p_holm` rests on.
    smaller = [p * data.draw(st.floats(0, 1)) for p in p_values]
    assert all(new <= old for new, old in zip(holm(smaller), corrected, strict=True))


# --- which way is better ---------------------------------------------------------------------


def test_worst_cases_by_hand():
    scores = {"a": 0.5, "b": None, "c": 0.1, "e": 0.9, "d": 0.9, "f": math.nan, "g": -2.0}
    assert worst_cases(scores, "higher", 3) == [("g", -2), ("c", 0.1), ("a", 0.5)]
    assert worst_cases(scores, "lower", 3) == [("d", 0.9), ("e", 0.9), ("a", 0.5)]
    assert worst_cases(scores, "nearer 0", 2) == [("g", -2), ("d", 0.9)]
    assert len(worst_cases({str(i): i / 10 for i in range(9)}, "higher")) == 5
    assert worst_cases({"a": None}, "higher") == []
    assert worst_cases({"a": math.inf, "b": 3}, "lower", 1) == [("a", math.inf)]


def test_it_is_known_of_every_metric_which_way_is_better():
    for protocol in PROTOCOLS.values():
        for metric in protocol.metrics:
            assert which_is_better(metric + protocol.suffix) == which_is_better(metric)
    assert which_is_better("hd95_voxels_transunet") == "lower"
    assert which_is_better("surface_dice_2mm") == "higher"
    assert which_is_better("volume_difference_percent") == "nearer 0"
    with pytest.raises(ConfigError, match="'diceness'.*known are dice, iou"):
        which_is_better("diceness")
