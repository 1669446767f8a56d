"""Leases: one of many holds, a killed or stopped holder is replaced, and what it does afterwards changes nothing."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from stopped_process import stop_outside_writes

from cumulant.core.errors import LeaseHeldError
from cumulant.core.events import Actor
from cumulant.drivers.local.journal import SqliteJournal
from cumulant.flows.ledger.lease import BEATS, LeaseRenewal, LeaseWatch, await_lease, holder_of, take_lease
from cumulant.flows.ledger.processes import Process, this_process
from cumulant.testing.journal import MemoryJournal

ADA = Actor("user:ada")
WORKER = str(Path(__file__).with_name("lease_worker.py"))


@pytest.fixture(params=["memory", "sqlite"])
def journal(request, tmp_path):
    opened = MemoryJournal() if request.param == "memory" else SqliteJournal(f"sqlite://{tmp_path}/journal.db")
    yield opened
    opened.close()


def take(journal, watch=None, *, ttl=60.0, holder=None):
    return take_lease(journal, "job", ttl=ttl, actor=ADA, watch=watch or LeaseWatch(), holder=holder)


def write(journal, lease, value):
    """A write that only the holder may do."""
    with journal.transaction(actor=ADA) as transaction:
        transaction.put("result", "a", {"by": value})
        lease.confirm(transaction)


def test_one_holds_it_until_it_is_released(journal):
    first = take(journal)
    assert take(journal) is None
    assert holder_of(journal, "job") == this_process()
    write(journal, first, "first")
    first.release()
    assert holder_of(journal, "job") is None
    second = take(journal)
    assert second.fence > first.fence
    first.release()
    assert holder_of(journal, "job") is not None, "what another one holds is not released"


def test_a_silent_holder_is_judged_by_the_waiter_s_own_clock(journal):
    now = [100.0]
    far = Process("elsewhere:0", 1, "1")
    first = take(journal, ttl=10.0, holder=far)
    watch = LeaseWatch(lambda: now[0])
    assert take(journal, watch) is None
    for now[0] in (105.0, 109.9):
        assert take(journal, watch) is None
    first.beat()
    for now[0] in (114.9, 119.8, 124.8):
        assert take(journal, watch) is None, "the renewal counts from when it was seen"
    now[0] = 125.0
    second = take(journal, watch)
    assert second.fence > first.fence
    with pytest.raises(LeaseHeldError, match="has taken it over"):
        first.beat()
    with pytest.raises(LeaseHeldError, match="lost"):
        write(journal, first, "first")
    assert journal.get("result", "a") is None
    write(journal, second, "second")


def test_time_in_which_the_journal_did_not_answer_counts_for_no_holder(journal):
    now = [0.0]
    first = take(journal, ttl=6.0, holder=Process("elsewhere:0", 1, "1"))
    watch = LeaseWatch(lambda: now[0])
    for now[0] in (0.0, 1.0, 60.0, 61.0):
        assert take(journal, watch) is None, now
    first.beat()
    for now[0] in (62.0, 63.0, 120.0, 122.0, 124.0):
        assert take(journal, watch) is None, now
    now[0] = 126.1
    assert take(journal, watch) is not None


def test_a_waiter_that_seldom_looks_takes_a_lease_over_too(journal):
    now = [0.0]
    take(journal, ttl=6.0, holder=Process("elsewhere:0", 1, "1"))
    watch = LeaseWatch(lambda: now[0])
    looks = 1
    while take(journal, watch) is None:
        now[0] += 5.0
        looks += 1
    assert looks <= BEATS + 2


def test_a_process_of_this_machine_that_is_gone_is_noticed_at_once(journal):
    here = this_process()
    take(journal, ttl=3600.0, holder=Process(here.host, here.pid, "1"))
    assert take(journal) is not None


def test_of_many_waiters_one_takes_over(journal):
    take(journal, ttl=0.2, holder=Process("elsewhere:0", 1, "1"))
    taken, go = [], threading.Barrier(8)

    def wait():
        watch, deadline = LeaseWatch(), time.monotonic() + 60
        go.wait()
        while not taken and time.monotonic() < deadline:
            if lease := take(journal, watch, holder=Process("another:0", 1, "1")):
                taken.append(lease)

    threads = [threading.Thread(target=wait) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(taken) == 1
    taken[0].beat()


def test_a_process_that_runs_once_waits_for_a_renewal_or_the_end(journal):
    first = take(journal, ttl=30.0)
    with LeaseRenewal(first.beat, every=0.05):
        assert await_lease(journal, "job", ttl=30.0, actor=ADA) is None
    first.release()
    take(journal, ttl=0.3, holder=Process("elsewhere:0", 1, "1"))
    begun = time.monotonic()
    lease = await_lease(journal, "job", ttl=30.0, actor=ADA)
    assert lease is not None
    assert time.monotonic() - begun > 0.3


def test_a_renewed_lease_outlives_its_length_and_is_released(journal):
    with take(journal, ttl=3.0).renewed():
        watch, until = LeaseWatch(), time.monotonic() + 4.5
        while time.monotonic() < until:
            assert take(journal, watch) is None
            time.sleep(0.05)
    assert holder_of(journal, "job") is None


# Processes -----------------------------------------------------------------------------------------------------


def start(url, host, *, ttl):
    """A process that takes the lease as one of another machine, prints its fence, and writes under it for ever."""
    worker = subprocess.Popen([sys.executable, WORKER, url, host, str(ttl)], stdout=subprocess.PIPE, text=True)
    return worker, json.loads(worker.stdout.readline())["fence"]


def until_taken(journal, watch, timeout=60.0):
    deadline = time.monotonic() + timeout
    while (lease := take(journal, watch, ttl=5.0)) is None:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return lease


@pytest.mark.parametrize("fault", [signal.SIGKILL, signal.SIGSTOP])
def test_a_holder_on_another_machine_that_is_killed_or_stopped(tmp_path, fault):
    url = f"sqlite://{tmp_path}/journal.db"
    worker, fence = start(url, "far-away", ttl=1.0)
    journal, watch = SqliteJournal(url), LeaseWatch()
    try:
        assert take(journal, watch) is None
        if fault == signal.SIGSTOP:
            stop_outside_writes(worker, journal._database.path)
        else:
            worker.kill()
        begun = time.monotonic()
        lease = until_taken(journal, watch)
        assert time.monotonic() - begun > 0.5, "what another machine holds is waited for"
        assert lease.fence > fence
        write(journal, lease, "other")
        if fault == signal.SIGSTOP:
            os.kill(worker.pid, signal.SIGCONT)
            assert json.loads(worker.stdout.readline()) == {"lost": True}
            assert worker.wait(60) == 0
        assert journal.get("result", "a").value == {"by": "other"}
    finally:
        worker.kill()
        worker.communicate()
        journal.close()
