"""A whole release under sticky load, by real processes: nothing fails, and no caller goes back and forth."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter, defaultdict
from datetime import timedelta
from typing import NamedTuple

import e2e_shop
import msgspec
import pytest
from e2e_support import kill, opened, run, start, wait_for

from cumulant.flows.ledger.processes import is_gone
from cumulant.flows.release import store
from cumulant.flows.replay.replay import replay
from cumulant.flows.replay.sending import failed_party
from cumulant.flows.stack.desired_state import read_desired_state
from cumulant.flows.stack.served_versions import table_of
from cumulant.flows.stack.status import read_status
from cumulant.flows.training.train import train

pytestmark = pytest.mark.slow

SECTION = """
serving: {http: '127.0.0.1:0'}
release:
  key: customer
  look: 500ms
  block: 500ms
  stages:
    shadow: {at_least: 1s, at_most: 60s, samples: 50}
    ab: null
    canary: {weights: [10%, 50%, 95%], at_least: 2s, soak: 2s, at_most: 60s, samples: 20}
  metrics:  # what decides is tested by simulation; here the machine may be as busy as it likes
    errors: {required: false}
    timeouts: {required: false}
    latency: {required: false, margin: 50}
"""
QUICK = e2e_shop.PROJECT.replace("  trials: 3\n", "  trials: 1\n").replace("  ensemble: 2\n", "") + SECTION
#: the share of requests that a busy machine may refuse
FEW_REFUSED = 0.05
FIRST, LAST = e2e_shop.START + timedelta(days=20), e2e_shop.START + timedelta(days=60)


class Seen(NamedTuple):
    begun: float
    ended: float
    key: str
    version: str
    arm: str
    failed: str


class Load:
    """A replay in a thread, whose every request is noted.

    Those that a server on a busy machine has no time for (429) are counted alone; all but a few are answered.
    """

    def __init__(self, folder, *, environment="local", speed=30_000):
        self._folder, self._environment, self._speed = folder, environment, speed
        self._ended = threading.Event()
        self.seen: list[Seen] = []
        self.refused = 0
        self.result = None
        self.error = None
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, error, *_):
        self._ended.set()
        self._thread.join(timeout=60)
        if error is None:
            assert self.refused <= FEW_REFUSED * len(self.seen)

    def _run(self):
        try:
            with opened(self._folder, self._environment) as project:
                self.result = replay(
                    project,
                    principal=project.principal(),
                    since=FIRST,
                    until=LAST,
                    speed=self._speed,
                    again=True,
                    release_clock=False,
                    ended=self._ended.is_set,
                    seen=self._note,
                )
        except Exception as error:
            self.error = error

    def _note(self, sent):
        if sent.answer.status == 429:
            self.refused += 1
            return
        now = time.monotonic()
        key = json.loads(sent.call.body)["customer"]
        version = json.loads(sent.answer.body).get("version", "") if sent.answer.status == 200 else ""
        self.seen.append(Seen(now - sent.answer.seconds, now, key, version, sent.arm, failed_party(sent)))


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """A trained project with a champion and a candidate, behind its gateway."""
    folder = e2e_shop.make(tmp_path_factory.mktemp("release") / "shop", rows=20_000, project=QUICK)
    with opened(folder) as project:
        train(project, principal=project.principal())
    path = folder / "cumulant.yaml"
    path.write_text(path.read_text().replace("  trials: 1\n", "  trials: 1\n  seed: 1\n"))
    with opened(folder) as project:
        found = train(project, principal=project.principal(), promote=False)
        assert found.same_as is None, "a release would compare the champion with itself"
    run(folder, "up", "returns/1", "--detach")
    yield folder
    run(folder, "down")


def newest(folder):
    with opened(folder) as project:
        found = store.read(project.journal(), project.name)
    return None if found is None else found[0]


def awaited(folder, load, seconds=120):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        release = newest(folder)
        if release.over:
            return release
        assert load.error is None, load.error
        time.sleep(0.2)
    pytest.fail(f"the release is still {newest(folder).reason}")


def came_back(seen):
    """Requests that the old version answered although the caller had been answered by the new one before they began."""
    new = defaultdict(lambda: float("inf"))
    for one in seen:
        if one.version == "2":
            new[one.key] = min(new[one.key], one.ended)
    return [one for one in seen if one.version == "1" and one.begun > new[one.key]]


def test_over_a_whole_release_nothing_fails_and_each_key_moves_once(shop):
    prices = shop / "data" / "prices.csv"
    with Load(shop) as load:
        time.sleep(1.0)
        prices.write_text(prices.read_text() + "hat,2024-02-29 00:00:00,7.0\n")
        begun = run(shop, "release", "start", "returns/2")
        assert "version 1 reads stored features of the newest data from now on" in begun["notes"]
        book = read_desired_state(shop / ".cumulant", "returns")
        first, second = (table_of(book.versions[version].command) for version in ("1", "2"))
        assert first == second, "the candidate would be compared with a champion that knows less"
        release = awaited(shop, load)
        time.sleep(1.0)
    assert release.status == "promoted", release.reason
    assert [one.label for one in release.passed] == ["shadow", "canary 10%", "canary 50%", "canary 95%"]
    assert len(load.seen) > 500
    assert [one for one in load.seen if one.failed] == []
    assert {one.version for one in load.seen} == {"1", "2"}
    assert came_back(load.seen) == []
    # A request is the arm's that its key says: within the ramp both versions answered, of different callers.
    ramp = {one.key for one in load.seen if one.arm == "candidate"}
    assert ramp
    assert load.seen[-1].version == "2"
    assert load.result.labels > 0


def test_a_replay_that_is_cut_off_goes_on_where_it_stopped(shop):
    end, statuses = FIRST.replace(month=1, day=23), Counter()
    with opened(shop) as project:
        whole = replay(
            project,
            principal=project.principal(),
            since=FIRST,
            until=end,
            speed=30_000,
            again=True,
            seen=lambda sent: statuses.update([sent.answer.status]),
        )
    assert whole.done
    refused = statuses.pop(429, 0)
    assert refused == sum(whole.failures.values()) <= FEW_REFUSED * whole.requests
    assert statuses == {200: whole.requests - refused}
    assert whole.requests == whole.rows > 400
    line = ("replay", "--from", f"{FIRST:%Y-%m-%d}", "--to", f"{end:%Y-%m-%d}", "--speed", "30000x", "--again")
    process = start(shop, *line)
    noted = shop / ".cumulant" / "replay.json"
    wait_for(process, lambda: noted.exists() and json.loads(noted.read_bytes())["sent"] > 50)
    kill(process, 2)
    reached = json.loads(noted.read_bytes())["sent"]
    assert 0 < reached < whole.rows
    rest = run(shop, *line[:-1])
    assert rest["done"]
    assert rest["resumed"] == reached
    assert rest["requests"] == whole.rows - reached
    assert not noted.exists()


def test_nothing_is_left_when_it_is_taken_down(shop):
    status = read_status(shop / ".cumulant")
    before = [one.process for one in status.children if one.process] + [status.supervisor]
    run(shop, "down")
    try:
        assert all(is_gone(one) for one in before)
        assert (
            msgspec.json.decode((shop / ".cumulant" / "stack" / "desired_state.json").read_bytes())["champion"] == "2"
        )
    finally:
        run(shop, "up", "--detach")
