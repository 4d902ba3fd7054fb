"""Summaries of masks drawn at random, and what a run says of flags and calibration."""

import copy
import functools
import json
import shutil

import numpy as np

from msa2net.evaluation.case_assessments import summarise_assessments
from msa2net.evaluation.published_results import reference_for
from msa2net.metrics import case_rows, summarise, summarise_groups
from msa2net.metrics.calibration import reliability_table
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


def summary_of(names, kind, data, cases, **options):
    rows = []
    for i, (prediction, truth) in enumerate(cases):
        if "group" in options:
            options["group"] = PHASES[i % 2]
        rows += case_rows(f"case{i}", prediction, truth, names, **options)
    summary = {
        "schema": 1,
        "split": "test",
        "cases": len(cases),
        "label_names": list(names),
        "image_kind": kind,
        "model": {"name": "msa2net_pico", "parameters": 1, "weights_sha256": ""},
        "data": {"format": data, "hash": ""},
        "protocols": {
            name: summarise(rows, names, name) for name in ("standard", "isic", "transunet")
        },
        "reference": reference_for(data),
    }
    groups = {name: summarise_groups(rows, names, name) for name in summary["protocols"]}
    if groups["standard"]:
        summary["groups"] = {
            group: {"cases": 2, "protocols": {name: own[group] for name, own in groups.items()}}
            for group in groups["standard"]
        }
    return summary


@functools.cache
def volumes_once(names, **options):
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


def random_volumes(names, **options):
    return copy.deepcopy(volumes_once(names, **options))  # tests change what they get


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


def with_trust(run, folder, monitor):
    shutil.copytree(run, folder)
    path = folder / "evaluation" / "summary.json"
    trust = summarise_assessments(monitor, usual())
    path.write_text(json.dumps(json.loads(path.read_text()) | {"trust": trust}))
    return trust
