"""Pages and plots from hostile values: each value stays a text, whatever it holds."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import Any
from xml.etree import ElementTree as ET

import jinja2
import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from test_report_page import HOSTILE, Page, report

from cumulant.api.display import ResultPage
from cumulant.api.views import training as training_view
from cumulant.flows.reports import page, report_charts
from cumulant.flows.reports import registry_plots as plots
from cumulant.flows.reports.content import CurveReport, Interval, Point, TrialReport
from cumulant.flows.reports.rendering import environment, render
from cumulant.flows.reports.svg_elements import printable
from cumulant.training.records import Curve

SVG = "{http://www.w3.org/2000/svg}"
ELEMENTS = ("svg", "g", "style", "rect", "text", "title")
TEXTS = st.text(min_size=1, max_size=40) | st.lists(
    st.sampled_from(
        [
            "<",
            ">",
            '"',
            "'",
            "&",
            "</title>",
            "</style>",
            "<script>",
            "-->",
            "]]>",
            "{{ 7 * 7 }}",
            "{% raw %}",
            "\x1b",
            "\u202e",
            "\ud800",
            "a",
        ]
    ),
    min_size=1,
).map("".join)


def shape(html: str) -> list[tuple[str, list[str]]]:
    """The elements of a page with the names of their attributes."""
    read = Page(html)
    assert not read.open
    return [(tag, sorted(attributes)) for tag, attributes in read.tags]


@settings(max_examples=30)
@given(TEXTS)
@example(HOSTILE)
@example("x" * 10_000)
def test_no_text_adds_an_element_or_an_attribute_to_a_report(text: str) -> None:
    html = page.render(report(text))
    assert shape(html) == shape(page.render(report("flight-late")))
    assert printable(html) == html
    html.encode()
    shown = "".join(Page(html).text)
    assert re.sub(r"\s+", " ", printable(text)).strip() in re.sub(r"\s+", " ", shown)


@settings(max_examples=30)
@given(TEXTS)
@example(HOSTILE)
def test_no_text_adds_an_element_or_an_attribute_to_a_notebook(text: str) -> None:
    def result(word: str) -> str:
        facts: list[tuple[str, object]] = [(word, word), (word, [word, 1.5])]
        return ResultPage(title=word, columns=[word], rows=[(word,), (1,)], facts=facts, code=word).render()

    assert shape(result(text)) == shape(result("plain"))
    trained = training_view(None, report(text))._repr_html_()
    assert shape(trained) == shape(training_view(None, report("flight-late"))._repr_html_())


@settings(max_examples=40)
@given(st.lists(st.floats(), min_size=3, max_size=3), st.floats())
def test_figures_that_are_no_numbers_are_pages_too(values: list[float], score: float) -> None:
    base = report()
    interval = Interval(*values)
    assert base.gate is not None
    assert base.training is not None
    trials = tuple(
        TrialReport(number=number, trainer="lightgbm", state="complete", score=value)
        for number, value in enumerate((0.2, score, 0.4))
    )
    rules = tuple(msgspec.structs.replace(rule, difference=interval, value=interval) for rule in base.gate.rules)
    points = tuple(Point(value, value, 1) for value in (*values, 0.5))
    kinds = ("calibration", "precision_recall", "roc", "predicted_observed")
    html = page.render(
        msgspec.structs.replace(
            base,
            metrics=tuple(msgspec.structs.replace(one, model=interval, naive=interval) for one in base.metrics),
            slices=tuple(
                msgspec.structs.replace(one, metrics=dict.fromkeys(one.metrics, interval)) for one in base.slices
            ),
            gate=msgspec.structs.replace(base.gate, rules=rules),
            training=msgspec.structs.replace(base.training, trials=trials),
            curves=tuple(CurveReport(kind=kind, points=points) for kind in kinds),
        )
    )
    assert not Page(html).open


def test_points_that_are_no_numbers_are_not_drawn() -> None:
    points = (Point(0.1, math.nan), Point(math.inf, 0.2), Point(0.3, 0.4), Point(0.5, 0.6))
    for kind in ("calibration", "precision_recall", "roc", "predicted_observed"):
        drawn = report_charts.curve(CurveReport(kind=kind, points=points))
        assert drawn is not None
        assert drawn == report_charts.curve(CurveReport(kind=kind, points=points[2:]))
        assert report_charts.curve(CurveReport(kind=kind, points=points[:2])) is None
    assert report_charts.curve(CurveReport(kind="unknown", points=points)) is None
    trials = [TrialReport(number=number, trainer="linear", state="complete", score=math.nan) for number in range(3)]
    assert report_charts.search(trials, None, "score", higher=True) is None


def test_every_template_escapes_and_refuses_what_is_not_defined() -> None:
    templates = environment()
    assert templates.autoescape is True
    for name in templates.list_templates():
        assert templates.get_template(name).name == name
        assert templates.loader is not None
        source = templates.loader.get_source(templates, name)[0]
        assert not re.search(r"\|\s*safe\b|autoescape|Markup", source), name
    with pytest.raises(jinja2.UndefinedError):
        render("notebook/progress.html.jinja", ResultPage(title="has no line"))


@dataclass
class Measured:
    """The parts of an evaluation that plots are drawn of."""

    curves: dict[str, Curve]
    task: str = "multiclass"
    threshold: float | None = None
    importance: dict[str, float] = field(default_factory=dict)


@settings(max_examples=25)
@given(st.lists(TEXTS, min_size=2, max_size=14, unique=True), TEXTS)
@example([HOSTILE, "x" * 500], HOSTILE)
def test_a_plot_is_a_whole_file_with_the_names_as_texts(names: list[str], title: str) -> None:
    confusion = Curve(
        text=title,
        columns={
            f"predicted {name}": [float(place == row) for row in range(len(names))] for place, name in enumerate(names)
        },
    )
    evaluation: Any = Measured(
        {"confusion": confusion}, importance={name: 1 / (place + 1) for place, name in enumerate(names)}
    )
    for drawing, text in plots.draw_plots(evaluation).values():
        document = drawing.document(title, text)
        root = ET.fromstring(document)
        assert {element.tag for element in root.iter()} == {f"{SVG}{name}" for name in ELEMENTS}
        assert not [
            name for element in root.iter() for name in element.attrib if name.startswith("on") or "href" in name
        ]
        texts = [element.text for element in root.iter(f"{SVG}text")]
        assert texts[0] == re.sub("\r\n?", "\n", printable(title))
        tips = {element.text for element in root.iter(f"{SVG}title")}
        assert re.sub("\r\n?", "\n", printable(names[0])) in tips


def test_each_curve_has_its_plot() -> None:
    bins = {"from": [0.0, 0.5], "to": [0.5, 1.0]}
    columns = {
        "calibration": {"predicted": [0.2, 0.8], "observed": [0.1, 0.9], "rows": [5.0, 5.0]},
        "precision_recall": {"recall": [0.5, 1.0], "precision": [0.9, 0.5]},
        "roc": {"false_positive_rate": [0.0, 1.0], "true_positive_rate": [0.0, 1.0]},
        "threshold": {"threshold": [0.9, 0.1], "precision": [0.9, 0.5], "recall": [0.5, 1.0]},
        "scores": {**bins, "negative": [1000.0, 1.0], "positive": [0.0, 3.0]},
        "residuals": {**bins, "rows": [7.0, 3.0]},
        "confusion": {"predicted a": [3.0, 1.0], "predicted b": [0.0, 2.0]},
    }
    curves = {name: Curve(text=f"text of {name}", columns=parts) for name, parts in columns.items()}
    evaluation: Any = Measured(curves, task="binary", threshold=0.4, importance={"pages": 0.75})
    drawn = plots.draw_plots(evaluation)
    assert set(drawn) == {*columns, "importance"}
    for name, (drawing, text) in drawn.items():
        root = ET.fromstring(drawing.document("shop", text))
        shown = [element.text for element in root.iter(f"{SVG}text")]
        assert shown[:2] == ["shop", "what the model uses" if name == "importance" else f"text of {name}"]
    (scores, _), (threshold, _) = drawn["scores"], drawn["threshold"]
    heights = [float(height) for height in re.findall(r'height="([\d.]+)"><title>', str(scores))]
    # by the logarithm: a thousand rows are five times as high as three, not three hundred times
    assert heights[0] / heights[2] == pytest.approx(math.log10(1001) / math.log10(4), rel=0.02)
    assert str(threshold).count("ideal") == 2
    above: Any = Measured(curves, task="binary", threshold=math.inf)
    assert "ideal" not in str(plots.draw_plots(above)["threshold"][0])
