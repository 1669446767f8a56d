"""Events as pages: newest first, filtered, and each event on one page."""

from typing import ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cumulant.core.errors import RefusedError, UsageError
from cumulant.core.events import Actor, Fact
from cumulant.flows.ledger import event_pages
from cumulant.flows.ledger.event_pages import EventFilter, event_page
from cumulant.ports.access import Principal
from cumulant.project.file.loading import load
from cumulant.testing.access import GrantedAccess

ADA = Principal("user:ada")
COUNT = 30


class Counted(Fact, frozen=True, kw_only=True):
    kind: ClassVar[str] = "count.even"
    number: int


class Odd(Fact, frozen=True, kw_only=True):
    kind: ClassVar[str] = "count.odd"
    number: int
    text: str = "Größe"


def filled(folder):
    (folder / "cumulant.yaml").write_text("version: 1\nmodel: {name: late}\n")
    loaded = load(folder)
    for number in range(1, COUNT + 1):
        actor = Actor("user:ada" if number % 3 else "service:controller", "because" if number == 7 else None)
        with loaded.journal().transaction(actor=actor, run="run-1" if number <= 10 else None) as transaction:
            transaction.emit(Odd(number=number) if number % 2 else Counted(number=number))
    return loaded


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    with filled(tmp_path_factory.mktemp("events")) as loaded:
        yield loaded


def all_pages(project, query, limit):
    seqs, before = [], None
    while True:
        page = event_page(project, query, principal=ADA, before=before, limit=limit)
        assert len(page.events) <= limit
        seqs += [event.seq for event in page.events]
        before = page.before
        if before is None:
            return seqs


@given(
    st.integers(1, 40), st.integers(1, 12), st.sampled_from(["", "count.odd", "count.", "count.o*", "other"]),
    st.sampled_from(["", "ada", "user:ada", "controller", "nobody"]), st.sampled_from(["", "run-1", "run-2"]),
)  # fmt: skip
def test_the_pages_are_the_matching_events_once_each_newest_first(project, limit, chunk, kind, actor, run):
    query = EventFilter(kinds=(kind,) if kind else (), actor=actor, run=run)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(event_pages, "_CHUNK", chunk)
        listed = all_pages(project, query, limit)
    expected = [event.seq for event in project.journal().events() if query.matches(event)]
    assert listed == expected[::-1]


@pytest.mark.parametrize(
    ("text", "count"),
    [("GRÖSSE", 15), ("größe", 15), ("because", 1), ("run-1", 10), ('"number":12', 1), ("nothing", 0)],
)
def test_text_is_looked_for_in_all_of_an_event(project, text, count):
    assert len(all_pages(project, EventFilter(text=text), 50)) == count


def test_a_page_without_match_reads_a_bounded_part_and_says_so(project, monkeypatch):
    monkeypatch.setattr(event_pages, "_CHUNK", 5)
    monkeypatch.setattr(event_pages, "SEARCHED", 10)
    page = event_page(project, EventFilter(text="nothing"), principal=ADA)
    assert (page.events, page.before, page.searched_to, page.newest) == ((), 21, 21, COUNT)
    assert all_pages(project, EventFilter(text='"number":2,'), 50) == []


def test_new_events_move_no_page(tmp_path):
    with filled(tmp_path) as project:
        first = event_page(project, EventFilter(), principal=ADA, limit=10)
        with project.journal().transaction(actor=Actor("user:ada")) as transaction:
            transaction.emit(Counted(number=0))
        second = event_page(project, EventFilter(), principal=ADA, before=first.before, limit=10)
        assert [event.seq for event in second.events] == [event.seq - 10 for event in first.events]
        assert event_page(project, EventFilter(), principal=ADA, limit=1).events[0].seq == COUNT + 1


@pytest.mark.parametrize("limit", [0, -1, 1_001])
def test_a_page_has_bounds(project, limit):
    with pytest.raises(UsageError, match="has to be 1 to 1,000"):
        event_page(project, EventFilter(), principal=ADA, limit=limit)


def test_a_cursor_beyond_the_chain_is_its_end(project):
    far = event_page(project, EventFilter(), principal=ADA, before=10**15, limit=1)
    assert far.events == event_page(project, EventFilter(), principal=ADA, limit=1).events
    assert event_page(project, EventFilter(), principal=ADA, before=1).events == ()
    assert event_page(project, EventFilter(), principal=ADA, before=-5).events == ()


def test_a_principal_without_the_action_sees_none(project, monkeypatch):
    monkeypatch.setattr(project, "access", GrantedAccess)
    with pytest.raises(RefusedError):
        event_page(project, EventFilter(), principal=ADA)
