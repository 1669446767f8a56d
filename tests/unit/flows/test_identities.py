"""API tokens, sessions and one-time links: what is stored, who may do what with them, and when they end."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from cumulant.core.clock import FixedClock
from cumulant.core.errors import LeaseHeldError, NotFoundError, RefusedError, UsageError
from cumulant.flows.identities.last_use import LastUse, last_uses
from cumulant.flows.identities.records import BY_TOKEN, principal_of
from cumulant.flows.identities.sessions import USES as SESSION_USES
from cumulant.flows.identities.sessions import Sessions, list_sessions, revoke_sessions
from cumulant.flows.identities.sign_in_links import LIFE, create_link, link_url, use_link
from cumulant.flows.identities.tokens import (
    USE_INTERVAL,
    USES,
    create_token,
    find_token,
    follow_groups,
    list_tokens,
    revoke_token,
)
from cumulant.flows.ledger.actions import ACTIONS, check
from cumulant.ports.access import Principal
from cumulant.project.file.loading import load
from cumulant.project.sign_in_section import SessionLimits
from cumulant.testing.access import GrantedAccess

ADA, BOB = Principal("user:ada", ("team",), via="cli"), Principal("user:bob", via="cli")
NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
LIMITS = SessionLimits()


@pytest.fixture
def project(tmp_path):
    (tmp_path / "cumulant.yaml").write_text("version: 1\nmodel: {name: flight-late}\n")
    with load(tmp_path) as loaded:
        yield loaded


@pytest.fixture
def grant(project, monkeypatch):
    """Allows the principals named actions alone."""

    def allow(**actions):
        pairs = {(f"user:{name}", action) for name, known in actions.items() for action in known}
        monkeypatch.setattr(project, "access", lambda: GrantedAccess(pairs))

    return allow


def everything_stored(project):
    journal = project.journal()
    rows = [row for kind in ("api_token", "session", "sign_in_link") for row in journal.rows(kind)]
    reports = [*journal.reports(USES), *journal.reports(SESSION_USES)]
    return msgspec.json.encode([rows, reports, list(journal.events())]).decode()


def kinds(project):
    """Kinds of events, without those of the checks before them."""
    return [event.kind for event in project.journal().events() if not event.kind.startswith("access.")]


def create(project, name="nightly", principal=ADA, **options):
    return create_token(project, name, principal=principal, clock=FixedClock(NOW), **options)


def find(project, secret, now=NOW):
    return find_token(project.journal(), secret, now, LastUse(USES, USE_INTERVAL))


def test_a_token_is_its_creators_and_only_its_hash_is_stored(project):
    new = create(project, scope=["runs.*", "data.show"])
    assert new.secret.startswith("cml_")
    assert len(new.secret) == 47
    principal = principal_of(find(project, new.secret))
    assert (principal.id, principal.groups, principal.scope) == (
        "user:ada",
        ("team",),
        ("data.show", "runs.cancel", "runs.show"),
    )
    stored = everything_stored(project)
    assert new.secret not in stored
    assert new.secret[4:] not in stored
    assert new.token.id in stored
    assert kinds(project) == ["identities.token_created"]


@pytest.mark.parametrize("change", [str.upper, lambda text: text[:-1], lambda text: text + "A", lambda text: text[4:]])
def test_another_text_is_no_token(project, change):
    assert find(project, change(create(project).secret)) is None


@pytest.mark.parametrize("text", ["", "cml_", "cml_" + "é" * 43, "cml_\udc80", "x" * 100_000, "cml_" + "\0" * 43])
def test_text_that_was_never_a_token(project, text):
    create(project)
    assert find(project, text) is None


def test_a_token_does_what_is_in_its_scope_and_nothing_else(project):
    principal = principal_of(find(project, create(project, scope=["runs.show"]).secret))
    check(project, principal, "runs.show")
    with pytest.raises(RefusedError, match=r"user:ada may not do model\.train.* with this token: its scope") as caught:
        check(project, principal, "model.train")
    assert caught.value.hint == "use a token whose scope includes model.train"
    refusal = list(project.journal().events())[-1]
    assert (refusal.kind, refusal.data["policies"]) == ("access.refused", ["token-scope"])
    assert refusal.data["token"] == principal.claims["token"]


def test_a_scope_does_not_widen_what_the_policies_allow(project, grant):
    principal = principal_of(find(project, create(project, scope=["runs.show"]).secret))
    grant()
    with pytest.raises(RefusedError):
        check(project, principal, "runs.show")


def test_nobody_creates_a_token_beyond_their_own_rights(project, grant):
    grant(ada={"identities.token_create", "runs.show"})
    with pytest.raises(RefusedError, match=r"may not do model\.train.* limited to what its creator may do"):
        create(project, scope=["runs.show", "model.train"])
    assert project.journal().rows("api_token") == []
    assert create(project, scope=["runs.show"]).token.scope == ("runs.show",)


def test_a_token_creates_no_tokens_and_no_links(project):
    principal = principal_of(find(project, create(project).secret))
    assert principal.scope is None
    with pytest.raises(RefusedError, match="a token cannot create tokens"):
        create(project, principal=principal)
    with pytest.raises(RefusedError, match="on the machine"):
        create_link(project, principal=principal)


def test_a_service_account_needs_a_scope_and_a_manager(project, grant):
    with pytest.raises(UsageError, match="needs a scope"):
        create(project, service="ci")
    new = create(project, service="ci", scope=["runs.show"])
    assert principal_of(find(project, new.secret)) == Principal(
        "service:ci", (), via="http", scope=("runs.show",), claims={BY_TOKEN: "nightly"}
    )
    grant(ada={"identities.token_create", "runs.show"})
    with pytest.raises(RefusedError, match=r"identities\.manage"):
        create(project, service="ci", scope=["runs.show"])


@pytest.mark.parametrize("name", ["", "a b", "a\nb", "<b>", "x" * 65, "-a", "é", "a\n"])
def test_names_that_are_none(project, name):
    with pytest.raises(UsageError, match="no name"):
        create(project, name=name)
    if name:
        with pytest.raises(UsageError, match="no name"):
            create(project, service=name, scope=["runs.show"])


@pytest.mark.parametrize("scope", ["runs", "run.show", "", "secrets.*"])
def test_a_scope_that_names_no_action(project, scope):
    with pytest.raises(UsageError, match="is no action"):
        create(project, scope=[scope])


@pytest.mark.parametrize(
    ("life", "text"),
    [(timedelta(0), "has expired"), (timedelta(days=-1), "has expired"), (timedelta(days=367), "at most 366 days")],
)
def test_lives_that_no_token_has(project, life, text):
    with pytest.raises(UsageError, match=text):
        create(project, expires=life)


def test_an_expired_token_is_refused_listed_and_later_removed(project):
    new = create(project, expires=HOUR)
    assert find(project, new.secret, NOW + HOUR - timedelta(seconds=1)) is not None
    assert find(project, new.secret, NOW + HOUR) is None
    later = FixedClock(NOW + 2 * HOUR)
    assert [view.expired for view in list_tokens(project, principal=ADA, clock=later)] == [True]
    create_token(project, "next", principal=ADA, clock=FixedClock(NOW + timedelta(days=31)))
    assert [view.name for view in list_tokens(project, principal=ADA, clock=later)] == ["next"]
    assert last_uses(project.journal(), USES) == {}


def test_a_revoked_token_is_refused_at_once(project):
    new, uses = create(project), LastUse(USES, USE_INTERVAL)
    assert find_token(project.journal(), new.secret, NOW, uses) is not None
    revoke_token(project, new.token.id, principal=ADA, reason="in a log")
    assert find_token(project.journal(), new.secret, NOW, uses) is None
    event = list(project.journal().events())[-1]
    assert (event.kind, event.reason, event.data["token"]) == ("identities.token_revoked", "in a log", new.token.id)


def test_tokens_follow_the_groups_of_their_users_sign_ins(project, monkeypatch):
    new, uses, days = create(project), LastUse(USES, USE_INTERVAL), timedelta(days=1)
    journal, kind = project.journal(), "identities.token_groups_changed"
    service = create_token(project, "ci", service="ci", scope=("runs.show",), principal=ADA, clock=FixedClock(NOW))

    def sign_in(user, groups, at, **more):
        follow_groups(journal, Principal(user, groups, via="http", **more), at, confirmed=7 * days)

    def find_now(secret, at):
        return find_token(journal, secret, at, uses, confirmed=7 * days)

    for groups in (("other", "team"), ("team", "other")):  # a provider keeps no order
        sign_in("user:ada", groups, NOW + days)
        sign_in("user:ada", ("admins",), NOW + days, tenant="another")
        sign_in("user:bob", ("admins",), NOW + days)
        assert find_now(new.secret, NOW + days).groups == ("other", "team")
    [event] = journal.events(kinds=[kind])
    assert (event.actor, event.data["before"], event.data["groups"]) == ("user:ada", ["team"], ["other", "team"])
    with monkeypatch.context() as patch:
        patch.setattr(journal, "transaction", None)  # a sign-in that changes nothing does not wait for who writes
        sign_in("user:ada", ("team", "other"), NOW + days)
    assert find_now(service.secret, NOW + 40 * days).groups == ()
    assert find_now(new.secret, NOW + 7.9 * days) is not None
    assert find_now(new.secret, NOW + 8 * days) is None, "7 days after the last sign-in"
    sign_in("user:ada", ("other", "team"), NOW + 32 * days)
    assert find_now(new.secret, NOW + 33 * days) is not None
    hour = days / 24
    for at in (33 * days, 33 * days + hour):  # of a short time each sign-in is stored soon
        follow_groups(journal, Principal("user:ada", ("other", "team"), via="http"), NOW + at, confirmed=hour)
    assert find_token(journal, new.secret, NOW + 33 * days + 1.9 * hour, uses, confirmed=hour) is not None
    revoke_token(project, new.token.id, principal=ADA)
    sign_in("user:ada", ("other",), NOW + 33 * days)
    assert find_now(new.secret, NOW + 33 * days) is None
    assert len(list(journal.events(kinds=[kind]))) == 1


def test_tokens_of_others_are_neither_listed_nor_found(project, grant):
    new = create(project)
    grant(bob={"identities.token_list", "identities.token_revoke"})
    assert list_tokens(project, principal=BOB) == []
    with pytest.raises(NotFoundError) as caught:
        revoke_token(project, new.token.id, principal=BOB)
    assert "there is no token yet" in str(caught.value.hint)
    grant(bob={"identities.token_list", "identities.token_revoke", "identities.manage"})
    assert [view.owner for view in list_tokens(project, principal=BOB)] == ["user:ada"]
    revoke_token(project, new.token.id, principal=BOB)
    assert find(project, new.secret) is None


def test_an_id_that_two_tokens_share(project):
    create(project)
    create(project)
    with pytest.raises(NotFoundError):
        revoke_token(project, "", principal=ADA)


def test_uses_are_recorded_once_an_hour_by_all_processes_together(project):
    new, journal = create(project), project.journal()
    one, two = LastUse(USES, USE_INTERVAL), LastUse(USES, USE_INTERVAL)
    minute = timedelta(minutes=1)
    for uses, now in ((one, NOW), (one, NOW + minute), (two, NOW + 2 * minute), (one, NOW + HOUR), (two, NOW + HOUR)):
        assert find_token(journal, new.secret, now, uses) is not None
    (report,) = journal.reports(USES)
    assert report.version == 2
    (view,) = list_tokens(project, principal=ADA, clock=FixedClock(NOW))
    assert view.used == NOW + HOUR


def test_a_use_that_another_process_records_at_the_same_time_fails_nothing(project, monkeypatch):
    new, journal = create(project), project.journal()

    def lost(*_arguments, **_options):
        raise LeaseHeldError("another version")

    monkeypatch.setattr(journal, "report", lost)
    assert find_token(journal, new.secret, NOW, LastUse(USES, USE_INTERVAL)) is not None


def sessions_of(project, limits=LIMITS):
    return Sessions(project.journal(), limits)


def test_a_session_is_found_by_its_secret_alone(project):
    sessions = sessions_of(project)
    opened = sessions.open(ADA, "link", NOW)
    found = sessions.find(opened.secret, NOW)
    assert principal_of(found) == Principal("user:ada", ("team",), via="http")
    stored = everything_stored(project)
    assert opened.secret not in stored
    (view,) = list_sessions(project, principal=ADA, clock=FixedClock(NOW))
    assert sessions.find(view.id, NOW) is None
    assert sessions.find(project.journal().rows("session")[0].key, NOW) is None


def test_an_unused_session_ends_and_a_used_one_lives_to_its_longest(project):
    sessions = sessions_of(project)
    opened = sessions.open(ADA, "link", NOW)
    assert sessions.find(opened.secret, NOW + HOUR - timedelta(seconds=1)) is not None
    assert sessions_of(project).find(opened.secret, NOW + HOUR) is not None, "of another process"
    now = NOW + HOUR
    while now < NOW + LIMITS.longest:
        assert sessions.find(opened.secret, now) is not None
        now += timedelta(minutes=30)
    assert sessions.find(opened.secret, NOW + LIMITS.longest) is None
    again = sessions.open(ADA, "oidc", NOW + LIMITS.longest)
    assert sessions.find(again.secret, NOW + LIMITS.longest + HOUR) is None


def test_a_sign_in_ends_the_session_that_the_browser_had(project):
    sessions = sessions_of(project)
    first = sessions.open(ADA, "link", NOW)
    second = sessions.open(BOB, "link", NOW, replaces=first.secret)
    assert sessions.find(first.secret, NOW) is None
    assert sessions.find(second.secret, NOW).principal == "user:bob"
    assert kinds(project)[-2:] == ["identities.session_ended", "identities.session_opened"]


def test_expired_sessions_are_removed_with_their_reports(project):
    sessions = sessions_of(project)
    opened = sessions.open(ADA, "link", NOW)
    sessions.find(opened.secret, NOW)
    sessions.open(BOB, "link", NOW + 13 * HOUR)
    assert [row.value["principal"] for row in project.journal().rows("session")] == ["user:bob"]
    assert project.journal().reports(SESSION_USES) == []


def test_the_uses_of_an_ended_session_are_removed_with_the_next_sign_in(project):
    sessions, now = sessions_of(project), datetime.now(UTC)
    opened = sessions.open(ADA, "link", now)
    assert sessions.find(opened.secret, now) is not None
    revoke_sessions(project, of="user:ada", principal=ADA)
    other = sessions.open(BOB, "link", now)
    assert sessions.find(other.secret, now) is not None
    assert [row.key for row in project.journal().reports(SESSION_USES)] == [project.journal().rows("session")[0].key]


def test_sessions_are_ended_by_their_users_and_by_managers(project, grant):
    sessions = sessions_of(project)
    now = datetime.now(UTC)
    first, second = sessions.open(ADA, "link", now), sessions.open(ADA, "link", now)
    grant(bob={"identities.session_list", "identities.session_revoke"}, ada={"identities.session_revoke"})
    assert list_sessions(project, principal=BOB) == []
    assert revoke_sessions(project, of="user:ada", principal=BOB) == []
    assert len(revoke_sessions(project, of="user:ada", principal=ADA)) == 2
    assert sessions.find(first.secret, now) is sessions.find(second.secret, now) is None
    with pytest.raises(UsageError):
        revoke_sessions(project, principal=ADA)


def test_a_link_signs_in_once(project):
    sessions, journal = sessions_of(project), project.journal()
    code = create_link(project, principal=ADA, clock=FixedClock(NOW))
    opened = use_link(journal, sessions, code, NOW)
    assert opened.session.principal == "user:ada"
    assert use_link(journal, sessions, code, NOW) is None
    assert use_link(journal, sessions, "x", NOW) is None
    assert code not in everything_stored(project)


def test_a_link_expires_and_is_removed(project):
    journal, code = project.journal(), create_link(project, principal=ADA, clock=FixedClock(NOW))
    assert use_link(journal, sessions_of(project), code, NOW + LIFE) is None
    create_link(project, principal=ADA, clock=FixedClock(NOW + LIFE))
    assert len(journal.rows("sign_in_link")) == 1


def test_of_many_requests_with_one_link_one_signs_in(project):
    journal, code = project.journal(), create_link(project, principal=ADA, clock=FixedClock(NOW))
    barrier, opened = threading.Barrier(8), []

    def request():
        barrier.wait(30)
        opened.append(use_link(journal, sessions_of(project), code, NOW))

    threads = [threading.Thread(target=request) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(opened) == 8
    assert len([session for session in opened if session is not None]) == 1
    assert len(journal.rows("session")) == 1


def test_the_url_of_a_link():
    assert link_url("http://127.0.0.1:8700/", "a-b") == "http://127.0.0.1:8700/login?code=a-b"


def test_the_actions_are_declared():
    assert {name for name in ACTIONS if name.startswith("identities.")} == {
        *(f"identities.token_{verb}" for verb in ("create", "list", "revoke")),
        *(f"identities.session_{verb}" for verb in ("link", "list", "revoke")),
        "identities.manage",
    }
