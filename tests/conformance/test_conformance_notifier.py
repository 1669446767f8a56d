"""Receivers of messages: webhooks, Slack's style, Alertmanager's API and mail, each against a small real server."""

from __future__ import annotations

import json
import shutil
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from notify_servers import Mailbox, Web, certificate

from cumulant.core.errors import (
    EngineUnavailableError,
    OverloadedError,
    TerminalError,
    UndeliverableError,
    UsageError,
)
from cumulant.drivers.mail.client import Mail
from cumulant.drivers.mail.location import parse_mail_url
from cumulant.drivers.webhook.alertmanager import Alertmanager, build_alerts
from cumulant.drivers.webhook.receivers import Slack, Webhook
from cumulant.testing.conformance.notifier import AT, SAMPLE, SECRET, NotifierConformance
from cumulant.testing.notifier import MemoryNotifier
from cumulant.testing.secrets import MemorySecrets

needs_openssl = pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificates")


class WebWorld:
    """A web server whose URL holds the secret as path or password."""

    def __init__(self, web, make):
        self.web, self.notifier = web, make

    def received(self):
        return [
            "\n".join(f"{name}: {value}" for name, value in headers.items()) + "\n" + strings(document)
            for _, headers, document in self.web.posts
        ]

    def behave(self, how):
        if how == "gone":
            self.web.gone()
        else:
            self.web.how = how


def strings(document):
    """All texts of a JSON document, as they are read by whoever shows them; line breaks of names as they stand there."""
    if isinstance(document, dict):
        return " ".join(strings(value) for value in document.values())
    if isinstance(document, list):
        return " ".join(map(strings, document))
    return document if isinstance(document, str) and "Bcc" not in document else json.dumps(document)


@pytest.fixture
def web():
    with Web() as found:
        yield found


class TestWebhook(NotifierConformance):
    @pytest.fixture
    def world(self, web):
        return WebWorld(web, lambda: Webhook(f"webhook+http://ada:{SECRET}@127.0.0.1:{web.port}/hook/{SECRET}"))

    def test_the_document_is_the_message(self, web):
        Webhook(f"webhook+http://ada:p%40ss@127.0.0.1:{web.port}/a?b=c").send(SAMPLE, seconds=10)
        [(path, headers, document)] = web.posts
        assert path == "/a?b=c"
        assert headers["authorization"] == "Basic YWRhOnBAc3M="
        assert headers["idempotency-key"] == SAMPLE.key
        assert msgspec.convert(document, type(SAMPLE)) == SAMPLE

    @pytest.mark.parametrize("status", [301, 302, 303, 307])
    def test_a_redirect_is_refused_and_not_followed_without_its_body(self, web, status):
        web.how, web.status, web.headers = "answer", status, {"location": f"http://127.0.0.1:{web.port}/other"}
        with pytest.raises(TerminalError, match="a redirect"):
            Webhook(f"webhook+http://127.0.0.1:{web.port}").send(SAMPLE, seconds=10)
        assert web.asked == 1

    @pytest.mark.parametrize(("status", "error"), [(200, EngineUnavailableError), (403, TerminalError)])
    def test_a_slow_response_ends_within_the_deadline(self, web, status, error):
        web.how, web.status = "drop", status
        with pytest.raises(error):
            Webhook(f"webhook+http://127.0.0.1:{web.port}").send(SAMPLE, seconds=0.3)
        assert web.dried.wait(60)
        assert web.drops < 200, "it waited for as much of an answer as is told of one"

    @pytest.mark.parametrize(("said", "pause"), [("7", 7.0), ("1e9", 3600.0), ("-3", 0.0)])
    def test_a_requested_pause(self, web, said, pause):
        web.how, web.status, web.headers = "answer", 429, {"retry-after": said}
        with pytest.raises(OverloadedError) as caught:
            Webhook(f"webhook+http://127.0.0.1:{web.port}").send(SAMPLE, seconds=10)
        assert caught.value.retry_after == pause

    @pytest.mark.parametrize("said", ["Tue, 24 Nov 2026 06:00:00 GMT", "nan", "soon"])
    def test_a_pause_that_is_no_number_is_the_usual_one(self, web, said):
        web.how, web.status, web.headers = "answer", 503, {"retry-after": said}
        with pytest.raises(EngineUnavailableError, match="503"):
            Webhook(f"webhook+http://127.0.0.1:{web.port}").send(SAMPLE, seconds=10)

    @pytest.mark.parametrize(
        "url",
        [
            "webhook+",
            "webhook+http://",
            "webhook+ftp://h",
            "webhook+http://h:x/",
            "webhook+http://[",
            "webhook+http://h#f",
        ],
    )
    def test_addresses_that_are_none(self, url):
        with pytest.raises(UsageError, match="no URL of a host"):
            Webhook(url)

    @pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 410, 413, 415, 422])
    def test_a_fault_of_one_message_differs_from_a_fault_of_all(self, web, status):
        web.how, web.status = "answer", status
        with pytest.raises(TerminalError, match=f"it answered {status}: ok") as caught:
            Webhook(f"webhook+http://127.0.0.1:{web.port}").send(SAMPLE, seconds=10)
        assert isinstance(caught.value, UndeliverableError) is (status in (400, 413, 422))

    def test_a_text_that_cannot_be_written_is_no_fault_of_the_receiver(self, web):
        with pytest.raises(UnicodeEncodeError):
            Webhook(f"webhook+http://127.0.0.1:{web.port}").send(
                msgspec.structs.replace(SAMPLE, text="\ud800"), seconds=10
            )

    @needs_openssl
    def test_a_certificate_is_checked(self, tmp_path, monkeypatch):
        file, context = certificate(tmp_path)
        with Web(context) as web:
            url = f"webhook+https://127.0.0.1:{web.port}/x"
            with pytest.raises(EngineUnavailableError):
                Webhook(url).send(SAMPLE, seconds=10)
            monkeypatch.setenv("SSL_CERT_FILE", file)
            Webhook(url).send(SAMPLE, seconds=10)
        assert len(web.posts) == 1


class TestSlack(NotifierConformance):
    @pytest.fixture
    def world(self, web):
        return WebWorld(web, lambda: Slack(f"slack+http://127.0.0.1:{web.port}/services/{SECRET}"))

    def test_a_name_notifies_no_other_user(self, web):
        odd = msgspec.structs.replace(SAMPLE, title="<!channel> a&b")
        Slack(f"slack+http://127.0.0.1:{web.port}/x").send(odd, seconds=10)
        assert web.posts[0][2] == {"text": f"*&lt;!channel&gt; a&amp;b*\n{SAMPLE.text}"}


class TestAlertmanagerApi(NotifierConformance):
    @pytest.fixture
    def world(self, web):
        return WebWorld(web, lambda: Alertmanager(f"alertmanager+http://u:{SECRET}@127.0.0.1:{web.port}/am/"))

    def test_where_it_posts(self, web):
        Alertmanager(f"alertmanager://127.0.0.1:{web.port}").send(SAMPLE, seconds=10)
        Alertmanager(f"alertmanager+http://127.0.0.1:{web.port}/am/").send(SAMPLE, seconds=10)
        assert [path for path, *_ in web.posts] == ["/api/v2/alerts", "/am/api/v2/alerts"]

    def test_an_alert_fires_for_long_and_ends_when_it_did(self):
        now = AT + timedelta(hours=5)
        [one] = build_alerts(SAMPLE, now)
        assert one["startsAt"] == "2026-11-24T06:00:00.000Z"
        assert one["endsAt"] == "2026-12-01T11:00:00.000Z"
        [over] = build_alerts(msgspec.structs.replace(SAMPLE, ended=AT + timedelta(hours=1)), now)
        assert over["labels"] == one["labels"]
        assert over["endsAt"] == "2026-11-24T07:00:00.000Z"

    def test_a_clock_that_was_wrong_makes_no_alert_that_begins_after_its_end(self):
        for ended in (AT - timedelta(days=9), AT + timedelta(days=9), None):
            for now in (AT - timedelta(days=3), AT, AT + timedelta(days=3)):
                [one] = build_alerts(msgspec.structs.replace(SAMPLE, ended=ended), now)
                assert one["startsAt"] <= one["endsAt"]
                assert datetime.fromisoformat(one["startsAt"]) <= now.astimezone(UTC)

    def test_at_a_higher_level_the_alert_of_the_lower_one_is_over(self):
        now = AT + timedelta(hours=5)
        one, other = build_alerts(msgspec.structs.replace(SAMPLE, was="warning"), now)
        assert (one["labels"]["severity"], other["labels"]["severity"]) == ("critical", "warning")
        assert other["endsAt"] == "2026-11-24T11:00:00.000Z"

    def test_what_is_no_alert_is_over_soon(self):
        [one] = build_alerts(msgspec.structs.replace(SAMPLE, kind="release"), AT)
        assert one["endsAt"] == "2026-11-24T06:05:00.000Z"


class MailWorld:
    def __init__(self, box):
        self.box = box

    def notifier(self):
        return Mail(f"smtp://ada:{SECRET}@127.0.0.1:{self.box.port}?from=c@example.com&to=b@example.com&tls=none")

    def received(self):
        return [
            "\n".join(f"{name}: {value}" for name, value in mail.items()) + f"\n\n{mail.get_content()}"
            for _, _, mail in self.box.mails
        ]

    def behave(self, how):
        if how == "gone":
            self.box.gone()
        else:
            self.box.how = how


@pytest.fixture
def box():
    with Mailbox(password=SECRET) as found:
        yield found


class TestMail(NotifierConformance):
    @pytest.fixture
    def world(self, box):
        return MailWorld(box)

    def test_the_same_message_has_the_same_id(self, box):
        client = MailWorld(box).notifier()
        for key in ("a", "a", "b"):
            client.send(msgspec.structs.replace(SAMPLE, key=key), seconds=10)
        one, again, other = (mail["message-id"] for _, _, mail in box.mails)
        assert one == again != other
        assert box.mails[0][:2] == ("c@example.com", ["b@example.com"])

    def test_refused_addresses_are_reported(self, box):
        url = f"smtp://ada:{SECRET}@127.0.0.1:{box.port}?from=c@example.com&to=b@x.org,eve@x.org&tls=none"
        box.rejected = {"eve@x.org"}
        assert Mail(url).send(SAMPLE, seconds=10) == "refused for eve@x.org"
        box.rejected = {"eve@x.org", "b@x.org"}
        with pytest.raises(TerminalError, match="every address is refused"):
            Mail(url).send(SAMPLE, seconds=10)
        assert len(box.mails) == 1

    @pytest.mark.parametrize(
        ("said", "error"), [("554 spam", UndeliverableError), ("452 full", EngineUnavailableError)]
    )
    def test_a_refused_text_differs_from_a_server_that_is_unavailable(self, box, said, error):
        box.disliked, box.answer = b"missing values", said
        with pytest.raises(error, match=said.replace(" ", ": ")):
            MailWorld(box).notifier().send(SAMPLE, seconds=10)
        MailWorld(box).notifier().send(msgspec.structs.replace(SAMPLE, text="other"), seconds=10)
        assert len(box.mails) == 1

    def test_a_line_without_an_end_is_no_refusal(self, box):
        box.how = "endless line"
        with pytest.raises(EngineUnavailableError, match="does not answer: Line too long"):
            MailWorld(box).notifier().send(SAMPLE, seconds=10)

    def test_a_wrong_password_is_refused_and_not_shown(self, box):
        url = f"smtp://ada@127.0.0.1:{box.port}?from=c@example.com&to=b@x.org&tls=none&password=MAIL"
        secrets = MemorySecrets({"MAIL": "not the one"})
        with pytest.raises(TerminalError, match="535") as caught:
            Mail(url, secrets=secrets).send(SAMPLE, seconds=10)
        assert "not the one" not in str(caught.value.as_dict())
        secrets = MemorySecrets({"MAIL": SECRET})
        Mail(url, secrets=secrets).send(SAMPLE, seconds=10)
        assert len(box.mails) == 1

    def test_no_password_goes_out_before_the_connection_is_encrypted(self, box):
        """A server, or somebody between, that offers no encryption gets nothing."""
        with pytest.raises(TerminalError, match="cannot do what is needed"):
            Mail(f"smtp://ada:{SECRET}@127.0.0.1:{box.port}?from=a@b.c&to=d@e.f").send(SAMPLE, seconds=10)
        assert box.logins == []

    def test_what_an_address_says(self):
        found = parse_mail_url(
            "smtp://a%40b@mail.example.com?from=c%2Bd@x.org&to=ops+late@x.org,%20b@x.org&password=MAIL"
        )
        assert (found.host, found.port, found.starttls, found.encrypted) == ("mail.example.com", 587, True, False)
        assert (found.user, found.password, found.secret) == ("a@b", None, "MAIL")
        assert (found.sender, found.to) == ("c+d@x.org", ("ops+late@x.org", "b@x.org"))
        assert parse_mail_url("smtps://h?from=a@b&to=c@d").port == 465

    @needs_openssl
    @pytest.mark.parametrize("scheme", ["smtp", "smtps"])
    def test_encrypted(self, scheme, tmp_path, monkeypatch):
        file, context = certificate(tmp_path)
        with Mailbox(password=SECRET, **{"starttls" if scheme == "smtp" else "context": context}) as box:
            client = Mail(f"{scheme}://ada:{SECRET}@127.0.0.1:{box.port}?from=a@b.c&to=d@e.f")
            with pytest.raises(TerminalError, match="not trusted"):
                client.send(SAMPLE, seconds=10)
            monkeypatch.setenv("SSL_CERT_FILE", file)
            client.send(SAMPLE, seconds=10)
        assert box.logins == [("ada", SECRET, True)]
        assert len(box.mails) == 1

    @pytest.mark.parametrize(
        ("url", "said"),
        [
            ("smtp://host", "needs a host, from=ADDRESS"),
            ("smtp://?from=a@b&to=c@d", "needs a host"),
            ("smtp://h?from=a@b&to=", "needs a host"),
            ("smtp://h?from=nobody&to=c@d", "needs a host"),
            ("smtp://h?from=a@b&to=c@d%0d%0aBcc:e@f", "needs a host"),
            ("smtp://h/path?from=a@b&to=c@d", "needs a host"),
            ("smtp://h:x?from=a@b&to=c@d", "no URL"),
            ("smtp://h?from=a@b&to=c@d&cc=e@f", 'an option "cc"'),
            ("smtp://h?from=a@b&to=c@d&password=MAIL", "a password and no user"),
            ("smtps://h?from=a@b&to=c@d&tls=none", "tls may only be none"),
            ("smtp://h?from=a@b&to=c@d&tls=off", "tls may only be none"),
            (f"smtp://u:{SECRET}@h?from=a@b&to=c@d&tls=none", "in the clear"),
        ],
    )
    def test_addresses_that_are_none(self, url, said):
        with pytest.raises(UsageError, match=said) as caught:
            Mail(url)
        assert SECRET not in str(caught.value.as_dict())


class MemoryWorld:
    def __init__(self):
        self.kept = MemoryNotifier()

    def notifier(self):
        return self.kept

    def received(self):
        return [f"{one.title}\n{one.text}" for one in self.kept.taken]

    def behave(self, how):
        later = EngineUnavailableError("it does not answer")
        self.kept.fault = {"take": None, "refuse": TerminalError("it refuses")}.get(how, later)


class TestMemoryNotifier(NotifierConformance):
    @pytest.fixture
    def world(self):
        return MemoryWorld()

    def test_names_cannot_add_anything(self):  # type: ignore[override]
        """A message in memory has no form that a name could break."""
