"""Tokens, sessions and sign-ins of two machines that share PostgreSQL: what is good once is good once on both."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from cumulant.flows.identities.device_logins import begin_device_login, confirm_device_login, finish_device_login
from cumulant.flows.identities.last_use import LastUse
from cumulant.flows.identities.sessions import USES, Sessions, revoke_sessions
from cumulant.flows.identities.sign_in_links import create_link, use_link
from cumulant.flows.identities.tokens import (
    USE_INTERVAL,
    NewToken,
    create_token,
    find_token,
    list_tokens,
    revoke_token,
)
from cumulant.flows.identities.tokens import USES as TOKEN_USES
from cumulant.flows.identities.used_states import open_once
from cumulant.ports.access import Principal
from cumulant.project.file.loading import load
from cumulant.project.project import Project
from cumulant.testing.postgres import INSTALL, postgres_server, server_programs

pytestmark = [pytest.mark.live]

ADA = Principal("user:ada", ("team",), via="cli")
Machines = tuple[Project, Project]


@pytest.fixture(scope="module")
def machines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machines]:
    """One project on two machines."""
    if server_programs() is None:
        pytest.skip(f"no PostgreSQL server is installed: {INSTALL}")
    with postgres_server() as running:
        running.execute("CREATE DATABASE cumulant")
        one, two = (_machine(tmp_path_factory.mktemp(name), running.url("cumulant")) for name in ("one", "two"))
        with one, two:
            yield one, two


def _machine(folder: Path, url: str) -> Project:
    text = f"version: 1\nmodel: {{name: shop}}\nenvironments: {{local: {{journal: '{url}'}}}}\n"
    (folder / "cumulant.yaml").write_text(text)
    return load(folder)


def at_once(machines: Machines, act: Callable[[Project], object]) -> list[object]:
    """The results of 4 calls on each machine that begin together."""
    barrier, results = threading.Barrier(8), []

    def call(project: Project) -> None:
        barrier.wait(60)
        results.append(act(project))

    threads = [threading.Thread(target=call, args=(project,)) for project in machines for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(results) == 8
    return results


def sessions_of(project: Project) -> Sessions:
    return Sessions(project.journal(), project.sign_in.limits)


def test_a_link_opens_one_session(machines: Machines) -> None:
    code, now = create_link(machines[0], principal=ADA), datetime.now(UTC)
    opened = at_once(machines, lambda project: use_link(project.journal(), sessions_of(project), code, now))
    assert len([session for session in opened if session is not None]) == 1


def test_a_response_of_a_provider_opens_one_session(machines: Machines) -> None:
    now = datetime.now(UTC)
    later = now + timedelta(minutes=10)

    def open_session(project: Project) -> object:
        return open_once(project.journal(), sessions_of(project), ADA, state="s", expires=later, now=now)

    assert len([session for session in at_once(machines, open_session) if session is not None]) == 1


def test_a_command_line_gets_one_token(machines: Machines) -> None:
    now = datetime.now(UTC)
    codes = begin_device_login(machines[0].journal(), "10.0.0.5", now)
    confirm_device_login(machines[1], codes.user_code, principal=ADA)

    def finish(project: Project) -> object:
        return finish_device_login(project.journal(), codes.device_code, timedelta(hours=1), now)

    results = at_once(machines, finish)
    assert len([new for new in results if isinstance(new, NewToken)]) == 1
    assert results.count("expired") == 7


def test_a_revocation_counts_on_the_other_machine_at_once(machines: Machines) -> None:
    one, two = machines
    now = datetime.now(UTC)
    new, uses = create_token(one, "nightly", principal=ADA), LastUse(TOKEN_USES, USE_INTERVAL)
    assert find_token(two.journal(), new.secret, now, uses) is not None
    revoke_token(one, new.token.id, principal=ADA)
    assert find_token(two.journal(), new.secret, now, uses) is None
    opened, sessions = sessions_of(one).open(ADA, "oidc", now), sessions_of(two)
    assert sessions.find(opened.secret, now) is not None
    revoke_sessions(one, of="user:ada", principal=ADA)
    assert sessions.find(opened.secret, now) is None


def test_uses_of_all_machines_keep_a_session(machines: Machines) -> None:
    one, two = map(sessions_of, machines)
    now, hour = datetime.now(UTC), timedelta(hours=1)
    opened = one.open(ADA, "link", now)
    minutes = timedelta(minutes=50)
    assert two.find(opened.secret, now + minutes) is not None
    assert one.find(opened.secret, now + 2 * minutes) is not None, "it was used on the other machine"
    assert two.find(opened.secret, now + 2 * minutes + hour) is None
    at_once(machines, lambda project: sessions_of(project).find(opened.secret, now + 2 * minutes))
    assert [row.version for row in machines[0].journal().reports(USES)] == [2], "the test before left none"


def test_a_use_is_recorded_once_by_requests_at_the_same_time(machines: Machines) -> None:
    new, now = create_token(machines[0], "busy", principal=ADA), datetime.now(UTC)

    def find(project: Project) -> object:
        return find_token(project.journal(), new.secret, now, LastUse(TOKEN_USES, USE_INTERVAL))

    assert None not in at_once(machines, find)
    (view,) = [view for view in list_tokens(machines[1], principal=ADA) if view.name == "busy"]
    assert view.used == now
    (report,) = [row for row in machines[0].journal().reports(TOKEN_USES) if row.key.startswith(view.id)]
    assert report.version == 1
