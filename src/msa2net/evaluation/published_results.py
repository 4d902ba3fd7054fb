"""The paper's results, to stand beside ours: as printed there, never measured here.

Source: Kolahi et al., "MSA²Net: Multi-scale Adaptive Attention-guided Network for Medical Image
Segmentation", BMVC 2024, arXiv 2407.21640.
"""

from msa2net.evaluation.schema import PublishedResults


def _table(columns: str, rows: str) -> tuple[tuple[str, ...], tuple[tuple[str | float, ...], ...]]:
    """Read a table written as text: columns by `|`, one row a line, its name before a `|`."""
    names = tuple(name.strip() for name in columns.split("|"))
    lines = [line.split("|") for line in rows.strip().splitlines()]
    return names, tuple((name.strip(), *map(float, cells.split())) for name, cells in lines)


ISIC_COLUMNS, ISIC_ROWS = _table(
    "DSC | SE | SP | ACC",
    """
    U-Net        | .8545  .8800  .9697  .9404
    AttU-Net     | .8566  .8674  .9863  .9376
    TransUNet    | .8499  .8578  .9653  .9452
    FAT-Net      | .8903  .9100  .9699  .9578
    Swin-UNet    | .8946  .9056  .9798  .9645
    UCTransNet   | .8838  .8429  .9825  .9527
    DermoSegDiff | .9005  .8761  .9811  .9587
    MSA²Net      | .9129  .8840  .9557  .9640
    """,
)

SYNAPSE_COLUMNS, SYNAPSE_ROWS = _table(
    "Params M | FLOPs G | Spl | RKid | LKid | Gal | Liv | Sto | Aor | Pan | DSC | HD95",
    """
    TransUNet    |  96.07 88.91 85.08 77.02 81.87 63.16 94.08 75.62 87.23 55.86 77.49 31.69
    Swin-UNet    |  27.17  6.16 90.66 79.61 83.28 66.53 94.29 76.60 85.47 56.58 79.13 21.55
    MISSFormer   |  42.46  9.89 91.92 82.00 85.21 68.65 94.41 80.81 86.99 65.67 81.96 18.20
    ScaleFormer  | 111.6  48.93 89.40 83.31 86.36 74.97 95.12 80.14 88.73 64.85 82.86 16.81
    HiFormer-B   |  25.51 8.045 90.99 79.77 85.23 65.23 94.61 81.08 86.21 59.52 80.39 14.70
    DAE-Former   |  48.07 27.89 91.82 82.39 87.66 71.65 95.08 80.77 87.84 63.93 82.63 16.39
    PVT-CASCADE  |  35.28  6.40 90.10 80.37 82.23 70.59 94.08 83.69 83.01 64.43 81.06 20.23
    2D D-LKA Net | 101.64 19.92 91.22 84.92 88.38 73.79 94.88 84.94 88.34 67.71 84.27 20.04
    MSA²Net      | 112.77 15.56 92.69 84.24 88.30 74.35 95.59 84.03 89.47 69.30 84.75 13.29
    """,
)

_MARK = "as printed in the paper (Kolahi et al., BMVC 2024), not measured here"

REFERENCES = {
    "isic2018": PublishedResults(
        title=f"ISIC 2018, 520 test images, fractions: {_MARK}",
        columns=ISIC_COLUMNS,
        rows=ISIC_ROWS,
        note=(
            "The SP of MSA²Net is kept as printed, 0.9557, but cannot be right: ACC is a weighted "
            "mean of SE and SP and lies between them, yet the printed ACC, 0.9640, is above both. "
            "SP = 0.9857 fits the other three figures when all four are pooled over the test "
            "pixels."
        ),
    ),
    "synapse": PublishedResults(
        title=(
            "Synapse, 12 test volumes by the transunet rules, DSC in percent, HD95 in voxels: "
            f"{_MARK}"
        ),
        columns=SYNAPSE_COLUMNS,
        rows=SYNAPSE_ROWS,
        note=(
            "The printed DSC of HiFormer-B and DAE-Former is not the mean of their printed organs "
            "(80.33 and 82.64)."
        ),
    ),
}
REFERENCES["btcv"] = REFERENCES["synapse"]  # the same scans, before TransUNet's preprocessing


def reference_for(format: str) -> PublishedResults | None:
    """Return the paper's results on a data format, or None where the paper has none."""
    return REFERENCES.get(format)
