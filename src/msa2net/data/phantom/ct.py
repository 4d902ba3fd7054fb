"""The abdominal CT phantom: a table of anatomy, and the painter that draws a patient from it.

Positions are millimetres in the reference patient: x from the patient's right (−) to the left (+)
with 0 in the midline, y from front (−) to back (+), z from the aorta's bifurcation (0) to the
domes of the diaphragm (240). A case shifts, turns, scales and warps this patient.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from msa2net.data.case import Case
from msa2net.data.geometry import Geometry
from msa2net.data.labels import BACKGROUND, ENCODINGS
from msa2net.data.phantom.shapes import (
    Floats,
    Mask,
    Point,
    check_phantom,
    ellipsoid,
    smooth_noise,
    tube,
)

ABDOMEN_LABELS = (BACKGROUND, *ENCODINGS["transunet"].values())
"""Classes of `abdomen`: the eight Synapse organs in TransUNet's order."""

AORTA, GALLBLADDER, LEFT_KIDNEY, RIGHT_KIDNEY, LIVER, PANCREAS, SPLEEN, STOMACH = range(1, 9)

_ABDOMEN = 1  # keeps this phantom's random stream apart from the others'
_LEAST = (8, 64, 64)
_SIZE_MM = (240.0, 380.0, 380.0)  # what a volume covers along (Z, H, W)
_AIR_HU, _GAS_HU, _FAT_HU, _MUSCLE_HU, _RIB_HU = -1000, -930, -104, 58, 330
_LONG = 1e4  # half axis of what runs through the whole volume
_CAVITY = (0, -5, 0), (136, 86, _LONG)  # the space inside the abdominal wall
_WALL_MM = 11
_MARGIN_MM = 25  # by which a case may displace or grow a structure, at most


class Ellipsoid(NamedTuple):
    """Centre and half axes in mm, and the angles by which it is turned about x, y and z."""

    centre: Point
    half: Point
    tilt_deg: Point = (0, 0, 0)


@dataclass(frozen=True)
class Structure:
    """A part of the body: ellipsoids less others, or a tube, and what fills it.

    Attributes:
        hu: mean of its wall, or of all of it.
        solids, hollows: united ellipsoids, and those taken out of them.
        path, radii: of a tube.
        label: class index, 0 if none is segmented.
        timing: change of HU if the contrast came a standard deviation earlier or later.
        spread: standard deviation of HU between cases.
        grain: standard deviation of HU within a case, in patches of a centimetre.
        core: depth in mm below which there is something else, and its HU.
        gas_y: in the core, what lies in front of this is gas; it floats.
        coat_mm: fat around it.
        grow_mm: range from which its growth is drawn.
        sway_mm: standard deviation of its displacement along each axis.
        rough: how irregular its surface is, as a standard deviation in mm.
        over: paints on this class only; None: on whatever is there.
        in_cavity: stays inside the abdominal wall.
    """

    hu: float
    solids: tuple[Ellipsoid, ...] = ()
    hollows: tuple[Ellipsoid, ...] = ()
    path: tuple[Point, ...] = ()
    radii: tuple[float, ...] = ()
    label: int = 0
    timing: float = 0
    spread: float = 4
    grain: float = 5
    core: tuple[float, float] | None = None
    gas_y: float | None = None
    coat_mm: float = 0
    grow_mm: tuple[float, float] = (0, 0)
    sway_mm: float = 3
    rough: float = 1
    over: int | None = None
    in_cavity: bool = True

    @property
    def bounds(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Lowest and highest (x, y, z) that it may reach in any case."""
        centres = np.array([*(solid.centre for solid in self.solids), *self.path])
        reach = np.array([*(max(solid.half) for solid in self.solids), *self.radii])[:, None]
        reach = reach + _MARGIN_MM
        return (centres - reach).min(axis=0), (centres + reach).max(axis=0)

    def distances(self, xyz: Floats) -> Floats:
        """Return the signed distances (Z, H, W) of positions (3, Z, H, W) from its surface."""
        if self.path:
            return tube(xyz, self.path, self.radii)
        solid = np.minimum.reduce([ellipsoid(xyz, *part) for part in self.solids])
        return np.maximum.reduce([solid, *(-ellipsoid(xyz, *part) for part in self.hollows)])


# What is painted later covers what was painted before.
ANATOMY = (
    # Loops of small bowel; the ascending, transverse and descending colon with stool and gas.
    Structure(
        78, path=((-70, -30, 10), (-20, -55, 40), (40, -30, 20), (75, -45, 60), (20, -58, 75)),
        radii=(14, 16, 14, 15, 13), core=(3.5, 40), gas_y=-52, sway_mm=6, rough=5,
    ),
    Structure(
        78, path=((70, -20, -20), (10, -50, -10), (-50, -45, -30), (-10, -30, 60), (-60, -50, 62)),
        radii=(14, 16, 15, 13, 14), core=(3.5, 40), gas_y=-50, sway_mm=6, rough=5,
    ),
    Structure(
        78, path=((-30, 5, 20), (20, -5, 45), (75, 10, 70), (60, -10, 100), (30, -35, 90)),
        radii=(12, 14, 14, 13, 12), core=(3.5, 40), gas_y=-60, sway_mm=6, rough=5,
    ),
    Structure(
        72, path=((-106, 22, -40), (-104, 18, 20), (-102, 12, 66)), radii=(21, 21, 21),
        core=(3.5, 15), gas_y=10, grain=30, rough=2,
    ),
    Structure(
        72, path=((-96, -15, 74), (-50, -58, 70), (10, -66, 62), (70, -58, 88), (104, -12, 126)),
        radii=(17, 17, 17, 17, 17), core=(3.5, 15), gas_y=-58, grain=30, rough=2,
    ),
    Structure(
        72, path=((112, 22, -40), (113, 24, 40), (112, 16, 112)), radii=(14, 14, 14),
        core=(3.5, 15), gas_y=14, grain=30, rough=2,
    ),
    # Muscles of the back and psoas; vertebrae, their arches, and the spinal canal.
    Structure(
        _MUSCLE_HU,
        solids=(
            *(Ellipsoid((side * 31, 79, 0), (29, 17, _LONG)) for side in (-1, 1)),
            *(Ellipsoid((side * 36, 50, 0), (19, 19, 110), (0, side * 8, 0)) for side in (-1, 1)),
        ),
        sway_mm=0, in_cavity=False,
    ),
    Structure(
        420, solids=(Ellipsoid((0, 45, 0), (22, 17, _LONG)),),
        core=(3, 175), grain=25, sway_mm=0, rough=0, in_cavity=False,
    ),
    Structure(
        _RIB_HU,
        solids=(
            Ellipsoid((0, 69, 0), (17, 13, _LONG)),
            Ellipsoid((0, 80, 0), (3.5, 13, _LONG)),
            Ellipsoid((0, 66, 0), (36, 4, _LONG)),
        ),
        sway_mm=0, rough=0, in_cavity=False,
    ),
    Structure(
        28, solids=(Ellipsoid((0, 69, 0), (10, 8, _LONG)),), sway_mm=0, rough=0, in_cavity=False
    ),
    # Mesenteric, splenic and portal vessels, of which no class is segmented.
    Structure(140, path=((-8, -4, 122), (-6, -16, 90), (-12, -26, 30)), radii=(6, 6, 6), timing=8),
    Structure(152, path=((6, 4, 132), (7, -10, 112), (4, -22, 30)), radii=(4, 4, 4), timing=-8),
    Structure(
        140, path=((-44, -4, 152), (-8, -2, 124), (25, 6, 136), (84, 24, 158)),
        radii=(6.5, 6, 4.5, 4.5), timing=8,
    ),
    # The organs, and the veins in the liver.
    Structure(
        106, label=LIVER,
        solids=(
            Ellipsoid((-72, -2, 160), (64, 74, 84), (0, -8, 0)),
            Ellipsoid((-4, -44, 184), (76, 38, 38), (0, -12, 6)),
            Ellipsoid((-36, -30, 176), (60, 50, 50)),
        ),
        hollows=(Ellipsoid((-14, 16, 116), (46, 46, 52)),),
        timing=8, spread=5, coat_mm=1.5, grow_mm=(-4, 3), rough=2,
    ),
    *(
        Structure(140, path=path, radii=(5.5, 4.5, 3), label=LIVER, timing=8, over=LIVER)
        for path in (
            ((-20, 12, 218), (-60, 0, 205), (-112, 6, 178)),
            ((-20, 10, 218), (-46, -24, 200), (-74, -48, 176)),
            ((-20, 8, 218), (-8, -20, 208), (22, -44, 192)),
            ((-42, -4, 150), (-70, 10, 150), (-108, 20, 142)),
            ((-42, -4, 150), (-66, -22, 158), (-92, -36, 164)),
        )
    ),
    Structure(
        122, label=SPLEEN, solids=(Ellipsoid((98, 24, 166), (31, 46, 50), (14, 0, -12)),),
        hollows=(Ellipsoid((58, 4, 166), (32, 38, 60)),),
        timing=6, spread=5, coat_mm=1.5, grow_mm=(-5, 5),
    ),
    Structure(
        82, label=STOMACH,
        path=(
            (56, 22, 206), (68, -8, 188), (66, -40, 160),
            (38, -60, 130), (6, -56, 116), (-16, -42, 116),
        ),
        radii=(30, 32, 27, 21, 16, 11),
        spread=5, core=(5, 28), gas_y=-49, coat_mm=1.5, grow_mm=(-4, 2), rough=2,
    ),
    Structure(
        80, path=((-22, -36, 114), (-46, -10, 108), (-46, 8, 84), (-30, 6, 70), (24, 4, 72)),
        radii=(10, 11, 11, 10, 9), core=(4, 38), grain=12,
    ),
    Structure(
        60, label=GALLBLADDER, solids=(Ellipsoid((-46, -40, 108), (15, 23, 24), (25, 0, -10)),),
        core=(1.2, 8), coat_mm=1.5, grow_mm=(-2, 4), rough=0.7,
    ),
    Structure(
        94, label=PANCREAS,
        path=(
            (-28, -4, 96), (-25, -10, 112), (-4, -18, 124),
            (24, -8, 132), (50, 8, 142), (72, 20, 154),
        ),
        radii=(13, 14.5, 11, 12, 11.5, 9),
        timing=-5, spread=6, grain=8, coat_mm=2, grow_mm=(-1, 1.4), sway_mm=2, rough=1.5,
    ),
    *(
        Structure(
            188, label=label,
            solids=(Ellipsoid((side * 62, 38, z), (25, 26, 53), (-8, -12 * side, 15 * side)),),
            hollows=(Ellipsoid((side * 45, 33, z), (17, 10, 22)),),
            timing=10, spread=8, core=(6, 172), coat_mm=5, grow_mm=(-3, 2),
        )
        for side, z, label in ((-1, 72, RIGHT_KIDNEY), (1, 86, LEFT_KIDNEY))
    ),
    # Lung bases above the two domes of the diaphragm, with the heart between them.
    Structure(
        -830, solids=(Ellipsoid((0, -5, 250), (150, 100, 90)),),
        hollows=(
            Ellipsoid((-60, -14, 130), (78, 84, 106)),
            Ellipsoid((60, -14, 125), (76, 84, 106)),
            Ellipsoid((0, -40, 240), (62, 50, 90)),
            Ellipsoid((0, 30, 240), (32, 50, 200)),
        ),
        grain=40, sway_mm=2, rough=1.5, coat_mm=1,
    ),
    Structure(130, solids=(Ellipsoid((14, -30, 250), (56, 44, 40)),), timing=8, coat_mm=4),
    # Inferior vena cava and aorta, in front of the spine.
    Structure(
        134, path=((-20, 20, -60), (-20, 20, 100), (-22, 16, 190), (-20, 8, 240)),
        radii=(10, 11, 12, 12), timing=8, sway_mm=1, rough=0.5,
    ),
    Structure(
        152, label=AORTA, path=((6, 17, -60), (8, 17, 60), (9, 17, 140), (8, 24, 300)),
        radii=(8.5, 9.5, 10.5, 12),
        timing=-8, spread=6, coat_mm=2, grow_mm=(-0.7, 1.4), sway_mm=1, rough=0.3,
    ),
)  # fmt: skip


def abdomen(index: int, *, seed: int = 0, shape: tuple[int, int, int] = (32, 128, 128)) -> Case:
    """Draw an abdominal CT volume with eight organs, all of them present.

    The patient depends on (seed, index) only; `shape` sets how finely he is scanned. Axial slices
    as on a viewer: row 0 is the front, column 0 the patient's right, slice 0 the lowest.

    Args:
        index: which case, from 0; also its id, `phantom_0003`.
        seed: which series of cases, from 0.
        shape: (Z, H, W), at least (8, 64, 64).

    Returns:
        Case with image (1, Z, H, W) int16 in HU, label (Z, H, W) uint8 indexing `ABDOMEN_LABELS`,
        and the spacing at which the volume covers 240 mm along the body and the whole body
        across (380 mm if square).

    Raises:
        DataError: `shape` is too small or not three numbers, or `index` or `seed` is negative.
    """
    check_phantom(index, seed, shape, _LEAST)
    patient = _Patient(np.random.default_rng([seed, index, _ABDOMEN]), shape)
    patient.paint_body()
    for structure in ANATOMY:
        patient.paint(structure)
    patient.paint_table()
    geometry = Geometry.from_spacing(patient.spacing_mm)
    return Case(f"phantom_{index:04d}", patient.scan()[None], patient.label, geometry)


class _Patient:
    """A volume being painted.

    Attributes:
        rng: source of everything that varies.
        spacing_mm: voxel spacing along (Z, H, W): square pixels, the whole body in view.
        hu, label: (Z, H, W).
        xyz: position of each voxel in the reference patient, (3, Z, H, W).
        cavity: where abdominal organs may lie, (Z, H, W).
        texture, rough: smooth noise with features of 9 mm and of 19 mm.
        timing: of the contrast, for all organs together, in standard deviations.
    """

    def __init__(self, rng: np.random.Generator, shape: tuple[int, int, int]) -> None:
        self.rng = rng
        # A body and its table are at most 310 mm deep, so wide pictures need not be 380 mm high.
        pixel = max(310 / shape[1] if shape[1] < shape[2] else 0, _SIZE_MM[2] / shape[2])
        self.spacing_mm = (_SIZE_MM[0] / shape[0], pixel, pixel)
        self.hu: Floats = np.full(shape, _AIR_HU, np.float32)
        self.label: NDArray[np.uint8] = np.zeros(shape, np.uint8)
        self._axes = [
            ((np.arange(n) - (n - 1) / 2) * step).astype(np.float32)
            for n, step in zip(shape, self.spacing_mm, strict=True)
        ]
        self.timing = rng.normal()
        self.xyz = self._positions()
        self.cavity: Mask = np.zeros(shape, np.bool_)
        self.texture, self.rough = self._noise(9), self._noise(19)
        # Lowest and highest position met at each index of an axis, as the axes are turned.
        self._spans = [
            (position.min(axis=others), position.max(axis=others))
            for position, others in zip(self.xyz, ((0, 1), (0, 2), (1, 2)), strict=True)
        ]

    def _noise(self, cell_mm: float) -> Floats:
        return smooth_noise(self.rng, self._axes, (130, 200, 200), cell_mm)

    def _positions(self) -> Floats:
        """Shift, turn, scale and warp the reference patient."""
        z, y, x = np.meshgrid(*self._axes, indexing="ij")
        angle = np.deg2rad(self.rng.normal(0, 2.5))
        cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
        xyz = np.stack([cos * x + sin * y, cos * y - sin * x, z + np.float32(120)])
        scale = self.rng.uniform((0.94, 0.92, 0.95), (1.04, 1.06, 1.05))
        shift = self.rng.uniform(-5, 5, 3)
        for axis, warp_mm in enumerate((2.5, 2.5, 4)):
            xyz[axis] = xyz[axis] / scale[axis] + shift[axis] + warp_mm * self._noise(55)
        return xyz

    def _box(self, structure: Structure) -> tuple[slice, ...]:
        """Return the smallest box of voxels that holds a structure, along (Z, H, W)."""
        box = []
        for (lowest, highest), low, high in zip(self._spans, *structure.bounds, strict=True):
            where = np.flatnonzero((highest >= low) & (lowest <= high))
            box.append(slice(where[0], where[-1] + 1) if where.size else slice(0))
        return tuple(box[::-1])

    def paint(self, structure: Structure) -> None:
        """Paint a structure: its coat of fat, itself, its core, and the gas in it."""
        rng, box = self.rng, self._box(structure)
        shift = rng.normal(0, structure.sway_mm, 3).clip(-8, 8).astype(np.float32)
        hu = structure.hu + structure.timing * self.timing + structure.spread * rng.normal()
        grow, level = rng.uniform(*structure.grow_mm), rng.uniform(-12, 12)
        xyz = self.xyz[(slice(None), *box)] - shift[:, None, None, None]
        solid = structure.distances(xyz) + structure.rough * self.rough[box] - grow
        room = self.cavity[box] if structure.in_cavity else np.ones_like(solid, np.bool_)
        if structure.over is not None:
            room = room & (self.label[box] == structure.over)
        self._fill(box, room & (solid < structure.coat_mm), _FAT_HU)
        texture = structure.grain * self.texture[box]
        self._fill(box, room & (solid < 0), hu + texture, structure.label)
        if structure.core is not None:
            depth, core_hu = structure.core
            core = room & (solid < -depth)
            self._fill(box, core, core_hu + (hu - structure.hu) + texture, structure.label)
            if structure.gas_y is not None:
                gas = core & (xyz[1] < structure.gas_y + level)
                self._fill(box, gas, _GAS_HU, structure.label)

    def _fill(
        self, box: tuple[slice, ...], where: Mask, hu: Floats | float, label: int = 0
    ) -> None:
        np.copyto(self.hu[box], hu, where=where)
        self.label[box][where] = label

    def paint_body(self) -> None:
        """Paint skin, subcutaneous fat, the muscular wall with the ribs, and the fat inside."""
        _, y, z = self.xyz
        outward = ellipsoid(self.xyz, *_CAVITY)
        skin = _WALL_MM + self.rng.uniform(10, 24) * (1 - 0.3 * np.clip(y / _CAVITY[1][1], -1, 1))
        # Ribs slope down to the front, so an axial slice cuts each of them obliquely, and end at
        # the costal arch, which rises towards the front.
        rib = np.abs((z + 0.55 * y + self.rng.uniform(0, 27)) % 27 - 13.5) < 6
        rib &= (np.abs(outward - 5) < 3.5) & (z > 62 - 0.8 * np.minimum(y, 0))
        inside = [outward < -1, rib, outward < _WALL_MM, outward < skin, outward < skin + 2.5]
        muscle = _MUSCLE_HU + 7 * self.texture
        self.hu = np.select(inside, [_FAT_HU, _RIB_HU, muscle, _FAT_HU, 0], _AIR_HU)
        self.cavity = inside[0]

    def paint_table(self) -> None:
        """Paint the two thin shells of the table, close under the patient's back."""
        _, y, x = self._axes
        rows = np.flatnonzero((self.hu > -500).any(axis=(0, 2)))
        below = y[:, None] - y[rows[-1]] - 6 + np.square(x) / 900
        outside = np.minimum(np.abs(below), np.abs(below - 22)) - 1.8
        cover = np.clip(0.5 - outside / self.spacing_mm[1], 0, 1) * (np.abs(x) < 165)
        np.copyto(self.hu, _AIR_HU + 1150 * cover, where=self.hu == _AIR_HU)

    def scan(self) -> NDArray[np.int16]:
        """Blur as a scanner does, add its grainy noise, and round to whole HU."""
        rng, (_, y, x) = self.rng, self._axes
        blur, grain = max(0.5, 1 / self.spacing_mm[1]), max(0.55, 0.9 / self.spacing_mm[1])
        hu: Floats = gaussian_filter(self.hu, (0, blur, blur), truncate=3)
        noise: Floats = gaussian_filter(
            rng.standard_normal(hu.shape, dtype=np.float32), (0, grain, grain), truncate=3
        )
        noise *= rng.uniform(10, 20) / noise.std()
        # Rays through the middle of the body lose most photons, so the middle is the noisiest.
        noise *= 0.75 + 0.5 * np.exp(-np.square(y[:, None] / 110) - np.square(x / 150))
        return np.clip(np.rint(hu + noise), -1024, 1500).astype(np.int16)
