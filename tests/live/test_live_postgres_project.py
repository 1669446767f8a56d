"""A project whose journal is in PostgreSQL: it trains, serves, takes labels and releases while the server restarts."""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "e2e"))
import e2e_shop
from e2e_support import opened, run, start, wait_for
from test_e2e_release import QUICK, Load

from cumulant.flows.release import store
from cumulant.flows.training.train import train
from cumulant.testing.postgres import INSTALL, postgres_server, server_programs

pytestmark = [pytest.mark.live, pytest.mark.slow]

PASSWORD = "a pass/word@%"


@pytest.fixture(scope="module")
def server():
    if server_programs() is None:
        pytest.skip(f"no PostgreSQL server is installed: {INSTALL}")
    with postgres_server() as running:
        running.execute("CREATE ROLE cumulant LOGIN PASSWORD 'a pass/word@%'")
        running.execute("CREATE DATABASE cumulant OWNER cumulant")
        running.require_password("cumulant")
        yield running


@pytest.fixture(scope="module")
def shop(server, tmp_path_factory):
    """The project, whose password is a secret in the environment."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JOURNAL_PASSWORD", PASSWORD)
        url = server.url("cumulant", "cumulant:${secret:JOURNAL_PASSWORD}")
        text = QUICK + f"environments: {{local: {{journal: '{url}'}}}}\n"
        folder = e2e_shop.make(tmp_path_factory.mktemp("postgres") / "shop", rows=20_000, project=text)
        yield folder
        run(folder, "down")


def restart(server, pause=1.0):
    server.stop()
    time.sleep(pause)
    server.start()


def ended_release(folder, load, seconds=180):
    """The release, once it is over; the client that watches it is connected before the server restarts."""
    deadline = time.monotonic() + seconds
    with opened(folder) as project:
        while True:
            release, _ = store.read_required(project.journal(), project.name)
            if release.over:
                return release
            assert load.error is None, load.error
            assert time.monotonic() < deadline, release.reason
            time.sleep(0.2)


def number_of_events(folder):
    with opened(folder) as project:
        return project.journal().head().seq


def test_a_training_goes_on_when_the_server_is_back(server, shop):
    plan = run(shop, "plan")
    assert plan
    state = next(check for check in run(shop, "doctor", codes=(0, 1))["checks"] if check["check"] == "state")
    assert (state["state"], PASSWORD in str(state)) == ("ok", False)
    assert "postgresql://" in state["detail"]
    before = number_of_events(shop)
    process = start(shop, "train")
    wait_for(process, lambda: number_of_events(shop) >= before + 4)
    server.stop()
    report = process.stderr.readline()
    server.start()
    out, err = process.communicate(timeout=300)
    assert "the journal's server does not answer" in report + out
    assert PASSWORD not in report + out + err
    if process.returncode == 3:  # it was within a write, which cannot be begun again
        assert run(shop, "train")
    else:
        assert process.returncode == 0, out + err
        assert "waiting up to 60 s" in report
    assert not (shop / ".cumulant" / "journal.db").exists()
    assert run(shop, "events", "verify")["breaks"] == []


def test_a_release_goes_on_when_the_server_is_back(server, shop):
    path = shop / "cumulant.yaml"
    path.write_text(path.read_text().replace("  trials: 1\n", "  trials: 1\n  seed: 1\n"))
    with opened(shop) as project:
        assert train(project, principal=project.principal(), promote=False).same_as is None
    run(shop, "up", "returns/1", "--detach")
    with Load(shop) as load:
        time.sleep(1.0)
        run(shop, "release", "start", "returns/2")
        restarting = threading.Timer(3.0, restart, (server,))
        restarting.start()
        release = ended_release(shop, load)
        restarting.join()
        time.sleep(1.0)
    assert release.status == "promoted", release.reason
    assert [seen for seen in load.seen if seen.failed] == []
    # A server on a busy machine may refuse some for its load; without the journal every one would fail.
    assert load.refused < 0.02 * len(load.seen)
    assert load.result.labels > 0
    assert run(shop, "events", "verify")["breaks"] == []
    backup = run(shop, "backup", str(shop.parent / "backup.tar"))
    assert any("pg_dump" in name for name in backup["left_out"])


def test_a_server_that_is_gone_is_named_with_what_to_do(server, shop):
    server.stop()
    try:
        process = start(shop, "runs", "list")
        out, err = process.communicate(timeout=300)
        assert process.returncode == 3, out + err
        assert "the journal's server does not answer" in out + err
        assert PASSWORD not in out + err
    finally:
        server.start()
