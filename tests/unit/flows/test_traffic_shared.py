"""Routes of several gateways by the journal: agents follow them, and `apply` waits for the ready ones."""

from __future__ import annotations

import threading
from contextlib import contextmanager

import msgspec
import pytest

from cumulant.core.errors import EngineUnavailableError, IntegrityError, LeaseHeldError, StorageError, UsageError
from cumulant.core.traffic import CANDIDATE, CHAMPION
from cumulant.flows.ledger.processes import Process, this_process
from cumulant.flows.traffic import rows
from cumulant.flows.traffic.agent import ENDED, GatewayAgent
from cumulant.flows.traffic.rows import GATEWAY, LAPSE, SILENT, GatewayReport, list_reports, list_routes, put_routes
from cumulant.flows.traffic.shared_traffic import SharedTraffic
from cumulant.ports.traffic import EndpointHealth, GatewayAddress
from cumulant.testing.conformance.routes import MODEL, RoutesConformance, routes_of
from cumulant.testing.gateways import wait_for
from cumulant.testing.journal import MemoryJournal
from cumulant.testing.traffic import MemoryTraffic

FIRST = routes_of("http://127.0.0.1:1", revision=1)
SECOND = routes_of("http://127.0.0.1:1", "http://127.0.0.1:2", weight=10.0, revision=2)


class Gateway(MemoryTraffic):
    """A gateway in memory that runs. `fault`: why it takes no routes."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name, self.runs, self.fault = name, True, None
        self.ready: list[float] = []
        self.reason = ""
        self.shares: list[int] = []

    def address(self):
        return GatewayAddress(url=f"http://{self.name}:80", admin="", pid=1) if self.runs else None

    def apply(self, routes):
        if self.fault is not None:
            raise self.fault
        super().apply(routes)

    def keep_ready(self, seconds, reason=""):
        self.ready.append(seconds)
        self.reason = reason

    def share_rates(self, gateways):
        self.shares.append(gateways)


@pytest.fixture
def journal():
    return MemoryJournal()


def agent(gateway, journal, **other):
    return GatewayAgent(gateway, journal, host=gateway.name, **other)


@contextmanager
def following(*agents):
    """The agents' rounds, in threads."""
    ended = threading.Event()
    threads = [threading.Thread(target=one.run, args=(ended.wait,)) for one in agents]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        ended.set()
        for thread in threads:
            thread.join()


class TestSharedTraffic(RoutesConformance):
    """Without a gateway, and with two that follow."""

    @pytest.fixture
    def connect(self, journal):
        return lambda: SharedTraffic(journal)


class TestFollowedTraffic(RoutesConformance):
    @pytest.fixture
    def connect(self, journal):
        with following(agent(Gateway("a"), journal), agent(Gateway("b"), journal)):
            yield lambda: SharedTraffic(journal)


def test_apply_returns_when_both_gateways_have_the_routes(journal):
    gateways = [Gateway("a"), Gateway("b")]
    with following(*(agent(gateway, journal) for gateway in gateways)):
        wait_for(lambda: len(list_reports(journal)) == 2)
        traffic = SharedTraffic(journal)
        for revision in range(1, 30):
            routes = msgspec.structs.replace(SECOND, weight=float(revision), revision=revision)
            traffic.apply(routes)
            assert [gateway.in_force(MODEL) for gateway in gateways] == [routes, routes]
            assert traffic.lagging(MODEL) == []
    assert list_reports(journal) == [], "a gateway whose agent has ended is none"
    applied = {
        (event.data["host"], event.data["revision"]) for event in journal.events(kinds=["traffic.routes_applied"])
    }
    assert applied == {(host, revision) for host in "ab" for revision in range(1, 30)}


def test_a_gateway_that_stands_still_is_waited_for_until_its_report_lapses(journal):
    now = [0.0]
    agent(Gateway("lost"), journal).round()
    alive = Gateway("alive")
    elsewhere(journal, "lost")

    def steady():
        now[0] += 0.5  # each look at the clock is half a second later
        return now[0]

    with following(agent(alive, journal)):
        wait_for(lambda: len(list_reports(journal)) == 2)
        traffic = SharedTraffic(journal, steady=steady)
        traffic.apply(FIRST)
    assert now[0] > LAPSE
    assert "lost" not in {report.host for report in list_reports(journal)}


def elsewhere(journal, host, **changes):
    """Make the report one of another machine, whose process this one cannot judge."""
    [row] = [row for row in journal.reports(GATEWAY) if row.key == host]
    report = msgspec.convert(row.value, GatewayReport)
    changed = msgspec.structs.replace(report, **{"agent": Process("far:12345678", 1, "1"), "ready": True} | changes)
    journal.report(GATEWAY, host, msgspec.to_builtins(changed), expect=row.version)


def test_a_gateway_that_refuses_turns_unready_and_the_others_have_the_routes(journal):
    good, bad = Gateway("good"), Gateway("bad")
    with following(agent(good, journal), agent(bad, journal)):
        wait_for(lambda: len(list_reports(journal)) == 2)
        traffic = SharedTraffic(journal)
        traffic.apply(FIRST)
        bad.fault = UsageError("no file of certificates")
        with pytest.raises(
            EngineUnavailableError, match=r"gateway of bad refuses revision 2 .* no file of certificates"
        ):
            traffic.apply(SECOND)
        wait_for(lambda: good.in_force(MODEL) == SECOND)
        with pytest.raises(EngineUnavailableError):
            traffic.lagging(MODEL)
        assert bad.ready[-1] == 0.0
        assert bad.reason == f"revision 2 of the routes of {MODEL} is refused: no file of certificates"
        bad.fault = None
        wait_for(lambda: bad.in_force(MODEL) == SECOND and bad.ready[-1] > 0)
        traffic.apply(SECOND)
        assert traffic.lagging(MODEL) == []


def test_a_full_disk_is_a_refusal_and_a_change_that_was_cut_off_is_reported(journal):
    gateway, said = Gateway("a"), []
    follower = agent(gateway, journal, report=said.append)
    with journal.transaction(actor=rows.ACTOR) as transaction:
        put_routes(transaction, FIRST, expect=0)
    gateway.fault = StorageError("the disk is full")
    gateway.finish_change = lambda: gateway.apply(FIRST)
    follower.round()
    assert said[0] == "the routes that are stored on this machine are not in force: the disk is full"
    [report] = list_reports(journal)
    assert report.refused[MODEL].reason == "the disk is full"
    gateway.fault = None
    follower.round()
    assert gateway.ready[-1] > 0


def test_an_interrupted_apply_leaves_a_gateway_lagging(journal):
    gateway = Gateway("a")
    follower = agent(gateway, journal)
    SharedTraffic(journal).apply(FIRST)
    follower.round()
    writing = threading.Thread(target=SharedTraffic(journal).apply, args=(SECOND,))
    writing.start()
    wait_for(lambda: list_routes(journal)[MODEL].routes == SECOND)
    assert SharedTraffic(journal).lagging(MODEL) == ["a"]
    follower.round()
    writing.join(10)
    assert not writing.is_alive()
    assert SharedTraffic(journal).lagging(MODEL) == []


def test_a_gateway_that_does_not_run_is_not_waited_for_and_gets_the_routes(journal):
    gateway = Gateway("a")
    gateway.runs = False
    follower = agent(gateway, journal)
    follower.round()
    SharedTraffic(journal).apply(FIRST)
    follower.round()
    assert gateway.in_force(MODEL) == FIRST
    assert (gateway.ready, gateway.reason) == ([0.0, 0.0], "the gateway does not run")
    gateway.runs = True
    follower.round()
    assert gateway.ready[-1] > 0


@pytest.mark.parametrize(("behind", "delivered"), [(1, 2), (2, 3)])
def test_later_routes_of_a_machine_come_to_the_journal_and_the_other_gateways(journal, behind, delivered):
    one, other = Gateway("a"), Gateway("b")
    agents = [agent(one, journal), agent(other, journal)]
    SharedTraffic(journal).apply(msgspec.structs.replace(SECOND, revision=behind))
    for each in agents:
        each.round()
    # Where both are at revision 2, they went there while they could not see each other.
    one._routes[MODEL] = msgspec.structs.replace(FIRST, revision=2)
    for each in agents:
        each.round()
    wanted = msgspec.structs.replace(FIRST, revision=delivered)
    assert (one.in_force(MODEL), other.in_force(MODEL)) == (wanted, wanted)
    assert SharedTraffic(journal).in_force(MODEL) == wanted
    [event] = [event for event in journal.events(kinds=["traffic.routes_changed"]) if event.data["host"]]
    assert (event.data["host"], event.data["revision"], event.data["candidate"]) == ("a", delivered, None)


def test_nobody_overwrites_later_routes_of_a_machine_before_they_are_delivered(journal):
    gateway = Gateway("a")
    follower = agent(gateway, journal)
    SharedTraffic(journal).apply(FIRST)
    follower.round()
    gateway.apply(msgspec.structs.replace(FIRST, revision=5))
    elsewhere(journal, "a", agent=this_process(), routes={MODEL: gateway.in_force(MODEL)})
    with pytest.raises(LeaseHeldError, match="revision 5"):
        SharedTraffic(journal).apply(SECOND)
    follower.round()
    assert SharedTraffic(journal).in_force(MODEL).revision == 5


def test_health_and_requests_under_way_are_of_all_gateways(journal):
    gateways = [Gateway("a"), Gateway("b")]
    gateways[0].busy[MODEL, CANDIDATE] = 3
    gateways[1].busy[MODEL, CANDIDATE] = 4
    gateways[1].health = lambda model: [EndpointHealth(url="http://127.0.0.1:1", arm=CHAMPION, ready=False, active=2)]
    SharedTraffic(journal).apply(FIRST)
    for gateway in gateways:
        agent(gateway, journal).round()
    traffic = SharedTraffic(journal)
    assert traffic.active(MODEL, CANDIDATE) == 7
    assert traffic.active(MODEL, CHAMPION) == 0
    assert traffic.health(MODEL) == [EndpointHealth(url="http://127.0.0.1:1", arm=CHAMPION, ready=True, active=2)]


def test_a_round_that_outlives_the_end_of_its_agent_makes_no_gateway_ready(journal, monkeypatch):
    gateway = Gateway("a")
    with journal.transaction(actor=rows.ACTOR) as transaction:
        put_routes(transaction, FIRST, expect=0)
    left = agent(gateway, journal)
    reached, answers = threading.Event(), threading.Event()
    write = journal.report

    def wait(*words, **options):
        reached.set()
        answers.wait(60)
        return write(*words, **options)

    monkeypatch.setattr(journal, "report", wait)
    thread = threading.Thread(target=left.round)
    thread.start()
    assert reached.wait(60)
    left.end()
    answers.set()
    thread.join(60)
    assert [report.host for report in list_reports(journal)] == ["a"], "the round went on"
    assert (gateway.ready[-1], gateway.reason) == (0.0, ENDED)


def test_the_end_of_an_agent_leaves_the_report_of_another_machine_of_its_name(journal):
    ended = threading.Event()
    follower = agent(Gateway("a"), journal)
    follower.round()
    elsewhere(journal, "a", url="http://far:80")
    ended.set()
    follower.run(ended.wait)
    [report] = list_reports(journal)
    assert report.url == "http://far:80"


def test_of_two_gateways_by_one_name_the_second_is_not_ready_until_the_report_of_the_first_lapses(journal):
    now = [0.0]
    first, second = Gateway("a"), Gateway("a")
    with journal.transaction(actor=rows.ACTOR) as transaction:
        put_routes(transaction, FIRST, expect=0)
    agent(first, journal).round()
    elsewhere(journal, "a", url="http://far:80")
    with journal.transaction(actor=rows.ACTOR) as transaction:
        put_routes(transaction, SECOND, expect=list_routes(journal)[MODEL].version)
    follower = agent(second, journal, steady=lambda: now[0])
    for now[0] in range(int(LAPSE) + 1):
        with pytest.raises(LeaseHeldError, match="another machine or folder reported a gateway by the name a"):
            follower.round()
        assert SharedTraffic(journal).lagging(MODEL) == ["a"], "the gateway that lags is not hidden"
    assert set(second.ready) == {0.0}
    now[0] += 1.0
    with pytest.raises(LeaseHeldError):
        follower.round()  # removes the other report
    follower.round()
    assert second.ready[-1] > 0
    [report] = list_reports(journal)
    assert report.url == "http://a:80"


def test_an_agent_that_was_killed_holds_the_next_one_of_its_machine_not_up(journal):
    gateway = Gateway("a")
    with journal.transaction(actor=rows.ACTOR) as transaction:
        put_routes(transaction, FIRST, expect=0)
    agent(gateway, journal).round()
    elsewhere(journal, "a", agent=msgspec.structs.replace(this_process(), born="another time"))
    agent(gateway, journal).round()
    assert gateway.ready[-1] > 0


def test_an_agent_reports_once_a_second_and_at_once_what_changed(journal):
    now = [100.0]
    gateway = Gateway("a")
    follower = agent(gateway, journal, steady=lambda: now[0])
    follower.round()
    [row] = journal.reports(GATEWAY)
    follower.round()
    assert journal.reports(GATEWAY) == [row]
    gateway.runs = False
    follower.round()
    assert [report.version for report in journal.reports(GATEWAY)] == [row.version + 1]
    now[0] += 1.0
    follower.round()
    assert [report.version for report in journal.reports(GATEWAY)] == [row.version + 2]


def test_a_gateway_is_ready_for_a_time_from_the_beginning_of_a_round(journal, monkeypatch):
    now, delay = [0.0], 4.0
    gateway = Gateway("a")
    with journal.transaction(actor=rows.ACTOR) as transaction:
        put_routes(transaction, FIRST, expect=0)
    follower = agent(gateway, journal, steady=lambda: now[0])
    write = journal.report

    def delayed(*words, **options):
        now[0] += delay
        return write(*words, **options)

    monkeypatch.setattr(journal, "report", delayed)
    follower.round()
    assert gateway.ready == [SILENT - delay]
    delay = SILENT + 1.0
    follower.round()
    assert gateway.ready == [SILENT - 4.0], "nothing that the round knows is of the last seconds"


def test_a_gateway_is_ready_while_the_event_of_its_routes_waits_for_another_writer(journal):
    gateway = Gateway("a")
    with journal.transaction(actor=rows.ACTOR) as transaction:
        put_routes(transaction, FIRST, expect=0)
    follower = agent(gateway, journal)
    with journal.transaction(actor=rows.ACTOR):
        thread = threading.Thread(target=follower.round)
        thread.start()
        wait_for(lambda: gateway.ready and gateway.ready[-1] > 0)
        assert SharedTraffic(journal).lagging(MODEL) == []
        assert list(journal.events(kinds=["traffic.routes_applied"])) == []
    thread.join(60)
    assert [event.data["host"] for event in journal.events(kinds=["traffic.routes_applied"])] == ["a"]


def test_an_event_of_routes_that_could_not_be_written_is_written_later(journal, monkeypatch):
    now = [0.0]
    with journal.transaction(actor=rows.ACTOR) as transaction:
        put_routes(transaction, FIRST, expect=0)
    follower = agent(Gateway("a"), journal, steady=lambda: now[0])

    def refused(**_):
        raise EngineUnavailableError("another process has been writing for a minute")

    with monkeypatch.context() as patch:
        patch.setattr(journal, "transaction", refused)
        with pytest.raises(EngineUnavailableError):
            follower.round()
    for _ in range(3):
        now[0] += 1.0
        follower.round()
    assert [event.data["revision"] for event in journal.events(kinds=["traffic.routes_applied"])] == [1]


def test_rows_that_cannot_be_read_hold_no_gateway_up(journal):
    journal.report(GATEWAY, "other", {"host": "other", "ready": "of another form"}, expect=0)
    with journal.transaction(actor=rows.ACTOR) as transaction:
        put_routes(transaction, FIRST, expect=0)
    mine = Gateway("a")
    with following(agent(mine, journal)):
        SharedTraffic(journal).apply(SECOND)
        wait_for(lambda: mine.in_force(MODEL) == SECOND)


def test_routes_that_cannot_be_read_are_named(journal):
    with journal.transaction(actor=rows.ACTOR) as transaction:
        transaction.put(rows.ROUTES, MODEL, {"model": MODEL, "champion": "of another form"})
    with pytest.raises(IntegrityError, match=f"the row routes/{MODEL} of the journal cannot be read"):
        list_routes(journal)


def test_a_gateway_without_routes_is_not_ready_and_waited_for(journal):
    gateway = Gateway("a")
    follower = agent(gateway, journal)
    follower.round()
    assert (gateway.ready, gateway.reason) == ([0.0], "the gateway has no routes yet")
    with journal.transaction(actor=rows.ACTOR) as transaction:
        put_routes(transaction, FIRST, expect=0)
    assert SharedTraffic(journal).lagging(MODEL) == ["a"]
    follower.round()
    assert gateway.ready[-1] > 0


# --- the rate

RATED = msgspec.structs.replace(FIRST, limits=msgspec.structs.replace(FIRST.limits, rate=10))


def test_ready_gateways_share_the_rate_and_a_lost_one_counts_until_it_lapses(journal):
    now = [0.0]
    one, other = Gateway("a"), Gateway("b")
    agents = [agent(gateway, journal, steady=lambda: now[0]) for gateway in (one, other)]
    SharedTraffic(journal).apply(RATED)
    for _ in range(2):
        for each in agents:
            each.round()
    assert (one.shares[-1], other.shares[-1]) == (2, 2)
    elsewhere(journal, "b")  # it reports no more
    for now[0] in range(1, int(LAPSE) + 1):
        agents[0].round()
        assert one.shares[-1] == 2, now
    now[0] += 1.5
    agents[0].round()
    assert one.shares[-1] == 1
    agents[1].round()  # it was cut off, and is back
    agents[0].round()
    assert (one.shares[-1], other.shares[-1]) == (2, 2)


def test_a_gateway_that_is_not_ready_has_a_share_that_the_others_do_not_count(journal):
    one, other = Gateway("a"), Gateway("b")
    agents = [agent(gateway, journal) for gateway in (one, other)]
    SharedTraffic(journal).apply(RATED)
    for _ in range(2):
        for each in agents:
            each.round()
    other.runs = False
    for each in reversed(agents):
        each.round()
    assert (one.shares[-1], other.shares[-1]) == (1, 2)


def test_without_a_rate_no_gateway_counts_the_others(journal):
    gateway = Gateway("a")
    SharedTraffic(journal).apply(FIRST)
    agent(gateway, journal).round()
    assert gateway.shares == []
