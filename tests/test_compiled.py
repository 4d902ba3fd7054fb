"""Predicting with a compiled network, beside the plain one."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch._dynamo.exc import TorchDynamoException

from msa2net.data.phantom import abdomen
from msa2net.errors import ConfigError
from msa2net.inference.predictor import Predictor
from msa2net.models.registry import create_model
from msa2net.prediction.run import predict_files
from prediction_runs import write_run


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


def test_exported_networks_are_not_compiled(tmp_path: Path):
    (tmp_path / "network.onnx").touch()
    with pytest.raises(ConfigError, match="--compile"):
        predict_files(tmp_path / "network.onnx", ["x.png"], tmp_path / "out", compile=True)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_compiled_answers_are_the_plain_ones(run: Path, case, precision):
    """Compiled once: a batch that is not full does not compile anew."""
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
