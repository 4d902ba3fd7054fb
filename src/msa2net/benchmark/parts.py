"""The parts of a user's wait, each ready to be called again and again.

Axes: B batch, C channels, Z slices, h rows, w columns.
"""

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import SGD
from torch.utils.flop_counter import FlopCounterMode

from msa2net.benchmark.settings import Settings
from msa2net.config import AugmentConfig
from msa2net.data.case import Case, Segmentation
from msa2net.data.loading.augment import Augmentation
from msa2net.data.loading.slices import SliceDataset
from msa2net.data.phantom import ABDOMEN_LABELS, abdomen
from msa2net.data.prepared.slice_files import SliceArrays, write_slices
from msa2net.data.preprocessing import Preprocessing
from msa2net.inference.predictor import Predictor
from msa2net.inference.torch_backend import computing_in
from msa2net.losses import create_loss
from msa2net.metrics.protocol import CaseRow
from msa2net.metrics.scoring import case_rows
from msa2net.models.registry import create_model
from msa2net.training.compiled import CompiledStep

AUGMENT = AugmentConfig(
    horizontal_flip=0.5,
    vertical_flip=0.5,
    affine=0.8,
    rotate_degrees=20.0,
    translate=0.1,
    scale=(0.7, 1.4),
    shear_degrees=10.0,
    brightness=0.2,
    contrast=0.2,
    noise_std=0.02,
)
"""Everything that a grey image can meet."""

CT_LOW, CT_HIGH = -125.0, 275.0
STORED = 64  # slices to read from


def build_model(settings: Settings) -> nn.Module:
    """Build the network with weights drawn from seed 0, on its device."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = create_model(
            settings.model,
            settings.classes,
            1,
            encoder=settings.encoder,
            image_size=settings.image_size,
        )
    return model.to(settings.device)


def draw_batch(settings: Settings, count: int) -> tuple[Tensor, Tensor]:
    """Draw images (B, 1, h, w) and labels (B, h, w) of a phantom abdomen, on the device."""
    size = settings.image_size
    case = abdomen(0, shape=(8, size, size))
    assert case.label is not None
    order = np.arange(count) % 8
    unit_BChw = (case.image[0, order, None].astype(np.float32) - CT_LOW) / (CT_HIGH - CT_LOW)
    image_BChw = torch.from_numpy((unit_BChw.clip(0, 1) - 0.5) / 0.5)
    label_BHW = torch.from_numpy(case.label[order]).long()
    return image_BChw.to(settings.device), label_BHW.to(settings.device)


def multiply_adds(settings: Settings) -> int:
    """Count those of one image: half of what torch counts in convolutions and matrix products."""
    size = settings.image_size
    with torch.device("meta"):
        model = create_model(
            settings.model, settings.classes, 1, encoder=settings.encoder, image_size=size
        ).eval()
        image_BChw = torch.empty(1, 1, size, size)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(image_BChw)
    return counter.get_total_flops() // 2


def forward_call(settings: Settings, model: nn.Module, image_BChw: Tensor) -> Callable[[], Tensor]:
    """Return a forward pass in evaluation mode."""
    model.eval()

    @torch.inference_mode()
    def call() -> Tensor:
        with computing_in(settings.precision, settings.device):
            logits_BKhw: Tensor = model(image_BChw)
        return logits_BKhw

    return call


def step_call(
    settings: Settings, model: nn.Module, image_BChw: Tensor, label_Bhw: Tensor
) -> Callable[[], Tensor]:
    """Return a training step: forward, loss, backward, SGD."""
    optimizer = SGD(model.parameters(), lr=1e-3, momentum=0.9, weight_decay=1e-4, fused=True)
    loss_of = create_loss({"boundary_dou": 1.0})
    compiled = CompiledStep(model, loss_of, graphs=True) if settings.compiles_training else None

    def call() -> Tensor:
        model.train()
        with computing_in(settings.precision, settings.device):
            if compiled is None:
                loss: Tensor = loss_of(model(image_BChw), label_Bhw)
            else:
                loss = compiled(image_BChw, label_Bhw)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        return loss.detach()

    return call


def loss_call(
    logits_BKhw: Tensor, label_Bhw: Tensor, *, compile: bool = False
) -> Callable[[], Tensor]:
    """Return Boundary-DoU, forward and backward; the call returns the gradient."""
    loss_of: nn.Module = create_loss({"boundary_dou": 1.0})
    if compile:
        loss_of.compile(dynamic=False)
    leaf_BKhw = logits_BKhw.detach().requires_grad_()

    def call() -> Tensor:
        (gradient_BKhw,) = torch.autograd.grad(loss_of(leaf_BKhw, label_Bhw), leaf_BKhw)
        return gradient_BKhw

    return call


def augment_call(settings: Settings) -> Callable[[], Tensor]:
    """Return the augmentation of the next of many samples."""
    image_BChw, label_Bhw = draw_batch(_on_cpu(settings), 8)
    unit_BChw, labels_Bhw = (image_BChw + 1) / 2, label_Bhw.to(torch.uint8)
    augmentation, count = Augmentation(AUGMENT), iter(range(10**9))

    def call() -> Tensor:
        index = next(count)
        place = index % len(unit_BChw)
        return augmentation(unit_BChw[place], labels_Bhw[place], (0, 0, index))[0]

    return call


@contextmanager
def reading_call(settings: Settings) -> Iterator[Callable[[], Tensor]]:
    """Give the reading of one random training slice from disk, without augmentation."""
    size = settings.image_size
    rng = np.random.default_rng(0)
    with TemporaryDirectory() as name:
        folder = Path(name)
        images = rng.random((STORED, 1, size, size), dtype=np.float32).astype(np.float16)
        labels = rng.integers(0, 9, (STORED, size, size), dtype=np.uint8)
        pairs = ((i.tobytes(), k.tobytes()) for i, k in zip(images, labels, strict=True))
        write_slices(folder / "case.npy", pairs, images.shape)
        dataset = SliceDataset(
            SliceArrays(folder, [("case", "case.npy", STORED)], 1, (size, size)),
            Preprocessing(channels=1, image_size=(size, size)),
            Augmentation(AugmentConfig()),
            seed=0,
        )

        def call() -> Tensor:
            image_Chw: Tensor = dataset[0, int(rng.integers(STORED))]["image"]
            return image_Chw

        yield call


def draw_volume(settings: Settings) -> Case:
    """Draw a CT of `slices` slices with its labels; 148 of 512² take 20 s."""
    return abdomen(0, shape=(settings.slices, settings.side, settings.side))


def build_predictor(settings: Settings, model: nn.Module) -> Predictor:
    """Make the predictor of imported published weights: stretched by splines, CT window."""
    preprocessing = Preprocessing(
        channels=1,
        image_size=(settings.image_size, settings.image_size),
        fit="stretch",
        resampling="spline",
        clip=False,
        low=CT_LOW,
        high=CT_HIGH,
    )
    return Predictor(
        model.eval(),
        preprocessing,
        ABDOMEN_LABELS[: settings.classes],
        settings.batch_slices,
        precision=settings.precision,
        compile=settings.compile,
    )


def predict_call(
    predictor: Predictor, case: Case, *, published: bool
) -> Callable[[], Segmentation]:
    """Return the prediction of a volume, on its own grid or by the published way back."""
    way = predictor.segment_as_published if published else predictor.segment
    return lambda: next(iter(way([case])))


def evaluate_call(case: Case) -> Callable[[], list[CaseRow]]:
    """Return all scores of a volume, against itself moved by three voxels, with distances."""
    truth_ZHW = case.label
    assert truth_ZHW is not None
    moved_ZHW = np.roll(truth_ZHW, (3, 3), axis=(1, 2))
    return lambda: case_rows(
        case.id,
        moved_ZHW,
        truth_ZHW,
        ABDOMEN_LABELS,
        spacing_mm=(3.0, 0.8, 0.8),
        distances=True,
    )


def start_call() -> None:
    """Start the command line once, in a process of its own."""
    subprocess.run(
        [sys.executable, "-m", "msa2net", "--help"], check=True, stdout=subprocess.DEVNULL
    )


def _on_cpu(settings: Settings) -> Settings:
    return settings.on(torch.device("cpu"))
