"""What this package relies on in torch, timm and Lightning and they do not promise.

Each test says first what breaks here when it fails.
"""

import copy
from contextlib import contextmanager, nullcontext
from pathlib import Path

import lightning as L
import pytest
import timm
import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader

from msa2net import compat


def test_blocks_that_are_computed_twice():
    """Breaks train.gradient_checkpointing: names of weights, or what surrounds a computation."""
    entered = []

    @contextmanager
    def noting():
        entered.append(True)
        yield

    block = nn.Sequential(nn.Linear(4, 4), nn.Sigmoid(), nn.Linear(4, 4))
    plain, model = copy.deepcopy(block), nn.Sequential()
    model.add_module("a", compat.checkpoint_block(block, lambda: (nullcontext(), noting())))
    assert [compat.is_checkpointed(one) for one in (model.a, block)] == [True, False]
    assert compat.block_inside(model.a) is block
    assert model.state_dict().keys() == {f"a.{name}" for name in plain.state_dict()}
    for network in (model, plain):
        network(torch.ones(2, 4)).sum().backward()
    assert entered == [True]
    assert torch.equal(block[0].weight.grad, plain[0].weight.grad)


def test_norms_of_batches_are_known():
    """Breaks train.gradient_checkpointing: statistics would count a batch twice."""
    norms = (nn.BatchNorm2d(3), nn.SyncBatchNorm(3), timm.layers.BatchNormAct2d(3))
    assert all(map(compat.is_batch_norm, norms))
    assert not compat.is_batch_norm(nn.GroupNorm(1, 3))


def test_many_tensors_move_at_once():
    """Breaks train.ema: the moving average of the weights."""
    targets = [torch.zeros(2), torch.ones(3)]
    compat.lerp_all_(targets, [torch.ones(2), torch.zeros(3)], 0.25)
    assert [tensor.tolist() for tensor in targets] == [[0.25] * 2, [0.75] * 3]


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_memory_is_told_apart(device: str):
    """Breaks the estimate of a training's memory, and what `msa2net check CONFIG` says of it."""
    one = torch.zeros(4, device=device)
    first = compat.storage_id(one.untyped_storage())
    assert compat.storage_id(one[1:].untyped_storage()) == first
    held = compat.hold_storage_id(one.untyped_storage())
    del one
    others = [torch.zeros(4, device=device) for _ in range(50)]
    assert first not in {compat.storage_id(other.untyped_storage()) for other in others}
    assert held is not None


@pytest.mark.filterwarnings("ignore")
def test_a_recorded_computation_is_known():
    """Breaks counted and exported networks: they would not show the paper's convolutions."""
    seen = []

    def look(x):
        seen.append(compat.is_tracing())
        return x + 1

    look(torch.ones(1))
    torch.jit.trace(look, torch.ones(1), check_trace=False)
    assert seen == [False, True]


def test_a_network_that_cannot_be_compiled_raises_what_is_caught():
    """Breaks --compile: a traceback instead of the sentence on what is missing."""

    def unknown(*_):
        raise ZeroDivisionError("no compiler")

    failing = torch.compile(lambda x: x + 1, backend=unknown)
    with pytest.raises(compat.compiler_error(), match="no compiler"):
        failing(torch.ones(1))


def test_weights_are_constants_inside_alone():
    """Breaks the speed of --compile on a CPU."""
    from torch._inductor import config

    with compat.freezing_weights():
        assert config.freezing
    assert not config.freezing


def test_a_failed_write_of_torch_is_known(tmp_path: Path):
    """Breaks the sentence on a full disk while a checkpoint is written."""

    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    with (tmp_path / "a.ckpt").open("wb") as file:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
        try:
            with pytest.raises(RuntimeError) as failed:
                torch.save({"a": torch.ones(3000)}, file)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert compat.is_failed_write(failed.value)
    assert not compat.is_failed_write(RuntimeError("another"))


def test_a_killed_worker_is_known():
    """Breaks the sentence on train.workers; how it is raised: tests/training/test_failures.py."""
    gone = RuntimeError("DataLoader worker (pid 3) is killed by signal: Killed.")
    assert compat.is_killed_worker(gone)
    assert not compat.is_killed_worker(RuntimeError("Caught KeyError in DataLoader worker 0"))


def test_the_state_of_a_schedule_has_known_keys():
    """Breaks --resume: every checkpoint would be called damaged."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=0.1)
    state = LambdaLR(optimizer, lambda step: 1.0).state_dict()
    assert state.keys() <= compat.SCHEDULE_STATE


def test_maxvit_is_known_by_its_module():
    """Breaks encoders of MaxViT and CoAtNet: their last norm, and the names of their weights."""
    known = {
        name: compat.is_maxvit(name) for name in ("test_maxvit", "coatnet_0_rw_224", "resnet18")
    }
    assert known == {"test_maxvit": True, "coatnet_0_rw_224": True, "resnet18": False}


def test_attention_has_a_switch():
    """Breaks export and --compile: torch stops at the fused kernel."""
    network = timm.create_model("test_vit").eval()
    image = torch.randn(1, 3, 160, 160)
    with torch.no_grad():
        fused = network(image)
        with compat.unfused_attention(network):
            assert compat.unfuse_attention(network) == []
            torch.testing.assert_close(network(image), fused)
    assert len(compat.unfuse_attention(network)) > 0


class Counting(L.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.epochs: list[int] = []
        self.loaders = 0

    def train_dataloader(self) -> DataLoader:
        self.loaders += 1
        return DataLoader([torch.ones(1)])

    def training_step(self, batch):
        self.epochs.append(self.trainer.current_epoch)
        return (self.weight * batch).sum()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


@pytest.mark.filterwarnings("ignore:.*LeafSpec")
@pytest.mark.parametrize("reuse", [True, False])
def test_a_trainer_counts_on_and_asks_for_loaders(tmp_path: Path, reuse: bool):
    """Breaks --resume: epochs would count from 0, or the rest of an epoch stand for all others."""
    given, model = L.Callback(), Counting()
    trainer = L.Trainer(
        default_root_dir=tmp_path, accelerator="cpu", max_epochs=6, callbacks=[given], logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    assert given in compat.callbacks_of(trainer)
    compat.set_epochs_done(trainer, 3)
    compat.set_loader_reuse(trainer, reuse)
    trainer.fit(model)
    assert model.epochs == [3, 4, 5]
    assert model.loaders == (1 if reuse else 3)
