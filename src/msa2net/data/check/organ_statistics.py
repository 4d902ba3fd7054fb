"""What an adult's abdominal organs look like in a scan: how large, where, and how far they reach.

It serves to tell organs apart and to notice impossible ones, not to judge anybody's health.

Sources: volumes of liver, spleen, kidneys, pancreas and adrenals are the means of women and men in
Geraghty et al., Abdominal Imaging 29:482–490, 2004 (149 adults, CT). The other volumes, all
positions and all extents are rounded from two bodies that were drawn independently of one another:
a real CT whose organs a model outlined (TotalSegmentator's example) and `phantom.abdomen`; the
oesophagus, which neither has, follows from its course in front of the aorta to the stomach.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Organ:
    """One organ of an adult lying on the back.

    Attributes:
        volume_ml: typical.
        spread: standard deviation of the volume's logarithm between patients.
        least_ml, most_ml: beyond these something is wrong, even in the ill.
        place_mm: typical centre to the left, back and head of the middle of the eight organs.
        extent_mm: standard deviation of its voxels' positions along the same axes.
        looks: what to tell it by.
    """

    volume_ml: float
    spread: float
    least_ml: float
    most_ml: float
    place_mm: tuple[float, float, float]
    extent_mm: tuple[float, float, float]
    looks: str


# fmt: off
ORGANS: dict[str, Organ] = {
    #                               mL    ±   least   most   left back  head   extent
    "spleen":                 Organ(210, 0.6,  20, 2500, ( 96,  28,  16), (18, 20, 21),
        "a medium organ at the back of the far left"),
    "right kidney":           Organ(175, 0.5,  20, 1000, (-72,  35, -42), (14, 14, 25),
        "a medium organ at the back, on the liver's side"),
    "left kidney":            Organ(175, 0.5,  20, 1000, ( 61,  36, -27), (14, 14, 25),
        "a medium organ at the back, on the spleen's side"),
    "gallbladder":            Organ( 35, 0.8,   1,  500, (-62, -44, -14), ( 8, 12, 10),
        "a small organ at the front, under the liver"),
    "oesophagus":             Organ( 15, 0.6,   1,  150, ( 10,   3,  75), ( 7,  7, 22),
        "a thin structure at the top, near the middle"),
    "liver":                  Organ(1550, 0.4, 300, 6000, (-71, -18,  29), (42, 38, 30),
        "by far the largest organ"),
    "stomach":                Organ(300, 0.8,  20, 4000, ( 40, -35,  30), (24, 30, 28),
        "a large organ at the front of the left"),
    "aorta":                  Organ( 80, 0.5,  10, 1000, (  4,  11,   0), ( 5,  8, 58),
        "a long thin structure near the middle"),
    "inferior vena cava":     Organ( 70, 0.5,   5,  500, (-22,  -1, -14), ( 8,  7, 45),
        "a long thin structure near the middle"),
    "portal and splenic vein": Organ(30, 0.6,   1,  250, (  3, -18,  14), (37, 18, 14),
        "a thin structure that runs across the middle"),
    "pancreas":               Organ( 75, 0.6,   5,  400, (  6, -15,  -2), (34, 13, 16),
        "a flat organ that lies across the middle"),
    "right adrenal":          Organ(  4, 0.6, 0.2,  150, (-37,  17,  26), ( 7,  9,  8),
        "a tiny organ above the kidney on the liver's side"),
    "left adrenal":           Organ(  4, 0.6, 0.2,  150, ( 38,  15,  28), ( 6,  8, 10),
        "a tiny organ above the kidney on the spleen's side"),
}
# fmt: on
