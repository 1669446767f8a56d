"""The pages of review, models, runs, data and monitoring in a real browser: their policy, and a review by keyboard."""

from __future__ import annotations

import re
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "unit" / "console"))
from console_browser import NO_AXE, NO_BROWSER, Tab, browser, served
from console_support import ADA
from console_trained import make_trained, visits

from cumulant.flows.outcomes.labels import import_predictions
from cumulant.flows.review.fill_queue import fill
from cumulant.flows.review.views import policy_of
from cumulant.project.file.loading import load
from cumulant.review.queue import ReviewQueue

pytestmark = [pytest.mark.live, NO_BROWSER]

BASE, CASES = "/projects/shop", 4
_REVIEW = "monitoring: {review: {budget: 4/day, sample: 100%, second: 0%}}\n"
#: pixels of an image to a unit of its drawing, as in `chart_image.js`
SCALE = 2
#: texts of charts whose letters are below 11 pixels on the screen
SMALL_LETTERS = """
[...document.querySelectorAll("svg.chart text")].map((text) => {
  const matrix = text.getScreenCTM();
  return [parseFloat(getComputedStyle(text).fontSize) * Math.hypot(matrix.a, matrix.b), text.textContent];
}).filter(([size]) => size > 0 && size < 10.95)
"""
PAGES = (
    "/review",
    "/models",
    "/models/shop/1",
    "/runs",
    "/runs/latest",
    "/data",
    "/data/visits",
    "/data/visits/quarantine",
    "/features",
    "/monitoring",
    "/lineage",
)


@pytest.fixture(scope="module")
def chromium():
    with browser() as opened:
        yield opened


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A trained project with a queue of predictions of its version."""
    folder = make_trained(tmp_path_factory.mktemp("pages") / "shop")
    with (folder / "cumulant.yaml").open("a") as file:
        file.write(_REVIEW)
    rows = visits(40).filter(visits(40)["pages"] > 0).head(CASES)
    at = (datetime.now(UTC) - timedelta(hours=1)).isoformat()
    listed = [
        f"r{n},{at},{row['began'].isoformat()},true,0.7{n},{row['visit']},{row['pages']},mail"
        for n, row in enumerate(rows.iter_rows(named=True))
    ]
    heads = "id,at,began,said,p,visit,pages,channel"
    (folder / "old.csv").write_text("\n".join([heads, *listed]) + "\n")
    names = {"id": "id", "time": "at", "prediction": "said", "score": "p"}
    with load(folder, via="http") as loaded:
        import_predictions(loaded, folder / "old.csv", names, principal=ADA, version="1")
        assert fill(loaded, principal=ADA, at_once=True).added == CASES
        yield loaded


@pytest.fixture(scope="module")
def server(project):
    with served(project) as running:
        yield running


@pytest.fixture
def tab(chromium, server):
    opened = Tab(chromium, server.url)
    yield opened
    opened.check()
    opened.close()


def test_no_page_breaks_its_policy_or_runs_a_hostile_text(tab):
    tab.page.set_viewport_size({"width": 800, "height": 800})
    for path in PAGES:
        tab.open(f"{BASE}{path}")
        assert tab.page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth"), path
        assert tab.page.evaluate(SMALL_LETTERS) == [], path
        assert tab.page.locator("h1").count() == 1
        assert "Something went wrong" not in tab.page.title()
        tab.check()


@NO_AXE
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_page_has_a_serious_finding_of_axe(chromium, server, scheme):
    opened = Tab(chromium, server.url, color_scheme=scheme)
    for path in PAGES:
        opened.open(f"{BASE}{path}")
        assert opened.serious_findings() == [], path
    opened.close()


def test_cases_are_decided_undone_and_skipped_with_keys_alone(tab, project):
    queue = ReviewQueue(project.journal(), "shop", policy_of(project))
    keyboard, page = tab.page.keyboard, tab.page
    tab.open(f"{BASE}/review")
    keyboard.press("Enter")
    page.wait_for_url("**/review/cases/*")
    first = page.url.rpartition("/")[2].partition("?")[0]
    assert "Hidden until you decide" in page.content()
    keyboard.press("2")
    assert page.locator("input[name=label]:checked").input_value() == "true"
    keyboard.press("Enter")
    page.wait_for_url(f"**previous={first}")
    assert queue.find(first).label == "true"
    keyboard.press("u")
    page.wait_for_url(f"**/cases/{first}?done=undone")
    assert queue.find(first).answers == ()
    keyboard.press("n")
    keyboard.type("see the pages")
    keyboard.press("Enter")
    page.wait_for_url(f"**/cases/{first}?done=noted")
    keyboard.press("1")
    keyboard.press("Enter")
    page.wait_for_url(f"**previous={first}")
    assert queue.find(first).label == "false"
    second = page.url.rpartition("/")[2].partition("?")[0]
    keyboard.press("s")
    page.wait_for_url(f"**previous={second}")
    assert queue.find(second).answers[0].kind == "skipped"
    keyboard.press("?")
    assert page.locator("dialog[open]").inner_text().count("Decide, and go to the next case") == 1


def test_tables_of_slices_are_whole_on_a_small_screen(tab):
    tab.page.set_viewport_size({"width": 1280, "height": 800})
    tab.open(f"{BASE}/models/shop/1")
    assert tab.page.locator("svg.chart text").count() > 0
    assert tab.page.evaluate(SMALL_LETTERS) == []
    grid = tab.page.locator("#slices + p + .grid")
    # As many tables as a version with three slices has.
    grid.evaluate("grid => { for (const _ of [1, 2]) grid.append(grid.firstElementChild.cloneNode(true)); }")
    widths = grid.locator(".scroll").evaluate_all("all => all.map(each => [each.scrollWidth, each.clientWidth])")
    assert len(widths) == 3
    assert all(content <= seen for content, seen in widths), widths


def test_keys_after_the_key_that_escalates_are_no_note(tab):
    tab.open(f"{BASE}/review")
    tab.page.keyboard.press("Enter")
    tab.page.wait_for_url("**/review/cases/*")
    tab.page.keyboard.press("e")
    tab.page.wait_for_selector("#escalate[open] form button:focus")
    tab.page.keyboard.type("xy")
    assert tab.page.locator("#escalate-note").input_value() == ""
    tab.page.locator("#escalate-note").focus()
    tab.page.keyboard.type("needs the contract")
    assert tab.page.locator("#escalate-note").input_value() == "needs the contract"


def test_a_case_is_decided_without_a_script(chromium, server, project):
    opened = Tab(chromium, server.url, java_script_enabled=False)
    page = opened.page
    page.goto(f"{BASE}/review")
    page.get_by_role("button", name="Review the next case").click()
    page.get_by_label("false").check()
    page.get_by_role("button", name="Decide").click()
    assert "Your decision is recorded" in page.content() or "No more cases" in page.content()
    opened.close()


def test_the_numbers_of_a_chart_are_shown_and_saved(tab):
    tab.open(f"{BASE}/models/shop/1")
    figure = tab.page.locator("#chart-calibration")
    figure.get_by_text("Show table").click()
    assert figure.locator("table tbody tr").count() > 2
    with tab.page.expect_download() as saved:
        figure.get_by_role("link", name="CSV").click()
    assert Path(saved.value.path()).read_text().startswith("predicted,observed,")


def png_size(content: bytes) -> tuple[int, int]:
    """Width and height of a PNG file, from its first chunk."""
    assert content.startswith(b"\x89PNG\r\n\x1a\n")
    assert content[12:16] == b"IHDR"
    return int.from_bytes(content[16:20]), int.from_bytes(content[20:24])


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_every_chart_of_a_version_is_saved_as_an_image_of_its_size(chromium, server, theme):
    tab = Tab(chromium, server.url, color_scheme=theme, accept_downloads=True)
    tab.open(f"{BASE}/models/shop/1")
    figures = tab.page.locator("figure:has(svg.chart)")
    assert figures.count() >= 5
    for place in range(figures.count()):
        figure = figures.nth(place)
        with tab.page.expect_download() as expected:
            figure.locator("[data-png]").press("Enter")
        content = Path(expected.value.path()).read_bytes()
        box = figure.locator("svg.chart").evaluate("(svg) => [svg.viewBox.baseVal.width, svg.viewBox.baseVal.height]")
        width, height = png_size(content)
        assert width == round(box[0] * SCALE)
        assert box[1] * SCALE < height <= (box[1] + 120) * SCALE  # with its title and legend
        assert re.fullmatch(r"[\w.-]+-models-[\w.-]+\.png", expected.value.suggested_filename)
    tab.check()
    colours = _colours(tab, content)
    assert len(colours) > 3  # more than a ground
    # A browser without memory for the image gives none: the page says so.
    tab.page.evaluate("() => { HTMLCanvasElement.prototype.toBlob = (done) => done(null); }")
    figure.locator("[data-png]").press("Enter")
    failure = figure.get_by_role("alert")
    failure.wait_for()
    assert "The image could not be drawn: the browser is out of memory" in failure.inner_text()
    assert colours[0] == ([255, 255, 255] if theme == "light" else _rgb(tab, "figure.chart-panel"))
    tab.close()


def _rgb(tab: Tab, selector: str) -> list[int]:
    text = tab.page.locator(selector).first.evaluate("(element) => getComputedStyle(element).backgroundColor")
    return [int(part) for part in text.removeprefix("rgb(").removesuffix(")").split(",")]


def _colours(tab: Tab, content: bytes) -> list[list[int]]:
    """The colours of an image, that of its first pixel first."""
    return tab.page.evaluate(
        """async (bytes) => {
  const bitmap = await createImageBitmap(new Blob([new Uint8Array(bytes)], { type: "image/png" }));
  const context = new OffscreenCanvas(bitmap.width, bitmap.height).getContext("2d");
  context.drawImage(bitmap, 0, 0);
  const data = context.getImageData(0, 0, bitmap.width, bitmap.height).data;
  const seen = new Map();
  for (let at = 0; at < data.length; at += 4) seen.set(data.slice(at, at + 3).join(), [...data.slice(at, at + 3)]);
  return [...seen.values()];
}""",
        list(content),
    )
