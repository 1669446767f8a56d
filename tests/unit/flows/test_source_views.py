"""Sources as pages show them: snapshots in order, changed columns, and quarantine by rule and day with bad cells."""

from __future__ import annotations

from itertools import product

import polars as pl
import pytest

from cumulant.core.errors import ContractBreachError, NotFoundError
from cumulant.data import views
from cumulant.flows.data.source_views import list_sources, quarantine_view, show_source
from cumulant.flows.data.validate import newest_snapshot, validate
from cumulant.project.file.loading import load

PROJECT = """\
version: 1
model: {name: shop, owner: shop@example.com, purpose: test}
data:
  visits:
    path: visits.csv
    key: visit
    event_time: {column: at, zone: UTC}
    personal: [email]
    rules: {pages: {min: 1}}
    quarantine: 60%
  empty: {path: none/*.csv}
"""
ROWS = [
    "v1,2026-01-01T10:00:00Z,a@example.com,3",
    "v2,2026-01-01T11:00:00Z,b@example.com,-1",
    "v3,2026-01-02T11:00:00Z,<b>x</b>,-2",
    "v4,2026-01-02T11:00:00Z,c@example.com,4",
    "v4,2026-01-02T12:00:00Z,c@example.com,5",
    "v5,2026-01-02T12:00:00Z,d@example.com,5",
]


@pytest.fixture
def project(tmp_path):
    (tmp_path / "cumulant.yaml").write_text(PROJECT)
    write(tmp_path, ROWS)
    with load(tmp_path) as loaded:
        yield loaded


def write(folder, rows, head="visit,at,email,pages"):
    (folder / "visits.csv").write_text("\n".join([head, *rows]) + "\n")


def test_a_source_without_a_snapshot_has_nothing_to_show(project):
    who = project.principal()
    assert [(line.name, line.snapshot, line.refused) for line in list_sources(project, principal=who)] == [
        ("visits", None, None),
        ("empty", None, None),
    ]
    assert quarantine_view(project, "visits", principal=who) is None
    with pytest.raises(NotFoundError):
        show_source(project, "visit", principal=who)


def test_refused_rows_lie_under_their_rule_and_day_with_the_bad_cell(project):
    who = project.principal()
    validate(project, principal=who, sources=["visits"])
    view = quarantine_view(project, "visits", principal=who)
    assert {(cell.rule, cell.day, cell.rows) for cell in view.cells} == {
        ("pages:min", "2026-01-01", 1),
        ("pages:min", "2026-01-02", 1),
        ("key:repeat", "2026-01-02", 1),
    }
    assert (view.total, view.matching, view.of_refused) == (3, 3, False)
    assert view.rules == ("pages:min", "key:repeat")
    by_rule = {row.rule: row for row in view.rows}
    assert by_rule["pages:min"].bad == ("pages",)
    assert by_rule["key:repeat"].bad == ("visit",)
    assert all(row.values["email"].startswith("#") for row in view.rows)

    second = quarantine_view(project, "visits", principal=who, rule="pages:min", day="2026-01-02")
    assert [row.values["pages"] for row in second.rows] == ["-2"]
    assert (second.matching, second.total) == (1, 3)
    first = quarantine_view(project, "visits", principal=who, rule="pages:min", limit=1)
    assert first.after == 1
    assert quarantine_view(project, "visits", principal=who, rule="pages:min", limit=1, after=1).after is None
    assert "access.personal_data_read" in {event.kind for event in project.journal().events()}


@pytest.mark.parametrize("personal", ["[email]", "[email, at]", "[]"])
def test_a_page_reads_what_the_whole_quarantine_has(tmp_path, monkeypatch, personal):
    """Also of broken rows, whose values are all hashed and which come last, and with rows between that are skipped."""
    monkeypatch.setattr(views, "_APART", 2)
    (tmp_path / "cumulant.yaml").write_text(PROJECT.replace("[email]", personal).replace("60%", "90%"))
    lines = [
        f"v{n}" if n % 5 == 2 else f"v{n},2026-01-0{n % 3 + 1}T10:00:00Z,{n}@example.com,{n % 7 - 4}" for n in range(60)
    ]
    write(tmp_path, [*lines, "w1,no time,x,-1", *(f"x{n},2026-01-09T10:00:00Z,y,9" for n in range(9))])
    with load(tmp_path) as project:
        who = project.principal()
        validate(project, principal=who, sources=["visits"])
        snapshot = newest_snapshot(project, "visits")
        whole = views.read_quarantine(snapshot, project.tables(), project.salt())
        days = whole["at"].cast(pl.String).str.extract(r"^(\d{4}-\d\d-\d\d)").fill_null("").alias("day")
        whole = whole.with_columns(days)
        names = [name for name in whole.columns if not name.startswith("__") and name != "day"]
        assert {"pages:min", "row:fields", "at:type"} <= set(whole["__rule"])
        for rule, day, after in product(("", "pages:min", "row:fields"), ("", "2026-01-02"), (0, 3, 40)):
            matching = whole.filter(pl.lit(rule == "") | (pl.col("__rule") == rule))
            matching = matching.filter(pl.lit(day == "") | (pl.col("day") == day))
            view = quarantine_view(project, "visits", principal=who, rule=rule, day=day, after=after, limit=7)
            assert (view.total, view.matching) == (whole.height, matching.height)
            assert [cell.rows for cell in view.cells] == whole.group_by("__rule", "day").len().sort("__rule", "day")[
                "len"
            ].to_list()
            expected = matching[after : after + 7].select("__rule", "__file", "__row", *names).rows()
            shown = [(row.rule, row.file, row.row, *(row.values[name] for name in names)) for row in view.rows]
            assert shown == [
                (*row[:3], *(None if value is None else str(value) for value in row[3:])) for row in expected
            ]
            assert view.columns == tuple(names)


def test_a_refused_snapshot_and_changed_columns_are_in_the_history(project):
    who = project.principal()
    validate(project, principal=who, sources=["visits"])
    write(
        project.root,
        [f"w{n},2026-02-0{n}T00:00:00Z,x@example.com,-1,new" for n in range(1, 9)],
        "visit,at,email,pages,kind",
    )
    with pytest.raises(ContractBreachError):
        validate(project, principal=who, sources=["visits"])
    detail = show_source(project, "visits", principal=who)
    assert [(line.accepted, line.rows_in) for line in detail.history] == [(False, 8), (True, 6)]
    assert detail.history[0].breaches
    assert [(change.change, change.column) for change in detail.changes] == [("added", "kind")]
    line = list_sources(project, principal=who)[0]
    assert (line.snapshot.rows_quarantined, line.refused.rows_quarantined) == (3, 8)
    assert quarantine_view(project, "visits", principal=who).of_refused
