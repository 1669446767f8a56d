"""What the console keeps: rows that are rendered already, and overviews of many projects."""

from __future__ import annotations

import re
import threading

from console_support import ADA, HOSTILE, console_client, make_project

from cumulant.console.rows import RenderedRows
from cumulant.core.events import Actor
from cumulant.flows.registry.models import ModelAliased
from cumulant.server.overviews import Overviews
from cumulant.testing.access import GrantedAccess


def rows_of(rows, items, base="/b", seen=None):
    def values(item):
        if seen is not None:
            seen.append(item)
        return {"version": Version(item)}

    return rows.render("version", items, key=str, values=values, base=base, run_base="/r")


def emit(project, fact):
    with project.journal().transaction(actor=Actor("user:ada")) as transaction:
        transaction.emit(fact)


class Version:
    aliases, created = (), None

    def __init__(self, text):
        self.name, self.version, self.tags = "m", text, {}


def test_a_row_is_rendered_once_and_again_for_another_place():
    rows, seen = RenderedRows(), []
    first = rows_of(rows, ["1", "2"], seen=seen)
    assert rows_of(rows, ["1", "2"], seen=seen) == first
    assert seen == ["1", "2"]
    assert 'href="/other/m/1"' in rows_of(rows, ["1"], base="/other", seen=seen)
    assert seen == ["1", "2", "1"]
    assert HOSTILE not in rows_of(rows, [HOSTILE])


def test_rows_that_were_used_longest_ago_are_dropped():
    rows, seen = RenderedRows(most=2), []
    for item in ("1", "2", "1", "3", "1", "2"):
        rows_of(rows, [item], seen=seen)
    assert seen == ["1", "2", "3", "2"]


def test_a_large_row_is_shown_and_not_kept():
    rows, seen, large = RenderedRows(), [], "1" * 20_000
    assert large in rows_of(rows, [large], seen=seen)
    assert rows_of(rows, [large, "1"], seen=seen).count(large) == 2
    assert seen == [large, large, "1"]


def test_a_new_event_is_shown_with_the_rendered_ones(tmp_path):
    with make_project(tmp_path / "late", "late") as project:
        client = console_client(project)
        for version in ("1", "2"):
            emit(project, ModelAliased(model="late", alias="champion", version=version))
            text = client.get("/projects/late/events").text
        assert re.findall(r'id="event-(\d+)"', text) == ["2", "1"]


def test_few_projects_are_read_for_each_page_and_many_by_a_thread(tmp_path):
    with make_project(tmp_path / "a", "a") as first, make_project(tmp_path / "b", "b") as second:
        projects, now = {"a": first, "b": second}, [100.0]
        few, many = (Overviews(steady=lambda: now[0], few=few) for few in (2, 1))
        assert [each.project for each in few.of(projects)] == ["a", "b"]
        old = many.of(projects)
        assert all(each is known for each, known in zip(many.of(projects), old, strict=True))
        emit(first, ModelAliased(model="a", alias="champion", version="7"))
        assert few.of(projects)[0].champion == "7"
        now[0] += 31  # older than a page may show
        assert many.of(projects)[0].champion == "7"
        assert [many.memory(each) is many.memory(first) for each in projects.values()] == [True, False]
        now[0] += 1_000  # nobody looks any more
        worker = next(thread for thread in threading.enumerate() if thread.name == "overviews")
        worker.join(60)
        assert not worker.is_alive()


def test_a_list_of_many_projects_checks_what_it_shows(tmp_path, monkeypatch):
    with make_project(tmp_path / "a", "a") as first, make_project(tmp_path / "b", "b") as second:
        projects, now = {"a": first, "b": second}, [100.0]
        overviews = Overviews(steady=lambda: now[0], few=1)

        def shown(place):
            listed = overviews.page(ADA, projects, place)
            return [each.project for each in listed.overviews[place]], sum(listed.levels.values())

        assert shown(slice(0, 2)) == (["a", "b"], 2)
        now[0] += 1
        monkeypatch.setattr(second, "access", GrantedAccess)
        assert shown(slice(0, 1)) == (["a"], 2)  # remembered for seconds: how many there are
        assert shown(slice(0, 2)) == (["a"], 1)
        monkeypatch.undo()
        now[0] += 5
        assert shown(slice(0, 2)) == (["a", "b"], 2)
        overviews.close()
