"""The reliability plot: how often answers of a confidence are right, drawn as SVG text."""

import math
from collections.abc import Sequence
from xml.etree import ElementTree

from msa2net.evaluation.schema import AssessmentSummary

_WIDTH, _HEIGHT, _LEFT, _TOP, _PLOT = 358, 340, 62, 12, 280

Point = tuple[float, float, float]


def reliability_chart(before: Sequence[Point], after: Sequence[Point], *, title: str) -> str:
    """Draw accuracy over confidence, both from 0 to 1, beside the diagonal of true confidences.

    Args:
        before: (mean confidence, accuracy, share of the pixels) of each bin; the area of a dot
            grows with the share.
        after: likewise; drawn on top.
        title: read out by screen readers.
    """
    svg = ElementTree.Element("svg", viewBox=f"0 0 {_WIDTH} {_HEIGHT}", role="img")
    svg.attrib.update({"class": "chart reliability", "aria-label": title})
    for tick in (0, 0.2, 0.4, 0.6, 0.8, 1):
        x, y = _place(tick, tick)
        _add(svg, "path", "grid", d=f"M{_LEFT} {y:.1f}H{_LEFT + _PLOT}")
        _add(svg, "text", "y", f"{tick:g}", x=_LEFT - 8, y=f"{y + 4:.1f}")
        _add(svg, "text", "x", f"{tick:g}", x=f"{x:.1f}", y=_TOP + _PLOT + 18)
    _add(svg, "text", "x", "confidence", x=_LEFT + _PLOT / 2, y=_HEIGHT - 8)
    middle = f"rotate(-90 14 {_TOP + _PLOT / 2:g})"
    _add(svg, "text", "x", "share that is right", x=14, y=_TOP + _PLOT / 2, transform=middle)
    (x0, y0), (x1, y1) = _place(0, 0), _place(1, 1)
    _add(svg, "path", "even", d=f"M{x0:.1f} {y0:.1f}L{x1:.1f} {y1:.1f}")
    for style, points in (("before", before), ("after", after)):
        placed = [_place(confidence, right) for confidence, right, _ in points]
        if placed:
            path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in placed)
            _add(svg, "path", f"line {style}", d=path)
        for (x, y), (_, _, share) in zip(placed, points, strict=True):
            radius = 1.5 + 6 * math.sqrt(share)
            _add(svg, "circle", f"dot {style}", cx=f"{x:.1f}", cy=f"{y:.1f}", r=f"{radius:.1f}")
    return ElementTree.tostring(svg, encoding="unicode")


def calibration_part(assessments: AssessmentSummary | None) -> dict[str, object] | None:
    """Return what the page shows of confidences and flags; None of a run that knows nothing."""
    if assessments is None:
        return None
    from msa2net.quality.reference_ranges import describe_limits

    before, after = assessments.before, assessments.after
    return {
        "flagged": f"{assessments.flagged} of {assessments.cases} cases",
        "limits": describe_limits(assessments.val_cases, assessments.target),
        "reasons": ", ".join(f"{name} {count}" for name, count in assessments.reasons.items()),
        "first": assessments.first,
        "more": assessments.flagged - len(assessments.first),
        "calibration": _calibration(assessments),
        "svg": reliability_chart(
            before.points,
            [] if assessments.temperature_reason else after.points,
            title="Accuracy over confidence, before and after",
        ),
    }


def _calibration(assessments: AssessmentSummary) -> str:
    """Say what the chart shows; "" if there is nothing in it."""
    before, after = assessments.before.error, assessments.after.error
    if before is None or after is None:
        return ""
    if assessments.temperature_reason:
        return (
            f"Grey: as the network has it, with an expected calibration error of {before:.4f}. Its "
            f"logits are not divided by a temperature: {assessments.temperature_reason}."
        )
    worse = ": here it made them worse" if after > before else ""
    return (
        "Grey: as the network has it. Coloured: its logits divided by "
        f"{assessments.temperature:.2f}, fitted on validation cases, which changes no label. "
        f"Expected calibration error {before:.4f} before, {after:.4f} after{worse}."
    )


def _place(x: float, y: float) -> tuple[float, float]:
    return _LEFT + x * _PLOT, _TOP + (1 - y) * _PLOT


def _add(
    parent: ElementTree.Element, tag: str, style: str, text: str = "", **values: object
) -> None:
    attributes = {"class": style, **{key: str(value) for key, value in values.items()}}
    ElementTree.SubElement(parent, tag, attributes).text = text or None
