"""The patient behind the abdominal CT phantom: contrast, position, shape, and the scanner.

Positions are millimetres in the reference patient: x from the patient's right (−) to the left (+)
with 0 in the midline, y from front (−) to back (+), z from the aorta's bifurcation (0) to the
domes of the diaphragm (240). A case shifts, turns, scales and warps this patient.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from msa2net.data.phantom.shapes import Floats, Mask, Point, Region, Space, smooth_noise, tube

Path = Sequence[Point]
Numbers = NDArray[np.floating]

SIZE_MM = (240.0, 380.0, 380.0)
"""What a volume covers along (Z, H, W)."""


@dataclass(frozen=True)
class Tones:
    """HU of one case in the portal-venous phase; liver, spleen and pancreas overlap by intent."""

    fat: float
    muscle: float
    vein: float
    aorta: float
    liver: float
    spleen: float
    kidney: float
    pancreas: float
    bile: float
    stomach_wall: float
    stomach_content: float

    @classmethod
    def draw(cls, rng: np.random.Generator) -> "Tones":
        """Draw the tones of one case."""
        timing = rng.normal()  # early or late after the contrast, for all organs together
        own = rng.normal(size=8).tolist()
        liver = 106 + 8 * timing + 5 * own[0]
        return cls(
            fat=-104 + 4 * own[1],
            muscle=58 + 3 * own[2],
            vein=liver + 34 + 4 * own[3],
            aorta=152 - 8 * timing + 6 * own[3],
            liver=liver,
            spleen=122 + 6 * timing + 5 * own[4],
            kidney=178 + 10 * timing + 8 * own[5],
            pancreas=94 - 5 * timing + 6 * own[6],
            bile=8 + 4 * own[7],
            stomach_wall=82 + 5 * own[6],
            stomach_content=rng.uniform(10, 45),
        )


class Canvas:
    """The volume being painted.

    Attributes:
        rng: source of everything that varies.
        tones: HU of the tissues.
        spacing_mm: voxel spacing along (Z, H, W).
        hu: (Z, H, W), air at first.
        label: (Z, H, W), background at first.
        inner: (Z, H, W), where abdominal organs may lie.
        scan_x: position of the columns from the scanner's axis in mm, (W,).
        scan_y: position of the rows from the scanner's axis in mm, (H, 1).
        space: position of each voxel in the reference patient.
        texture: smooth noise with features of 11 mm.
        lobules: smooth noise with features of 8 mm.
    """

    def __init__(self, rng: np.random.Generator, shape: tuple[int, int, int]) -> None:
        self.rng = rng
        self.tones = Tones.draw(rng)
        self.spacing_mm = spacing(shape)
        self.hu: Floats = np.full(shape, -1000, np.float32)
        self.label: NDArray[np.uint8] = np.zeros(shape, np.uint8)
        self.inner: Mask = np.zeros(shape, np.bool_)
        self._axes = [
            ((np.arange(n) - (n - 1) / 2) * step).astype(np.float32)
            for n, step in zip(shape, self.spacing_mm, strict=True)
        ]
        self.scan_x = self._axes[2]
        self.scan_y = self._axes[1][:, None]
        self.space = self._place_patient()
        self.texture = self.noise(11)
        self.lobules = self.noise(8)

    def noise(self, cell_mm: float) -> Floats:
        """Return a smooth random field over the whole volume, standard deviation about 1."""
        return smooth_noise(self.rng, self._axes, (130, 200, 200), cell_mm)

    def _place_patient(self) -> Space:
        rng, (z, y, x) = self.rng, self._axes
        shift = rng.uniform(-5, 5, 3)
        scale = rng.uniform((0.95, 0.92, 0.94), (1.05, 1.06, 1.04)).astype(np.float32)
        angle = np.deg2rad(rng.normal(0, 2.5))
        cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
        zz, yy, xx = np.meshgrid(
            z / scale[0] + np.float32(120 + shift[0]),
            y + np.float32(shift[1]),
            x + np.float32(shift[2]),
            indexing="ij",
        )
        return Space(
            x=(cos * xx + sin * yy) / scale[2] + np.float32(2.5) * self.noise(55),
            y=(cos * yy - sin * xx) / scale[1] + np.float32(2.5) * self.noise(55),
            z=zz + 4 * self.noise(55),
            rough=np.float32(1.6) * self.noise(19),
        )

    def tube(self, path: Path, radii: Sequence[float]) -> tuple[Region, Floats]:
        """Return a tube along `path` and the region that it was made in."""
        part = self.space.around(path, max(radii) + 8)
        return part, tube(part, path, radii)

    def jitter(self, amount_mm: float = 4) -> Point:
        """Return a random displacement (x, y, z) of an organ."""
        x, y, z = np.clip(self.rng.normal(0, amount_mm, 3), -2 * amount_mm, 2 * amount_mm)
        return float(x), float(y), float(z)

    def paint(self, part: Region, where: Mask, hu: Numbers | float, label: int = 0) -> None:
        """Set HU and label of the voxels `where` of the box `part`."""
        np.copyto(self.hu[part.box], hu, where=where)
        self.label[part.box][where] = label

    def organ(
        self, part: Region, solid: Floats, hu: Numbers | float, label: int, fat_mm: float = 1.5
    ) -> Mask:
        """Paint an organ and a coat of fat around it; return where the organ is."""
        inner = self.inner[part.box]
        self.paint(part, (solid < fat_mm) & inner, self.tones.fat)
        where = (solid < 0) & inner
        self.paint(part, where, hu, label)
        return where


def spacing(shape: tuple[int, int, int]) -> Point:
    """Return the voxel spacing in mm along (Z, H, W): square pixels, the whole body in view."""
    # A body and its table are at most 310 mm deep, so wide pictures need not be 380 mm high.
    pixel = max(310 / shape[1] if shape[1] < shape[2] else 0, SIZE_MM[2] / shape[2])
    return SIZE_MM[0] / shape[0], pixel, pixel


def scan(canvas: Canvas) -> NDArray[np.int16]:
    """Blur as a scanner does, add its grainy noise, and round to whole HU."""
    rng, spacing_mm = canvas.rng, canvas.spacing_mm
    blur = max(0.5, 1.0 / spacing_mm[1])
    hu: Floats = gaussian_filter(canvas.hu, (0, blur, blur), truncate=3)
    grain = max(0.55, 0.9 / spacing_mm[1])
    noise: Floats = gaussian_filter(
        rng.standard_normal(hu.shape, dtype=np.float32), (0, grain, grain), truncate=3
    )
    noise *= np.float32(rng.uniform(10, 20) / noise.std())
    # Rays through the middle of the body lose most photons, so the middle is the noisiest.
    dark = np.square(canvas.scan_y / 110) + np.square(canvas.scan_x / 150)
    noise *= np.float32(0.75) + np.float32(0.5) * np.exp(-dark)
    image: NDArray[np.int16] = np.clip(np.rint(hu + noise), -1024, 1500).astype(np.int16)
    return image
