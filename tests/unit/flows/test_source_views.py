"""Sources as pages show them: snapshots in order, changed columns, and quarantine by rule and day with bad cells."""

from __future__ import annotations

import pytest

from cumulant.core.errors import ContractBreachError, NotFoundError
from cumulant.flows.data.source_views import list_sources, quarantine_view, show_source
from cumulant.flows.data.validate import validate
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
