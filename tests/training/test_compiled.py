"""Predicting and training with a compiled network, beside the plain one."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch._dynamo.exc import TorchDynamoException
from torch._inductor import config as inductor

from msa2net.compat import unfused_attention
from msa2net.data.phantom import abdomen
from msa2net.errors import ConfigError
from msa2net.inference.predictor import Predictor
from msa2net.losses import create_loss
from msa2net.models.registry import create_model
from msa2net.prediction.run import predict_files
from msa2net.training.compiled import CompiledStep
from prediction_runs import write_run


def fused(network: torch.nn.Module) -> int:
    """Count the modules whose attention is fused."""
    return sum(bool(vars(module).get("fused_attn")) for module in network.modules())


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    return write_run(tmp_path_factory.mktemp("compiled") / "run")


@pytest.fixture(scope="module")
def case():
    return abdomen(0, shape=(10, 96, 96))


@pytest.mark.parametrize("mode", ["resize", "sliding"])
def test_only_full_batches_are_compiled_for(run: Path, case, mode, monkeypatch):
    sizes = []

    def no_compiler(model, **_):
        def call(image):
            sizes.append(len(image))
            return model(image)

        return call

    monkeypatch.setattr(torch, "compile", no_compiler)
    plain = Predictor.load(run, "cpu", 4, mode=mode)(case).labels
    found = Predictor.load(run, "cpu", 4, mode=mode, compile=True)(case).labels
    assert set(sizes) == {4}
    assert np.array_equal(found, plain)


def test_a_failing_compiler_is_one_sentence(run: Path, case, monkeypatch):
    def no_compiler(model, **_):
        def call(image):
            raise TorchDynamoException("no working C++ compiler found\nand much more")

        return call

    monkeypatch.setattr(torch, "compile", no_compiler)
    predictor = Predictor.load(run, "cpu", compile=True)
    with pytest.raises(ConfigError, match=r"without --compile.*no working C\+\+ compiler found$"):
        predictor(case)


def test_a_compiler_finds_frozen_weights_and_attention_unfused(run: Path, case, monkeypatch):
    """Options given to `torch.compile` itself come too late for it to freeze anything."""
    seen = []

    def no_compiler(model, **_):
        def call(image):
            seen.append((inductor.freezing, fused(model)))
            return model(image)

        return call

    monkeypatch.setattr(torch, "compile", no_compiler)
    predictor = Predictor.load(run, "cpu", 4, compile=True)
    predictor(case)
    assert set(seen) == {(True, 0)}
    assert not inductor.freezing
    assert fused(predictor.model) > 0


@torch.no_grad()
def test_unfused_attention_is_the_same():
    model = create_model("msa2net", 3, 1, encoder="test_maxvit", image_size=64).eval()
    image = torch.randn(2, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    plain = model(image)
    with unfused_attention(model):
        torch.testing.assert_close(model(image), plain, rtol=1e-4, atol=1e-4)
        assert fused(model) == 0
    assert fused(model) == 8


def test_exported_networks_are_not_compiled(tmp_path: Path):
    (tmp_path / "network.onnx").touch()
    with pytest.raises(ConfigError, match="--compile"):
        predict_files(tmp_path / "network.onnx", ["x.png"], tmp_path / "out", compile=True)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_compiled_answers_are_the_plain_ones(run: Path, case, precision):
    """Compiled once: a batch that is not full does not compile anew."""
    torch.compiler.reset()  # what was compiled for other weights is another network
    plain = Predictor.load(run, "cpu", 4, precision=precision)(case).labels
    compiling = Predictor.load(run, "cpu", 4, precision=precision, compile=True)
    with torch._dynamo.config.patch(error_on_recompile=True):
        found = compiling(case).labels
    assert (found == plain).mean() >= (0.9999 if precision == "float32" else 0.97)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["msa2net", "msa2net_reference", "msa2net_github"])
@pytest.mark.parametrize("training", [False, True])
def test_a_network_is_one_graph(name: str, training: bool):
    model = create_model(name, 3, 1, encoder="test_maxvit", image_size=64).train(training)
    found = torch._dynamo.explain(model)(torch.randn(2, 1, 64, 64))
    assert (found.graph_count, found.graph_break_count) == (1, 0), found.break_reasons


@pytest.mark.parametrize(
    "device",
    [
        pytest.param("cpu", marks=pytest.mark.slow),
        pytest.param(
            "cuda",
            marks=[
                pytest.mark.gpu,
                pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
            ],
        ),
    ],
)
def test_compiled_steps_are_the_plain_ones(device: str):
    """Several, since CUDA graphs are recorded in the second and played from the third on."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(4, 2, 1, 64, 64, generator=generator).to(device)
    labels = torch.randint(0, 3, (4, 2, 64, 64), generator=generator).to(device)
    loss = create_loss({"boundary_dou": 1.0, "cross_entropy": 1.0})
    losses: list[torch.Tensor] = []
    weights: list[torch.Tensor] = []
    for compiled in (False, True):
        torch.manual_seed(1)
        model = create_model("msa2net", 3, 1, encoder="test_maxvit", image_size=64).to(device)
        optimizer = torch.optim.SGD(model.train().parameters(), lr=0.01, fused=True)
        step = CompiledStep(model, loss, graphs=True) if compiled else None
        found = []
        for image, label in zip(images, labels, strict=True):
            value = step(image, label) if step else loss(model(image), label)
            found.append(value.detach())
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
        losses.append(torch.stack(found))
        weights.append(torch.cat([one.detach().flatten() for one in model.parameters()]))
    torch.testing.assert_close(losses[1], losses[0], rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(weights[1], weights[0], rtol=0, atol=1e-4)


@pytest.mark.slow
def test_a_step_with_its_loss_is_one_graph():
    model = create_model("msa2net", 3, 1, encoder="test_maxvit", image_size=64).train()
    step = CompiledStep(model, create_loss({"boundary_dou": 1.0, "dice": 1.0}), graphs=True)
    label = torch.randint(0, 3, (2, 64, 64))
    found = torch._dynamo.explain(step._plain)(torch.randn(2, 1, 64, 64), label)
    assert (found.graph_count, found.graph_break_count) == (1, 0), found.break_reasons
