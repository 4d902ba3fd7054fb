"""Dice and distances of masks drawn at random, against MedPy itself."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from msa2net.metrics.overlap import confusion_counts, dice
from msa2net.metrics.surface import assd, hd, hd95_pooled

binary = pytest.importorskip("medpy.metric.binary", reason="MedPy is not installed")


@given(
    seed=st.integers(0, 2**32 - 1),
    shape=st.one_of(
        st.tuples(*[st.integers(1, 12)] * 3), st.tuples(st.integers(1, 25), st.integers(1, 25))
    ),
    shares=st.tuples(*[st.sampled_from((0.01, 0.2, 0.5, 0.95, 1.0))] * 2),
    spacing=st.tuples(*[st.sampled_from((0.3, 1.0, 2.5))] * 3),
)
def test_equals_medpy(seed, shape, shares, spacing):
    generator = np.random.default_rng(seed)
    prediction, truth = (generator.random(shape) < share for share in shares)
    prediction.flat[0] = truth.flat[-1] = True  # MedPy refuses empty masks
    spacing = spacing[: len(shape)]
    _, (tp, fp, fn, _) = confusion_counts(prediction.astype(np.uint8), truth.astype(np.uint8), 2)
    assert float(dice(tp, fp, fn)) == pytest.approx(binary.dc(prediction, truth), abs=1e-12)
    for ours, theirs in ((hd, binary.hd), (hd95_pooled, binary.hd95), (assd, binary.assd)):
        expected = theirs(prediction, truth, voxelspacing=spacing)
        assert ours(prediction, truth, spacing) == pytest.approx(expected, abs=1e-9)
