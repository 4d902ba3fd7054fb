"""What `dataset.json` of prepared data may say: checked on opening, whoever wrote it."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from msa2net.config.types import MAX_CHANNELS
from msa2net.data.case import is_name
from msa2net.data.geometry import MM_PER_UNIT
from msa2net.data.labels import IGNORE
from msa2net.data.prepared.intensity_statistics import ChannelStatistics

Number = Annotated[float, Field(allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=0)]
Side = Annotated[int, Field(ge=1, lt=2**31)]
Name = Annotated[str, Field(min_length=1, max_length=1000)]
Row = tuple[Number, Number, Number, Number]
Affine = tuple[Row, Row, Row, Row]
Turn = tuple[Annotated[int, Field(ge=0, le=2)], Literal[-1, 1]]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class LayoutIndex(_Strict):
    """See `FileLayout`."""

    shape: tuple[Side, Side, Side]
    affine: Affine
    orientation: tuple[Turn, Turn, Turn]
    sform_code: int
    qform_code: int
    units: str
    qform: tuple[Number, ...] | None
    version: int = 1

    @model_validator(mode="after")
    def _is_known(self) -> Self:
        if sorted(axis for axis, _ in self.orientation) != [0, 1, 2]:
            raise ValueError("every axis of a scan becomes another one")
        if self.units not in MM_PER_UNIT:
            raise ValueError(f"a unit of length is one of {', '.join(MM_PER_UNIT)}")
        return self

    @property
    def grid(self) -> tuple[int, ...]:
        """Return (Z, H, W) of the training orientation."""
        sides = {axis: side for (axis, _), side in zip(self.orientation, self.shape, strict=True)}
        return sides[2], sides[1], sides[0]


class GeometryIndex(_Strict):
    """See `Geometry`."""

    spacing_mm: tuple[Positive, Positive, Positive] | None
    affine: Affine | None
    layout: LayoutIndex | None


class FileIndex(BaseModel):
    """A source file."""

    model_config = ConfigDict(frozen=True, extra="allow")

    path: Annotated[str, Field(pattern="^[^\0]*$")]
    bytes: Count
    mtime_ns: int
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    exif_orientation: Annotated[int, Field(ge=1, le=8)] = 1


class CaseIndex(_Strict):
    """See `StoredCase`."""

    id: Name
    split: Literal["train", "val", "test"]
    shape: tuple[Annotated[int, Field(ge=1, le=MAX_CHANNELS)], Side, Side, Side]
    geometry: dict[str, Any]
    files: list[FileIndex]
    recipe: str
    patient: str
    group: str = ""
    intensity: tuple[ChannelStatistics, ...] = ()
    voxels: dict[Annotated[str, Field(pattern="^[0-9]{1,3}$")], Count] = {}

    @field_validator("id")
    @classmethod
    def _names_files(cls, name: str) -> str:
        if not is_name(name):
            raise ValueError("no case can be called so, since its files are named by it")
        return name

    @model_validator(mode="after")
    def _has_a_grid(self) -> Self:
        layout = GeometryIndex.model_validate(self.geometry).layout
        if layout is not None and layout.grid != self.shape[1:]:
            raise ValueError(f"shape is {self.shape}, and the source file has {layout.grid}")
        return self


class StoreIndex(_Strict):
    """See `Store`; the fields of older versions' indices have defaults."""

    format: str
    kind: Literal["photograph", "volume"]
    label_names: Annotated[tuple[Name, ...], Field(min_length=2, max_length=IGNORE)]
    channels: Annotated[int, Field(ge=1, le=MAX_CHANNELS)]
    intensity: Literal["fixed", "percentile"]
    low: Number
    high: Number
    cases: tuple[CaseIndex, ...]
    encoding: str | None = None

    @model_validator(mode="after")
    def _names_differ(self) -> Self:
        ids = [case.id for case in self.cases]
        for names, what in ((self.label_names, "two classes"), (ids, "two cases")):
            if len(set(names)) < len(names):
                raise ValueError(f"{what} have the same name")
        return self


def with_geometry(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """Bring a row of schema 1 to schema 2, which has patients and files' layouts."""
    if "geometry" in row:
        return row
    of_grid = {name: row[name] for name in ("spacing_mm", "affine")} | {"layout": None}
    rest = {name: value for name, value in row.items() if name not in of_grid}
    return rest | {"geometry": of_grid, "patient": ""}
