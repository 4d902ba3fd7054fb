"""What type checkers know of the public names; `make check` checks it, nothing here runs."""

from pathlib import Path
from typing import assert_type

import msa2net
from msa2net import Case, Config, OnnxPredictor, Predictor, Segmentation
from msa2net.models.base import Network
from msa2net.prediction.run import PredictionResult
from msa2net.training.session import TrainingResult


def use(case: Case, file: Path) -> None:
    config = msa2net.load_config(file)
    assert_type(config, Config)
    assert_type(msa2net.train(config, file), TrainingResult)
    assert_type(msa2net.create_model("msa2net", num_classes=2), Network)
    predictor = Predictor.load(file)
    assert_type(predictor, Predictor)
    assert_type(OnnxPredictor.load(file), OnnxPredictor)
    assert_type(predictor(case), Segmentation)
    assert_type(predictor(case).save(file), Path)
    assert_type(msa2net.predict_files([file], [file], file), PredictionResult)
    assert_type(msa2net.__version__, str)
    try:
        msa2net.evaluate(file, file)
    except msa2net.Msa2NetError as error:
        assert_type(error, msa2net.Msa2NetError)
    msa2net.predct  # type: ignore[attr-defined]  # noqa: B018 - a misspelt name is found
