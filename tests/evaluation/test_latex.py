"""The LaTeX table: structure, the paper's columns, and names that LaTeX would read otherwise."""

import re

import numpy as np
import pytest

from msa2net.evaluation.tables.latex import latex_table
from msa2net.metrics import case_rows, standard_protocol, summarise

SYNAPSE = (
    *("background", "aorta", "gallbladder", "left_kidney", "right_kidney"),
    *("liver", "pancreas", "spleen", "stomach"),
)
PAPER_ORDER = (
    *("spleen", "right_kidney", "left_kidney", "gallbladder"),
    *("liver", "stomach", "aorta", "pancreas"),
)


def summary_of(names, kind, cases, protocols, *, failed_distance="diagonal", **options):
    rows = []
    for i, (prediction, truth) in enumerate(cases):
        rows += case_rows(
            f"case{i}", prediction, truth, names, failed_distance=failed_distance, **options
        )
    chosen = {
        name: standard_protocol(failed_distance) if name == "standard" else name
        for name in protocols
    }
    return {
        "schema": 2,
        "split": "test",
        "cases": len(cases),
        "label_names": list(names),
        "image_kind": kind,
        "model": {"name": "msa2net_pico"},
        "data": {"format": "data"},
        "protocols": {name: summarise(rows, names, own) for name, own in chosen.items()},
    }


def volumes(names, **options):
    rng = np.random.default_rng(0)
    truth = rng.integers(0, len(names), (3, 2, 8, 8))
    cases = [(np.where(rng.random(one.shape) < 0.8, one, 0), one) for one in truth]
    return summary_of(names, "volume", cases, ("standard", "transunet"), **options)


@pytest.fixture
def lesions():
    truth, nothing = np.array([1, 1, 1, 0, 0, 0, 0, 0]), np.zeros(8, dtype=int)
    half = np.array([0, 0, 1, 1, 0, 0, 0, 0])
    cases = [(truth, truth), (half, truth), (nothing, truth), (half, nothing), (nothing, nothing)]
    return summary_of(("background", "lesion"), "photograph", cases, ("standard", "isic"))


def body(text):
    return [line for line in text.splitlines() if not line.startswith("%")]


def parsed(text):
    """Check what LaTeX would check, and return the cells of the heading and of each row."""
    begin, top, header, middle, *rows, bottom, end = body(text)
    aligned = re.fullmatch(r"\\begin\{tabular\}\{(lr*)\}", begin)
    assert aligned
    assert (top, middle, bottom) == (r"\toprule", r"\midrule", r"\bottomrule")
    assert end == r"\end{tabular}"
    lines = []
    for line in (header, *rows):
        assert line.endswith(r" \\")
        bare = line.removesuffix(r" \\")
        plain = re.sub(r"\\[&%$#_{}]", "", bare)  # without what is escaped
        assert plain.count("{") == plain.count("}")
        assert plain.count("$") % 2 == 0
        assert not re.search(r"[%#~^]|(?<!arrow)_", plain)
        commands = {"uparrow", "downarrow", "infty", "textbackslash", "textasciitilde"}
        commands |= {"textasciicircum", "textless", "textgreater", "textbar", "textsuperscript"}
        assert set(re.findall(r"\\([a-z]+)", plain)) <= commands
        cells = [cell.strip() for cell in re.split(r"(?<!\\)&", bare)]
        assert len(cells) == len(aligned[1])
        lines.append(cells)
    assert not any(line[0].startswith(("[", "*")) for line in lines)
    return lines


def test_synapse_in_the_paper_s_columns():
    summary = volumes(SYNAPSE, distances=True, spacing_mm=(3, 1, 1))
    header, *rows = parsed(latex_table(summary))
    assert header == [
        *("", r"DSC$\uparrow$", r"HD95$\downarrow$"),
        *("Spl", "RKid", "LKid", "Gal", "Liv", "Sto", "Aor", "Pan"),
    ]
    assert [row[0] for row in rows] == [r"msa2net\_pico, standard", r"msa2net\_pico, transunet"]
    for row, entry in zip(rows, summary["protocols"].values(), strict=True):
        mean = entry["mean"]
        assert row[1:3] == [f"{100 * mean['dice']:.2f}", f"{mean['hd95_voxels']:.2f}"]
        organs = [entry["classes"][organ]["dice"]["mean"] for organ in PAPER_ORDER]
        assert row[3:] == [f"{100 * value:.2f}" for value in organs]


def test_synapse_spelt_otherwise_and_without_distances():
    names = [name.replace("_", " ").capitalize() for name in SYNAPSE]
    header, *rows = parsed(latex_table(volumes(names)))
    assert header[1:4] == [r"DSC$\uparrow$", "Spl", "RKid"]
    assert len(rows) == 2


def test_pictures_by_hand(lesions):
    header, *rows = parsed(latex_table(lesions))
    assert header == ["", "DSC", "SE", "SP", "ACC"]
    # As in test_tables.py: means over cases, and all pixels pooled.
    assert rows == [
        [r"msa2net\_pico, standard", "0.3500", "0.4444", "0.9100", "0.8000"],
        [r"msa2net\_pico, isic", "0.5000", "0.4444", "0.9032", "0.8000"],
    ]


def test_other_classes_have_a_column_each():
    summary = volumes(("background", "left_ventricle", "R&D <5%"), distances=True)
    header, *rows = parsed(latex_table(summary))
    assert header == [
        *("", r"DSC$\uparrow$", r"HD95 vox$\downarrow$"),
        *(r"left\_ventricle", r"R\&D \textless{}5\%"),
    ]
    entry = summary["protocols"]["standard"]
    assert rows[0][1] == f"{100 * entry['mean']['dice']:.2f}"
    assert rows[0][3] == f"{100 * entry['classes']['left_ventricle']['dice']['mean']:.2f}"


def test_one_class_of_volumes():
    summary = volumes(("background", "tumour"), distances=True, spacing_mm=(3, 1, 1))
    header, standard, published = parsed(latex_table(summary))
    assert header[1:] == [
        *(r"DSC$\uparrow$", r"HD95 mm$\downarrow$", r"HD95 vox$\downarrow$"),
    ]
    assert standard[2] != "--"
    assert published[2] == "--"  # which knows voxels only


def test_comments_say_by_which_rules_of_how_many_and_how_sure(lesions):
    lesions |= {"selection": "Chosen\nby hand.", "flattering": True}
    comments = [line for line in latex_table(lesions).splitlines() if line.startswith("%")]
    assert comments[0].startswith("% msa2net_pico on data, test split, 5 cases; as fractions")
    assert comments[1] == "% Warning: Chosen by hand."
    low, high = lesions["protocols"]["isic"]["mean_interval"]["dice"]
    text = "\n".join(comments)
    assert f"% isic: the 95 % interval of the DSC is {low:.4f}–{high:.4f} (as fractions)" in text
    assert "4 scores, 1 missed, 1 false positives, 1 not applicable." in text
    assert "% standard: the SE is a mean of 3 scores." in text
    assert "isic: the SE is a mean" not in text
    assert "% standard: Intervals over fewer than 20 cases are too narrow" in text
    for name, entry in lesions["protocols"].items():
        for situation, counted in entry["rules"]:
            told = f"% {name} counts: {situation}: {counted}" in comments
            assert told != situation.startswith("distance: ")  # of which the table has none


ODD = "a & b_c %d $e #f {g} ~h ^i \\j <k> | [l] *m\n²∞"


@pytest.mark.parametrize("name", [ODD, "[1cm] x", "* x", r"\\", "}", "\n\\end{tabular}\n"])
def test_no_name_breaks_the_table(lesions, name):
    lesions["model"]["name"] = lesions["data"]["format"] = lesions["split"] = name
    lesions["selection"] = name
    several = volumes(("background", name, "other"))
    several["model"] = None
    several["data"] = {"predictions": name, "labels": name}
    for summary in (lesions, several):
        text = latex_table(summary)
        rows = parsed(text)
        assert len(rows) == 3
        assert text.count("\n\\end{tabular}\n") == 1
    assert rows[1][0].endswith(", standard")


def test_escaped_to_the_letter(lesions):
    lesions["model"]["name"] = ODD
    (name, *_) = parsed(latex_table(lesions).replace(r"\&", "AND"))[1]
    assert name == (
        r"a AND b\_c \%d \$e \#f \{g\} \textasciitilde{}h \textasciicircum{}i "
        r"\textbackslash{}j \textless{}k\textgreater{} \textbar{} {[}l] {*}m "
        r"\textsuperscript{2}$\infty$, standard"
    )


@pytest.mark.parametrize("as_text", [False, True])
def test_infinite_and_missing_values(as_text):
    some, nothing = np.ones((2, 4, 4), int), np.zeros((2, 4, 4), int)
    names = ("background", "a", "b")
    summary = summary_of(
        *(names, "volume", [(nothing, some)], ("standard",)),
        **{"distances": True, "failed_distance": "inf"},
    )
    if as_text:  # as in summary.json
        summary["protocols"]["standard"]["mean"]["hd95_voxels"] = "Infinity"
    (_, *row) = parsed(latex_table(summary))[1]
    assert row == ["0.00", r"$\infty$", "0.00", "--"]
    assert latex_table({**summary, "model": None}).count("\nstandard & ") == 1


def test_a_summary_of_the_first_schema(lesions):
    table = body(latex_table(lesions))
    for entry in lesions["protocols"].values():
        del entry["mean_interval"], entry["mean_warning"]
        for figure in entry["classes"]["lesion"].values():
            del figure["interval"], figure["warning"]
    text = latex_table(lesions)
    assert body(text) == table
    assert "interval" not in text.lower()
