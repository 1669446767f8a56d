"""`cumulant monitor run --out`: a page that says what moved, whatever the columns and values are called."""

from datetime import datetime, timedelta
from html.parser import HTMLParser

import numpy as np
import polars as pl
import pytest

from cumulant.flows.monitoring.drift import drift_charts
from cumulant.monitoring.drift.profiles import ColumnCells, ProfileBlock

HOSTILE = """<script>alert(1)</script>"'><img src=x onerror=alert(1)>&amp;\x1b[31m\u202e"""


class Page(HTMLParser):
    """The tags, attributes and texts of a document, and whether each tag was closed."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.texts, self.open = [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.handle_startendtag(tag, attrs)
        self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


def table(days, *, start, moved=False, size=150):
    generator = np.random.default_rng(start)
    n = days * size
    at = [datetime(2026, 1, 1) + timedelta(days=start + row // size, seconds=row % size) for row in range(n)]
    place = generator.choice([HOSTILE, "south"], n, p=[0.2, 0.8] if moved else [0.8, 0.2])
    return pl.DataFrame(
        {
            "at": at,
            "amount": generator.normal(3 * moved, 1, n),
            HOSTILE: place,
            "always": 1.0 + moved,
            "flag": generator.random(n) < (0.9 if moved else 0.1),
            "place": generator.choice(["x", "y"], n),
        }
    )


@pytest.fixture
def files(tmp_path):
    table(12, start=0).write_parquet(tmp_path / "before.parquet")
    pl.concat([table(6, start=12), table(4, start=18, moved=True)]).write_parquet(tmp_path / "now.parquet")
    table(3, start=12).write_parquet(tmp_path / "calm.parquet")
    return tmp_path


def look(cumulant, folder, now, *words, name="page.html"):
    ended = cumulant(
        "monitor",
        "run",
        "--predictions",
        str(folder / now),
        "--reference",
        str(folder / "before.parquet"),
        "--out",
        str(folder / name),
        *words,
    )
    return ended, folder / name


def test_the_page_shows_each_finding_and_nothing_of_a_value_is_markup(cumulant, files):
    ended, path = look(cumulant, files, "now.parquet", "--joint")
    assert (ended.code, f"written to {path}" in ended.out.replace("\n", "")) == (1, True), ended.err
    page = Page(path.read_text())
    assert page.open == []
    assert not {"script", "img", "iframe", "link", "a-href"} & set(page.tags)
    assert not [name for name, _ in page.attributes if name.startswith("on") or name in ("src", "srcdoc")]
    assert all(value.startswith("#") for name, value in page.attributes if name == "href")
    shown = HOSTILE.replace("\x1b", "\ufffd").replace("\u202e", "\ufffd")
    assert shown in page.texts
    assert shown in [value for name, value in page.attributes if name == "title"]
    text = path.read_text()
    assert "\x1b" not in text
    assert "default-src 'none'" in text
    words = " ".join(page.texts)
    for said in ("amount", "covariate", "data_fault", "distance", "least that matters", "2026-01-19"):
        assert said in words, said
    assert page.tags.count("polyline") >= 2 * 3
    # every column in every window has a cell
    assert sum(value == "cells" for name, value in page.attributes if name == "class") == 5


def test_a_calm_look_and_a_single_window_are_pages_too(cumulant, files):
    ended, path = look(cumulant, files, "calm.parquet")
    assert ended.code == 0, ended.err
    assert "Nothing is alarming" in path.read_text()
    ended, path = look(cumulant, files, "now.parquet", "--windows", "1", name="new/one.html")
    assert ended.code == 1
    assert Page(path.read_text()).open == []


def test_what_is_no_page_is_said_before_anything_is_read(cumulant, files):
    ended, _ = look(cumulant, files, "now.parquet", name="page.pdf")
    assert (ended.code, "names no page" in ended.err) == (2, True)
    (files / "place").write_text("")
    ended, _ = look(cumulant, files, "now.parquet", name="place/page.html")
    assert (ended.code, "could not be written" in ended.err) == (4, True), ended.err


def test_shares_of_bars_are_those_of_the_rows():
    edges = np.array([-5.0, 0.0, 1.0, 2.0, 10.0, 15.0])
    counts = np.array([0.0, 0.0, 10.0, 30.0, 60.0, 0.0, 0.0])
    found = drift_charts._spread(counts, edges, np.linspace(0.0, 10.0, 11))
    assert found.sum() == pytest.approx(1.0)
    assert found[:3].tolist() == pytest.approx([0.1, 0.3, 0.075])
    cells = ColumnCells(kind="number", edges=tuple(edges), spread=1.0)
    assert drift_charts.histogram(cells, counts, np.zeros(7)) is not None
    assert drift_charts.histogram(cells, np.zeros(7), np.zeros(7)) is None


def test_many_categories_are_told_by_those_that_moved():
    cells = ColumnCells(kind="category", values=tuple("abcdefghijkl"), known=("rare",))
    before = np.array([10.0] * 12 + [20.0, 0.0])
    now = before.copy()
    now[10], now[13] = 60.0, 5.0
    found = drift_charts.shares(cells, before, now)
    names = [bar.name for bar in found]
    assert "k" in names
    assert names[-2:] == ["all others", "unseen before"]
    assert [sum(bar.then for bar in found), sum(bar.now for bar in found)] == pytest.approx([1.0, 1.0])


def test_very_many_windows_share_cells():
    blocks = [ProfileBlock(place * 86_400_000_000, 50, timed=True) for place in range(1000)]
    worst = tuple(4.0 if place == 500 else None for place in range(1000))
    ((_, text),) = drift_charts.strips([drift_charts.Strip("x", worst, frozenset({500}))], blocks).rows
    assert text.count("<rect") <= 121
    assert text.count("heat4") == 1
    assert text.count('class="alarm"') == 1
