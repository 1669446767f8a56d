"""What the controller sees: health from what is reported, pairs counted once, metrics of a user's own."""

from __future__ import annotations

from datetime import timedelta

import msgspec
import pytest
from release_servers import serving
from releases import MOMENT, QUICK, policy_with, release

from cumulant.core.traffic import CANDIDATE, CHAMPION, Arm, Exchange
from cumulant.core.units import to_micros
from cumulant.flows.release.controller import evidence
from cumulant.flows.release.controller.custom_metrics import CustomMetrics, parse_number
from cumulant.flows.release.controller.evidence import Cursor, LiveEvidence
from cumulant.flows.release.controller.mirrored_rows import compare_answers, read_mirrored
from cumulant.ports.traffic import EndpointHealth
from cumulant.release.decide import start
from cumulant.release.spec import MetricSpec
from cumulant.serving.prediction_log.entry import LogEntry
from cumulant.serving.prediction_log.personal_values import PersonalValueMask
from cumulant.serving.prediction_log.storage.part_writer import LogParts
from cumulant.testing.clock import ManualClock
from cumulant.testing.log import folder_log
from cumulant.testing.traffic import MemoryTraffic

NOW = to_micros(MOMENT)


class Gateway(MemoryTraffic):
    def __init__(self) -> None:
        super().__init__()
        self.healthy = {CHAMPION: True, CANDIDATE: True}

    def health(self, model):
        return [EndpointHealth(url="u", arm=arm, ready=ready) for arm, ready in self.healthy.items()]


class Scene:
    def __init__(self, folder) -> None:
        self.folder, self.now = folder, 0.0
        self.traffic, self.clock, self.said = Gateway(), ManualClock(MOMENT), []
        (folder / "stack").mkdir(parents=True, exist_ok=True)
        self.release = start(release())

    def watching(self, **other):
        own = CustomMetrics(self.folder, self.said.append, **other)
        return LiveEvidence(
            self.traffic,
            exchanges=self.traffic,
            stack=self.folder / "stack",
            log=folder_log(self.folder / "log"),
            own=own,
            clock=self.clock,
            report=self.said.append,
            steady=lambda: self.now,
        )

    def status(self, content: bytes) -> None:
        (self.folder / "stack" / "status.json").write_bytes(content)


@pytest.fixture
def scene(tmp_path):
    return Scene(tmp_path)


def exchange(arm=CANDIDATE, *, status=200, revision=2, seconds=0.0, **other):
    told = {"request": "r", "model": "late", "assigned": arm, "served": arm, "duration_us": 1, "revision": revision}
    return Exchange(time=NOW + round(seconds * 1e6), status=status, **told, **other)


def logged(folder, rows, *, arm=CHAMPION):
    """Rows as (id, version, shadow, microseconds, outputs)."""
    parts = LogParts(folder, PersonalValueMask(b"k", {"late": []}), file_size=1 << 26, failed=lambda error, rows: None)
    for sequence, (name, version, shadow, time, outputs) in enumerate(rows, 1):
        entry = LogEntry(
            id=name,
            time_us=time,
            latency_us=1,
            model="late",
            version=version,
            sequence=sequence,
            event_times=[None],
            ages=[None],
            arm=arm,
            served_arm=CANDIDATE if shadow else CHAMPION,
            shadow=shadow,
            rows=b'[{"pages":4}]',
            answers=msgspec.json.encode([outputs]),
        )
        parts.add(entry, "w.1", "")
    parts.close()


def test_failures_of_the_last_seconds_are_counted_by_the_assigned_arm(scene):
    scene.traffic.put([exchange(status=500), exchange(), exchange(CHAMPION), exchange(forced=True, status=500)])
    scene.traffic.put([exchange(revision=1, status=500)])
    watching = scene.watching()
    health = watching.health(scene.release)
    assert (health.candidate.requests, health.candidate.failures) == (2, 1)
    assert (health.champion.requests, health.champion.failures) == (1, 0)
    scene.now += 6
    assert watching.health(scene.release).candidate.requests == 0


def test_a_long_log_of_before_holds_up_no_check_and_fills_no_memory(scene, monkeypatch):
    monkeypatch.setattr(evidence, "_PAGE", 100)
    scene.traffic.put([exchange(revision=1)] * 1000)
    scene.traffic.put([exchange(status=500)] * 50)
    watching = scene.watching()
    assert watching.health(scene.release).candidate.failures == 50
    look, cursor = watching.look(scene.release, 10)
    assert len(look.requests) == 50
    assert Cursor.of(cursor).gateway == "1050"


def test_what_waited_in_the_log_is_not_of_the_last_seconds(scene):
    scene.traffic.put([exchange(status=500, seconds=-60), exchange(seconds=0)])
    assert scene.watching().health(scene.release).candidate.failures == 0


@pytest.mark.parametrize("ahead", [-100, 100])
def test_failures_at_a_gateway_count_whatever_the_clock_of_another_says(scene, ahead):
    scene.traffic.put([exchange(status=503, gateway="a")] * 50)
    scene.traffic.put([exchange(seconds=ahead, gateway="b")] * 50)
    scene.traffic.put([exchange(status=503, seconds=ahead - 60, gateway="b")])
    health = scene.watching().health(scene.release)
    assert (health.candidate.requests, health.candidate.failures) == (100, 50)


def test_time_without_a_ready_server_is_of_a_steady_clock_and_begins_after_the_first_start(scene):
    watching = scene.watching()
    scene.traffic.healthy[CANDIDATE] = False
    watching.health(scene.release)
    scene.now = 30
    assert watching.health(scene.release).candidate.not_ready == 0, "it is starting"
    scene.traffic.healthy[CANDIDATE] = True
    watching.health(scene.release)
    scene.traffic.healthy[CANDIDATE] = False
    watching.health(scene.release)
    scene.clock.move(timedelta(hours=1))
    scene.now = 34
    assert watching.health(scene.release).candidate.not_ready == 4


def test_one_that_never_becomes_ready_is_noticed(scene):
    watching = scene.watching()
    scene.traffic.healthy[CANDIDATE] = False
    watching.health(scene.release)
    scene.now = 70
    assert watching.health(scene.release).candidate.not_ready == 10


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"7", b'{"children": 3}', b'[{"url": 4}]', b'[null, "x"]'])
def test_a_strange_status_file_is_held_against_nobody(scene, content):
    scene.status(content)
    assert scene.watching().health(scene.release).candidate.restarts == 0


def test_restarts_are_read_from_the_supervisor(scene):
    children = [{"name": "server-2", "url": "http://127.0.0.1:2/", "ready": False, "restarts": 4}]
    scene.status(msgspec.json.encode({"children": children}))
    health = scene.watching().health(scene.release)
    assert (health.candidate.restarts, health.champion.restarts) == (4, 0)


def test_a_candidate_with_other_outputs_is_seen_and_one_that_does_not_tell_is_not_blamed(scene):
    with serving() as one, serving() as other:
        arms = {
            name: Arm(name=name, version=name, endpoints=(url,))
            for name, url in [(CHAMPION, one.url), (CANDIDATE, other.url)]
        }
        now = msgspec.structs.replace(scene.release, champion=arms[CHAMPION], candidate=arms[CANDIDATE])
        watching = scene.watching()
        assert watching.health(now).candidate.misshapen == 0
        other.outputs = [{"name": "prediction", "datatype": "BYTES"}]
        assert watching.health(now).candidate.misshapen == 1
        other.outputs = "strange"
        assert (watching.health(now).candidate.misshapen, scene.said) == (0, [])
        other.shown = 403
        assert watching.health(now).candidate.misshapen == 0
        assert scene.said == ["outputs are not compared: the candidate does not show them to the controller (HTTP 403)"]


def test_each_mirrored_pair_is_counted_once_also_by_another_controller(scene):
    rows = []
    for number_ in range(60):
        time = NOW + number_ * 1_000_000
        rows += [
            (f"r{number_}", "1", False, time, {"prediction": True, "probability": 0.75}),
            (f"r{number_}", "2", True, time + 300_000, {"prediction": False, "probability": 0.25}),
        ]
    logged(scene.folder / "log", rows)
    now, found = scene.release, []
    for seconds in range(10, 100, 7):
        scene.clock.move(MOMENT + timedelta(seconds=seconds) - scene.clock.now())
        look, cursor = scene.watching().look(now, 7.0)  # a new one each time: only the row remembers
        found += zip(look.pairs.champion, look.pairs.candidate, look.pairs.differs, strict=True)
        now = msgspec.structs.replace(now, cursor=cursor)
    assert len(found) == 60
    assert set(found) == {(0.75, 0.25, True)}


def test_of_a_name_that_callers_use_again_those_close_in_time_are_a_pair(scene):
    second, now = 1_000_000, NOW + 20_000_000
    logged(
        scene.folder / "log",
        [
            ("same", "1", False, now - 9 * second, {"prediction": 1.0}),
            ("same", "1", False, now - 5 * second, {"prediction": 5.0}),
            ("same", "2", True, now - 5 * second + 900, {"prediction": 5.0}),
            ("same", "1", False, now - 2 * second, {"prediction": 7.0}),
            ("same", "2", True, now - 2 * second + 900, {"prediction": 7.0}),
        ],
    )
    found = read_mirrored(folder_log(scene.folder / "log"), scene.release, after=now - 6 * second, until=now).pairs
    assert [(one.champion, one.candidate) for one in found] == [(5.0, 5.0), (7.0, 7.0)]
    found = read_mirrored(folder_log(scene.folder / "log"), scene.release, after=now - 3 * second, until=now).pairs
    assert [(one.champion, one.candidate) for one in found] == [(7.0, 7.0)]


@pytest.mark.parametrize("ahead", [-100, -30, -20, 20, 30, 100])
def test_pairs_of_machines_whose_clocks_differ_are_counted_once(scene, ahead):
    """The candidate's clock is so many seconds ahead of the champion's, by which the log is read."""
    second, rows = 1_000_000, []
    for number_ in range(256):
        time, answer = NOW + number_ * second, {"probability": number_ / 256}
        rows += [
            (f"r{number_}", "1", False, time, answer),
            (f"r{number_}", "2", True, time + ahead * second, answer),
        ]
    logged(scene.folder / "log", sorted(rows, key=lambda row: row[3]))
    log, found = folder_log(scene.folder / "log"), []
    for seconds in range(-110, 360, 10):
        after, until = NOW + seconds * second, NOW + (seconds + 10) * second
        found += read_mirrored(log, scene.release, after=after, until=until).pairs
    # Where the requests end, the last copies have their champion's rows, and no row is sought for.
    assert sorted(round(pair.champion * 256) for pair in found)[:240] == list(range(240))
    assert len(set(found)) == len(found)


def test_a_half_is_no_pair_and_another_version_is_neither(scene):
    answer = {"prediction": 3.5}
    rows = [
        ("a", "1", False, NOW, answer),
        ("b", "2", True, NOW, answer),
        ("c", "1", False, NOW, answer),
        ("c", "9", True, NOW, answer),
    ]
    logged(scene.folder / "log", rows)
    assert read_mirrored(folder_log(scene.folder / "log"), scene.release, after=NOW - 10, until=NOW + 10).pairs == ()


def test_what_did_not_come_through_the_gateway_is_evidence_of_no_arm(scene):
    answer = {"prediction": 3.5}
    logged(scene.folder / "log", [("a", "1", False, NOW, answer), ("a", "2", True, NOW, answer)], arm="")
    found = read_mirrored(folder_log(scene.folder / "log"), scene.release, after=NOW - 10, until=NOW + 10, arms=True)
    assert (found.pairs, found.rows) == ((), {CHAMPION: [], CANDIDATE: []})


def test_answers_of_another_shape():
    assert compare_answers({"prediction": 1.0, "probability": 0.5}, {"prediction": 1.0}) is None
    assert compare_answers({"prediction": 1.5}, {"prediction": None}) is None  # NaN in JSON
    assert compare_answers({"prediction": 1, "probability": 0.5}, {"prediction": 1, "probability": None}) is None
    assert compare_answers({"prediction": "a"}, {"prediction": "b"}).differs
    assert not compare_answers({"prediction": 1.5}, {"prediction": 1.75}).differs
    assert compare_answers({"scores": [0.1, 0.9]}, {"scores": [0.8, 0.2]}).differs


def test_a_cursor_is_read_back_and_an_old_one_is_the_gateway_s():
    cursor = Cursor(gateway="7", pairs=5, labels="x")
    assert Cursor.of(str(cursor)) == cursor
    assert Cursor.of("41") == Cursor(gateway="41")
    assert Cursor.of("{broken") == Cursor(gateway="{broken")


def _own(scene, text, *, seconds=60.0, **other):
    (scene.folder / "own.py").write_text(text)
    spec = MetricSpec(call="own.py:mean", bounds=(0, 10), margin=1, **other)
    rows = {CHAMPION: [{"outputs": {"prediction": 2}}], CANDIDATE: [{"outputs": {"prediction": 5}}]}
    return CustomMetrics(scene.folder, scene.said.append, seconds=seconds).measure({"mean": spec}, rows)  # type: ignore[dict-item]


def test_a_function_of_the_project_is_a_metric(scene):
    text = "def mean(rows):\n    return sum(row['outputs']['prediction'] for row in rows) / len(rows)\n"
    assert _own(scene, text) == {"mean": [3.0]}
    assert _own(scene, text, better="higher") == {"mean": [-3.0]}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("def mean(rows):\n    1 / 0\n", "ZeroDivisionError"),
        ("def mean(rows):\n    return 'x'\n", "not a number"),
        ("def mean(rows):\n    return 99\n", "outside its bounds"),
        ("def other(rows):\n    return 1\n", "has no function"),
        ("def mean(rows):\n    return float('nan')\n", ""),
    ],
)
def test_a_function_that_fails_gives_no_data(scene, text, says):
    assert _own(scene, text) == {}
    assert says in " ".join(scene.said)


def test_a_function_that_takes_too_long_gives_no_data(scene):
    text = "import threading\ndef mean(rows):\n    threading.Event().wait(60)\n    return 1\n"
    assert _own(scene, text, seconds=0.05) == {}
    assert "took longer" in " ".join(scene.said)


def test_prometheus_gives_one_number_or_no_data(scene):
    with serving() as server:
        own = CustomMetrics(scene.folder, scene.said.append, variables={"PROMETHEUS_URL": server.url})
        metrics = {"cost": MetricSpec(prometheus='sum(cost{arm="{arm}"})', bounds=(0, 10))}
        one = {"metric": {}, "value": [1, "2.5"]}
        server.documents["/api/v1/query"] = {"status": "success", "data": {"resultType": "vector", "result": [one]}}
        assert own.measure(metrics, {}) == {"cost": [0.0]}
        server.documents["/api/v1/query"] = {"status": "error"}
        assert own.measure(metrics, {}) == {}
        assert "no single number" in scene.said[-1]
    assert own.measure(metrics, {}) == {}, "nobody answers"


def test_answers_of_prometheus():
    def vector(*values):
        return {
            "status": "success",
            "data": {"resultType": "vector", "result": [{"value": [0, one]} for one in values]},
        }

    assert parse_number(vector("3")) == 3
    for found in (vector(), vector("1", "2"), vector("NaN"), vector(None), None, [], {"status": "success"}):
        assert parse_number(found) is None


def test_a_look_without_a_log_and_without_servers_is_empty(scene):
    spec = policy_with(stages=QUICK, metrics={"cost": MetricSpec(prometheus="x", bounds=(0, 1))})
    now = start(release(spec))
    look, cursor = scene.watching(variables={"PROMETHEUS_URL": "http://127.0.0.1:9"}).look(now, 10)
    assert (len(look.requests), len(look.pairs), look.own) == (0, 0, {})
    assert Cursor.of(cursor).pairs > 0
