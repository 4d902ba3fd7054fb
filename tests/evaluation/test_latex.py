"""The LaTeX table: structure, the paper's columns, and names that LaTeX would read otherwise."""

import re

import numpy as np
import pytest

from drawn_summaries import summary_of
from msa2net.evaluation.tables.latex import latex_table

SYNAPSE = (
    *("background", "aorta", "gallbladder", "left_kidney", "right_kidney"),
    *("liver", "pancreas", "spleen", "stomach"),
)
PAPER_ORDER = (
    *("spleen", "right_kidney", "left_kidney", "gallbladder"),
    *("liver", "stomach", "aorta", "pancreas"),
)


def volumes(names, **options):
    rng = np.random.default_rng(0)
    truth = rng.integers(0, len(names), (3, 2, 8, 8))
    cases = [(np.where(rng.random(one.shape) < 0.8, one, 0), one) for one in truth]
    return summary_of(names, "volume", "data", cases, ("standard", "transunet"), **options)


def lesions(name="lesion", **changes):
    truth, nothing = np.array([1, 1, 1, 0, 0, 0, 0, 0]), np.zeros(8, dtype=int)
    half = np.array([0, 0, 1, 1, 0, 0, 0, 0])
    cases = [(truth, truth), (half, truth), (nothing, truth), (half, nothing), (nothing, nothing)]
    names = ("background", name)
    summary = summary_of(names, "photograph", "data", cases, ("standard", "isic"))
    return summary.model_copy(update=changes)


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
    for row, scores in zip(rows, summary.protocols.values(), strict=True):
        mean = scores.mean
        assert row[1:3] == [f"{100 * mean['dice']:.2f}", f"{mean['hd95_voxels']:.2f}"]
        organs = [scores.classes[organ]["dice"].mean for organ in PAPER_ORDER]
        assert row[3:] == [f"{100 * value:.2f}" for value in organs]
    otherwise = [name.replace("_", " ").capitalize() for name in SYNAPSE]
    header, *rows = parsed(latex_table(volumes(otherwise)))  # and without distances
    assert header[1:4] == [r"DSC$\uparrow$", "Spl", "RKid"]
    assert len(rows) == 2


def test_pictures_by_hand():
    header, *rows = parsed(latex_table(lesions()))
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
    scores = summary.standard
    assert rows[0][1] == f"{100 * scores.mean['dice']:.2f}"
    assert rows[0][3] == f"{100 * scores.classes['left_ventricle']['dice'].mean:.2f}"


def test_one_class_of_volumes():
    summary = volumes(("background", "tumour"), distances=True, spacing_mm=(3, 1, 1))
    header, standard, published = parsed(latex_table(summary))
    assert header[1:] == [
        *(r"DSC$\uparrow$", r"HD95 mm$\downarrow$", r"HD95 vox$\downarrow$"),
    ]
    assert standard[2] != "--"
    assert published[2] == "--"  # which knows voxels only


def test_comments_cannot_end_early():
    chosen = lesions(selection="Chosen\nby hand.", flattering=True)
    comments = [line for line in latex_table(chosen).splitlines() if line.startswith("%")]
    assert comments[0].startswith("% msa2net_pico on data, test split, 5 cases; as fractions")
    assert comments[1] == "% Warning: Chosen by hand."
    for name, scores in chosen.protocols.items():
        for situation, counted in scores.rules:
            told = f"% {name} counts: {situation}: {counted}" in comments
            assert told != situation.startswith("distance: ")  # of which the table has none


ODD = "a & b_c %d $e #f {g} ~h ^i \\j <k> | [l] *m\n²∞"


@pytest.mark.parametrize("name", [ODD, "[1cm] x", "* x", r"\\", "}", "\n\\end{tabular}\n"])
def test_no_name_breaks_the_table(name):
    one = lesions()
    model = one.model.model_copy(update={"name": name})
    data = one.data.model_copy(update={"format": name})
    one = lesions(name, model=model, data=data, split=name, selection=name)
    data = one.data.model_copy(update={"predictions": name, "labels": name})
    several = volumes(("background", name, "other"))
    several = several.model_copy(update={"model": None, "data": data})
    for summary in (one, several):
        text = latex_table(summary)
        rows = parsed(text)
        assert len(rows) == 3
        assert text.count("\n\\end{tabular}\n") == 1
    assert rows[1][0].endswith(", standard")


def test_escaped_to_the_letter():
    model = lesions().model.model_copy(update={"name": ODD})
    (name, *_) = parsed(latex_table(lesions(model=model)).replace(r"\&", "AND"))[1]
    assert name == (
        r"a AND b\_c \%d \$e \#f \{g\} \textasciitilde{}h \textasciicircum{}i "
        r"\textbackslash{}j \textless{}k\textgreater{} \textbar{} {[}l] {*}m "
        r"\textsuperscript{2}$\infty$, standard"
    )


def test_infinite_and_missing_values():
    some, nothing = np.ones((2, 4, 4), int), np.zeros((2, 4, 4), int)
    cases, options = [(nothing, some)], {"distances": True, "failed_distance": "inf"}
    names = ("background", "a", "b")
    summary = summary_of(names, "volume", "data", cases, ("standard",), **options)
    (_, *row) = parsed(latex_table(summary))[1]
    assert row == ["0.00", r"$\infty$", "0.00", "--"]
    unnamed = summary.model_copy(update={"model": None})
    assert latex_table(unnamed).count("\nstandard & ") == 1
