"""The paper's printed numbers."""

import pytest

from msa2net.evaluation.published_results import reference_for


def test_reference_by_format():
    assert reference_for("isic2018").columns == ("DSC", "SE", "SP", "ACC")
    assert reference_for("btcv") == reference_for("synapse")
    assert reference_for("acdc") is None
    for name in ("isic2018", "synapse"):
        reference = reference_for(name)
        assert "not measured here" in reference.title
        assert reference.rows[-1][0] == "MSA²Net"
        for row in reference.rows:
            assert len(row) == 1 + len(reference.columns)


def test_printed_synapse_means_follow_from_the_printed_organs():
    off = {}
    for name, *row in reference_for("synapse").rows:
        difference = sum(row[2:10]) / 8 - row[10]
        if abs(difference) > 0.005:  # the rounding of the printed mean
            off[name] = round(difference, 4)
    assert off == {"HiFormer-B": -0.06, "DAE-Former": 0.0125}  # as the note says


def test_only_the_paper_s_own_specificity_cannot_be_right():
    impossible = [
        name
        for name, _, se, sp, acc in reference_for("isic2018").rows
        if not min(se, sp) <= acc <= max(se, sp)
    ]
    assert impossible == ["MSA²Net"]


def test_the_specificity_that_the_note_gives_fits():
    dsc, se, _, acc = reference_for("isic2018").rows[-1][1:]
    fp = 2 * se / dsc - 2 * se - (1 - se)  # per pixel of lesion, from the pooled Dice
    lesion = (1 - acc) / (fp + 1 - se)  # share of all pixels, from the accuracy
    specificity = 1 - fp * lesion / (1 - lesion)
    assert specificity == pytest.approx(0.9857, abs=5e-5)  # four printed digits
