"""The abdominal CT phantom: its anatomy, painted organ by organ.

Positions are millimetres in the reference patient, see `phantom_canvas`. What is painted later
covers what was painted before.
"""

import numpy as np
from numpy.typing import NDArray

from msa2net.data.phantom.canvas import Canvas, Path, scan
from msa2net.data.phantom.shapes import Point, ellipsoid, join

AORTA, GALLBLADDER, LEFT_KIDNEY, RIGHT_KIDNEY, LIVER, PANCREAS, SPLEEN, STOMACH = range(1, 9)

_CAVITY_MM = (132.0, 82.0)  # half width and half depth of the space inside the abdominal wall
_CAVITY_Y = -5.0
_WALL_MM = 11.0
_GAS_HU = -930.0


def draw_abdomen(
    rng: np.random.Generator, shape: tuple[int, int, int]
) -> tuple[NDArray[np.int16], NDArray[np.uint8]]:
    """Draw one abdominal CT volume.

    The anatomy does not depend on `shape`: the same generator state gives the same patient at
    any resolution.

    Args:
        rng: source of everything that varies.
        shape: (Z, H, W).

    Returns:
        HU and labels, each (Z, H, W).
    """
    canvas = Canvas(rng, shape)
    _body(canvas)
    _table(canvas)
    _lungs(canvas)
    _bowel(canvas)
    _colon(canvas)
    _spine(canvas)
    _small_vessels(canvas)
    _liver(canvas)
    _spleen(canvas)
    _stomach(canvas)
    _duodenum(canvas)
    _gallbladder(canvas)
    _pancreas(canvas)
    _kidneys(canvas)
    _great_vessels(canvas)
    return scan(canvas), canvas.label


def _body(canvas: Canvas) -> None:
    """Skin, subcutaneous fat, the muscular wall with the ribs, and the fat inside."""
    space, tones, rng = canvas.space.whole, canvas.tones, canvas.rng
    y = space.y - np.float32(_CAVITY_Y)
    power = np.float32(2.4)
    rho = (np.abs(space.x / _CAVITY_MM[0]) ** power + np.abs(y / _CAVITY_MM[1]) ** power) ** (
        1 / power
    )
    radius = np.sqrt(np.square(space.x) + np.square(y))
    outward = radius * (1 - 1 / np.maximum(rho, np.float32(0.05)))  # mm beyond the cavity
    back = np.clip(y / _CAVITY_MM[1], -1, 1)
    skin = _WALL_MM + np.float32(rng.uniform(10, 24)) * (1 - np.float32(0.3) * back)
    pixel = np.float32(canvas.spacing_mm[1])
    cover = np.clip((skin + 2.5 - outward) / pixel + np.float32(0.5), 0, 1)
    canvas.paint(space, cover > 0, -1000 + 1000 * cover)
    canvas.paint(space, outward < skin, tones.fat)
    muscle = tones.muscle + 7 * canvas.lobules
    canvas.paint(space, outward < _WALL_MM, muscle)
    # Ribs slope down to the front, so an axial slice cuts each of them obliquely.
    slope = space.z + np.float32(0.55) * y
    margin = 62 - 70 * np.minimum(back, 0)  # the costal arch rises towards the front
    rib = np.abs((slope + np.float32(rng.uniform(0, 27))) % 27 - 13.5) < 6
    ring = (outward > 1.5) & (outward < 8.5) & (space.z > margin)
    canvas.paint(space, rib & ring & (np.abs(space.x) > 22), 330.0)
    canvas.paint(space, outward < 0, tones.fat)
    canvas.inner[...] = outward < -1


def _table(canvas: Canvas) -> None:
    """The two thin shells of the table, close under the patient's back."""
    rows = np.flatnonzero((canvas.hu > -500).any(axis=(0, 2)))
    y = canvas.scan_y - canvas.scan_y[rows[-1]] - 6 + np.square(canvas.scan_x) / 900
    outside = np.minimum(np.abs(y), np.abs(y - 22)) - 1.8
    cover = np.clip(0.5 - outside / canvas.spacing_mm[1], 0, 1) * (np.abs(canvas.scan_x) < 165)
    np.copyto(canvas.hu, -1000 + 1150 * cover, where=(canvas.hu == -1000))


def _lungs(canvas: Canvas) -> None:
    """Lung bases above the diaphragm, deepest at the back and the sides, and the heart."""
    space = canvas.space.whole
    across, deep = space.x / _CAVITY_MM[0], (space.y - _CAVITY_Y) / _CAVITY_MM[1]
    edge = np.square(across) + np.square(deep)
    front = np.clip(-deep, 0, 1)
    dome = 234 - 58 * np.square(edge) * (1 - np.float32(0.7) * front) - 5 * across
    dome -= 24 * np.exp(-np.square(space.x / 38))  # the heart lies in the dip between two domes
    above = space.z - dome + space.rough
    lung = canvas.inner & (above > 0)
    canvas.paint(space, canvas.inner & (above > -4), canvas.tones.muscle)
    canvas.paint(
        space, lung, np.where(canvas.lobules > 1.7, np.float32(-50), -830 + 40 * canvas.texture)
    )
    middle = np.hypot((space.x - 12) / 58, (space.y + 48) / 50) < 1
    canvas.paint(space, lung & middle, canvas.tones.fat)
    heart = ellipsoid(space, (14, -30, 245), (56, 44, 42))
    canvas.paint(space, lung & (heart < 0), canvas.tones.vein - 15)
    canvas.inner &= above < -4


def _bowel(canvas: Canvas) -> None:
    """Loops of small bowel in the lower front: wall, content and some gas."""
    part = canvas.space.crop((-120, -90, -40), (120, 40, 135))
    loops = canvas.noise(21)[part.box]
    room = ellipsoid(part, (0, -32, 20), (104, 54, 95))
    solid = np.maximum(np.float32(-0.1) - loops, room / 12)
    inside = canvas.inner[part.box]
    canvas.paint(part, inside & (solid < 0), 78.0)
    canvas.paint(part, inside & (solid < -0.35), 40 + 14 * canvas.texture[part.box])
    gas = inside & (solid < -0.8) & (part.y < -35)
    canvas.paint(part, gas, _GAS_HU)


def _colon(canvas: Canvas) -> None:
    """Ascending, transverse and descending colon: wall, stool, and gas where it floats."""
    shift = canvas.jitter()
    paths: tuple[tuple[Path, float], ...] = (
        ([(-106, 22, -40), (-104, 18, 20), (-102, 12, 66)], 21),
        ([(-96, -15, 74), (-50, -58, 70), (10, -66, 62), (70, -58, 88), (104, -12, 126)], 17),
        ([(112, 22, -40), (113, 24, 40), (112, 16, 112)], 14),
    )
    for path, radius in paths:
        part, solid = canvas.tube(_moved(path, shift), [radius] * len(path))
        solid += 2 * part.rough
        inside = canvas.inner[part.box]
        canvas.paint(part, (solid < 0) & inside, 72.0)
        stool = 15 + 45 * canvas.lobules[part.box]
        canvas.paint(part, (solid < -3.5) & inside, stool)
        gas = (canvas.texture[part.box] > 0.2 + (part.y - path[1][1]) / 12) & (solid < -4)
        canvas.paint(part, gas & inside, _GAS_HU)


def _spine(canvas: Canvas) -> None:
    """Back muscles, psoas, vertebrae with discs, spinal canal."""
    part = canvas.space.crop((-85, 15, -60), (85, 125, 300))
    muscle = canvas.tones.muscle + 7 * canvas.lobules[part.box]
    lower = np.clip((120 - part.z) / 120, 0, 1)
    for side in (-1, 1):
        back = np.hypot((part.x - side * 31) / 29, (part.y - 79) / 17)
        psoas = np.hypot((part.x - side * (24 + 14 * lower)) / 17, (part.y - 49) / 17)
        reach = np.float32(1.15) * np.sqrt(lower)
        canvas.paint(part, (back < 1) | (psoas < reach), muscle)
    body = (np.hypot(part.x / 22, (part.y - 45) / 17) - 1) * 19
    disc = np.abs((part.z + canvas.rng.uniform(0, 36)) % 36 - 18) < 4
    canvas.paint(part, body < 0, np.where(disc, np.float32(95), np.float32(420)))
    marrow = 175 + 25 * canvas.texture[part.box]
    canvas.paint(part, (body < -3) & ~disc, marrow)
    arch = np.hypot(part.x / 17, (part.y - 69) / 13)
    process = (np.abs(part.x) < 3.5) & (part.y > 70) & (part.y < 92) & ~disc
    wings = (np.abs(part.y - 66) < 4) & (np.abs(part.x) < 36) & ~disc
    canvas.paint(part, process | wings | ((arch < 1) & (part.y > 58)), 330.0)
    canvas.paint(part, np.hypot(part.x / 10, (part.y - 69) / 8) < 1, 28.0)


def _small_vessels(canvas: Canvas) -> None:
    """Mesenteric and portal vessels, unlabelled."""
    tones = canvas.tones
    paths: tuple[tuple[Path, float, float], ...] = (
        ([(-8, -4, 122), (-6, -16, 90), (-12, -26, 30)], 5.5, tones.vein),
        ([(6, 4, 132), (7, -10, 112), (4, -22, 30)], 4, tones.aorta),
        ([(-8, -2, 124), (25, 6, 136), (84, 24, 158)], 4.5, tones.vein),
        ([(-8, -2, 124), (-22, -3, 140), (-44, -4, 152)], 6.5, tones.vein),
        ([(-20, -34, 60), (30, -40, 56), (60, -20, 66)], 3, tones.vein),
    )
    for path, radius, hu in paths:
        part, solid = canvas.tube(path, [radius] * len(path))
        canvas.paint(part, (solid < 0) & canvas.inner[part.box], hu)


def _liver(canvas: Canvas) -> None:
    tones, size = canvas.tones, canvas.rng.uniform(0.93, 1.06)
    part = canvas.space.crop((-150, -100, 50), (100, 100, 260))
    x, y, z = canvas.jitter()
    right = ellipsoid(
        part, (-72 + x, -2 + y, 160 + z), (64 * size, 74 * size, 84 * size), (0, -8, 0)
    )
    left = ellipsoid(
        part, (-4 + x, -44 + y, 184 + z), (76 * size, 38 * size, 38 * size), (0, -12, 6)
    )
    hollow = ellipsoid(part, (-14 + x, 16 + y, 116 + z), (46, 46, 52))
    solid = np.maximum(join(right, left, 14), -hollow) + 2 * part.rough
    hu = tones.liver + 4 * canvas.texture[part.box]
    canvas.organ(part, solid, hu, LIVER)
    branches: tuple[Path, ...] = (
        ((-20, 12, 218), (-60, 0, 205), (-112, 6, 178)),
        ((-20, 10, 218), (-46, -24, 200), (-74, -48, 176)),
        ((-20, 8, 218), (-8, -20, 208), (22, -44, 192)),
        ((-42, -4, 150), (-70, 10, 150), (-108, 20, 142)),
        ((-42, -4, 150), (-66, -22, 158), (-92, -36, 164)),
        ((-42, -4, 150), (-30, -30, 168), (6, -46, 182)),
    )
    for path in branches:
        part, solid = canvas.tube(_moved(path, (x, y, z)), (5.5, 4.5, 3))
        inside = canvas.label[part.box] == LIVER
        canvas.paint(part, inside & (solid < 0), tones.vein, LIVER)


def _spleen(canvas: Canvas) -> None:
    part = canvas.space.crop((30, -70, 80), (150, 110, 250))
    size = canvas.rng.uniform(0.85, 1.15)
    x, y, z = canvas.jitter()
    outer = ellipsoid(
        part, (98 + x, 24 + y, 166 + z), (31 * size, 46 * size, 50 * size), (14, 0, -12)
    )
    hollow = ellipsoid(part, (58 + x, 4 + y, 166 + z), (32, 38, 60))
    solid = np.maximum(outer, -hollow) + part.rough
    canvas.organ(part, solid, canvas.tones.spleen + 4 * canvas.texture[part.box], SPLEEN)


def _stomach(canvas: Canvas) -> None:
    """The J from the fundus behind to the pylorus in front: wall, fluid, and gas that floats."""
    rng, tones = canvas.rng, canvas.tones
    shift = canvas.jitter()
    path: Path = [
        (56, 22, 206),
        (68, -8, 188),
        (66, -40, 160),
        (38, -60, 130),
        (6, -56, 116),
        (-16, -42, 116),
    ]
    radii = np.array([30, 32, 27, 21, 16, 11]) * rng.uniform(0.85, 1.1)
    part, solid = canvas.tube(_moved(path, shift), radii.tolist())
    solid += 2 * part.rough
    inside = canvas.organ(part, solid, tones.stomach_wall, STOMACH)
    hollow = inside & (solid + 2 * canvas.lobules[part.box] < -5)
    content = tones.stomach_content + 10 * canvas.texture[part.box]
    canvas.paint(part, hollow, content, STOMACH)
    gas = hollow & (part.y < rng.uniform(-62, -36) + shift[1])
    canvas.paint(part, gas, _GAS_HU, STOMACH)


def _duodenum(canvas: Canvas) -> None:
    path: Path = [(-22, -36, 114), (-46, -10, 108), (-46, 8, 84), (-30, 6, 70), (24, 4, 72)]
    part, solid = canvas.tube(path, [10, 11, 11, 10, 9])
    solid += part.rough
    inside = canvas.inner[part.box]
    canvas.paint(part, (solid < 0) & inside, 80.0)
    canvas.paint(part, (solid < -4) & inside, 38 + 12 * canvas.lobules[part.box])


def _gallbladder(canvas: Canvas) -> None:
    part = canvas.space.crop((-110, -100, 50), (10, 50, 170))
    size = canvas.rng.uniform(0.88, 1.2)
    x, y, z = canvas.jitter()
    tilt = (canvas.rng.uniform(10, 40), 0, canvas.rng.uniform(-25, 5))
    solid = (
        ellipsoid(part, (-46 + x, -40 + y, 108 + z), (15 * size, 23 * size, 24 * size), tilt)
        + np.float32(0.7) * part.rough
    )
    inside = canvas.organ(part, solid, canvas.tones.bile, GALLBLADDER)
    canvas.paint(part, inside & (solid > -1.2), 60.0, GALLBLADDER)


def _pancreas(canvas: Canvas) -> None:
    """A curved tube from the head in the duodenal loop to the tail at the spleen."""
    path: Path = [
        (-28, -4, 96),
        (-25, -10, 112),
        (-4, -18, 124),
        (24, -8, 132),
        (50, 8, 142),
        (72, 20, 154),
    ]
    radii = np.array([13, 14.5, 11, 12, 11.5, 9]) * canvas.rng.uniform(0.92, 1.12)
    part, solid = canvas.tube(_moved(path, canvas.jitter(2.5)), radii.tolist())
    solid += np.float32(1.4) * canvas.lobules[part.box]
    hu = canvas.tones.pancreas + 7 * canvas.lobules[part.box]
    canvas.organ(part, solid, hu, PANCREAS, fat_mm=2)


def _kidneys(canvas: Canvas) -> None:
    for side, z0, label in ((-1, 72, RIGHT_KIDNEY), (1, 86, LEFT_KIDNEY)):
        part = canvas.space.crop((side * 60 - 60, -30, -20), (side * 60 + 60, 100, 180))
        size = canvas.rng.uniform(0.88, 1.08)
        x, y, z = canvas.jitter()
        centre = (side * 62 + x, 38 + y, z0 + z)
        half = (25 * size, 26 * size, 53 * size)
        outer = ellipsoid(part, centre, half, (-8, -side * 12, side * 15))
        sinus = ellipsoid(part, (centre[0] - side * 17, centre[1] - 5, centre[2]), (17, 10, 22))
        solid = np.maximum(outer, -sinus) + np.float32(0.8) * part.rough
        cortex = np.where(solid > -6, np.float32(10), np.float32(-6))
        hu = canvas.tones.kidney + cortex + 4 * canvas.texture[part.box]
        canvas.organ(part, solid, hu, label, fat_mm=5)


def _great_vessels(canvas: Canvas) -> None:
    """Inferior vena cava (unlabelled) and aorta, in front of the spine."""
    tones = canvas.tones
    x, y, _ = canvas.jitter(2)
    cava: Path = [(-20, 20, -60), (-20, 20, 100), (-22, 16, 190), (-20, 8, 240)]
    part, solid = canvas.tube(cava, [10, 11, 12, 12])
    canvas.paint(part, (solid < 0) & canvas.inner[part.box], tones.vein - 6)
    path: Path = [(6, 17, -60), (8 + x, 17 + y, 60), (9 + x, 17 + y, 140), (8, 24, 300)]
    radii = np.array([8.5, 9.5, 10.5, 12]) * canvas.rng.uniform(0.92, 1.15)
    part, solid = canvas.tube(path, radii.tolist())
    canvas.paint(part, solid < 2, tones.fat)
    canvas.paint(part, solid < 0, tones.aorta, AORTA)


def _moved(path: Path, shift: Point) -> Path:
    return [(x + shift[0], y + shift[1], z + shift[2]) for x, y, z in path]
