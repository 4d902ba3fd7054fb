"""Predicting in bfloat16, beside float32, and the published way back alone, beside both."""

import copy
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from msa2net.data.phantom import abdomen
from msa2net.data.preprocessing import Preprocessing
from msa2net.errors import ConfigError, DataError
from msa2net.inference.engine import most_probable
from msa2net.inference.onnx_backend import OnnxBackend
from msa2net.inference.predictor import Predictor
from msa2net.inference.run_folder import load_run
from msa2net.inference.torch_backend import EnsembleMember, TorchBackend, computing_in, to_bfloat16
from msa2net.models.lka import DilatedDepthwiseConv2d
from msa2net.models.registry import create_model
from msa2net.options import InferenceOptions
from msa2net.prediction.records import (
    SCHEMA,
    Maker,
    Record,
    read_record,
    record_path,
    write_record,
)
from msa2net.prediction.run import predict_files
from prediction_runs import write_run


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    return write_run(tmp_path_factory.mktemp("precision") / "run")


@pytest.fixture(scope="module")
def case():
    return abdomen(0, shape=(8, 64, 64))


def test_labels_are_nearly_those_of_float32(run: Path, case):
    """An untrained network, so answers are close to ties; a trained one's are not."""
    plain = Predictor.load(run, "cpu")(case).labels
    to_bfloat16 = Predictor.load(run, "cpu", precision="bfloat16")(case).labels
    assert (plain == to_bfloat16).mean() > 0.97
    assert len(np.unique(plain)) > 1


def test_reduced_weights_are_what_autocast_makes_of_them():
    torch.manual_seed(0)
    model = create_model("msa2net", 3, 1, encoder="test_maxvit", image_size=32).eval()
    image = torch.randn(2, 1, 32, 32)
    with torch.inference_mode(), computing_in("bfloat16", image.device):
        expected = model(image)
        found = to_bfloat16(model)(image)
    assert torch.equal(found, expected)
    kept = [m for m in to_bfloat16(model).modules() if isinstance(m, DilatedDepthwiseConv2d)]
    assert kept
    assert all(module.weight.dtype == torch.float32 for module in kept)


def test_the_network_that_is_given_stays_as_it_is(run: Path, case):
    """Given in memory or loaded, alone or averaged, to_bfloat16 is a copy, and but one."""
    loaded = Predictor.load([run, run], "cpu", precision="bfloat16")
    ours = load_run(run, "cpu")
    before = copy.deepcopy(ours.model.state_dict())
    other = EnsembleMember(ours.model, ours.preprocessing, precision="bfloat16")
    given = Predictor(
        ours.model, ours.preprocessing, ours.label_names, others=[other], precision="bfloat16"
    )
    assert np.array_equal(loaded(case).labels, given(case).labels)
    for predictor in (loaded, given):
        for member in predictor._engine.groups[0].members:
            assert member.model.head.weight.dtype == torch.bfloat16
            assert to_bfloat16(member.model) is member.model
    assert ours.model.state_dict().keys() == before.keys()
    for name, value in ours.model.state_dict().items():
        assert value.dtype == before[name].dtype
        assert torch.equal(value, before[name]), name


def test_what_cannot_be_computed_in_is_refused(run: Path, tmp_path: Path, monkeypatch):
    unknown = "there is no precision 'float16'; use float32 or bfloat16"
    ours = load_run(run, "cpu")
    arguments = ours.model, ours.preprocessing, ours.label_names

    def refused(message: str, precision) -> None:
        with pytest.raises(ConfigError, match=message):
            Predictor.load(run, "cpu", precision=precision)
        with pytest.raises(ConfigError, match=message):
            Predictor(*arguments, precision=precision)

    refused(unknown, "float16")
    with pytest.raises(ConfigError, match=unknown):
        predict_files(run, [tmp_path], tmp_path / "out", precision="float16")

    def lacking(*_):
        raise RuntimeError("slow_conv2d_forward_mps not implemented for 'BFloat16'")

    monkeypatch.setattr(torch.nn.functional, "conv2d", lacking)
    refused("the device cpu does not compute in bfloat16; predict in float32", "bfloat16")


def test_float32_leaves_the_context_around_it_alone():
    """A validation inside a training in bfloat16 computes as the training does."""
    with torch.autocast("cpu", torch.bfloat16), computing_in("float32", torch.device("cpu")):
        assert torch.is_autocast_enabled("cpu")


def test_the_published_way_alone_is_what_both_ways_give(run: Path, case):
    predictor = Predictor.load(run, "cpu", 2)
    (_, expected), *_ = predictor.segment_both_ways([case])
    (found,) = predictor.segment_as_published([case])
    assert np.array_equal(found.labels, expected.labels)


def test_masks_in_another_precision_are_told_apart(run: Path):
    plain, to_bfloat16 = (
        Maker.of_runs([run], InferenceOptions(precision=precision))
        for precision in ("float32", "bfloat16")
    )
    assert plain.difference(to_bfloat16) == "with --bfloat16"
    assert to_bfloat16.difference(plain) == "without --bfloat16"
    before = plain.model_dump()
    del before["precision"]  # folders written before there was a choice
    assert Maker.model_validate(before) == plain


def test_records_of_the_first_layout_are_read(tmp_path: Path):
    made_by = {"weights": ["w"], "networks": ["n"], "mode": "resize", "flips": False}
    first = {"schema_version": 1, "made_by": made_by, "source": "a.png", "fingerprint": "f"}
    path = record_path(tmp_path, "a")
    path.parent.mkdir()
    path.write_text(json.dumps(first))
    record = read_record(tmp_path, "a")
    assert record is not None
    assert (record.made_by.precision, record.flags, record.anomaly_score) == ("float32", "", None)
    write_record(tmp_path, "b", Record(made_by=record.made_by, source="b.png", fingerprint="f"))
    assert json.loads(record_path(tmp_path, "b").read_text())["schema_version"] == SCHEMA
    assert read_record(tmp_path, "b") is not None
    path.write_text(json.dumps(first | {"schema_version": SCHEMA + 1}))
    with pytest.raises(DataError, match="another version"):
        read_record(tmp_path, "a")


def test_the_first_of_equals_is_the_most_probable():
    values = torch.randint(0, 4, (3, 6, 40, 41), generator=torch.Generator().manual_seed(1)).float()
    preprocessing = Preprocessing(channels=1, image_size=(64, 64))
    group = TorchBackend([EnsembleMember(torch.nn.Identity(), preprocessing)])
    for layout in (torch.contiguous_format, torch.channels_last):
        laid_out = values.to(memory_format=layout)
        for some in (6, 4, 1):
            parts = laid_out.split(some, dim=1)
            found = most_probable(group, parts)
            assert found.dtype == np.uint8
            assert np.array_equal(found, values.numpy().argmax(axis=1))
            exported = most_probable(OnnxBackend(None, preprocessing), (p.numpy() for p in parts))
            assert exported.dtype == np.uint8
            assert np.array_equal(found, exported)
