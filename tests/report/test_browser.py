"""The report as a reader meets it: in a browser, by mouse and by keyboard, narrow and on paper."""

import json
import re

import pytest

from browser import WHY_NOT, Browser
from msa2net.report.html import write_report
from report_runs import NAMES, make_evaluation, make_run

pytestmark = pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT or "there is one")

# What a card shows: per layer the slices that can be seen, and where the picture stands.
SHOWN = """(() => {
  const card = document.querySelector(".card");
  const gone = g => getComputedStyle(g).display === "none";
  const seen = layer => [...card.querySelectorAll(`.view > .${layer} > g`)]
    .flatMap((g, z) => gone(g) || gone(g.parentNode) ? [] : [z]);
  return { truth: seen("truth"), prediction: seen("prediction"),
           y: Number(card.querySelector("image").getAttribute("y")),
           output: card.querySelector("output").value };
})()"""
FOCUSED = """(() => {
  const at = document.activeElement, style = getComputedStyle(at);
  const name = (at.closest("label") ?? at).textContent.trim().split(/\\s/)[0];
  const group = at.closest("[role=group]")?.getAttribute("aria-label") ?? "";
  return { tag: at.tagName.toLowerCase(), type: at.type ?? "", name, group,
           label: at.getAttribute("aria-label") ?? "",
           ring: style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2 };
})()"""
CUT = """[...document.querySelectorAll("table")].filter(table =>
  table.getBoundingClientRect().right > document.documentElement.clientWidth + 1 ||
  table.scrollWidth > table.clientWidth + 1).map(table => table.textContent.trim().slice(0, 60))"""
PAPER = 688 + 15  # CSS pixels: A4 less the page's margins, and a scroll bar that paper has not
SIZE = 2 * 128  # of a slice in the page's half pixels


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with Browser(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pages")
    runs = {kind: make_run(folder / f"{kind}-run", kind) for kind in NAMES}
    runs["masks"] = make_evaluation(folder / "masks", "volume")
    return {name: write_report(run) for name, run in runs.items()}


def tab_to(browser, wanted, *, presses=60):
    """Press Tab until `wanted` says yes to what has the focus; return everything that had it."""
    had = []
    for _ in range(presses):
        browser.press("Tab")
        had.append(browser.script(FOCUSED))
        if wanted(had[-1]):
            return had
    raise AssertionError(f"not reached by Tab; what was: {had}")


def test_a_bad_page_is_caught(browser, tmp_path):
    # The other tests say "no complaint, no request": here both are made, to see that they show.
    page = tmp_path / "bad.html"
    page.write_text(
        "<script>console.error('said'); setTimeout(() => { throw new Error('thrown') })</script>"
        "<script>setTimeout(() => fetch('http://192.0.2.1/called').catch(() => 0))</script>"
        "<img src='http://example.invalid/picture.png'>"
    )
    browser.open(page)
    assert any("said" in text for text in browser.complaints)
    assert any("thrown" in text for text in browser.complaints)
    assert {address.rsplit("/", 1)[1] for address in browser.requests} == {"called", "picture.png"}


@pytest.mark.parametrize("kind", ["photograph", "volume", "masks"])
@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_page_is_quiet_loads_nothing_and_fits(browser, pages, kind, width, scheme):
    browser.open(pages[kind], width=width, scheme=scheme)
    assert browser.script("document.documentElement.dataset.script") == "on"
    assert browser.script("document.documentElement.scrollWidth <= innerWidth")
    # Nothing but what scrolls inside itself may stick out.
    assert (
        browser.script("""[...document.querySelectorAll("main *")].filter(e =>
        !e.closest(".scroll, svg, details:not([open]), pre, .axis") &&
        e.getBoundingClientRect().right > innerWidth + 1).map(e => e.outerHTML.slice(0, 80))""")
        == []
    )
    dark = browser.script("getComputedStyle(document.documentElement).backgroundColor")
    assert (dark == "rgb(255, 255, 255)") == (scheme == "light")
    assert browser.complaints == []
    assert browser.requests == []


def test_main_table_fits_a_usual_window(browser, pages):
    browser.open(pages["volume"], width=1280)
    assert browser.script("""(() => { const box = document.querySelector("#scores .scroll");
        return [box.scrollWidth - box.clientWidth, box.tabIndex] })()""") == [0, -1]
    browser.resize(390, 900)
    wait = "new Promise(done => requestAnimationFrame(() => setTimeout(done, 100)))"
    browser.script(wait)
    assert browser.script("""(() => { const box = document.querySelector("#scores .scroll");
        return [box.scrollWidth > box.clientWidth, box.tabIndex] })()""") == [True, 0]


def test_slider_by_keyboard(browser, pages):
    browser.open(pages["volume"])
    before = browser.script(SHOWN)
    assert before == {"truth": [12], "prediction": [12], "y": -12 * SIZE, "output": "13 of 24"}
    had = tab_to(browser, lambda focus: focus["type"] == "range")
    assert [focus for focus in had if not focus["ring"]] == []  # every stop can be seen
    assert had[-1]["name"] == "Slice"
    assert had[-1]["group"] == "What is shown of case-01"  # the worst
    browser.press("ArrowRight")
    after = {"truth": [13], "prediction": [13], "y": -13 * SIZE, "output": "14 of 24"}
    assert browser.script(SHOWN) == after
    browser.press("ArrowLeft")
    browser.press("ArrowLeft")
    assert browser.script(SHOWN)["truth"] == [11]
    browser.press("End")
    assert browser.script(SHOWN)["output"] == "24 of 24"
    browser.press("Home")
    assert browser.script(SHOWN) == {
        **{"truth": [0], "prediction": [0], "output": "1 of 24"},
        "y": pytest.approx(0),
    }
    assert browser.script("document.activeElement.getAttribute('aria-valuetext')") == "1 of 24"


def test_overlays_by_keyboard(browser, pages):
    browser.open(pages["volume"])
    for name in ("truth", "prediction"):
        had = tab_to(browser, lambda focus: focus["type"] == "checkbox")
        assert had[-1]["name"] == name.capitalize()
        browser.press(" ")
        assert browser.script(SHOWN)[name] == []
    browser.press(" ")
    assert browser.script(SHOWN)["prediction"] == [12]
    browser.press("Tab", shift=True)  # back to Truth
    browser.press(" ")
    assert browser.script(SHOWN)["truth"] == [12]


def test_stops_come_in_the_order_of_the_page(browser, pages):
    browser.open(pages["volume"])
    had = tab_to(browser, lambda focus: focus["group"] == "What is shown of case-05")
    kinds = [focus["type"] or focus["tag"] for focus in had]
    first = kinds.index("range")
    assert kinds[:first] == ["summary"] * 3  # the configuration, all rules, further distances
    assert kinds[first:-1] == ["range", "checkbox", "checkbox"] * 4
    groups = list(dict.fromkeys(focus["group"] for focus in had[first:]))
    assert groups == [f"What is shown of case-{case:02d}" for case in (1, 0, 3, 4, 5)]


def test_narrow_tables_scroll_by_keyboard(browser, pages):
    browser.open(pages["volume"], width=390)
    had = tab_to(browser, lambda focus: focus["label"] == "Scores by class")
    assert had[-1]["ring"]
    for _ in range(3):
        browser.press("ArrowRight")
    browser.script("new Promise(done => setTimeout(done, 400))")  # it scrolls smoothly
    assert browser.script("document.activeElement.scrollLeft") > 0


def test_further_distances_unfold_by_keyboard(browser, pages):
    browser.open(pages["volume"])
    seen = "document.querySelector('details.distances table').checkVisibility()"
    assert browser.script(seen) is False
    tab_to(browser, lambda focus: focus["tag"] == "summary" and focus["name"] == "Further")
    browser.press("Enter")
    assert browser.script(seen) is True


def test_every_control_has_a_name(browser, pages):
    browser.open(pages["volume"])
    assert (
        browser.script("""[...document.querySelectorAll("input")].filter(input =>
        !input.labels.length || !input.labels[0].textContent.trim()).length""")
        == 0
    )
    assert (
        browser.script("""[...document.querySelectorAll("[role=region], [role=img]")].filter(
        box => !box.getAttribute("aria-label")).length""")
        == 0
    )
    names = browser.script("""[...document.querySelectorAll("[role=region]")].map(
        box => box.getAttribute("aria-label"))""")
    assert len(names) == len(set(names)) > 5


def test_on_paper(browser, pages):
    browser.open(pages["volume"], width=PAPER, media="print")
    browser.script("""document.querySelector("input[type=range]").value = 3;
        document.querySelector("input[type=range]").dispatchEvent(new Event("input"));
        document.querySelector("input[name=truth]").click();
        dispatchEvent(new Event("beforeprint"))""")
    assert (
        browser.script("""[...document.querySelectorAll("input")].filter(
        input => input.checkVisibility()).length""")
        == 0
    )
    shown = browser.script(SHOWN)  # the view as it was chosen, and in words which slice that is
    assert (shown["truth"], shown["prediction"], shown["output"]) == ([], [2], "3 of 24")
    assert browser.script("document.querySelector('.card output').checkVisibility()")
    assert browser.script("document.querySelector('details.distances table').checkVisibility()")
    assert not browser.script("document.querySelector('details.config').checkVisibility()")
    assert browser.script(CUT) == []
    browser.script("dispatchEvent(new Event('afterprint'))")
    assert not browser.script("document.querySelector('details.distances').open")
    pdf = browser.call("Page.printToPDF", printBackground=True)
    assert len(pdf["data"]) > 20_000
    assert not browser.script("document.querySelector('details.distances').open")


def test_many_classes_with_long_names_fit(browser, tmp_path):
    run = make_evaluation(tmp_path / "masks", "volume")
    text = (run / "summary.json").read_text()
    long = "the_left_ventricular_myocardium_without_papillary_muscles"
    summary = json.loads(re.sub(r'"liver"', f'"{long}"', text))
    (run / "summary.json").write_text(json.dumps(summary))
    browser.open(write_report(run), width=390)
    assert browser.script("document.documentElement.scrollWidth <= innerWidth")
    browser.emulate(media="print")
    browser.resize(PAPER, 900)
    browser.script("document.querySelector('details.distances').open = true")
    assert browser.script(CUT) == []
