"""Out-of-distribution and low-confidence cases: an anomaly score to sort by, and flags in words."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from msa2net.quality.features import DICE_ERROR, NOTHING, Features, parts_of
from msa2net.quality.reference_ranges import Range, ReferenceRanges, criterion, deviations

SEPARATOR = "; "
_NOTHING_FOUND = 0.99  # the score of an empty mask that is not flagged
_EACH = 2  # features of a criterion that are told, those that are furthest beyond
_MOST = 99.0  # the highest score: beyond it nothing is more anomalous


@dataclass(frozen=True)
class CaseAssessment:
    """What is to be told of one case.

    Attributes:
        flags: a sentence on each feature that is beyond a criterion, the most unusual first; none
            if there is none.
        criteria: the names of these criteria.
        anomaly_score: to sort cases by. Above 1 if there is a flag; below, how far the expected
            Dice error is from the typical one: 0 is typical, less is surer.
    """

    flags: tuple[str, ...]
    criteria: tuple[str, ...]
    anomaly_score: float

    @property
    def text(self) -> str:
        """All flags in one line; "" if there are none."""
        return SEPARATOR.join(self.flags)


def assess(features: Features, reference: ReferenceRanges) -> CaseAssessment:
    """Compare a case with the reference ranges of its network's training."""
    beyond: dict[str, list[tuple[float, str]]] = {}
    for feature, deviation in deviations(features, reference.ranges).items():
        limit = reference.limits.get(criterion(feature))
        if limit is not None and deviation > limit:
            beyond.setdefault(criterion(feature), []).append((deviation / limit, feature))
    for found in beyond.values():
        # Of an empty mask nobody asks which structures are missing.
        found.sort(key=lambda pair: (pair[0], pair[1] == NOTHING), reverse=True)
        if found[0][1] == NOTHING:
            del found[1:]
    ordered = sorted(beyond, key=lambda name: -beyond[name][0][0])
    words = dict.fromkeys(
        _words(feature, features, reference.ranges)
        for name in ordered
        for _, feature in beyond[name][:_EACH]
    )
    # Below every limit only the expected Dice error says something of how good a mask is.
    own = 0.0
    if DICE_ERROR in reference.ranges and features.get(NOTHING):
        own = _NOTHING_FOUND
    elif DICE_ERROR in reference.ranges and DICE_ERROR in features:
        own = (
            reference.ranges[DICE_ERROR].signed(features[DICE_ERROR])
            / reference.limits["confidence"]
        )
    score = max([own, *(beyond[name][0][0] for name in ordered)])
    return CaseAssessment(tuple(words), tuple(ordered), round(min(score, _MOST), 4))


def _words(feature: str, features: Features, ranges: Mapping[str, Range]) -> str:
    name, which, of = parts_of(feature)
    return _SENTENCES[name](which, of, features[feature], ranges[feature])


# Each sentence says what was seen and, after a colon, what to do, and what it may come from. None
# has a semicolon or a question mark, since several of them may make one line.


def _confidence(which: str, of: str, value: float, reference: Range) -> str:
    if which == "entropy":
        return "low confidence beyond the outlines: look at the whole mask"
    whom = f" in {of}" if which == "structure" else ""
    what = "that structure's mask" if which == "structure" else "the whole mask"
    expected, typical = (1 - _share(logit) for logit in (value, reference.centre))
    dice = f"expected Dice {expected:.2f}, typical {typical:.2f}"
    return f"low confidence{whom} ({dice}): look at {what}"


def _disagreement(which: str, _: str, value: float, reference: Range) -> str:
    found, typical = (1 - _share(logit) for logit in (value, reference.centre))
    if which == "networks":
        seen = f"low agreement of the networks (Dice {found:.2f} with each other)"
    else:
        dice = f"Dice {found:.2f}, typical {typical:.2f}"
        seen = f"low test-time-augmentation consistency under mirroring ({dice})"
    return f"{seen}: look at the whole mask"


def format_number(value: float, digits: int) -> str:
    """Write a number with so many significant digits, and never as a power of ten."""
    return f"{float(f'{value:.{digits}g}'):.10f}".rstrip("0").rstrip(".")


def _missing(which: str, of: str, _: float, __: Range) -> str:
    if which == "structure":
        return f"no {of} was found: look whether the image shows it and the network missed it"
    return "nothing was found: look whether the image shows any of the structures"


def _extent(_: str, of: str, __: float, ___: Range) -> str:
    return f"{of} fills a whole slice, as in no training image: look whether its mask is right"


def _size(which: str, of: str, value: float, reference: Range) -> str:
    large = "large" if value > reference.centre else "small"
    doubt = "look whether its mask is right"
    if which == "mm3":
        found, typical = (
            f"{format_number(math.exp(x) / 1000, 3)} mL" for x in (value, reference.centre)
        )
        doubt += ", and the spacing in the file's header"
    else:
        shares = (format_number(100 * math.exp(x), 2) for x in (value, reference.centre))
        found, typical = (f"{share} % of the image" for share in shares)
    return f"{of} is unusually {large} ({found}, typical {typical}): {doubt}"


def _place(which: str, of: str, value: float, reference: Range) -> str:
    axis, _, among = which.partition(" ")
    ends = {"slices": ("first", "last"), "rows": ("top", "bottom"), "columns": ("left", "right")}
    end = ends[axis][value > reference.centre]
    where = f"{end} slices" if axis == "slices" else f"{end} of the slices"
    others = " among the structures" if among else ""
    doubt = "look whether its mask is right, and the image neither turned, mirrored nor cropped"
    return f"{of} lies unusually far to the {where}{others}: {doubt}"


def _intensity(which: str, of: str, value: float, reference: Range) -> str:
    whose = "its intensities are" if of == "0" else f"intensities of channel {of} are"
    found = f"{value:.2f}, typical {reference.centre:.2f}"
    if which in ("dark", "bright"):
        shares = [max(0.0, 100 * math.exp(x) - 1) for x in (value, reference.centre)]
        found = f"{shares[0]:.0f} %, typical {shares[1]:.0f} %"
        end = "lowest" if which == "dark" else "highest"
        what = f"share at the {end} value of the window {found}"
    else:
        what = f"{which.removeprefix('q')} % quantile {found} of the window"
    doubt = "look whether it has another unit, or is of another sequence or kind"
    return f"{whose} unlike the training images' ({what}): {doubt}"


def _noise(_: str, __: str, value: float, reference: Range) -> str:
    if value > reference.centre:
        return "it is noisier than the training images: look whether a better image is at hand"
    doubt = "look whether it was filtered, resampled or compressed"
    return f"it is smoother than the training images: {doubt}"


def _colour(_: str, __: str, value: float, reference: Range) -> str:
    more = "more" if value > reference.centre else "less"
    doubt = "look whether it was taken or stored in another way"
    return f"it is {more} colourful than the training images: {doubt}"


def _layout(which: str, _: str, __: float, ___: Range) -> str:
    if which == "alike":
        doubt = "look whether it shows another view or body region"
        return f"image layout differs from the training data: {doubt}"
    sides = "left-right" if which == "columns" else "top-bottom"
    return f"possible {sides} flip: look whether it was flipped when it was stored"


def _spacing(which: str, _: str, value: float, reference: Range) -> str:
    found, typical = math.exp(value), math.exp(reference.centre)
    if which == "depth":
        seen = f"it has {found:.0f} slice{'s' * (found > 1.5)}, typical {typical:.0f}"
        return f"{seen}: look whether this is all of the scan, and no other"
    if which == "aspect":
        seen = f"it is {found:.2g} times as high as wide, typical {typical:.2g}"
        return f"{seen}: look whether it was cropped or turned"
    seen = f"its {which} are {found:.3g} mm apart, typical {typical:.3g} mm"
    return f"{seen}: look whether the spacing in the file's header is right"


def _unknown(which: str, _: str, __: float, ___: Range) -> str:
    give = "give the original NIfTI or DICOM file if there is one"
    if which == "spacing":
        return f"its voxels' size is not known, and that of the training images was: {give}"
    return f"how it lies in the patient is not known, and of the training images it was: {give}"


_SENTENCES = {
    "confidence": _confidence,
    "disagreement": _disagreement,
    "missing": _missing,
    "extent": _extent,
    "size": _size,
    "place": _place,
    "intensity": _intensity,
    "noise": _noise,
    "colour": _colour,
    "layout": _layout,
    "spacing": _spacing,
    "unknown": _unknown,
}


def _share(logit: float) -> float:
    return 1 / (1 + math.exp(-logit))
