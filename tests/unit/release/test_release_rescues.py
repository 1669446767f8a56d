"""Requests that another arm rescued: an arm's failures where its servers failed, nobody's where a machine was lost."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import count

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from releases import MOMENT, hard_failure, release, remembered
from test_release_evidence import Gateway, exchange

from cumulant.core.traffic import CANDIDATE, CHAMPION, Arm, Exchange
from cumulant.flows.release.controller.custom_metrics import CustomMetrics
from cumulant.flows.release.controller.evidence import Cursor, LiveEvidence, ServerStatus
from cumulant.flows.release.controller.rescues import RescuedRequests
from cumulant.release.decide import start
from cumulant.testing.clock import ManualClock
from cumulant.testing.log import folder_log

#: by machine, a server of each version
URLS = {arm: tuple(f"http://{machine}:{port}" for machine in "ab") for arm, port in ((CHAMPION, 1), (CANDIDATE, 2))}
READY, DOWN, RESTARTED = ServerStatus(ready=True), ServerStatus(ready=False), ServerStatus(ready=True, restarts=1)


class Machines:
    """A release on machines a and b, each of which serves both versions; `reports` are of their supervisors, by URL.

    `known`: the controller has read their first reports.
    """

    def __init__(self, folder, *, known=True, **changes) -> None:
        self.now, self.clock, self.traffic = 0.0, ManualClock(MOMENT), Gateway()
        self.times = count()
        self.release = machines_release(changes.pop("candidate", "2"))
        self.reports = {url: READY for urls in URLS.values() for url in urls}
        self.evidence = LiveEvidence(
            self.traffic,
            exchanges=self.traffic,
            stack=folder / "stack",
            log=folder_log(folder / "log"),
            own=CustomMetrics(folder, print),
            clock=self.clock,
            report=print,
            steady=lambda: self.now,
            **{"servers": lambda: self.reports} | changes,
        )
        self.cursor = ""
        if known:
            self.health()

    def wait(self, seconds) -> None:
        self.now += seconds
        self.clock.sleep(seconds)

    def lose(self) -> None:
        """Machine b reports no more; its last report has been removed."""
        self.reports = {url: report for url, report in self.reports.items() if "//a:" in url}

    def requests(self, *, rescued=40, answered=10) -> None:
        """Of the candidate, and nine times as many of the champion, which are answered."""
        self.traffic.put([exchange(CHAMPION)] * 9 * (rescued + answered))
        self.traffic.put([exchange(CANDIDATE)] * answered)
        self.traffic.put([exchange_rescued(at=next(self.times)) for _ in range(rescued)])

    def health(self):
        health = self.evidence.health(self.release)
        return health.candidate.requests, health.candidate.failures, hard_failure(self.release, health) is not None

    def look(self, seconds=10.0, *, stored=True):
        self.wait(seconds)
        found, after = self.evidence.look(msgspec.structs.replace(self.release, cursor=self.cursor), seconds)
        self.cursor = after if stored else self.cursor
        mine = found.requests.arm(CANDIDATE)
        return int(mine.sum()), int(found.requests.failed[mine].sum())


def machines_release(candidate="2"):
    return start(
        remembered(
            release(
                champion=Arm(name=CHAMPION, version="1", endpoints=URLS[CHAMPION]),
                candidate=Arm(name=CANDIDATE, version=candidate, endpoints=URLS[CANDIDATE]),
            )
        )
    )


def exchange_rescued(arm=CANDIDATE, *, at=0):
    other, rescued = CHAMPION if arm == CANDIDATE else CANDIDATE, exchange(arm)
    return msgspec.structs.replace(rescued, served=other, time=rescued.time + at)


def test_a_lost_machine_is_no_failure_of_the_version(tmp_path):
    machines = Machines(tmp_path)
    machines.requests()
    assert machines.health() == (10, 0, False), "nothing is reported yet"
    machines.wait(3)
    machines.lose()
    assert machines.health() == (10, 0, False)
    assert machines.look() == (10, 0)
    assert machines.look() == (0, 0), "and not later either"


@pytest.mark.parametrize("report", [DOWN, RESTARTED])
def test_a_version_whose_server_fails_on_a_machine_that_reports_is_charged(tmp_path, report):
    machines = Machines(tmp_path)
    machines.requests()
    assert machines.health() == (10, 0, False)
    machines.wait(2)  # the next report of the supervisor
    machines.reports |= {"http://b:2": report}
    assert machines.health() == (50, 40, True)
    assert machines.look() == (50, 40)
    assert machines.look() == (0, 0), "each once"


def test_rescues_of_before_the_report_are_counted_in_the_next_look(tmp_path):
    machines = Machines(tmp_path)
    machines.requests()
    assert machines.look() == (10, 0)
    machines.reports |= {"http://b:2": DOWN}
    machines.health()
    machines.requests(rescued=5, answered=0)
    assert machines.look() == (45, 45)


@pytest.mark.parametrize(("looks", "counted"), [(3, 40), (12, 0)])
def test_with_short_looks_a_report_has_seconds_to_come(tmp_path, looks, counted):
    machines = Machines(tmp_path)
    machines.requests()
    assert machines.look(1.0) == (10, 0)
    for _ in range(looks):
        assert machines.look(1.0) == (0, 0)
    machines.reports |= {"http://b:2": DOWN}
    machines.health()
    assert machines.look(1.0) == (counted, counted)


def test_requests_of_looks_whose_results_were_not_stored_are_counted_once(tmp_path):
    machines = Machines(tmp_path)
    machines.requests()
    for _ in range(3):
        assert machines.look(1.0, stored=False) == (10, 0)
    assert machines.look(1.0) == (10, 0)
    machines.reports |= {"http://b:2": DOWN}
    machines.health()
    assert machines.look(1.0) == (40, 40)
    assert machines.look(1.0) == (0, 0)


@pytest.mark.parametrize("seconds", [1.0, 30.0])
def test_requests_that_count_do_so_in_the_look_whose_result_is_stored(tmp_path, seconds):
    machines = Machines(tmp_path)
    machines.requests(rescued=20)
    assert machines.look(1.0) == (10, 0)
    machines.requests(rescued=20)
    machines.reports |= {"http://b:2": DOWN}
    machines.health()
    assert machines.look(1.0, stored=False) == (50, 40)
    machines.wait(seconds)  # of another failed attempt to store it
    assert machines.look(1.0) == (50, 40)
    assert machines.look(1.0) == (0, 0)


def test_a_failure_long_after_a_lost_machine_does_not_charge_what_is_read_again(tmp_path):
    machines = Machines(tmp_path)
    machines.requests()
    for _ in range(12):
        assert machines.look(1.0, stored=False) == (10, 0)
    machines.reports |= {"http://b:2": DOWN}
    machines.health()
    machines.requests(rescued=0)
    assert machines.look(1.0) == (20, 0)


@dataclass
class Batch:
    """Rescued requests: the look that read them first, and whether a report explains them."""

    requests: int
    read_at: float | None = None
    failed: bool = False


ROUNDS = st.lists(
    st.tuples(st.integers(0, 4), st.booleans(), st.booleans(), st.sampled_from([0.0, 6.0, 20.0])), max_size=25
)


@given(rounds=ROUNDS)
def test_looks_count_what_reports_explain_once_whichever_results_are_stored(rounds):
    """Each round: rescued requests, whether a server fails, whether the look's result is stored, a pause before it."""
    now, failed_at, release = 0.0, float("-inf"), machines_release()
    log, waiting = list[Exchange](), list[Batch]()
    rescues, known = RescuedRequests(lambda: now), 0
    for requests, fails, stored, pause in rounds:
        now += pause
        log += [exchange_rescued(at=len(log) + number) for number in range(requests)]
        waiting.append(Batch(requests))
        for report in (READY, DOWN if fails else READY):
            rescues.observe([release.champion, release.candidate], {"http://b:2": report})
        failed_at = now if fails else failed_at
        for batch in waiting:
            batch.failed |= fails and batch.read_at is not None and now - batch.read_at <= 10
        now += 1
        for batch in waiting:
            if batch.read_at is None:
                batch.read_at, batch.failed = now, now - failed_at <= 1 + 10
        counted = rescues.count(release, log[known:], 1.0, after=f"{len(log)} {now}")
        assert len(counted) == sum(batch.requests for batch in waiting if batch.failed)
        if stored:
            release, known = msgspec.structs.replace(release, cursor=f"{len(log)} {now}"), len(log)
            waiting = [batch for batch in waiting if not batch.failed and now - batch.read_at <= 10]


def test_a_look_after_one_of_another_controller_has_its_own_requests_alone(tmp_path):
    machines = Machines(tmp_path)
    machines.requests()
    assert machines.look(1.0) == (10, 0)
    assert machines.look(1.0, stored=False) == (0, 0)
    machines.requests(rescued=5, answered=0)
    machines.cursor = str(Cursor(gateway=machines.traffic.exchanges()[1]))
    machines.reports |= {"http://b:2": DOWN}
    machines.health()
    machines.requests(rescued=3, answered=0)
    assert machines.look(1.0) == (3, 3)


def test_a_failed_server_of_the_champion_does_not_charge_the_candidate(tmp_path):
    machines = Machines(tmp_path)
    machines.reports |= {"http://b:1": DOWN}
    machines.requests()
    machines.traffic.put([exchange_rescued(CHAMPION)])
    health = machines.evidence.health(machines.release)
    assert (health.candidate.failures, health.champion.failures) == (0, 1)


@pytest.mark.parametrize("report", [DOWN, RESTARTED])
@pytest.mark.parametrize("known", [True, False], ids=["seen", "before the controller"])
def test_a_failure_on_one_machine_does_not_charge_the_loss_of_another_later(tmp_path, report, known):
    machines = Machines(tmp_path, known=known)
    machines.reports |= {"http://a:2": report}
    for seconds in (1, 29) if known else (1,):  # the report stands for a minute
        machines.wait(seconds)
        assert machines.health() == (0, 0, False)
    machines.lose()
    machines.requests()
    assert machines.health() == (10, 0, False)
    assert machines.look() == (10, 0)


def test_each_restart_and_each_server_charges_anew(tmp_path):
    machines = Machines(tmp_path)
    for report in (
        {"http://a:2": RESTARTED},
        {"http://a:2": ServerStatus(ready=True, restarts=2)},
        {"http://b:2": DOWN},
    ):
        machines.wait(30)
        machines.requests()
        assert machines.health() == (10, 0, False)
        machines.reports |= report
        assert machines.health() == (50, 40, True)


def test_other_failures_count_whatever_is_reported(tmp_path):
    machines = Machines(tmp_path)
    machines.lose()
    machines.traffic.put([exchange(status=500), exchange(status=503, fault="reset"), exchange(status=504)])
    assert machines.health()[:2] == (3, 3)
    assert machines.look() == (3, 3)


@pytest.mark.parametrize("other", [{"servers": None}, {"candidate": "http://their.own"}])
def test_on_one_machine_and_of_external_servers_each_rescue_is_a_failure(tmp_path, other):
    machines = Machines(tmp_path, **other)
    machines.requests()
    assert machines.health() == (50, 40, True)
    assert machines.look() == (50, 40)
