"""Reports of machines, what follows from them, and the desired state that machines share."""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cumulant.cli.serving.stack_table import silence, unserved_text
from cumulant.core.errors import CumulantError, EngineUnavailableError, LeaseHeldError, ProjectFileError, UsageError
from cumulant.core.events import Actor
from cumulant.core.masking import fingerprint
from cumulant.core.traffic import CHAMPION, Arm, Routes
from cumulant.flows.deployment import host_agent, host_conflicts, host_report
from cumulant.flows.deployment.copy import UnsentRollback, change_copy, read_copy, send_rollbacks
from cumulant.flows.deployment.deployment import HostsDeployment, LocalDeployment, deployment_of, with_servers
from cumulant.flows.deployment.events import HostRemoved
from cumulant.flows.deployment.follow import follow
from cumulant.flows.deployment.host_conflicts import check_conflicts
from cumulant.flows.deployment.host_lifecycle import (
    HostOptions,
    check_salt,
    host_options,
    missing_champion_text,
    note_different_tokens,
    prepare_host,
)
from cumulant.flows.deployment.host_report import (
    LAPSE,
    SERVER_HOST,
    HostReport,
    HostWatch,
    forget_lost_hosts,
    read_reports,
    remove_own_report,
    watch_hosts,
    write_report,
)
from cumulant.flows.deployment.versions import find_references
from cumulant.flows.ledger.processes import Process, this_process
from cumulant.flows.project.driver_needs import driver_needs
from cumulant.flows.release.controller.route_keeper import routes_to_servers, with_endpoints
from cumulant.flows.release.rollback import roll_back, with_rollback
from cumulant.flows.serving.caller_tokens import tokens_fingerprint
from cumulant.flows.stack.desired_state import Rollback, read_desired_state
from cumulant.flows.stack.gateway_key import shared_key
from cumulant.flows.stack.identity import Home
from cumulant.flows.stack.served_versions import free_port
from cumulant.flows.stack.stack_processes import ROLES, build_stack, wanted_processes
from cumulant.flows.stack.status import Status
from cumulant.ports.deploy import STATE_TABLE, ServedSpec, ServerState
from cumulant.ports.traffic import GatewayAddress
from cumulant.project.driver_checks import check_drivers
from cumulant.project.file.loading import load
from cumulant.project.host_name import host_name
from cumulant.testing.arms import ArmServer
from cumulant.testing.journal import MemoryJournal

ELSEWHERE = Process("elsewhere:00000000", 1, "1")
FILE = """\
version: 1
model: {{name: m}}
environments:
  local: {{deploy: 'hosts://', journal: 'sqlite://{journal}', salt: '${{secret:SALT}}'}}
"""


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def server(version: str, host: str, *, ready: bool = True) -> ServerState:
    return ServerState(version=version, endpoint=f"http://{host}:2000{version}", ready=ready, host=host)


def report(host: str, *servers: ServerState) -> HostReport:
    return HostReport(host=host, roles=("servers",), supervisor=ELSEWHERE, servers=servers)


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A function that makes a project's folder on a machine of a name; all share a journal."""
    monkeypatch.setenv("SALT", "s" * 32)
    opened = []

    def make(name: str):
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        (folder / "cumulant.yaml").write_text(FILE.format(journal=tmp_path / "journal.sqlite"))
        project = load(folder)
        opened.append(project)
        return project

    yield make
    for project in opened:
        project.close()


# --- the environment


def test_stores_of_one_machine_are_refused_where_several_use_them(machine):
    project = machine("one")
    with pytest.raises(ProjectFileError) as refused:
        check_drivers(project, driver_needs(project))
    for port in ("journal", "tables", "objects", "log"):
        assert f"cannot do what {port} is needed for: deploy: hosts:// divides" in str(refused.value)


def test_a_salt_that_is_short_or_of_one_machine_is_refused(machine, monkeypatch):
    project = machine("one")
    check_salt(project)
    monkeypatch.setenv("SALT", "short")
    with pytest.raises(UsageError, match="the salt has 5 bytes"):
        check_salt(machine("two"))


def test_machines_whose_servers_take_other_tokens_are_shown(machine, monkeypatch):
    monkeypatch.setenv("CUMULANT_TOKEN", "a-token-of-the-test")
    one = tokens_fingerprint(machine("one"))
    monkeypatch.setenv("CUMULANT_TOKEN", "another-token-of-the-test")
    other = tokens_fingerprint(machine("two"))
    monkeypatch.delenv("CUMULANT_TOKEN")
    assert tokens_fingerprint(machine("three")) == ""
    reports = [
        msgspec.structs.replace(report(host), tokens=tokens, trouble=trouble)
        for host, tokens, trouble in (("a", one, ""), ("b", one, ""), ("c", other, "x"), ("control", None, ""))
    ]
    assert [each.trouble for each in note_different_tokens(reports)] == [
        "its servers take other tokens of callers than those of c",
        "its servers take other tokens of callers than those of c",
        "x; its servers take other tokens of callers than those of a, b",
        "",
    ]
    assert note_different_tokens(reports[:2]) == reports[:2]


# --- reports


def test_a_machine_is_lost_when_its_report_stands_still():
    journal, clock = MemoryJournal(), Clock()
    watch = HostWatch(clock)
    for number in range(30):
        clock.now = number / 2
        write_report(journal, report("alive"))
        if number < 4:
            write_report(journal, report("dead"))
        lost = list(forget_lost_hosts(journal, watch))
        assert ("dead" in lost) == (clock.now == 1.5 + LAPSE + 0.5), clock.now
        assert "alive" not in lost
    assert [one.host for one in read_reports(journal)] == ["alive"]


def test_a_machine_that_may_report_again_is_not_said_to_get_no_requests(monkeypatch):
    monkeypatch.setattr(host_report, "BEAT", 0.01)
    journal, texts, told = MemoryJournal(), [], threading.Event()
    ended = msgspec.structs.replace(this_process(), born="0")  # the number of a process that is no more
    write_report(journal, msgspec.structs.replace(report("a", server("1", "a")), supervisor=ended))
    with watch_hosts(journal, lambda text: (texts.append(text), told.set())):
        assert told.wait(60)
        assert journal.wait(0, 60)
    (removed,) = journal.events()
    assert (removed.kind, removed.data) == ("deployment.host_removed", {"host": "a", "lost": True})
    (text,) = texts
    assert text.startswith("a counts as lost until it reports again: its supervisor has ended, or has not reported")
    assert "no more requests" not in text


def lost_report(host: str) -> HostReport:
    """Of a supervisor whose process is no more."""
    return msgspec.structs.replace(report(host), supervisor=msgspec.structs.replace(this_process(), born="0"))


def wait_for(condition) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_the_event_of_a_lost_machine_holds_up_no_removal_of_another(monkeypatch):
    monkeypatch.setattr(host_report, "BEAT", 0.01)
    journal = MemoryJournal()
    with watch_hosts(journal, print):
        with journal.transaction(actor=Actor("user:ada")):  # which takes long
            for host in "ab":
                write_report(journal, lost_report(host))
                wait_for(lambda: not read_reports(journal))
            assert journal.head().seq == 0
        wait_for(lambda: journal.head().seq == 2)
    assert [event.data for event in journal.events()] == [{"host": host, "lost": True} for host in "ab"]


def test_the_event_of_a_lost_machine_is_written_when_the_journal_answers_again(monkeypatch):
    monkeypatch.setattr(host_report, "BEAT", 0.01)
    journal, attempts = MemoryJournal(), []
    real, remove = journal.transaction, journal.remove_report

    def transaction(**words):
        attempts.append(words)
        if len(attempts) < 3:
            raise EngineUnavailableError("the server does not answer", subject="journal")
        return real(**words)

    def remove_first(kind, key, *, expect):
        if key == "b" and not attempts:
            raise EngineUnavailableError("the server does not answer", subject="journal")
        return remove(kind, key, expect=expect)

    monkeypatch.setattr(journal, "transaction", transaction)
    monkeypatch.setattr(journal, "remove_report", remove_first)
    for host in "ab":
        write_report(journal, lost_report(host))
    with watch_hosts(journal, print):
        wait_for(lambda: journal.head().seq == 2)
    assert [event.data["host"] for event in journal.events()] == ["a", "b"]


def test_the_event_of_a_lost_machine_does_not_follow_its_return(monkeypatch):
    monkeypatch.setattr(host_report, "BEAT", 0.01)
    journal = MemoryJournal()
    with watch_hosts(journal, print):
        with journal.transaction(actor=Actor("user:ada")):
            for host in "ab":
                write_report(journal, lost_report(host))
            wait_for(lambda: not read_reports(journal))
            write_report(journal, report("a"))
        wait_for(lambda: journal.head().seq == 1)
    assert [event.data["host"] for event in journal.events()] == ["b"]


def test_a_report_takes_one_call_and_waits_for_no_writer_of_the_journal(monkeypatch):
    journal, calls = MemoryJournal(), []
    for name in ("get", "rows", "reports", "report"):
        real = getattr(journal, name)
        monkeypatch.setattr(
            journal, name, lambda *words, name=name, real=real, **other: (calls.append(name), real(*words, **other))[1]
        )
    with journal.transaction(actor=Actor("user:ada")) as transaction:
        transaction.put("step", "a", {})
        version = write_report(journal, report("a"))
        later = write_report(journal, report("a", server("1", "a")), version=version)
        assert (later > version, calls) == (True, ["report", "report"])
        assert [len(one.servers) for one in read_reports(journal)] == [1], "others see it"
    journal.remove_report(SERVER_HOST, "a", expect=later)
    assert write_report(journal, report("a"), version=later) > later, "it was taken for lost, and is back"


def test_a_change_of_a_machine_is_an_event_which_holds_no_report_up(machine, monkeypatch):
    project, journal = machine("a"), MemoryJournal()
    monkeypatch.setattr(project, "journal", lambda: journal)
    agent = host_agent.HostAgent(project, ["controller"], "127.0.0.1", write=print)
    with journal.transaction(actor=Actor("user:ada")):
        agent.start()  # whose event waits for this
        agent.report()
        (row,) = journal.reports(SERVER_HOST)
        agent.report()
        (later,) = journal.reports(SERVER_HOST)
        assert later.version > row.version
        assert journal.head().seq == 0
    assert journal.wait(0, 60)
    agent.report()
    assert agent.leave() == ""
    told = [(event.kind, event.data) for event in journal.events()]
    assert told == [
        ("deployment.host_changed", {"host": host_name(), "roles": ["controller"], "servers": []}),
        ("deployment.host_removed", {"host": host_name(), "lost": False}),
    ]


def test_a_machine_that_was_taken_for_lost_and_is_back_reports_so(machine, monkeypatch):
    project, journal = machine("a"), MemoryJournal()
    monkeypatch.setattr(project, "journal", lambda: journal)
    monkeypatch.setattr(host_agent, "BEAT", 60.0)  # the threads report and write events once
    agent = host_agent.HostAgent(project, ["controller"], "127.0.0.1", write=print)
    agent.start()
    wait_for(lambda: journal.head().seq == 1)
    wait_for(lambda: remove_own_report(journal, host_name(), this_process()))  # as another machine does
    host_report.emit(journal, HostRemoved(host=host_name(), lost=True))
    for _ in range(2):
        agent.report()
        agent._emit_changes()
    assert [event.kind for event in journal.events()] == [
        "deployment.host_changed", "deployment.host_removed", "deployment.host_changed",
    ]  # fmt: skip
    assert [row.key for row in journal.reports(SERVER_HOST)] == [host_name()]
    assert agent.leave() == ""


def test_the_end_of_a_machine_is_its_last_event(machine, monkeypatch):
    project, journal, may_write = machine("a"), MemoryJournal(), threading.Event()
    real = journal.transaction

    def transaction(**words):
        if threading.current_thread() is agent._threads[1]:
            assert may_write.wait(60)
        return real(**words)

    monkeypatch.setattr(project, "journal", lambda: journal)
    monkeypatch.setattr(journal, "transaction", transaction)
    agent = host_agent.HostAgent(project, ["controller"], "127.0.0.1", write=print)
    agent.start()
    leaving = threading.Thread(target=agent.leave)
    leaving.start()
    wait_for(lambda: not journal.reports(SERVER_HOST))
    assert not journal.wait(0, 0.2)
    may_write.set()
    leaving.join(60)
    assert [event.kind for event in journal.events()] == ["deployment.host_changed", "deployment.host_removed"]


def test_a_report_that_cannot_be_read_holds_no_machine_up_and_lapses():
    journal, clock = MemoryJournal(), Clock()
    watch = HostWatch(clock)
    journal.report(SERVER_HOST, "other", {"host": "other", "servers": "of another form"}, expect=0)
    write_report(journal, report("a", server("1", "a")))
    assert [read.host for read in read_reports(journal)] == ["a"]
    lost = []
    for now in range(int(LAPSE) + 2):
        clock.now = now
        write_report(journal, report("a", server("1", "a")))
        lost += forget_lost_hosts(journal, watch)
    assert lost == ["other"]


def test_time_in_which_the_journal_did_not_answer_counts_for_no_machine():
    clock = Clock()
    watch = HostWatch(clock)
    for now in (0, 1, 60, 61, 62, 63, 64):
        clock.now = now
        assert watch.lost({"a": 1}, {"a": ELSEWHERE}) == [], now
    clock.now = 65
    assert watch.lost({"a": 1}, {"a": ELSEWHERE}) == ["a"]


def test_an_observer_that_is_always_slow_notices_a_lost_machine_too():
    clock = Clock()
    watch, lost = HostWatch(clock), []
    while not lost:
        lost = watch.lost({"a": 1}, {"a": ELSEWHERE})
        clock.now += 5
    assert clock.now < 60


def test_a_report_that_was_renewed_meanwhile_stays():
    journal, clock = MemoryJournal(), Clock()

    class Renews(HostWatch):
        def lost(self, versions, supervisors):
            write_report(journal, report("a"))
            return ["a"]

    write_report(journal, report("a"))
    assert list(forget_lost_hosts(journal, Renews(clock))) == []
    assert [one.host for one in read_reports(journal)] == ["a"]


# --- routes

HOSTS = st.sets(st.sampled_from("abcd"))


@given(before=HOSTS, present=HOSTS, ready=HOSTS)
def test_an_arm_has_new_servers_when_they_are_ready_and_present_ones_until_they_are_gone(before, present, ready):
    arm = Arm(name="champion", version="1", endpoints=tuple(f"http://{host}:20001" for host in sorted(before)))
    servers = [server("1", host, ready=host in ready) for host in sorted(present)] + [server("2", "a")]
    now = {url.split("/")[2][0] for url in with_endpoints(arm, servers).endpoints}
    assert now == ((before & present) | (present & ready) or before)


def test_routes_change_with_the_servers_alone():
    champion = Arm(name="champion", version="1", endpoints=("http://a:20001",))
    candidate = Arm(name="candidate", version="http://x:1", endpoints=("http://x:1",))
    routes = Routes(model="m", revision=7, champion=champion, candidate=candidate, weight=10.0)
    assert routes_to_servers(routes, [server("1", "a")]) is routes
    moved = routes_to_servers(routes, [server("1", "b")])
    assert (moved.revision, moved.champion.endpoints, moved.weight) == (8, ("http://b:20001",), 10.0)
    assert moved.candidate == candidate  # an external server is not ours to move


# --- the desired state


def test_machines_that_change_the_desired_state_at_once_lose_nothing(machine):
    versions = [str(number) for number in range(12)]

    def add(name: str, mine: list[str]) -> None:
        deployment = HostsDeployment(machine(name))
        for version in mine:
            deployment.ensure("m", [ServedSpec(version=version, arguments={STATE_TABLE: f"state_{version}"})])

    threads = [threading.Thread(target=add, args=(name, versions[place::3])) for place, name in enumerate("abc")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    reader = machine("reader")
    desired = deployment_of(reader).read("m")
    assert (set(desired.versions), desired.edition) == (set(versions), 12)
    assert find_references(reader) == (set(), {f"state_{version}" for version in versions})
    assert {(served.command, served.port) for served in desired.versions.values()} == {((), 0)}


def test_one_machine_keeps_its_file(tmp_path):
    (tmp_path / "cumulant.yaml").write_text("version: 1\nmodel: {name: m}\n")
    with load(tmp_path) as project:
        deployment = deployment_of(project)
        assert isinstance(deployment, LocalDeployment)
        deployment.change("m", lambda desired: msgspec.structs.replace(desired, champion="1"))
        assert read_desired_state(project.state, "m").champion == "1"
        assert not (project.state / "journal.sqlite").exists()


def test_an_arm_waits_for_a_server_on_each_machine(machine):
    project = machine("a")
    arm = Arm(name="champion", version="1", endpoints=())
    with pytest.raises(EngineUnavailableError, match="no machine has a server of version 1"):
        with_servers(project, arm, within=0)
    write_report(project.journal(), report("a", server("1", "a")))
    write_report(project.journal(), report("b", server("1", "b", ready=False)))
    assert with_servers(project, arm, within=0.1).endpoints == ("http://a:20001",)
    write_report(project.journal(), report("b", server("1", "b")))
    assert with_servers(project, arm, within=60).endpoints == ("http://a:20001", "http://b:20001")


# --- one machine


def test_a_machine_does_its_roles_alone(machine):
    project = machine("a")
    (project.root / "model").mkdir()
    stacks = {role: build_stack(project, "127.0.0.1:0", [role]) for role in ROLES}
    kinds = {
        role: [
            one.kind
            for one in wanted_processes(stack, read_desired_state(project.state, "m"), datetime.now(UTC)).values()
        ]
        for role, stack in stacks.items()
    }
    assert kinds == {"gateway": ["gateway", "agent"], "servers": [], "controller": ["controller"]}
    assert {stack.gateway_key for stack in stacks.values()} == {shared_key(b"s" * 32)}
    assert shared_key(b"t" * 32) != shared_key(b"s" * 32)


def test_machines_show_that_they_wait_for_the_first_champion(machine, tmp_path):
    project = machine("a")
    said = []
    with pytest.raises(UsageError, match="is chosen where the controller runs"):
        prepare_host(project, "m/1", HostOptions(roles=("servers",)), principal=project.principal(), report=said.append)
    prepare_host(project, "", HostOptions(roles=("servers",)), principal=project.principal(), report=said.append)
    (text,) = said
    assert "no version of m is to be served yet" in text
    assert "`cumulant up --role controller`" in text
    assert missing_champion_text(project, principal=project.principal()) == text
    HostsDeployment(project).change("m", lambda desired: msgspec.structs.replace(desired, champion="1"))
    assert missing_champion_text(project, principal=project.principal()) == ""
    prepare_host(project, "", HostOptions(roles=("servers",)), principal=project.principal(), report=said.append)
    assert len(said) == 1


def test_roles_are_refused_where_they_do_not_fit(machine, tmp_path, monkeypatch):
    monkeypatch.delenv("CUMULANT_TOKEN", raising=False)
    project = machine("a")
    assert host_options(project, (), "", insecure=False).roles == ROLES
    with pytest.raises(UsageError, match="no address is given"):
        host_options(project, ["servers"], "", insecure=False)
    with pytest.raises(UsageError, match=r"10\.0\.0\.5 can be reached from other machines"):
        host_options(project, ["servers"], "10.0.0.5", insecure=False)
    assert host_options(project, ["servers"], "10.0.0.5", insecure=True).words == [
        "--role", "servers", "--advertise", "10.0.0.5", "--insecure",
    ]  # fmt: skip
    monkeypatch.setenv("CUMULANT_TOKEN", "a-token-of-the-test")
    assert not host_options(project, ["servers"], "10.0.0.5", insecure=False).insecure
    monkeypatch.delenv("CUMULANT_TOKEN")
    file = project.root / "cumulant.yaml"
    file.write_text(f"{file.read_text()}serving: {{token_file: /run/secrets/tokens}}\n")
    with load(project.root) as guarded:
        assert not host_options(guarded, ["servers"], "10.0.0.5", insecure=False).insecure
    (tmp_path / "alone").mkdir()
    (tmp_path / "alone" / "cumulant.yaml").write_text("version: 1\nmodel: {name: m}\n")
    with load(tmp_path / "alone") as alone, pytest.raises(UsageError, match="one machine does everything"):
        host_options(alone, ["servers"], "127.0.1.1", insecure=False)
    unsalted = FILE.format(journal=tmp_path / "j").replace(", salt: '${secret:SALT}'", "")
    (tmp_path / "alone" / "cumulant.yaml").write_text(unsalted)
    with load(tmp_path / "alone") as alone, pytest.raises(UsageError, match="must have one salt"):
        host_options(alone, [], "", insecure=False)


@pytest.mark.parametrize("salt", ["", "s", "fifteen letters"])
def test_machines_derive_no_key_from_a_salt_that_can_be_guessed(machine, monkeypatch, salt):
    project = machine("a")
    monkeypatch.setenv("SALT", salt)
    with pytest.raises(UsageError, match="the salt has"):
        host_options(project, ["gateway"], "", insecure=True)


NO_ADDRESSES = (
    *("http://10.0.0.5", "10.0.0.5:80", "10.0.0.5/x", "user@host", "a b", 'x"y', "-x", "10.0.0.5\n", "%DOWNSTREAM%"),
    *("[::1]", "fe80::1%eth0", "0.0.0.0", "::", "0", "127.1", "2130706433", "224.0.0.1"),
)


@pytest.mark.parametrize("address", NO_ADDRESSES)
def test_what_is_no_address_of_one_machine_is_not_advertised(machine, address):
    with pytest.raises(UsageError, match="is no address of one machine"):
        host_options(machine("a"), ["servers"], address, insecure=True)


@pytest.mark.parametrize("address", ["10.0.0.5", "fd00::5", "127.0.1.2", "serving-1.internal", "localhost", "3com.net"])
def test_addresses_and_names_are_advertised(machine, address):
    assert host_options(machine("a"), ["servers"], address, insecure=True).advertise == address


def test_an_address_of_another_machine_is_refused(machine):
    project, elsewhere = machine("a"), "192.0.2.1"  # an address of documentation: no machine has it
    options = HostOptions(roles=("servers",), advertise=elsewhere)
    with pytest.raises(UsageError, match="no address of this machine"):
        prepare_host(project, "", options, principal=project.principal(), report=print)
    with pytest.raises(EngineUnavailableError, match="no address of this machine"):
        free_port("seed", (), elsewhere)


def test_a_name_that_another_machine_reports_by_is_refused(machine):
    journal = machine("a").journal()
    check_conflicts(journal, "salt")  # nobody has it
    mine = HostReport(host=host_name(), roles=("servers",), supervisor=this_process())
    write_report(journal, mine)
    with pytest.raises(LeaseHeldError, match="the name of another machine or folder"):
        check_conflicts(journal, "salt")
    remove_own_report(journal, host_name(), this_process())
    ended = msgspec.structs.replace(this_process(), born="0")  # the number of a process that is no more
    write_report(journal, msgspec.structs.replace(mine, supervisor=ended))
    check_conflicts(journal, "salt")
    assert read_reports(journal) == []


def test_of_two_machines_with_one_name_that_start_at_once_one_is_refused(machine):
    journal = machine("a").journal()
    barrier, refused = threading.Barrier(8), []

    def start(number):
        supervisor = Process(f"elsewhere:{number:08d}", 1, "1")
        check_conflicts(journal, "salt", within=0)
        barrier.wait(60)
        try:
            write_report(journal, HostReport(host="one", roles=("servers",), supervisor=supervisor))
        except LeaseHeldError as error:
            refused.append((number, error.message))

    threads = [threading.Thread(target=start, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    (winner,) = read_reports(journal)
    assert {number for number, _ in refused} == set(range(8)) - {int(winner.supervisor.host.partition(":")[2])}
    assert all("one is the name of another machine" in text for _, text in refused)
    write_report(journal, winner)  # it goes on


def test_a_supervisor_does_not_start_where_another_machine_has_its_name(machine):
    project = machine("a")
    write_report(project.journal(), HostReport(host=host_name(), roles=(), supervisor=ELSEWHERE))
    agent = host_agent.HostAgent(project, ["controller"], "127.0.0.1", write=print)
    with pytest.raises(LeaseHeldError, match="the name of another machine"):
        agent.start()
    assert [report.supervisor for report in read_reports(project.journal())] == [ELSEWHERE]


def test_a_machine_that_stood_still_keeps_its_name_until_it_counts_as_lost(machine, monkeypatch):
    journal, clock = MemoryJournal(), Clock()
    mine = HostReport(host=host_name(), roles=(), supervisor=ELSEWHERE)

    def sleep(seconds):
        clock.now += seconds
        if LAPSE - 1 <= clock.now < LAPSE - 1 + seconds:
            write_report(journal, mine)

    monkeypatch.setattr(host_conflicts, "time", SimpleNamespace(monotonic=clock, sleep=sleep))
    write_report(journal, mine)
    with pytest.raises(LeaseHeldError, match="process 1"):
        check_conflicts(journal, "salt")
    clock.now = LAPSE
    check_conflicts(journal, "salt")
    assert read_reports(journal) == []


def test_a_machine_that_ends_leaves_the_report_of_another_that_has_its_name(machine):
    project = machine("a")
    other = HostReport(host=host_name(), roles=(), supervisor=ELSEWHERE)
    agent = host_agent.HostAgent(project, ["controller"], "127.0.0.1", write=print)
    agent.start()
    remove_own_report(project.journal(), host_name(), this_process())
    for _ in range(600):  # the agent may report anew before the other one does
        try:
            write_report(project.journal(), other)
            break
        except LeaseHeldError:
            remove_own_report(project.journal(), host_name(), this_process())
    assert agent.leave() == ""
    assert read_reports(project.journal()) == [other]


def test_a_name_is_free_when_its_machine_reports_no_more(machine):
    journal = machine("a").journal()
    write_report(journal, HostReport(host=host_name(), roles=("servers",), supervisor=ELSEWHERE))
    check_conflicts(journal, "salt", within=0)
    assert read_reports(journal) == []

    class Reports(MemoryJournal):
        def reports(self, kind):
            rows = super().reports(kind)
            if rows:  # renewed since it was read the last time
                self.report(kind, host_name(), rows[0].value, expect=rows[0].version)
            return super().reports(kind)

    reporting = Reports()
    write_report(reporting, HostReport(host=host_name(), roles=(), supervisor=ELSEWHERE))
    with pytest.raises(LeaseHeldError, match="process 1"):
        check_conflicts(reporting, "salt")


def test_a_machine_with_another_salt_is_refused_while_the_others_run(machine):
    journal = machine("a").journal()
    other = HostReport(host="b", roles=("servers",), supervisor=this_process(), salt="salt")
    write_report(journal, other)
    check_conflicts(journal, "salt")
    with pytest.raises(UsageError, match="the salt of this machine differs from that of b"):
        check_conflicts(journal, "another")
    write_report(journal, msgspec.structs.replace(other, salt=""))  # of a version that reports none
    check_conflicts(journal, "another")
    remove_own_report(journal, "b", this_process())
    write_report(journal, msgspec.structs.replace(other, supervisor=ELSEWHERE))  # lost: it reports no more
    check_conflicts(journal, "another", within=0)
    assert fingerprint(b"s" * 32) != fingerprint(b"t" * 32)


@pytest.mark.parametrize("where", ["write_report", "remove_own_report"])
def test_a_machine_leaves_at_once_while_the_journal_does_not_answer(machine, monkeypatch, where):
    project, said, hangs, asked = machine("a"), [], threading.Event(), threading.Event()

    def wait(*_, **__):
        asked.set()
        hangs.wait(60)

    monkeypatch.setattr(host_agent, "_REPORT_SECONDS", 0.1)
    agent = host_agent.HostAgent(project, ["controller"], "127.0.0.1", write=said.append)
    agent.start()
    monkeypatch.setattr(host_agent, where, wait)
    try:
        if where == "write_report":
            assert asked.wait(60)
        trouble = agent.leave()
    finally:
        hangs.set()
        agent._threads[0].join(60)
    assert asked.is_set()
    assert "the journal does not answer" in trouble
    assert said == [f"{trouble}\n"]


def test_a_machine_that_is_silent_is_shown_as_such():
    at, home = datetime(2026, 3, 4, tzinfo=UTC), Home(folder="/p", inode=1, host="h", device=1)
    status = Status(model="m", environment="local", supervisor=ELSEWHERE, since=at, at=at, url=None, home=home)
    silent = msgspec.structs.replace(report("a"), status=status)
    assert silence(silent, at + timedelta(seconds=20)) == ""  # clocks differ
    assert silence(silent, at + timedelta(minutes=3)) == "no report for 3 min"
    assert silence(report("a"), at) == ""


def test_versions_without_a_ready_server_are_named():
    hosts = [report("a", server("1", "a", ready=False), server("2", "a"))]
    assert "version 1 that" in unserved_text({"1": 0.9, "2": 0.1, "http://x:1": 0.1, "3": 0.0}, hosts)
    assert unserved_text({"2": 1.0}, hosts) == ""


def test_a_version_that_cannot_be_copied_is_reported_and_the_others_are_served(machine, tmp_path):
    project, deployment = machine("a"), HostsDeployment(machine("b"))
    source = tmp_path / "model"
    source.mkdir()
    (source / "servable.json").write_text('{"format": 0}')
    project.objects().put("damaged", source)
    deployment.ensure("m", [ServedSpec(version="1", servable="damaged")])
    desired = deployment.change("m", lambda state: msgspec.structs.replace(state, champion="1"))
    (fault,) = follow(project, desired, "127.0.1.1")
    assert "version 1 cannot be served" in fault
    assert read_desired_state(project.state, "m").champion is None


# --- a rollback without the journal


def test_a_rollback_without_the_journal_reaches_it_later_and_once(machine, tmp_path, monkeypatch):
    project = machine("a")
    deployment = HostsDeployment(project)
    deployment.ensure("m", [ServedSpec(version="1"), ServedSpec(version="2")])
    desired = deployment.change(
        "m", lambda state: msgspec.structs.replace(state, champion="2", former=("1",), champions=("1", "2"))
    )
    arms = [ArmServer(version).start() for version in ("1", "2")]
    up = tuple(ServerState(version=arm.name, endpoint=arm.url, ready=True, host="b") for arm in arms)
    change_copy(project.state, "m", lambda copy: msgspec.structs.replace(copy, desired=desired, servers=up))
    routes = Routes(model="m", revision=5, champion=desired.arm("2", CHAMPION))
    project.gateway().apply(
        msgspec.structs.replace(routes, champion=msgspec.structs.replace(routes.champion, endpoints=(up[1].endpoint,)))
    )
    project.close()
    journal = tmp_path / "journal.sqlite"
    aside = {path: path.read_bytes() for path in tmp_path.glob("journal.sqlite*")}
    for path in aside:
        path.unlink()
    journal.mkdir()  # no journal can be opened there
    cut = machine("a")
    with pytest.raises(CumulantError):
        deployment_of(cut).read("m")
    # whether a gateway runs is all that a client of it is asked here: tests/live has one that does
    monkeypatch.setattr(cut.gateway(), "address", lambda: GatewayAddress(url="http://g", admin="", pid=1))
    done = roll_back(cut, "m", principal=cut.principal(), reason="broken")
    assert (done.version, done.revision, done.later) == ("1", 1005, True)
    assert cut.gateway().in_force("m").champion.endpoints == (up[0].endpoint,)
    copy = read_copy(cut.state)
    assert (copy.desired.champion, len(copy.unsent)) == ("1", 1)
    cut.close()
    for served in arms:
        served.stop()

    journal.rmdir()
    for path, content in aside.items():
        path.write_bytes(content)
    back = HostsDeployment(machine("a"))
    (sent,) = send_rollbacks(cut, back, with_rollback)
    assert sent.pending == ("event", "alias champion")
    assert send_rollbacks(cut, back, with_rollback) == []
    after = back.read("m")
    assert (after.champion, after.candidate, [one.version for one in after.rollbacks]) == ("1", None, ["1"])


def test_a_rollback_that_was_sent_before_a_kill_is_not_sent_again(machine):
    project = machine("a")
    deployment = HostsDeployment(project)
    deployment.ensure("m", [ServedSpec(version="1"), ServedSpec(version="2")])
    at = datetime(2026, 3, 4, tzinfo=UTC)
    rollback = Rollback(at=at, version="1", given_up=("2",), reason="r", by="user:ada", pending=("event",))
    deployment.change("m", lambda state: with_rollback(state, rollback, at + timedelta(days=1)))
    unsent = (UnsentRollback(rollback=rollback, until=at),)
    change_copy(project.state, "m", lambda copy: msgspec.structs.replace(copy, unsent=unsent))
    send_rollbacks(project, deployment, with_rollback)
    assert len(deployment.read("m").rollbacks) == 1
    assert read_copy(project.state).unsent == ()
