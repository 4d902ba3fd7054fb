"""Which cases to look at first, and why, in plain words."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from msa2net.inference.features import DOUBT, NOTHING, Features, parts_of
from msa2net.inference.usual import Range, Usual, criterion, deviations

_NOTHING_FOUND = 0.99  # the suspicion of an empty answer that is not flagged
_EACH = 2  # features of a criterion that are told, those that are furthest beyond
_MOST = 99.0  # of a suspicion; beyond it nothing is more suspicious


@dataclass(frozen=True)
class Verdict:
    """What is to be told of one case.

    Attributes:
        flags: a few words on what is beyond a criterion, the most unusual first; none if usual.
        criteria: the names of these criteria.
        suspicion: to sort cases by. Above 1 if there is a flag; below, how unsure the network is:
            0 is as usual, less is surer.
    """

    flags: tuple[str, ...]
    criteria: tuple[str, ...]
    suspicion: float

    @property
    def text(self) -> str:
        """All flags in one line; "" if there are none."""
        return "; ".join(self.flags)


def judge(features: Features, usual: Usual) -> Verdict:
    """Compare a case with what is usual."""
    beyond: dict[str, list[tuple[float, str]]] = {}
    for feature, deviation in deviations(features, usual.ranges).items():
        limit = usual.limits.get(criterion(feature))
        if limit is not None and deviation > limit:
            beyond.setdefault(criterion(feature), []).append((deviation / limit, feature))
    for found in beyond.values():
        # Of an empty mask nobody asks which structures are missing.
        found.sort(key=lambda pair: (pair[0], pair[1] == NOTHING), reverse=True)
        if found[0][1] == NOTHING:
            del found[1:]
    ordered = sorted(beyond, key=lambda name: -beyond[name][0][0])
    words = dict.fromkeys(
        _words(feature, features, usual.ranges)
        for name in ordered
        for _, feature in beyond[name][:_EACH]
    )
    # Below every limit only doubt of the whole answer says something of how good it is.
    own = 0.0
    if DOUBT in usual.ranges and features.get(NOTHING):
        own = _NOTHING_FOUND
    elif DOUBT in usual.ranges and DOUBT in features:
        own = usual.ranges[DOUBT].signed(features[DOUBT]) / usual.limits["confidence"]
    suspicion = max([own, *(beyond[name][0][0] for name in ordered)])
    return Verdict(tuple(words), tuple(ordered), round(min(suspicion, _MOST), 4))


def _words(feature: str, features: Features, ranges: Mapping[str, Range]) -> str:
    name, which, of = parts_of(feature)
    return _SENTENCES[name](which, of, features[feature], ranges[feature])


def _confidence(which: str, of: str, value: float, usual: Range) -> str:
    if which == "entropy":
        return "the network is unsure of more than the outlines"
    whom = f"of {of}" if which == "structure" else "of its answer"
    expected, typical = (1 - _share(logit) for logit in (value, usual.centre))
    return f"the network is unsure {whom} (expects a Dice of {expected:.2f}, usually {typical:.2f})"


def _disagreement(which: str, _: str, value: float, usual: Range) -> str:
    found, typical = (1 - _share(logit) for logit in (value, usual.centre))
    if which == "networks":
        return f"the networks disagree (Dice {found:.2f} with each other)"
    return f"its mirror image is answered otherwise (Dice {found:.2f}, usually {typical:.2f})"


def plain(value: float, digits: int) -> str:
    """Write a number with so many significant digits, and never as a power of ten."""
    return f"{float(f'{value:.{digits}g}'):.10f}".rstrip("0").rstrip(".")


def _missing(which: str, of: str, _: float, __: Range) -> str:
    return f"no {of} was found" if which == "structure" else "nothing was found"


def _size(which: str, of: str, value: float, usual: Range) -> str:
    large = "large" if value > usual.centre else "small"
    if which == "mm3":
        found, typical = (f"{plain(math.exp(x) / 1000, 3)} mL" for x in (value, usual.centre))
    else:
        shares = (plain(100 * math.exp(x), 2) for x in (value, usual.centre))
        found, typical = (f"{share} % of the image" for share in shares)
    return f"{of} is unusually {large} ({found}, usually about {typical})"


def _place(which: str, of: str, value: float, usual: Range) -> str:
    axis, _, among = which.partition(" ")
    ends = {"slices": ("first", "last"), "rows": ("top", "bottom"), "columns": ("left", "right")}
    end = ends[axis][value > usual.centre]
    where = f"{end} slices" if axis == "slices" else f"{end} of the slices"
    others = " among the structures" if among else ""
    return f"{of} lies unusually far to the {where}{others}"


def _intensity(which: str, of: str, value: float, usual: Range) -> str:
    whose = "its intensities are" if of == "0" else f"intensities of channel {of} are"
    found = f"{value:.2f}, usually about {usual.centre:.2f}"
    if which in ("dark", "bright"):
        shares = [max(0.0, 100 * math.exp(x) - 1) for x in (value, usual.centre)]
        found = f"{shares[0]:.0f} %, usually about {shares[1]:.0f} %"
        end = "lowest" if which == "dark" else "highest"
        what = f"share at the {end} value of the window {found}"
    else:
        what = f"{which.removeprefix('q')} % quantile {found} of the window"
    return f"{whose} unlike the training images' ({what}); another unit, sequence or kind of image?"


def _noise(_: str, __: str, value: float, usual: Range) -> str:
    return f"it is {'noisier' if value > usual.centre else 'smoother'} than the training images"


def _colour(_: str, __: str, value: float, usual: Range) -> str:
    return f"it is {'more' if value > usual.centre else 'less'} colourful than the training images"


def _layout(which: str, _: str, __: float, ___: Range) -> str:
    if which == "alike":
        return "it is laid out unlike the training images: another view, or another part?"
    sides = "left to right" if which == "columns" else "top to bottom"
    return f"it looks mirrored, {sides}, beside the training images"


def _spacing(which: str, _: str, value: float, usual: Range) -> str:
    found, typical = math.exp(value), math.exp(usual.centre)
    if which == "depth":
        return f"it has {found:.0f} slice{'s' * (found > 1.5)}, usual are about {typical:.0f}"
    if which == "aspect":
        return f"it is {found:.2g} times as high as wide, usual is about {typical:.2g}"
    return f"its {which} are {found:.3g} mm apart, usual are about {typical:.3g} mm"


def _unknown(which: str, _: str, __: float, ___: Range) -> str:
    if which == "spacing":
        return "its voxels' size is not known, and that of the training images was"
    return "how it lies in the patient is not known, and of the training images it was"


_SENTENCES = {
    "confidence": _confidence,
    "disagreement": _disagreement,
    "missing": _missing,
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
