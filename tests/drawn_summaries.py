"""Summaries of masks drawn at random, and what a run says of flags and calibration."""

import functools
import json
import shutil

import numpy as np

from msa2net.evaluation.case_assessments import summarise_assessments
from msa2net.evaluation.published_results import reference_for
from msa2net.evaluation.schema import Origin, ScoredData, ScoredModel
from msa2net.evaluation.summary import build_summary
from msa2net.metrics.calibration import reliability_table
from msa2net.metrics.protocol import PROTOCOLS, get_protocol, standard_protocol
from msa2net.metrics.scoring import case_rows
from msa2net.quality.monitor import QualityMonitor
from msa2net.quality.reference_ranges import Range, ReferenceRanges

ORGANS = (
    *("background", "aorta", "gallbladder", "left_kidney", "right_kidney"),
    *("liver", "pancreas", "spleen", "stomach"),
)
THIRTEEN = (
    *("background", "spleen", "right kidney", "left kidney", "gallbladder", "oesophagus", "liver"),
    *("stomach", "aorta", "inferior vena cava", "portal and splenic vein", "pancreas"),
    *("right adrenal", "left adrenal"),
)
PHASES = ("end diastole", "end systole")


def summary_of(
    names, kind, data, cases, protocols=tuple(PROTOCOLS), failed_distance="diagonal", **options
):
    """Score and sum up as an evaluation of a run does; how intervals were made is not told."""
    rows = []
    for i, (prediction, truth) in enumerate(cases):
        if "group" in options:
            options["group"] = PHASES[i % 2]
        options["failed_distance"] = failed_distance
        rows += case_rows(f"case{i}", prediction, truth, names, **options)
    origin = Origin(
        split="test",
        model=ScoredModel(name="msa2net_pico", parameters=1, weights_sha256=""),
        data=ScoredData(format=data, hash="", same_as_training=True),
        versions={},
        reference=reference_for(data),
    )
    standard = standard_protocol(failed_distance)
    chosen = [standard if name == "standard" else get_protocol(name) for name in protocols]
    summary = build_summary(rows, names, kind, chosen, failed_distance, origin)
    return summary.model_copy(update={"intervals": None, "worst": {}})


@functools.cache
def random_volumes(names, **options):
    """Four small volumes with one class nowhere and one false positive."""
    rng = np.random.default_rng(0)
    cases = []
    for i in range(4):
        truth = rng.integers(0, len(names), (2, 8, 8))
        truth[truth == 3] = 0  # no left kidney in any case
        prediction = np.where(rng.random(truth.shape) < 0.8, truth, 0)
        if i == 0:
            truth[truth == 1] = 0  # so a false positive
        cases.append((prediction, truth))
    return summary_of(names, "volume", "synapse", cases, **options)


RANGES = {
    "size:mm3:liver": Range(low=13.5, centre=14.0, high=14.5),
    "spacing:slices:": Range(low=0.0, centre=1.0, high=2.0),
}


def usual(**changes):
    facts = {"train_cases": 18, "val_cases": 6, "temperature": 1.5, "ranges": RANGES, "limits": {}}
    return ReferenceRanges(**facts | changes)


def monitor_of(assessments):
    monitor = QualityMonitor(usual(), calibration=True)
    monitor.assessments = assessments
    rng = np.random.default_rng(0)
    confidence = rng.uniform(0.4, 1, 4000)
    right = rng.random(4000) < confidence
    over = np.minimum(1, confidence + 0.1)
    monitor.tables_2B3 = np.stack(
        [reliability_table(over, right), reliability_table(confidence, right)]
    )
    return monitor


def with_assessments(run, folder, monitor):
    shutil.copytree(run, folder)
    path = folder / "evaluation" / "summary.json"
    assessments = summarise_assessments(monitor, usual())
    content = json.loads(path.read_text()) | {"assessments": assessments.model_dump()}
    path.write_text(json.dumps(content))
    return assessments
