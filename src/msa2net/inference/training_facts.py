"""What is known of how weights came about, as a checked object; all of it may be absent."""

from pydantic import BaseModel, ConfigDict


class TrainingMetadata(BaseModel):
    """`ModelMetadata.training`, which `train` writes as a plain dict; what else is there is left.

    Attributes:
        best_epoch: whose weights were kept, counted from 1.
        val_dice, test_dice: of that epoch, on the split that chose it; None if none did.
        val_dice_by_class, test_dice_by_class: likewise; None of a class that no case has.
        weights: how they were chosen: best on val, best on test, last.
        averaged: they are the moving average.
        trained_on: the splits whose cases were trained on.
        flips: the directions in which samples were mirrored.
        epochs: planned.
        epochs_run: done when the training ended, or when weights were kept if it was cut off.
        finished: whether the training came to its end; None of older versions.
        seconds: of training until then.
        precision: what `auto` came to.
        warnings: what speaks against a training that came to nothing.
        imported_from: file name of published weights.
        sha256: of that file.
    """

    model_config = ConfigDict(
        frozen=True, extra="ignore", protected_namespaces=(), allow_inf_nan=False
    )

    best_epoch: int | None = None
    val_dice: float | None = None
    test_dice: float | None = None
    val_dice_by_class: dict[str, float | None] = {}
    test_dice_by_class: dict[str, float | None] = {}
    weights: str | None = None
    averaged: bool = False
    trained_on: tuple[str, ...] = ()
    flips: tuple[str, ...] = ()
    epochs: int | None = None
    epochs_run: int | None = None
    finished: bool | None = None
    seconds: float | None = None
    precision: str | None = None
    seed: int | None = None
    device: str | None = None
    warnings: tuple[str, ...] = ()
    imported_from: str | None = None
    sha256: str | None = None
