"""`cumulant predictions gaps` beside a gateway: requests that a server answered, by the gateway's log, and never logged."""

from __future__ import annotations

import contextlib
import tracemalloc
from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from cumulant.core.traffic import CANDIDATE, CHAMPION, Exchange, predicts
from cumulant.core.units import to_micros
from cumulant.drivers.envoy.exchanges import ExchangeWriter
from cumulant.flows.serving.unlogged_requests import UnloggedRequests, compare_with_gateway, read_answered
from cumulant.flows.stack.desired_state import ServedVersion, change_desired_state
from cumulant.project.file.loading import load
from cumulant.serving.prediction_log.entry import LogEntry
from cumulant.serving.prediction_log.personal_values import PersonalValueMask
from cumulant.serving.prediction_log.storage.part_writer import LogParts
from cumulant.testing.clock import ManualClock

NOON = datetime(2026, 11, 29, 12, tzinfo=UTC)


def exchange(request, at=NOON, **other):
    answered = Exchange(
        request=request, time=to_micros(at), model="m", assigned=CHAMPION, served=CHAMPION, status=200, duration_us=900
    )
    return msgspec.structs.replace(answered, **other)


def log_rows(folder, *rows):
    """Rows of requests: id, moment, and whether it is a mirrored copy."""

    def failed(error, _):
        raise error

    parts = LogParts(folder, PersonalValueMask(b"k", {"m": []}), file_size=1 << 26, failed=failed)
    for number, (name, at, shadow) in enumerate(rows, 1):
        one = LogEntry(
            id=name, time_us=to_micros(at), latency_us=1, model="m", version="1", sequence=number, shadow=shadow,
            rows=b'[{"a":1},{"a":2}]', answers=b'[{"p":0.5},{"p":0.5}]',
        )  # fmt: skip
        parts.add(one, "w.1", "eu")
    parts.close()


def answer(project, *exchanges):
    folder = project.state / "gateway" / "exchanges"
    folder.mkdir(parents=True, exist_ok=True)
    with contextlib.closing(ExchangeWriter(folder)) as writer:
        writer.write(list(exchanges))


@pytest.fixture
def project(tmp_path):
    (tmp_path / "cumulant.yaml").write_text("version: 1\nmodel: {name: m}\nserving: {log: {keep: 30d}}\n")
    with load(tmp_path) as loaded:
        yield loaded


def serve(project):
    change_desired_state(
        project.state,
        "m",
        lambda desired: msgspec.structs.replace(desired, champion="1", versions={"1": ServedVersion(version="1")}),
    )


def compare(project, now=NOON + timedelta(hours=2)):
    return compare_with_gateway(project, principal=project.principal(), clock=ManualClock(now))


def test_requests_that_a_server_answered_and_no_row_has_are_counted_by_hour_and_arm(project):
    assert compare(project) is None  # nothing was served behind a gateway
    serve(project)
    later, midnight = NOON + timedelta(hours=1, minutes=5), NOON + timedelta(hours=12)
    log_rows(
        project.state / "predictions",
        ("logged", NOON, False),
        ("mirrored", NOON, True),
        ("late", midnight - timedelta(milliseconds=1), False),
    )
    answer(
        project,
        exchange("logged"),
        exchange("lost 1"),
        exchange("lost 2", NOON + timedelta(minutes=59)),
        exchange("mirrored"),  # the candidate's copy of it is there, and its own row is not
        exchange("lost 3", later, assigned=CANDIDATE, served=CANDIDATE),
        exchange("late", midnight),  # answered on the next day, by the gateway's clock
        # what leaves no row
        exchange("failed", status=503),
        exchange("unanswered", served="", fault="timeout"),
        exchange("a probe", predicts=False),
        exchange("another's", model="x"),
        exchange(""),  # erased
        exchange("deleted", NOON - timedelta(days=30)),  # as its row may be
    )
    at = NOON.replace(minute=0)
    lost = [
        UnloggedRequests(hour=at, arm=CHAMPION, requests=3),
        UnloggedRequests(hour=at + timedelta(hours=1), arm=CANDIDATE, requests=1),
    ]
    compared = compare(project, midnight + timedelta(hours=1))
    assert (compared.compared, compared.unlogged) == (6, lost)
    # the row of a request of the last minute may be under way
    assert compare(project, later + timedelta(seconds=59)).unlogged == lost[:1]


def test_a_row_is_looked_for_near_the_day_of_its_answer_and_each_answer_counts(project):
    serve(project)
    log_rows(
        project.state / "predictions",
        ("a day before", NOON - timedelta(days=1), False),
        ("a day after", NOON + timedelta(days=1), False),
        ("another request of the same id", NOON - timedelta(days=2), False),
        ("of other days", NOON + timedelta(days=3), False),
    )
    names = ("a day before", "a day after", "another request of the same id", "lost", "lost")
    answer(project, *map(exchange, names), exchange("lost", NOON + timedelta(days=3), served=CANDIDATE))
    compared = compare(project, NOON + timedelta(days=4))
    lost = [
        UnloggedRequests(hour=NOON, arm=CHAMPION, requests=3),
        UnloggedRequests(hour=NOON + timedelta(days=3), arm=CANDIDATE, requests=1),
    ]
    assert (compared.compared, compared.unlogged) == (6, lost)


def test_an_answered_request_takes_few_bytes_while_the_logs_are_compared():
    class ManyExchanges:
        def exchanges(self, cursor, *, limit):
            first, count = int(cursor or 0), min(limit, 30_000 - int(cursor or 0))
            made = [exchange(f"r{number}") for number in range(first, first + count)]
            return made, str(first + count)

    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        answered = read_answered(ManyExchanges(), "m", NOON - timedelta(days=1), NOON + timedelta(days=1))
        kept = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert len(answered) == 30_000
    assert kept / len(answered) < 20


def test_what_is_missing_is_shown_and_what_was_not_compared_is_said(project, cumulant):
    words = ("predictions", "gaps", "--project", str(project.root))
    assert "no gateway's log was compared" in cumulant(*words).out
    serve(project)
    assert "the gateway's log has no answered request" in cumulant(*words).out
    at = datetime.now(UTC) - timedelta(minutes=5)
    log_rows(project.state / "predictions", ("logged", at, False))
    answer(project, exchange("logged", at))
    shown = cumulant(*words)
    assert "no gap" in shown.out
    assert "has all 1 requests" in shown.out
    answer(project, exchange("lost", at))
    shown = cumulant(*words)
    assert "1 of the 2 requests that the gateway's log has as answered" in shown.out
    (missing,) = cumulant(*words, "--json").document
    assert (missing["worker"], missing["arm"], missing["requests"]) == (None, CHAMPION, 1)
    assert "no gateway's log was compared" in cumulant(*words, "--log", str(project.state / "predictions")).out


def test_posts_that_are_no_predictions_leave_no_row():
    assert predicts("POST", "/v1/models/m/predict?x=1")
    assert predicts("POST", "/v2/models/m/infer")
    for target in ("/v1/labels", "/v1/events/", "/v2/repository/index", "/v2/repository/models/m/load?x=1"):
        assert not predicts("POST", target)
    assert not predicts("GET", "/v1/models/m/predict")
