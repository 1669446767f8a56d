"""The report's renderings: escaped, offline, whole."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from io import StringIO
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from cumulant.core.expr import Call, Column, Literal
from cumulant.core.plan import FeatureSpec, Lookup, Window
from cumulant.flows.reports import decisions, markdown, page, report_charts, svg_elements, wording
from cumulant.flows.reports.content import (
    BlendReport,
    CheckReport,
    CurveReport,
    EventReport,
    FeatureReport,
    FieldReport,
    FileReport,
    FoldReport,
    GateReport,
    Interval,
    MetricReport,
    ParityReport,
    Point,
    ReportData,
    RuleReport,
    ServingReport,
    SliceReport,
    SourceReport,
    TrainingReport,
    TrialReport,
)
from cumulant.flows.reports.feature_texts import definition, kind
from cumulant.flows.reports.summary import show_metrics, show_training
from cumulant.flows.reports.svg_elements import element, escape

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
HOSTILE = """<script>alert(1)</script>"'><img src=x onerror=alert(1)>&amp;|`[x](javascript:alert(1))\x1b[31m\u202e"""
VOID = {"meta", "br", "hr"}


def report(word: str = "flight-late") -> ReportData:
    """A report in which every text that comes from outside is `word`."""
    folds = [
        FoldReport(
            name=name,
            train_rows=100,
            held_rows=50,
            train_from=NOW,
            train_to=NOW + timedelta(days=day),
            held_from=NOW + timedelta(days=day + 1),
            held_to=NOW + timedelta(days=day + 5),
        )
        for name, day in (("fold 1", 10), ("test", 20))
    ]
    trials = [
        TrialReport(number=number, trainer=word, state="complete", score=score, seconds=1.0, settings={word: word})
        for number, score in enumerate((0.2, 0.4, None, 0.45))
    ]
    interval = Interval(0.51, 0.49, 0.54)
    return ReportData(
        name=word,
        subject=f"{word} version 3",
        generated=NOW,
        cumulant="0.1.0",
        run="20260131T120000-abcdef",
        version="3",
        uri=f"models:/{word}/3",
        aliases=(word,),
        created=NOW,
        owner=word,
        purpose=word,
        risk="low",
        sources=(
            SourceReport(
                name=word,
                snapshot="0" * 64,
                accepted=NOW,
                rows_in=100,
                rows_passed=90,
                rows_quarantined=7,
                rows_dropped=3,
                bytes=10,
                csv_bytes=100,
                event_time=word,
                key=(word,),
                files=(FileReport(word, "a" * 64, 10, 100),),
                checks=(CheckReport(word, word, 7, 0.07),),
                changes=(word,),
                shifts=(word,),
            ),
        ),
        features=(
            FeatureReport(
                name=word, dtype="str", kind="column", definition=word, description=word, owner=word, tags=(word,)
            ),
        ),
        training=TrainingReport(
            target=word,
            predict_at=word,
            task="binary",
            rows=100,
            unlabelled=2,
            test_rows=50,
            seconds=3.0,
            score_name=word,
            trials=tuple(trials),
            best=3,
            folds=tuple(folds),
            notes=(word,),
        ),
        metrics=(
            MetricReport(name="average_precision", model=interval, naive=Interval(0.2, 0.1, 0.3)),
            MetricReport(name=word, model=Interval(1.0)),
        ),
        slices=(SliceReport(column=word, value=word, rows=10, metrics={"average_precision": interval}),),
        curves=(
            CurveReport(kind="calibration", points=(Point(0.1, 0.2, 5), Point(0.6, 0.5, 7))),
            CurveReport(kind="precision_recall", points=(Point(0.1, 0.9), Point(1.0, 0.2))),
        ),
        gate=GateReport(
            verdict="better",
            passed=True,
            reference=word,
            rules=(
                RuleReport(
                    metric="average_precision",
                    text=word,
                    word="better",
                    against="champion",
                    passed=True,
                    difference=Interval(0.3, 0.2, 0.4),
                    value=interval,
                ),
            ),
        ),
        serving=ServingReport(
            threshold=0.2,
            threshold_text=word,
            parity=ParityReport(100, 1e-7, 0, 1e-6),
            request=(FieldReport(name=word, dtype="str", nullable=True, personal=True, example=word),),
            curl=word,
        ),
        lineage={word: word},
        environment={word: word},
        events=(EventReport(seq=1, time=NOW, actor=word, kind=word, text=word),),
    )


class Page(HTMLParser):
    """Reads a page: its elements, its text, and whether they nest."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def test_hostile_names_stay_text() -> None:
    html = page.render(report(HOSTILE))
    read = Page(html)
    assert not read.open
    assert {tag for tag, _ in read.tags} & {"script", "img", "iframe", "object", "link", "base", "form"} == set()
    attributes = {name for _, attrs in read.tags for name in attrs}
    assert not [name for name in attributes if name.startswith("on")]
    assert not set(html) & {"\x1b", "\u202e"}
    assert "<script>alert(1)</script>" in "".join(read.text)


def test_the_page_loads_nothing_and_runs_nothing() -> None:
    html = page.render(report())
    read = Page(html)
    for tag, attrs in read.tags:
        for name in ("src", "href", "action", "data", "xlink:href", "poster"):
            assert (attrs.get(name) or "#").startswith("#"), (tag, name)
    assert "url(" not in html
    assert "@import" not in html
    policy = next(attrs["content"] for tag, attrs in read.tags if tag == "meta" and attrs.get("http-equiv"))
    assert policy is not None
    assert policy.startswith("default-src 'none'")


def test_the_page_is_readable_by_machines_and_screen_readers() -> None:
    read = Page(page.render(report()))
    anchors = {attrs["href"] for tag, attrs in read.tags if tag == "a"}
    ids = [attrs["id"] for _, attrs in read.tags if "id" in attrs]
    assert {str(anchor).removeprefix("#") for anchor in anchors} <= set(ids)
    assert len(ids) == len(set(ids))
    for tag, attrs in read.tags:
        if tag == "svg":
            assert attrs.get("aria-label") or attrs.get("aria-hidden") == "true"
        if tag == "th":
            assert attrs.get("scope") in {"col", "row"}
    html = next(attrs for tag, attrs in read.tags if tag == "html")
    assert html["lang"] == "en"


@given(st.text())
def test_any_text_is_escaped_and_comes_back_as_itself(text: str) -> None:
    found = Page(element("p", text, title=text))
    (tag, attrs), *rest = found.tags
    assert (tag, rest, found.open) == ("p", [], [])
    kept = "".join("\ufffd" if len(escape(letter)) == 1 and escape(letter) == "\ufffd" else letter for letter in text)
    assert "".join(found.text).replace("\r\n", "\n").replace("\r", "\n") == kept.replace("\r\n", "\n").replace(
        "\r", "\n"
    )
    assert attrs["title"] == kept


def test_every_section_has_something_to_say_or_is_absent() -> None:
    bare = ReportData(name="x", subject="run 1", generated=NOW, cumulant="0.1.0")
    text = "".join(Page(page.render(bare)).text)
    assert "This run did not reach training." in text
    assert "None" not in text
    assert markdown.render(bare).startswith("# run 1\n")
    sections = [attrs["aria-labelledby"] for tag, attrs in Page(page.render(report())).tags if tag == "section"]
    assert sections == ["summary", "quality", "gate", "data", "features", "training", "serving", "lineage", "events"]


def test_markdown_keeps_its_tables_whole_whatever_the_names_are() -> None:
    text = markdown.render(report("a|b\n# c <b> `d`"))
    heads = [line for line in text.splitlines() if re.fullmatch(r"\|( ---:? \|)+", line)]
    assert heads
    for line in text.splitlines():
        if line.startswith("|"):
            assert line.endswith("|")
    prose = "\n".join(line for line in text.splitlines() if not line.startswith("    "))
    prose = re.sub(r"(?<!\\)(`+)(?!`).*?(?<!`)\1(?!`)", "", prose)
    assert not re.search(r"(?<!\\)<b>", prose)
    assert "\n# c" not in text


@given(st.text(alphabet=st.characters(blacklist_categories=["Cs"])))
def test_markdown_code_survives_backticks(text: str) -> None:
    found = markdown.code(text)
    assert "\n" not in found
    if found:
        fence = re.match(r"`+", found)
        assert fence is not None
        assert found.endswith(fence[0])


def test_json_is_the_content() -> None:
    text = msgspec.json.encode(report())
    assert msgspec.json.decode(text, type=ReportData) == report()
    assert json.loads(text)["gate"]["verdict"] == "better"


@pytest.mark.parametrize("width", [40, 80, 200])
def test_the_summary_fits_the_window(width: int) -> None:
    stream = StringIO()
    show_training(Console(file=stream, width=width, markup=False, highlight=False), report("name [bold]"))
    said = stream.getvalue()
    assert "name [bold]" in said.replace("\n", " ")
    long = [
        line
        for line in said.splitlines()
        if len(line) > width and "|" not in line and not line.startswith(("  ✓", "gate", "model"))
    ]
    assert not long


def test_ticks_are_round_and_inside() -> None:
    assert svg_elements.ticks(0, 1) == [0, 0.2, 0.4, 0.6, 0.8, 1.0]
    assert svg_elements.ticks(3, 3) == [3]


@given(st.floats(-1e6, 1e6), st.floats(1e-3, 1e9))
def test_ticks_of_any_range(low: float, span: float) -> None:
    high = low + span
    found = svg_elements.ticks(low, high)
    assert all(low - 1e-6 * span <= tick <= high + 1e-6 * span for tick in found)
    assert len(found) <= 8


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.5136, "0.514"),
        (0.0123, "0.0123"),
        (0.00012, "0.00012"),
        (0.0, "0.000"),
        (12.3456, "12.346"),
        (23456.7, "23,457"),
        (1e300, "1e+300"),
        (-1.2345e15, "-1.23e+15"),
        (float("nan"), "–"),
        (None, "–"),
    ],
)
def test_figures(value: float | None, shown: str) -> None:
    assert wording.number(value) == shown


def test_whole_numbers_beyond_64_bits_have_an_exponent() -> None:
    assert wording.value(2**63 - 1) == "9,223,372,036,854,775,807"
    assert wording.value(10**400) == "1.00e+400"


def test_shares_never_round_something_to_nothing() -> None:
    assert wording.share(0) == "0.00%"
    assert wording.share(1e-7) == "<0.01%"
    assert wording.share(0.0123) == "1.23%"


def test_features_in_words() -> None:
    late = Call("gt", (Column("arr_delay"), Literal(15)))
    hour = 3_600_000_000
    cases: list[tuple[FeatureSpec, str, str]] = [
        (FeatureSpec("carrier", "str", expr=Column("carrier")), "column", "carrier of the row itself"),
        (
            FeatureSpec("h", "int", expr=Call("hour", (Column("dep"),), {"zone": "America/New_York"})),
            "expression",
            "hour of dep in America/New_York",
        ),
        (
            FeatureSpec("r", "float", expr=Call("div", (Column("a"), Call("add", (Column("b"), Literal(1)))))),
            "expression",
            "a / (b + 1)",
        ),
        (
            FeatureSpec("t", "float", lookup=Lookup("weather", ("origin",), "temp", 3 * hour)),
            "lookup",
            "temp of the newest weather row with the same origin that is known at the prediction, at most 3h old",
        ),
        (
            FeatureSpec("e", "float", lookup=Lookup("weather", ("origin",), "temp", None, "event_time")),
            "lookup",
            "temp of the newest (by event time) weather row with the same origin that is known at the prediction",
        ),
        (
            FeatureSpec("v", "float", window=Window("tx", ("card",), "last", Column("x"), hour, "event_time")),
            "window",
            "value with the latest event time of x over tx rows with the same card that became known in the last 1h",
        ),
        (
            FeatureSpec("l", "float", window=Window("flights", ("origin", "dest"), "mean", late, 6 * hour)),
            "window",
            "share with arr_delay > 15 among flights rows with the same origin and dest that became known in the last 6h",
        ),
        (
            FeatureSpec("n", "int", window=Window("flights", ("origin",), "count", None, 24 * hour)),
            "window",
            "number of flights rows with the same origin that became known in the last 1d",
        ),
        (
            FeatureSpec("m", "int", window=Window("rows", ("email",), "count", None, 24 * hour)),
            "window",
            "number of rows with the same email that became known in the last 1d",
        ),
    ]
    for feature, expected_kind, words in cases:
        assert (kind(feature), definition(feature)) == (expected_kind, words)


def test_nothing_of_a_report_depends_on_the_order_of_a_dictionary(monkeypatch: Any) -> None:
    del monkeypatch
    assert page.render(report()) == page.render(report())


def test_page_and_markdown_show_decisions_at_the_threshold_and_the_chosen_trainer() -> None:
    metrics = tuple(
        MetricReport(name=name, model=Interval(value, value - 0.01, value + 0.01), naive=None, higher_is_better=True)
        for name, value in (("average_precision", 0.42), ("precision", 0.25), ("recall", 0.61), ("cost", 0.05))
    )
    slices = (
        SliceReport(column="channel", value="web", rows=900, metrics={one.name: one.model for one in metrics}),
        SliceReport(column="channel", value="shop", rows=9, metrics={}),
    )
    trials = tuple(
        TrialReport(number=number, trainer=trainer, state="complete", score=score)
        for number, (trainer, score) in enumerate([("naive", 0.3), ("lightgbm", 0.33), ("logistic", 0.32)])
    )
    base = report()
    shown = msgspec.structs.replace(
        base,
        metrics=metrics,
        slices=slices,
        threshold=0.167,
        alerts_a_day=12.5,
        training=msgspec.structs.replace(
            base.training,
            trials=trials,
            best=1,
            score_name="log_loss",
            higher_is_better=False,
            trainer="lightgbm",
            score=0.31,
            averaged=3,
            scores={"naive": 0.3, "lightgbm": 0.31, "logistic": 0.32},
        ),
        serving=ServingReport(threshold=0.167, threshold_text="cost 1 of a false alarm against 5 of a miss"),
    )
    found = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page.render(shown)))
    assert "Threshold 0.167 cost 1 of a false alarm against 5 of a miss Alerts per day 12.5" in found
    assert "Precision 0.250 of the alerts are right" in found
    assert "channel rows average precision 95% interval recall precision cost" in found
    # The average of three trials is better than the best of another trainer, though no single one is; the baseline,
    # which scores best of all, is no rival.
    chosen = (
        "lightgbm was chosen: its mean log loss over the folds is 0.310, as the average of 3 trials; the best of other"
        " trainers: logistic 0.320; the naive baseline: 0.300."
    )
    assert chosen in found
    written = markdown.render(shown)
    assert chosen in written
    assert "- alerts per day: 12.5 (labelled test rows" in written
    assert "- precision: 0.250 (of the alerts are right; 0.240 to 0.260)" in written


def test_figures_of_a_tested_model_are_not_called_those_of_this_model() -> None:
    shown = msgspec.structs.replace(report(), of_tested=True)
    found, plain = (re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page.render(one))) for one in (shown, report()))
    assert "Measured of the tested model: the same configuration, fitted without the test rows" in found
    assert "neither the search nor the fit has seen" not in found
    stream = StringIO()
    show_metrics(Console(file=stream, width=100), shown)
    assert "tested model" in stream.getvalue()
    assert "tested model" in markdown.render(shown)
    assert "neither the search nor the fit has seen" in plain
    assert "tested model" not in plain + markdown.render(report())


def test_trials_are_sets_of_parameters_of_searched_trainers() -> None:
    """As the project file and `runs show` count them: naive and linear have no parameters to search."""
    trials = [
        TrialReport(number=number, trainer=trainer, state=state)
        for number, (trainer, state) in enumerate(
            [("naive", "complete"), ("linear", "complete"), ("lightgbm", "complete"), ("lightgbm", "pruned")]
        )
    ]
    assert decisions.trials_text(trials) == (
        "2 trials of lightgbm, 1 of them stopped early; without a search: naive, linear"
    )
    assert decisions.trials_text(trials[:1]) == "no trials; without a search: naive"
    cut = [
        TrialReport(number=number, trainer=trainer, state=state, shortened=number == 2)
        for number, (trainer, state) in enumerate(
            [("naive", "complete"), ("linear", "cut"), ("lightgbm", "complete"), ("lightgbm", "cut")]
        )
    ]
    assert decisions.trials_text(cut) == (
        "2 trials of lightgbm, 1 of them cut off by the time; without a search: naive, linear (cut off by the time, so"
        " not fitted)"
    )
    base = report()
    stream = StringIO()
    training = msgspec.structs.replace(base.training, trials=tuple(cut), best=2)
    show_training(Console(file=stream, width=200), msgspec.structs.replace(base, training=training))
    assert "number 2: lightgbm; its fits were cut short by the time" in stream.getvalue()


def test_a_blend_is_named_with_its_weights_and_its_gain_whether_it_was_chosen_or_not() -> None:
    blend = BlendReport(
        taken=True, weights={"lightgbm": 0.65, "linear": 0.35}, gain=Interval(0.0123, 0.0045, 0.021), best="lightgbm"
    )
    trial = TrialReport(number=1, trainer="lightgbm", state="complete", score=0.31)
    training = TrainingReport(
        trials=(trial,), score_name="log_loss", score=0.3, trainer="blend", scores={"lightgbm": 0.31}, blend=blend
    )
    assert decisions.search_summary(training) == (
        "1 trial of lightgbm. A blend of lightgbm (0.65) and linear (0.35) was chosen: its mean log loss over the"
        " folds is 0.300, by weights fitted on the other folds; it is better than lightgbm alone by 0.0123 (95%"
        " interval 0.0045 to 0.0210); the best of other trainers: lightgbm 0.310."
    )
    searched = msgspec.structs.replace(training, trials=(trial, msgspec.structs.replace(trial, number=2, tuned=True)))
    assert (
        "than lightgbm alone by 0.0123 (95% interval 0.0045 to 0.0210) (a trainer's score flatters it, the more"
        " trials it had); the best of other trainers"
    ) in decisions.search_summary(searched)
    left = msgspec.structs.replace(blend, taken=False, gain=Interval(0.0123, -0.0045, 0.021))
    alone = msgspec.structs.replace(training, trainer="lightgbm", score=0.31, blend=left)
    assert decisions.search_summary(alone).endswith(
        "a blend of lightgbm (0.65) and linear (0.35) was not chosen: it is not better beyond noise, 0.0123 (95%"
        " interval -0.0045 to 0.0210)."
    )


def test_calibration_of_rare_positives_fills_its_axes() -> None:
    rare = report_charts.calibration([Point(0.002, 0.001, 900), Point(0.011, 0.013, 100)])
    across = [float(x) for x in re.findall(r'cx="([\d.]+)"', str(rare))]
    wide = [
        float(x)
        for x in re.findall(r'cx="([\d.]+)"', str(report_charts.calibration([Point(0.2, 0.1), Point(0.9, 0.8)])))
    ]
    assert across[-1] - across[0] > 0.7 * (wide[-1] - wide[0])
    assert ">0.014<" in str(rare) or ">0.015<" in str(rare)
