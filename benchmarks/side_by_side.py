"""The reference recipe and ours, part by part in one run: results are compared before times are.

    python benchmarks/side_by_side.py [--only loss,prediction] [--device cuda] [--bfloat16]
        [--compile] [--slices 148] [--run RUN] [--repeats 3] [--threads 2] [--out FILE.json]

Parts: augmentation, loss, network, training, prediction, evaluation. A ratio is the reference's
median divided by ours. Weights are those of `--run` (published ones come there by `msa2net
import-weights`). Without it, `msa2net_github` is drawn from a seed and trained for a few steps on a
phantom's slices, which takes minutes on a CPU, so that labels mean something; they are kept in
`--weights`. MedPy comes with `pip install ".[test]"`.
"""

import argparse
import copy
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import reference_recipe as reference
import torch
from torch import Tensor, nn

from msa2net.benchmark import parts
from msa2net.benchmark.run import machine
from msa2net.benchmark.settings import Settings, settings_for
from msa2net.benchmark.timing import measure
from msa2net.cli.console import keep_touched_memory
from msa2net.data.phantom import ABDOMEN_LABELS
from msa2net.files import write_json
from msa2net.inference.predictor import Predictor
from msa2net.inference.run_folder import choose_device
from msa2net.losses import create_loss
from msa2net.metrics.overlap import confusion_counts, overlap_metrics
from msa2net.metrics.surface import class_surfaces, hd95_of_surfaces
from msa2net.models.weights import load_weights, save_weights

SAMPLES = 100
VOXELS = (1.0, 1.0, 1.0)
CLASSES = len(ABDOMEN_LABELS)
SEEN = {"augment": 58e-3, "resize": 9e-3, "network": 1.8}
"""Seconds that the published code takes on two CPU cores; ours may not be slower than that."""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", help="parts, separated by commas", default=",".join(PARTS))
    parser.add_argument("--device", default="auto")
    parser.add_argument("--bfloat16", action="store_true", help="ours computes in bfloat16")
    parser.add_argument(
        "--compile", action="store_true", help="ours is compiled, training on a GPU only"
    )
    parser.add_argument("--batch", type=int, default=20, help="of the loss and of training")
    parser.add_argument("--slices", type=int, default=148)
    parser.add_argument("--side", type=int, default=512)
    parser.add_argument("--batch-slices", type=int, help="of prediction")
    parser.add_argument("--run", type=Path, help="a run folder with weights of msa2net_github")
    parser.add_argument("--weights", type=Path, help="where weights trained here are kept")
    parser.add_argument("--steps", type=int, default=300, help="of that training")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=1, help="of prediction, by both in turns")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--organs-at-once", type=int, default=1, help="of the slow evaluation")
    parser.add_argument("--quick", action="store_true", help="tiny: only to see that it runs")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    chosen = options.only.split(",")
    if unknown := set(chosen) - set(PARTS):
        parser.error(f"there is no part {', '.join(unknown)}; use {', '.join(PARTS)}")
    if options.threads:
        torch.set_num_threads(options.threads)
    keep_touched_memory()  # as all our commands do; here it is the reference's gain as well
    settings = build_settings(options)
    if options.weights is None:
        name = f"side_by_side_{settings.image_size}_{options.steps}.safetensors"
        options.weights = Path(tempfile.gettempdir()) / name
    result: dict[str, Any] = {"machine": machine(settings), "command": sys.argv[1:]}
    print(result["machine"])
    for name in chosen:
        result[name] = PARTS[name](settings, options)
        print_part(name, result[name])
        if options.out:
            write_json(options.out, result)


def build_settings(options: argparse.Namespace) -> Settings:
    """Turn the options into what the benchmark's own parts take."""
    settings = settings_for(
        choose_device(options.device),
        quick=options.quick,
        precision="bfloat16" if options.bfloat16 else "float32",
        model="msa2net_github",
        batch=options.batch,
        slices=options.slices,
        repeats=options.repeats,
        compile=options.compile,
    )
    if options.quick:
        return settings
    return replace(settings, side=options.side, batch_slices=options.batch_slices)


def print_part(name: str, found: dict[str, Any]) -> None:
    """Print one line, and what was compared below it."""
    times = [found[who] for who in ("reference", "ours")]
    low, high = (f"{1e3 * statistics.median(one):.4g} ms" for one in times)
    ratio = found["ratio"]
    verdict = "no ratio, the results differ" if ratio is None else f"ratio {ratio:.1f}"
    print(
        f"{name:13} reference {low} {spread(times[0])}, ours {high} {spread(times[1])}: {verdict}"
    )
    for key, value in found.items():
        if key not in {"reference", "ours", "ratio"}:
            print(f"{'':13} {key.replace('_', ' ')}: {value}")


def spread(seconds: list[float]) -> str:
    """Write the fastest and the slowest in milliseconds."""
    return f"({1e3 * min(seconds):.4g}–{1e3 * max(seconds):.4g})"


def compared(theirs: list[float], ours: list[float], **facts: object) -> dict[str, Any]:
    """Put times and their ratio together; no ratio where results differ."""
    agrees = facts.get("agrees", True)
    ratio = statistics.median(theirs) / statistics.median(ours) if agrees else None
    return {"reference": theirs, "ours": ours, "ratio": ratio, **facts}


# Parts --------------------------------------------------------------------------------------------


def augmentation(settings: Settings, _: argparse.Namespace) -> dict[str, Any]:
    """Compare what one sample takes on one thread, on average over many draws."""
    side = settings.side
    case = parts.draw_volume(replace(settings, slices=8))
    assert case.label is not None
    unit_ZHW = (case.image[0].astype(np.float32) - parts.CT_LOW) / (parts.CT_HIGH - parts.CT_LOW)
    unit_ZHW = unit_ZHW.clip(0, 1)
    rng = np.random.default_rng(0)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    augment, resize, ours = [], [], []
    call = parts.augment_call(settings)
    call()
    for _repeat in range(settings.repeats):
        began = time.perf_counter()
        changed = [
            reference.augment(unit_ZHW[n % 8], case.label[n % 8], rng) for n in range(SAMPLES)
        ]
        middle = time.perf_counter()
        for pair in changed[: SAMPLES // 4]:
            reference.resize(*pair, settings.image_size)
        end = time.perf_counter()
        for _sample in range(SAMPLES):
            call()
        augment.append((middle - began) / SAMPLES)
        resize.append((end - middle) / (SAMPLES // 4))
        ours.append((time.perf_counter() - end) / SAMPLES)
    torch.set_num_threads(before)
    both = [one + other for one, other in zip(augment, resize, strict=True)]
    return compared(
        both,
        ours,
        reference_augments_ms=1e3 * statistics.median(augment),
        reference_resizes_ms=1e3 * statistics.median(resize),
        no_slower_than_published=both[0] <= SEEN["augment"] + SEEN["resize"],
        on=f"samples of {side}² → {settings.image_size}², one thread each",
    )


def loss(settings: Settings, _: argparse.Namespace) -> dict[str, Any]:
    """Compare Boundary-DoU, forward and backward, and softmax alone."""
    generator = torch.Generator().manual_seed(0)
    _, label_BHW = parts.draw_batch(settings, settings.batch)
    shape = (settings.batch, settings.classes, *label_BHW.shape[1:])
    logits_BKHW = torch.randn(shape, generator=generator).to(settings.device)
    leaf_BKHW = logits_BKHW.clone().requires_grad_()

    def theirs() -> Tensor:
        return torch.autograd.grad(reference.boundary_dou(leaf_BKHW, label_BHW), leaf_BKHW)[0]

    ours = parts.loss_call(logits_BKHW, label_BHW, compile=settings.compiles_training)
    apart = (theirs() - ours()).norm() / theirs().norm()
    require(apart < 1e-4, f"the gradients differ by {apart:.2g}")
    floor = timed(settings, lambda: logits_BKHW.softmax(1))
    return compared(
        timed(settings, theirs),
        timed(settings, ours),
        softmax_alone_ms=1e3 * statistics.median(floor),
        gradients_differ_by=float(apart),
        on="batch {}, {} classes, {}×{}".format(*shape),
    )


def network(settings: Settings, options: argparse.Namespace) -> dict[str, Any]:
    """Compare a forward pass of four slices."""
    model = weights(settings, options)
    image_BChw, _ = parts.draw_batch(settings, 4)
    plain = as_published(model)
    with torch.no_grad():
        expected = plain.eval()(image_BChw).argmax(1)
    theirs = timed(
        settings, parts.forward_call(replace(settings, precision="float32"), plain, image_BChw)
    )
    ours = parts.forward_call(settings, model, image_BChw)
    same = (ours().argmax(1) == expected).float().mean().item()
    return compared(
        theirs,
        timed(settings, ours),
        labels_equal=same,
        no_slower_than_published=statistics.median(theirs) <= SEEN["network"],
        on=f"4 slices of {settings.image_size}², float32 and {settings.precision}",
    )


def training(settings: Settings, options: argparse.Namespace) -> dict[str, Any]:
    """Compare a training step on a batch that is there already."""
    image_BChw, label_Bhw = parts.draw_batch(settings, settings.batch)
    plain = as_published(weights(settings, options))
    optimizer = torch.optim.SGD(plain.parameters(), lr=1e-3, momentum=0.9, weight_decay=1e-4)
    theirs = timed(settings, lambda: reference.train_step(plain, optimizer, image_BChw, label_Bhw))
    ours = parts.step_call(settings, weights(settings, options), image_BChw, label_Bhw)
    return compared(
        theirs,
        timed(settings, ours),
        on=f"batch {settings.batch}, {settings.image_size}², float32 and {settings.precision}",
    )


def prediction(settings: Settings, options: argparse.Namespace) -> dict[str, Any]:
    """Compare a volume from its array to its labels, by the published way back."""
    model, case = weights(settings, options), parts.draw_volume(settings)
    assert case.label is not None
    plain = as_published(model)

    def theirs() -> np.ndarray:
        unit_ZHW = (case.image[0].astype(np.float32) - parts.CT_LOW) / 400.0
        return reference.predict(plain, np.clip(unit_ZHW, 0, 1), settings.image_size)

    predictor = parts.build_predictor(settings, model)
    ours = parts.predict_call(predictor, case, published=True)
    began = time.perf_counter()
    found = ours().labels
    first = time.perf_counter() - began
    their_seconds: list[float] = []
    own_seconds: list[float] = []
    for _ in range(options.rounds):  # in turns: some machines are not as fast all the time
        began = time.perf_counter()
        expected = theirs()
        their_seconds.append(time.perf_counter() - began)
        own_seconds += timed(settings, ours)
    scores = [dice_of(labels, case.label) for labels in (expected, found)]
    apart = float(np.abs(np.subtract(*scores)).max())
    same = float((found == expected).mean())
    return compared(
        their_seconds,
        own_seconds,
        seconds_of_the_first_call=round(first, 1),
        labels_equal=same,
        largest_difference_of_dice=apart,
        dice_of_reference=[round(float(score), 4) for score in scores[0]],
        agrees=same >= 0.999 and apart <= 0.001,
        on=f"{case.image.shape[1:]}, float32 and {settings.precision}",
    )


def evaluation(settings: Settings, options: argparse.Namespace) -> dict[str, Any]:
    """Compare Dice and HD95 of eight organs.

    The reference takes minutes. Several organs at once take less; then their own times are added.
    """
    case = parts.draw_volume(settings)
    truth_ZHW = case.label
    assert truth_ZHW is not None
    moved_ZHW = np.roll(truth_ZHW, (3, 3), axis=(1, 2))

    def ours() -> list[tuple[float, float]]:
        dice = dice_of(moved_ZHW, truth_ZHW)
        each = zip(
            class_surfaces(moved_ZHW, CLASSES), class_surfaces(truth_ZHW, CLASSES), strict=True
        )
        return list(zip(dice, [hd95_of_surfaces(a, b, VOXELS) for a, b in each], strict=True))

    calls = [(moved_ZHW, truth_ZHW, k) for k in range(1, CLASSES)]
    if options.organs_at_once == 1:
        found = [score_timed(call) for call in calls]
    else:
        with get_context("spawn").Pool(options.organs_at_once) as processes:
            found = processes.map(score_timed, calls, chunksize=1)
    expected = [scores for scores, _ in found]
    their_seconds = [sum(seconds for _, seconds in found)]  # minutes: once
    apart = float(np.abs(np.subtract(ours(), expected)).max())
    require(apart < 1e-9, f"scores differ by {apart}")
    return compared(
        their_seconds,
        timed(settings.on(torch.device("cpu")), ours),
        largest_difference=apart,
        on=f"{case.image.shape[1:]}, {CLASSES - 1} organs, {options.organs_at_once} at once",
    )


def score_timed(call: tuple[Any, Any, int]) -> tuple[tuple[float, float], float]:
    """Return the reference's scores of one organ, and the seconds they took."""
    began = time.perf_counter()
    return reference.score(*call), time.perf_counter() - began


PARTS: dict[str, Callable[[Settings, argparse.Namespace], dict[str, Any]]] = {
    "augmentation": augmentation,
    "loss": loss,
    "network": network,
    "training": training,
    "prediction": prediction,
    "evaluation": evaluation,
}


# Helpers ------------------------------------------------------------------------------------------


def weights(settings: Settings, options: argparse.Namespace) -> nn.Module:
    """Load the run's network, or draw one and train it on a few slices, once."""
    if options.run:
        return Predictor.load(options.run, str(settings.device)).model
    model = parts.build_model(settings)
    if options.weights.is_file():
        load_weights(model, options.weights)
    else:
        train_briefly(settings, model, options.steps)
        options.weights.parent.mkdir(parents=True, exist_ok=True)
        save_weights(model, options.weights)
    return model


def as_published(model: nn.Module) -> nn.Module:
    """Copy a network into the memory layout of the published code, with the same weights."""
    return copy.deepcopy(model).to(memory_format=torch.contiguous_format)


def train_briefly(settings: Settings, model: nn.Module, steps: int) -> None:
    """Train on eight phantom slices until its answers are no longer chance."""
    image_BChw, label_BHW = parts.draw_batch(settings, 8)
    loss_of = create_loss({"dice": 1.0, "cross_entropy": 1.0})
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4, weight_decay=0.01)
    rng = np.random.default_rng(0)
    model.train()
    for step in range(steps):
        chosen = torch.from_numpy(rng.permutation(8)[:2]).to(settings.device)
        loss = loss_of(model(image_BChw[chosen]), label_BHW[chosen])
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if step % 10 == 9:
            print(f"training the weights to compare with: step {step + 1}, loss {loss.item():.3f}")


def dice_of(prediction_ZHW: Any, truth_ZHW: Any) -> list[float]:
    """Return the Dice of every class but the background; 0 where there is none."""
    counts = confusion_counts(prediction_ZHW, truth_ZHW, CLASSES)
    return [float(overlap_metrics(*row)["dice"] or 0.0) for row in counts[1:].tolist()]


def timed(settings: Settings, call: Callable[[], object]) -> list[float]:
    """Measure with a warm-up."""
    return list(measure(call, settings.repeats, settings.device).seconds)


def require(holds: bool | Tensor, sentence: str) -> None:
    """Stop where results differ: times of different results are not compared."""
    if not holds:
        raise SystemExit(sentence)


if __name__ == "__main__":
    main()
