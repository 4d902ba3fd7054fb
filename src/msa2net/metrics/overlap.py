"""How well two masks overlap: counts of pixels, and the ratios made of them.

tp: predicted and in the truth; fp: predicted only; fn: in the truth only; tn: in neither. A ratio
that would be 0/0 is nan, "not applicable"; what a protocol makes of that stands in protocol.py.
Three empty-mask cases run through the docstrings:

* missed: the truth holds the class, the prediction does not (tp = fp = 0, fn > 0);
* false positive: the prediction holds the class, the truth does not (tp = fn = 0, fp > 0);
* both empty: neither does (tp = fp = fn = 0).
"""

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from msa2net.errors import ConfigError, DataError

LabelArray: TypeAlias = NDArray[np.integer[Any]] | NDArray[np.bool_]
Ratio: TypeAlias = np.float64 | NDArray[np.float64]

_CHUNK = 1 << 20  # pixels at a time: a large volume never becomes a 64-bit copy of itself
_SHOWN = 5  # wrong values named in an error


def confusion_counts(
    prediction: LabelArray, truth: LabelArray, num_classes: int, *, ignore_index: int | None = 255
) -> NDArray[np.int64]:
    """Count tp, fp, fn and tn of every class, each class against all others.

    Args:
        prediction: class indices 0..num_classes-1, integers or bool, any shape.
        truth: the same shape; may also hold `ignore_index`.
        num_classes: number of classes with the background.
        ignore_index: pixels whose truth is this are left out of all four counts; None: no such.

    Returns:
        (num_classes, 4) pixels, columns tp, fp, fn, tn; each row adds up to the pixels counted.

    Raises:
        ConfigError: `num_classes` is below 1.
        DataError: the shapes differ, an array does not hold integers, or a value is no class.
    """
    if num_classes < 1:
        raise ConfigError(f"num_classes is {num_classes}; it must be 1 or more")
    if prediction.shape != truth.shape:
        raise DataError(
            f"the prediction has shape {prediction.shape} but the truth has shape {truth.shape}; "
            "they must be the same grid"
        )
    _check_labels("prediction", prediction, num_classes, None)
    _check_labels("truth", truth, num_classes, ignore_index)

    flat_prediction, flat_truth = prediction.reshape(-1), truth.reshape(-1)
    table = np.zeros((num_classes + 1) * num_classes, dtype=np.int64)
    for start in range(0, flat_truth.size, _CHUNK):
        chunk = flat_truth[start : start + _CHUNK]
        index = chunk.astype(np.intp)
        if ignore_index is not None:
            index[chunk == ignore_index] = num_classes  # a row of its own, dropped below
        index *= num_classes
        index += flat_prediction[start : start + _CHUNK].astype(np.intp)
        table += np.bincount(index, minlength=table.size)

    by_truth_and_prediction = table.reshape(num_classes + 1, num_classes)[:num_classes]
    tp = by_truth_and_prediction.diagonal()
    fp = by_truth_and_prediction.sum(axis=0) - tp
    fn = by_truth_and_prediction.sum(axis=1) - tp
    tn = by_truth_and_prediction.sum() - tp - fp - fn
    return np.stack([tp, fp, fn, tn], axis=1)


def dice(tp: ArrayLike, fp: ArrayLike, fn: ArrayLike) -> Ratio:
    """Dice similarity coefficient, 2·tp / (2·tp + fp + fn), from 0 to 1; also called DSC and F1.

    Missed: 0. False positive: 0. Both empty: nan.
    """
    twice = 2 * _counts(tp)
    return _ratio(twice, twice + _counts(fp) + _counts(fn))


def iou(tp: ArrayLike, fp: ArrayLike, fn: ArrayLike) -> Ratio:
    """Intersection over union (Jaccard index), tp / (tp + fp + fn), from 0 to 1.

    Missed: 0. False positive: 0. Both empty: nan.
    """
    return _ratio(_counts(tp), _counts(tp) + _counts(fp) + _counts(fn))


def sensitivity(tp: ArrayLike, fn: ArrayLike) -> Ratio:
    """Share of the truth that was found (recall), tp / (tp + fn), from 0 to 1.

    Missed: 0. False positive: nan, there was nothing to find. Both empty: nan.
    """
    return _ratio(_counts(tp), _counts(tp) + _counts(fn))


def specificity(fp: ArrayLike, tn: ArrayLike) -> Ratio:
    """Share of the pixels outside the truth that were left alone, tn / (tn + fp), from 0 to 1.

    Missed: 1. False positive: tn / (tn + fp), so 0 where the prediction fills the image.
    Both empty: 1. The truth fills the image, or no pixel is counted: nan.
    """
    return _ratio(_counts(tn), _counts(tn) + _counts(fp))


def precision(tp: ArrayLike, fp: ArrayLike) -> Ratio:
    """Share of the prediction that is right, tp / (tp + fp), from 0 to 1.

    Missed: nan, nothing was predicted. False positive: 0. Both empty: nan.
    """
    return _ratio(_counts(tp), _counts(tp) + _counts(fp))


def accuracy(tp: ArrayLike, fp: ArrayLike, fn: ArrayLike, tn: ArrayLike) -> Ratio:
    """Share of all pixels that are right, (tp + tn) / (tp + fp + fn + tn), from 0 to 1.

    Missed: tn / (tn + fn). False positive: tn / (tn + fp). Both empty: 1.
    No pixel is counted (all are ignored): nan.
    """
    right = _counts(tp) + _counts(tn)
    return _ratio(right, right + _counts(fp) + _counts(fn))


def volume_difference_percent(tp: ArrayLike, fp: ArrayLike, fn: ArrayLike) -> Ratio:
    """Signed relative volume difference, 100·(prediction - truth) / truth, -100 or more, in %.

    In counts 100·(fp - fn) / (tp + fn): too much is positive, too little negative, and 0 says that
    the sizes agree, not the places. All voxels of an image are of one size, so spacing drops out.
    Missed: -100. False positive: nan, there is no volume to compare with. Both empty: nan.
    """
    fp, fn = _counts(fp), _counts(fn)
    return _ratio(100 * (fp - fn), _counts(tp) + fn)


def overlap_metrics(tp: ArrayLike, fp: ArrayLike, fn: ArrayLike, tn: ArrayLike) -> dict[str, Ratio]:
    """Return every ratio of this file by its name; empty-mask cases as each function says."""
    return {
        "dice": dice(tp, fp, fn),
        "iou": iou(tp, fp, fn),
        "sensitivity": sensitivity(tp, fn),
        "specificity": specificity(fp, tn),
        "precision": precision(tp, fp),
        "accuracy": accuracy(tp, fp, fn, tn),
        "volume_difference_percent": volume_difference_percent(tp, fp, fn),
    }


def _counts(value: ArrayLike) -> NDArray[np.float64]:
    """As float64, exact up to 2^53 pixels: doubling a small integer type would wrap around."""
    return np.asarray(value, dtype=np.float64)


def _ratio(part: NDArray[np.float64], whole: NDArray[np.float64]) -> Ratio:
    part, whole = np.broadcast_arrays(part, whole)
    result: NDArray[np.float64] = np.full(whole.shape, np.nan)
    np.divide(part, whole, out=result, where=whole > 0)
    return result if result.ndim else np.float64(result)


def _check_labels(name: str, labels: LabelArray, num_classes: int, also: int | None) -> None:
    """Stop unless every value is one of 0..num_classes-1 or `also`."""
    if labels.dtype.kind not in "biu":
        raise DataError(
            f"the {name} holds {labels.dtype} values; class indices must be integers "
            "(for a network's output take the argmax first)"
        )
    if labels.size == 0 or (labels.min() >= 0 and labels.max() < num_classes):
        return
    wrong = (labels < 0) | (labels >= num_classes)
    if also is not None:
        wrong &= labels != also
    values, counts = np.unique(labels[wrong], return_counts=True)
    if values.size == 0:
        return
    named = [
        f"{value} ({count} pixel{'s' if count > 1 else ''})"
        for value, count in zip(values[:_SHOWN], counts[:_SHOWN], strict=True)
    ]
    if values.size > _SHOWN:
        named.append(f"and {values.size - _SHOWN} more values")
    allowed = f"0..{num_classes - 1}" + ("" if also is None else f" and {also} for ignored pixels")
    raise DataError(
        f"the {name} holds values that are no class: {', '.join(named)}; allowed are {allowed}, "
        "so list every class in the label names or map the labels first"
    )
