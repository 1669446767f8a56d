"""A real Alertmanager: it takes alerts, groups and silences them, forgets them when it is restarted, and is told again."""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import cast

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "conformance"))
from notify_servers import Web

from cumulant.alerting.alert_state import Finding
from cumulant.core.errors import EngineUnavailableError, TerminalError
from cumulant.drivers.webhook.alertmanager import Alertmanager
from cumulant.flows.alerting.alerts import deliver, observe, try_receivers
from cumulant.flows.observe.programs import FOLDER, find_programs, observing_processes
from cumulant.ports.access import Principal
from cumulant.project.file.loading import load
from cumulant.testing.clock import ManualClock
from cumulant.testing.conformance.notifier import SAMPLE

pytestmark = pytest.mark.live

NAME = "prometheus-alertmanager"
ADA = Principal("user:ada")
SETTINGS = """
route: {{receiver: people, group_by: [model], group_wait: 50ms, group_interval: 100ms, repeat_interval: 1h}}
receivers: [{{name: people, webhook_configs: [{{url: "http://127.0.0.1:{port}/people", send_resolved: true}}]}}]
"""


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


class Server:
    def __init__(self, folder, people):
        self.port, self._folder = free_port(), folder
        (folder / "settings.yml").write_text(SETTINGS.format(port=people.port))
        self.start()

    def start(self):
        program = shutil.which(NAME) or shutil.which("alertmanager")
        self.process = subprocess.Popen(
            [
                program,  # type: ignore[list-item]
                f"--config.file={self._folder}/settings.yml",
                f"--storage.path={self._folder}/data",
                f"--web.listen-address=127.0.0.1:{self.port}",
                "--cluster.listen-address=",
                "--log.level=error",
            ]
        )
        wait_for(lambda: self.ask("status") is not None, self.process)

    def kill(self):
        self.process.kill()
        self.process.wait()

    def ask(self, path, document=None):
        body = None if document is None else json.dumps(document).encode()
        asked = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/api/v2/{path}", body, {"content-type": "application/json"}
        )
        with contextlib.suppress(OSError), urllib.request.urlopen(asked, timeout=10) as answer:
            return json.loads(answer.read())
        return None

    def alerts(self):
        """(severity, subject, state) of what fires."""
        return sorted(
            (one["labels"]["severity"], one["labels"]["subject"], one["status"]["state"]) for one in self.ask("alerts")
        )


def wait_for(what, process=None):
    deadline = time.monotonic() + 60
    while not what():
        assert process is None or process.poll() is None, "it ended"
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture
def people():
    with Web() as found:
        yield found


@pytest.fixture
def server(tmp_path, people):
    if shutil.which(NAME) is None and shutil.which("alertmanager") is None:
        pytest.skip(f"Alertmanager is not installed: apt-get install {NAME}")
    found = Server(tmp_path, people)
    yield found
    found.kill()


@pytest.fixture
def late(tmp_path, server):
    folder = tmp_path / "late"
    folder.mkdir()
    url = f"alertmanager://127.0.0.1:{server.port}"
    text = f"version: 1\nmodel: {{name: late}}\nmonitoring: {{notify: ['{url}'], alerts: {{resolve_after: 0s}}}}\n"
    (folder / "cumulant.yaml").write_text(text)
    with load(folder) as found:
        yield found


def see(late, clock, *subjects, level=None):
    found = [
        Finding(model="late", rule="quality", subject=one, moved=f"{one} moved", since=clock.now(), level=level)
        for one in subjects
    ]
    observe(late, found, principal=ADA, clock=clock)
    deliver(late, clock=clock)


def notices(people):
    """What Alertmanager told people: (subject, status) of each alert of each group that it sent."""
    return [
        (one["labels"]["subject"], one["status"]) for _, _, document in list(people.posts) for one in document["alerts"]
    ]


def test_an_alert_from_its_beginning_to_its_end(server, people, late):
    clock = ManualClock(datetime.now(UTC))
    see(late, clock, "fare", "speed")
    assert server.alerts() == [("warning", "fare", "active"), ("warning", "speed", "active")]
    wait_for(lambda: {("fare", "firing"), ("speed", "firing")} <= set(notices(people)))
    assert {document["groupLabels"]["model"] for _, _, document in people.posts} == {"late"}
    assert people.posts[0][2]["alerts"][0]["annotations"]["description"].startswith("fare moved, since ")
    see(late, clock, "fare", level="critical")
    wait_for(lambda: ("speed", "resolved") in notices(people))
    wait_for(lambda: server.alerts() == [("critical", "fare", "active")])
    see(late, clock)
    wait_for(lambda: server.alerts() == [])
    wait_for(lambda: notices(people)[-1] == ("fare", "resolved"))


def test_what_it_forgot_it_is_told_again(server, late):
    clock = ManualClock(datetime.now(UTC))
    see(late, clock, "fare")
    server.kill()
    see(late, clock)
    see(late, clock, "speed")
    server.start()
    assert server.alerts() == []
    clock.move(timedelta(minutes=5))
    deliver(late, clock=clock)
    assert server.alerts() == [("warning", "speed", "active")]
    server.kill()
    server.start()
    clock.move(timedelta(minutes=5))
    deliver(late, clock=clock)
    assert server.alerts() == [("warning", "speed", "active")]


def test_its_silences_are_its_own(server, people, late):
    now = datetime.now(UTC)
    matcher = {"name": "subject", "value": "fare", "isRegex": False, "isEqual": True}
    silence = {"matchers": [matcher], "startsAt": now.isoformat(), "endsAt": (now + timedelta(hours=1)).isoformat()}
    assert server.ask("silences", silence | {"createdBy": "ada", "comment": "known"})
    see(late, ManualClock(now), "fare", "speed")
    wait_for(lambda: server.alerts() == [("warning", "fare", "suppressed"), ("warning", "speed", "active")])
    wait_for(lambda: people.posts)
    assert {subject for subject, _ in notices(people)} == {"speed"}


def test_what_it_says_of_a_sample_and_of_rubbish(server, late):
    [tested] = try_receivers(late, principal=ADA)
    assert tested.taken
    with pytest.raises(TerminalError, match="404"):
        Alertmanager(f"alertmanager://127.0.0.1:{server.port}/elsewhere").send(SAMPLE, seconds=10)
    server.kill()
    with pytest.raises(EngineUnavailableError):
        Alertmanager(f"alertmanager://127.0.0.1:{server.port}").send(SAMPLE, seconds=10)


class Counters(ThreadingHTTPServer):
    """What a gateway's Envoy counts, as far as the test says; scraped under the names that the rules read."""

    requests, errors, scrapes = 0, 0, 0

    def __init__(self):
        super().__init__(("127.0.0.1", 0), self.Page)
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    class Page(BaseHTTPRequestHandler):
        def do_GET(self):
            counters, labels = cast("Counters", self.server), 'envoy_virtual_cluster="late"'
            text = (
                f"envoy_vhost_vcluster_upstream_rq_completed{{{labels}}} {counters.requests}\n"
                f'envoy_vhost_vcluster_upstream_rq_xx{{{labels},envoy_response_code_class="5"}} {counters.errors}\n'
            )
            self.send_response(200)
            self.send_header("content-type", "text/plain; version=0.0.4")
            self.end_headers()
            self.wfile.write(text.encode())
            counters.scrapes += 1

        def log_message(self, *_):
            pass


@pytest.mark.skipif(
    shutil.which("prometheus") is None or find_programs().alertmanager is None,
    reason="prometheus or Alertmanager is not installed",
)
def test_rules_of_objectives_fire_and_resolve_in_it_through_prometheus(tmp_path, people):
    """With the commands, configuration and rules of `cumulant up --observe`; only the counters are the test's."""
    (tmp_path / "cumulant.yaml").write_text("version: 1\nmodel: {name: late}\nserving: {slo: {}}\n")
    with load(tmp_path) as project, Counters() as gateway, ExitStack() as ending:
        ending.callback(gateway.shutdown)
        folder = project.state / FOLDER
        folder.mkdir(parents=True)
        (folder / "alertmanager.yml").write_text(SETTINGS.format(port=people.port))  # a user's own stays
        processes = observing_processes(project, find_programs(), interval="1s")
        assert [process.name for process in processes] == ["prometheus", "alertmanager"]
        (folder / "gateway.json").write_text(json.dumps([{"targets": [f"127.0.0.1:{gateway.server_port}"]}]))
        for process in processes:
            running = subprocess.Popen(process.command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            ending.callback(running.wait)
            ending.callback(running.kill)

        def told():
            """(status, severity, model) of the alerts that Alertmanager sent to people."""
            return {
                (alert["status"], alert["labels"]["severity"], alert["labels"]["model"], alert["labels"]["alertname"])
                for _, _, document in list(people.posts)
                for alert in document["alerts"]
            }

        wait_for(lambda: gateway.scrapes > 2)
        gateway.requests, gateway.errors = 1_000, 500
        wait_for(lambda: ("firing", "critical", "late", "CumulantAvailabilityBurn") in told())
        assert not [status for status, *_ in told() if status == "resolved"]
        gateway.requests += 10_000_000  # so that even the budget of 30 days burns slowly
        wait_for(lambda: ("resolved", "critical", "late", "CumulantAvailabilityBurn") in told())
