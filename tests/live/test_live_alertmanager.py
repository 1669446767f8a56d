"""A real Alertmanager: it takes alerts, groups and silences them, forgets them when it is restarted, and is told again."""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "conformance"))
from notify_servers import Web

from cumulant.alerting.alert_state import Finding
from cumulant.core.errors import EngineUnavailableError, TerminalError
from cumulant.drivers.webhook.alertmanager import Alertmanager
from cumulant.flows.alerting.alerts import deliver, observe, try_receivers
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
