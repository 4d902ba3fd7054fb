"""Flags: clean cases go unflagged, spoilt ones do not, and the words say why."""

import re
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from spoil import SPOILERS, mirrored, photograph, shifted, with_noise, without
from torch import nn

from flag_cases import NAMES, PREPROCESSING, ByValue, torso, torsos
from msa2net.data.case import Case, Geometry
from msa2net.data.preprocessing import Preprocessing
from msa2net.errors import DataError
from msa2net.inference.predictor import Predictor
from msa2net.inference.torch_backend import EnsembleMember, TorchBackend
from msa2net.quality.confidence import ConfidenceSums, MemberOutputs
from msa2net.quality.features import (
    DICE_ERROR,
    SIDE,
    SLICES,
    InputSums,
    layout_features,
    structure_features,
)
from msa2net.quality.fit_ranges import (
    FLOORS,
    OF_VALIDATION,
    RATES,
    allowed_flags,
    fit_reference_ranges,
    largest,
    upper_limit,
)
from msa2net.quality.flags import _SENTENCES, assess
from msa2net.quality.monitor import QualityMonitor
from msa2net.quality.reference_ranges import TARGET, Range, criterion, deviations
from msa2net.training.fit_quality import measure_cases

TEST = range(60, 100)


@pytest.fixture(scope="module")
def usual():
    store = torsos(24, 14, 0)
    ids = [row.id for row in store.cases]
    predictor = Predictor(ByValue(), PREPROCESSING, NAMES, 16)
    return measure_cases(predictor, 16, store, ids[:24], ids[24:], ((-1,),))


def assessments_of(cases, usual, **options):
    predictor = Predictor(ByValue(), PREPROCESSING, NAMES, 16, reference_ranges=usual, **options)
    monitor = QualityMonitor(usual)
    for _ in predictor.segment(cases, monitor):
        pass
    return list(monitor.assessments.values())


# What flags say -----------------------------------------------------------------------------------


@pytest.mark.parametrize("flips", [(), ((-1,),)])
def test_clean_cases_go_unflagged(usual, flips):
    cases = TEST[:20] if flips else TEST
    assessments = assessments_of((torso(index) for index in cases), usual, flips=flips)
    flagged = [assessment.text for assessment in assessments if assessment.flags]
    assert len(flagged) <= TARGET * len(cases), flagged
    assert all(assessment.anomaly_score <= 1 for assessment in assessments if not assessment.flags)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda case, rng: without(case, 2, rng), "no spleen was found"),
        (lambda case, rng: without(case, 1, rng), "no liver was found"),
        (with_noise, "noisier than the training images"),
        (shifted, "its intensities are unlike"),
        (mirrored, "spleen lies unusually far to the left"),
        (SPOILERS["upside down"], "aorta lies unusually far to the top"),
        (SPOILERS["other units"], "it is smoother than the training images"),
        (photograph, "its voxels' size is not known"),
        (photograph, "its intensities are unlike"),
        (photograph, "it has 1 slice, typical "),
    ],
)
def test_spoilt_cases_are_flagged(usual, spoil, words):
    rng = np.random.default_rng(0)
    assessments = assessments_of((spoil(torso(index), rng) for index in TEST[:3]), usual)
    assert all(assessment.flags and assessment.anomaly_score > 1 for assessment in assessments)
    said = [words in assessment.text for assessment in assessments]
    assert np.mean(said) > 0.6, [assessment.text for assessment in assessments]


def test_pictures_for_a_network_of_hounsfield_units_are_refused(usual):
    grey = photograph(torso(60), np.random.default_rng(0))
    with pytest.raises(DataError, match="8-bit values and the network takes Hounsfield units"):
        assessments_of([replace(grey, image=grey.image.astype(np.uint8))], usual)
    colour = Case("photo", np.zeros((3, 1, 64, 64), np.uint8))
    with pytest.raises(DataError, match="3 channels and the network takes 1"):
        assessments_of([colour], usual)


def test_a_foreign_image_is_refused_before_it_is_read(monkeypatch):
    def read(*_):
        raise AssertionError("the whole image was read")

    monkeypatch.setattr(Preprocessing, "intensity_range", read)
    with pytest.raises(DataError, match="8-bit values"):
        assessments_of([Case("photo", np.zeros((1, 1, 64, 64), np.uint8))], None)
    monkeypatch.undo()
    for broken in (np.nan, np.inf):  # of which units say nothing
        picture = Case("broken", np.array([0, 200, broken]).reshape(1, 1, 1, 3))
        with pytest.raises(DataError, match="1 values that are NaN or infinite"):
            next(
                Predictor(Fixed(), Preprocessing(channels=1, image_size=(8, 8)), ()).segment(
                    [picture]
                )
            )


def test_a_smaller_structure_and_coarser_slices_are_flagged(usual):
    case = torso(60)
    half = np.array(case.image)
    removed = case.label == 1
    removed[4] = False  # a single slice of it stays
    half[0][removed] = -60
    (small,) = assessments_of([replace(case, image=half)], usual)
    assert "liver is unusually small" in small.text
    assert " mL, typical " in small.text
    coarse = replace(case, geometry=Geometry.from_spacing((25.0, 5.0, 5.0)))
    (assessment,) = assessments_of([coarse], usual)
    assert "its slices are 25 mm apart, typical " in assessment.text


def test_an_unsure_network_is_flagged(usual):
    """Organs of a value between two that the network knows."""
    case = torso(60)
    image = np.array(case.image)
    image[0][case.label == 1] += 33
    (assessment,) = assessments_of([replace(case, image=image)], usual)
    assert "low confidence in " in assessment.text
    assert "confidence" in assessment.criteria


def test_networks_that_disagree_are_flagged(usual):
    class Shifted(ByValue):
        def forward(self, image_BCHW):
            return super().forward(image_BCHW.roll(12, dims=3))

    others = [EnsembleMember(Shifted(), PREPROCESSING)]
    (assessment,) = assessments_of([torso(60)], usual, others=others)
    assert "low agreement of the networks" in assessment.text
    (assessment,) = assessments_of(
        [torso(60)], usual, others=[EnsembleMember(ByValue(), PREPROCESSING)]
    )
    assert not assessment.flags


def test_sliding_windows_are_judged_as_resized_slices_are(usual, monkeypatch):
    """A volume twice as fine and with many slices: few are looked at, at the network's size."""
    case = torso(60)
    repeat = -(-2 * SLICES // case.image.shape[1])
    fine = replace(
        case,
        image=case.image.repeat(2, 2).repeat(2, 3).repeat(repeat, 1),
        label=None,
        geometry=Geometry.from_spacing((case.geometry.spacing_mm[0] / repeat, 2.5, 2.5)),
    )
    seen, add = [], InputSums.add
    monkeypatch.setattr(
        InputSums, "add", lambda self, unit_Chw: (seen.append(unit_Chw.shape), add(self, unit_Chw))
    )
    found = []
    for mode in ("resize", "sliding"):
        monitor = QualityMonitor(None)
        next(Predictor(ByValue(), PREPROCESSING, NAMES, 64, mode=mode).segment([fine], monitor))
        found.append(monitor.features[fine.id])
    assert seen == 2 * SLICES * [(1, 64, 64)]
    resized, slid = found
    assert not [name for name in slid if criterion(name) in OF_VALIDATION]
    for name in slid:
        if criterion(name) in ("intensity", "noise", "layout", "spacing", "unknown"):
            assert slid[name] == resized[name], name
    (assessment,) = assessments_of([case], usual, mode="sliding")
    assert not assessment.flags
    assert assessment.anomaly_score == 0
    (assessment,) = assessments_of(
        [without(case, 2, np.random.default_rng(0))], usual, mode="sliding"
    )
    assert "no spleen was found" in assessment.text


def test_a_case_turned_in_its_header_is_turned_back(usual):
    """What lies otherwise and says so is no reason for a flag."""
    turned = PREPROCESSING.model_copy(update={"orientation": "LPS"})
    case = torso(60)
    affine = case.geometry.affine @ np.diag([-1.0, 1, 1, 1])
    affine[:3, 3] += case.geometry.affine[:3, 0] * (case.image.shape[3] - 1)
    other = replace(
        case,
        image=np.ascontiguousarray(case.image[..., ::-1]),
        label=np.ascontiguousarray(case.label[..., ::-1]),
        geometry=Geometry(case.geometry.spacing_mm, affine),
    )
    monitor = QualityMonitor(usual)
    predictor = Predictor(ByValue(), turned, NAMES, 16)
    next(predictor.segment([other], monitor))
    assert not monitor.assessments[case.id].flags
    bare = replace(case, geometry=Geometry())
    next(predictor.segment([bare], monitor))
    assert "how it lies in the patient is not known" in monitor.assessments[case.id].text


# Where the words come from ------------------------------------------------------------------------


def features_of(cases, batch, model=None, preprocessing=PREPROCESSING, **options):
    monitor = QualityMonitor(None, **options)
    predictor = Predictor(model or ByValue(), preprocessing, NAMES, batch)
    labels = [found.labels for found in predictor.segment(cases, monitor)]
    return monitor, labels


def test_the_batch_does_not_matter_and_nobody_s_labels_change():
    cases = [torso(index) for index in range(3)]
    alone, plain = features_of(cases, 1)
    together, same = features_of(cases, 16)
    predictor = Predictor(ByValue(), PREPROCESSING, NAMES, 16)
    for one, other, unwatched in zip(plain, same, predictor.segment(cases), strict=True):
        assert np.array_equal(one, other)
        assert np.array_equal(one, unwatched.labels)
    for case in cases:
        one, other = alone.features[case.id], together.features[case.id]
        assert one.keys() == other.keys()
        for name in one:
            assert one[name] == pytest.approx(other[name], rel=1e-5, abs=1e-5), name


@pytest.mark.parametrize("fails", ["probabilities", "on_grid"])
def test_a_batch_that_comes_again_is_heard_once(monkeypatch, fails):
    """Memory runs out in the network, or later, on the way back to the second case's grid."""
    cases = [torso(index) for index in range(2)]
    expected, plain = features_of(cases, 16, calibration=True)
    own, calls = getattr(TorchBackend, fails), []

    def once(self, *args):
        calls.append(fails)
        if len(calls) == 2 - (fails == "probabilities"):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return own(self, *args)

    monkeypatch.setattr(TorchBackend, fails, once)
    found, same = features_of(cases, 16, calibration=True)
    assert len(calls) > 2
    for one, other in zip(plain, same, strict=True):
        assert np.array_equal(one, other)
    for case in cases:
        assert found.features[case.id] == pytest.approx(expected.features[case.id], abs=1e-5)
    np.testing.assert_allclose(found.tables_2B3, expected.tables_2B3, rtol=1e-5)


class Fixed(nn.Module):
    """Three classes, the same probabilities in every pixel of the left and of the right half."""

    left, right = (0.2, 0.7, 0.1), (0.9, 0.06, 0.04)

    def forward(self, image_BCHW):
        size = (len(image_BCHW), 3, *image_BCHW.shape[2:])
        found = torch.tensor(self.right).view(1, 3, 1, 1).expand(size).clone()
        found[..., : size[3] // 2] = torch.tensor(self.left).view(1, 3, 1, 1)
        return found.log()


def test_confidences_by_hand():
    """Half of the pixels are answered with class 1 at 0.7; the padding around them is not asked."""
    names = ("background", "one", "two")
    wide = Case("wide", np.zeros((1, 1, 16, 32), np.uint8))  # half of a square input is padding
    preprocessing = Preprocessing(channels=1, image_size=(64, 64))
    monitor = QualityMonitor(None)
    next(Predictor(Fixed(), preprocessing, names).segment([wide], monitor))
    found = monitor.features["wide"]
    one = 1 - 2 * 0.5 * 0.7 / (0.5 * 0.7 + 0.5 * 0.06 + 0.5)
    assert found["confidence:structure:one"] == pytest.approx(np.log(one / (1 - one)), abs=1e-5)
    assert found["confidence:structure:two"] == pytest.approx(
        np.log(999), abs=1e-5
    )  # expected, never found
    assert found["confidence:all:"] == pytest.approx(np.log((one + 1) / (1 - one)), abs=1e-4)
    halves = [-sum(p * np.log(p) for p in side) for side in (Fixed.left, Fixed.right)]
    expected = (0.5 * 0.8 + 0.5 * 0.1) * 32 * 64
    mean = sum(halves) / 2 * 32 * 64 / (expected + 1e-3 * 32 * 64 + 1)
    assert found["confidence:entropy:"] == pytest.approx(np.log(mean + 1e-3), abs=1e-5)


def test_places_and_sizes_do_not_depend_on_the_grid():
    """A volume four times as fine, of which not every pixel is asked, has the same features."""
    label, spacing_mm = torso(3).label, (8.0, 5.0, 5.0)
    fine = label.repeat(4, 1).repeat(4, 2)
    one = structure_features(label, NAMES, spacing_mm)
    other = structure_features(fine, NAMES, (8.0, 1.25, 1.25))
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert other[name] == pytest.approx(value, abs=0.03), name
    count = np.count_nonzero(label == 2)
    assert one["size:mm3:spleen"] == pytest.approx(np.log(count * 8 * 5 * 5))
    assert one["place:rows:spleen"] == pytest.approx((np.nonzero(label == 2)[1].mean() + 0.5) / 64)


@pytest.mark.parametrize("size", [(64, 48), (5, 40), (17, 16)])
def test_a_thumbnail_holds_the_means_of_its_parts(size):
    unit_hw = np.random.default_rng(0).random(size, np.float32)
    sums = InputSums(1)
    sums.add(unit_hw[None])
    parts = [[int(n * side / SIDE) for n in range(SIDE + 1)] for side in size]
    expected = [
        [unit_hw[top : max(bottom, top + 1), left : max(right, left + 1)].mean()
         for left, right in pairwise(parts[1])]
        for top, bottom in pairwise(parts[0])
    ]  # fmt: skip
    np.testing.assert_allclose(sums.thumbnail, expected, rtol=1e-5)


def test_a_mirror_image_is_less_alike_than_the_image():
    usual = np.zeros((SIDE, SIDE))
    usual[:, : SIDE // 4] = 1  # bright on the left, and alike from top to bottom
    found = layout_features(usual[:, ::-1] + 0.1, usual)
    assert found["layout:columns:"] == pytest.approx(-4 / 3)
    assert found["layout:rows:"] == pytest.approx(0)
    assert layout_features(3 * usual + 7, usual)["layout:alike:"] == pytest.approx(1)


# How limits are set -------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [4, 20, 60, 400])
@pytest.mark.parametrize("kind", ["normal", "exponential", "student_t"])
def test_limits_flag_no_more_than_they_should(count, kind):
    rng = np.random.default_rng(0)

    def draw(size):
        return rng.standard_t(4, size) if kind == "student_t" else getattr(rng, kind)(size=size)

    rates = [np.mean(draw(2000) > upper_limit(draw(count), 0.02)) for _ in range(100)]
    # Of four values little can be known: they may be all small.
    assert np.mean(rates) <= (0.10 if count < 10 else 0.025)


@pytest.mark.parametrize(("train", "val"), [(12, 4), (140, 20), (200, 260)])
def test_many_criteria_together_keep_the_target(train, val):
    """Features of every criterion, five each, some with heavy tails: 5 % of clean cases at most."""
    rng = np.random.default_rng(1)
    binary = ("missing", "extent", "unknown")
    names = [f"{name}::{index}" for name in RATES if name not in binary for index in range(5)]

    def draw():
        found = {f"{name}::": 0.0 for name in binary}
        for name in names:
            wide = rng.standard_t(4) if name.startswith("intensity") else rng.normal()
            found[name] = wide * FLOORS[name.partition(":")[0]] * 2
        return found

    shares = []
    for _ in range(3):
        usual = fit_reference_ranges([draw() for _ in range(train)], [draw() for _ in range(val)])
        shares.append(np.mean([bool(judge_bare(draw(), usual)) for _ in range(100)]))
    assert np.mean(shares) <= TARGET, shares


def test_images_of_training_and_validation_say_together_what_is_rare():
    """The same values as brightness, of images, and as place, of labels and answers, apart."""
    image, answer = "intensity:q50:0", "place:rows:a"
    limits, flagged = [], []
    for seed in range(20):
        rng = np.random.default_rng(seed)

        def draw(count, rng=rng):
            return [{image: float(v), answer: float(v)} for v in rng.normal(size=count)]

        usual = fit_reference_ranges(draw(50), draw(50))
        limits.append((usual.limits["intensity"], usual.limits["place"]))
        flagged += ["intensity" in judge_bare(one, usual) for one in draw(1000)]
    together, apart = np.mean(limits, axis=0)
    assert together < 0.9 * apart  # the tail of 100 is drawn out less far than that of 50
    assert 0.001 < np.mean(flagged) < 0.006  # its share is meant to be 0.003


def judge_bare(features, usual):
    found = largest(deviations(features, usual.ranges))
    return [name for name, value in found.items() if value > usual.limits[name]]


def test_allowed_flags():
    """The exact binomial: 6 of 259 or fewer has a chance below 5 % if 5 % are flagged."""
    from scipy.stats import binom

    for count in (0, 1, 20, 58, 59, 100, 259):
        allowed = allowed_flags(count)
        assert allowed == 0 or binom.cdf(allowed, count, TARGET) <= 0.05
        assert binom.cdf(allowed + 1, count, TARGET) > 0.05 or count < 59
    assert allowed_flags(259) == 6


def test_a_structure_that_is_often_absent_is_no_reason():
    train = [
        {"missing:structure:a": 0.0, "missing:structure:b": float(n % 10 == 0)} for n in range(40)
    ]
    usual = fit_reference_ranges(train, [])
    assert assess({"missing:structure:a": 1.0, "missing:structure:b": 1.0}, usual).flags == (
        "no a was found: look whether the image shows it and the network missed it",
    )


def test_a_structure_that_all_training_cases_have_is_missed_come_what_may():
    """A network that finds it in no validation case is no reason to find that usual."""
    train = [{"missing:structure:a": 0.0, "missing:structure:b": 0.0}] * 40
    val = [{"missing:structure:a": 1.0, "missing:structure:b": 0.0}] * 20
    usual = fit_reference_ranges(train, val)
    assert usual.flagged == 20
    (said,) = assess(val[0], usual).flags
    assert said.startswith("no a was found: ")
    assert not assess(train[0], usual).flags


@pytest.mark.parametrize("cases", [6, 60])
def test_a_mask_of_the_whole_picture_is_flagged(cases):
    """Few lesions, of very different sizes: by size alone all of a picture is usual."""
    names, rng = ("background", "lesion"), np.random.default_rng(0)

    def features(share, side=200):
        label = np.zeros((1, side, side), np.uint8)
        label[0, : round(share * side)] = 1
        return structure_features(label, names, None)

    shares = np.exp(rng.uniform(np.log(0.02), np.log(0.9), cases))
    usual = fit_reference_ranges([features(share) for share in shares], [features(0.3)] * 3)
    for share in (0.02, 0.9, *shares):
        assert "extent" not in assess(features(share), usual).criteria
    assessment = assess(features(1.0), usual)
    assert "lesion fills a whole slice, as in no training image: look whether" in assessment.text
    assert assessment.anomaly_score > 1
    # Where training images are like that, it says nothing.
    close_up = fit_reference_ranges([features(1.0)] * 6, [])
    assert "extent" not in assess(features(1.0), close_up).criteria


@pytest.mark.parametrize("cases", [50, 100])
def test_a_structure_missed_once_silences_no_other(cases):
    """Of 50 clean cases none may be flagged; the one that misses `a` is, and is no clean one."""
    names = ("a", "b", "c")

    def features(*missing):
        found = {f"missing:structure:{name}": float(name in missing) for name in names}
        return found | {"missing:all:": float(set(missing) == set(names)), "unknown:spacing:": 0.0}

    usual = fit_reference_ranges(
        [features()] * 40, [features(*"a" * (n == 7)) for n in range(cases)]
    )
    assert assess(features("c"), usual).text.startswith("no c was found: ")
    assert assess(features(*names), usual).text.startswith("nothing was found: ")
    assert assess(features() | {"unknown:spacing:": 1.0}, usual).criteria == ("unknown",)
    assert assess(features("a"), usual).text.startswith("no a was found: ")
    assert usual.flagged == 1
    assert not assess(features(), usual).flags


def test_an_empty_mask_is_flagged_however_many_validation_cases_have_one():
    full, empty = ({"missing:structure:a": value, "missing:all:": value} for value in (0.0, 1.0))
    usual = fit_reference_ranges([full] * 40, [empty] * 5 + [full] * 45)
    assert assess(empty, usual).text.startswith("nothing was found: ")
    assert usual.flagged == 5
    # Where a training holds empty masks of its own, one more says nothing.
    assert not assess(empty, fit_reference_ranges([full, empty] * 20, [full] * 20)).flags


def test_without_validation_cases_confidences_are_not_judged():
    store = torsos(12, 0, 0)
    predictor = Predictor(ByValue(), PREPROCESSING, NAMES, 16)
    usual = measure_cases(predictor, 16, store, [row.id for row in store.cases], [], ())
    assert usual.temperature == 1
    assert usual.calibration_error is None
    assert not [name for name in usual.ranges if name.startswith(("confidence", "disagreement"))]
    (assessment,) = assessments_of([without(torso(60), 2, np.random.default_rng(0))], usual)
    assert "no spleen was found" in assessment.text


@pytest.mark.parametrize("value", [-1.0, 1.0])
def test_each_sentence_says_what_was_seen_and_what_to_do(value: float):
    """Several of them are parted by semicolons, so none has one, nor a question in its middle."""
    kinds = {
        "confidence": ["entropy", "structure", "all"],
        "disagreement": ["networks", "mirrored"],
        "missing": ["structure", "all"],
        "extent": ["slice"],
        "size": ["mm3", "share"],
        "place": ["slices", "rows", "columns among all"],
        "intensity": ["q10", "dark", "bright"],
        "noise": [""],
        "colour": [""],
        "layout": ["alike", "rows", "columns"],
        "spacing": ["depth", "aspect", "rows"],
        "unknown": ["spacing", "orientation"],
    }
    assert kinds.keys() == _SENTENCES.keys() == RATES.keys()
    for name, found in kinds.items():
        for which in found:
            of = "1" if name == "intensity" else "liver"
            said = _SENTENCES[name](which, of, value, Range(low=-0.5, centre=0.0, high=0.5))
            assert re.fullmatch(r"[a-z][^;:?]+: (look|give) [^;:?.]+", said), said


def test_classes_may_have_any_name():
    """Colons, the words that features are named by, and nothing at all."""
    names = ("background", "a:b", "entropy", "all", ":mm3", "left:dark", "")
    label = np.zeros((4, 8, 8), np.uint8)
    for index in range(1, len(names)):
        label[1:3, index, 1:7] = index
    sums = ConfidenceSums(len(names), 1.0)
    answers = MemberOutputs()
    answers.add(np.stack([0.01 + 0.9 * (label == k) for k in range(len(names))], axis=1))
    place = PREPROCESSING.model_copy(update={"image_size": (8, 8)}).placement((8, 8))
    sums.add(sums.measure(answers, 0, 4, place))

    def features(found):
        return structure_features(found, names, (4.0, 2.0, 2.0)) | sums.features(names)

    full, bare = features(label), features(label * (label == 2))
    assert len([name for name in full if name.startswith("confidence:")]) == len(names) - 1 + 2
    usual = fit_reference_ranges([full] * 9, [full] * 9)
    usual = type(usual).model_validate_json(usual.model_dump_json())
    among = usual.ranges["place:rows among all:left:dark"]
    assert among.high - among.centre == pytest.approx(0.5, abs=1e-4)
    said = [assessment_of_one(name, bare, usual) for name in names[1:]]
    seen = [text.partition(": look")[0] for text in said]
    assert seen == ["no a:b was found", "", *(f"no {name} was found" for name in names[3:])]
    for name, value in full.items():  # whatever is beyond its range, there are words for it
        if name in usual.ranges and not name.startswith("size:share:"):  # mm³ count there
            assert assess({**full, name: value + 100}, usual).flags, name
    with pytest.raises(ValidationError, match="'size' names no feature"):
        type(usual)(
            train_cases=1, val_cases=0, limits={}, ranges={"size": usual.ranges[DICE_ERROR]}
        )


def assessment_of_one(name, features, usual):
    feature = f"missing:structure:{name}"
    return assess({feature: features[feature]}, usual).text


def test_it_reads_back_as_it_was(usual):
    assert type(usual).model_validate_json(usual.model_dump_json()) == usual
