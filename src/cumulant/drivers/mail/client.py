"""The port `notifier` by e-mail, through one mail server."""

from __future__ import annotations

import contextlib
import smtplib
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from email.message import EmailMessage
from email.utils import format_datetime
from typing import Self

from cumulant.core.errors import EngineUnavailableError, TerminalError, UndeliverableError, UsageError
from cumulant.core.ids import digest
from cumulant.drivers.mail.location import MailServer, parse_mail_url
from cumulant.ports.notifier import Message
from cumulant.ports.secrets import Secrets


class Mail:
    """`smtp://USER@HOST:587?from=A&to=B,C&password=SECRET`; see `parse_mail_url`. Certificates are checked.

    A repeated message has the same header `Message-ID`.

    Raises:
        UsageError: the URL cannot be used.
    """

    def __init__(self, url: str, *, secrets: Secrets | None = None) -> None:
        self._where, self._secrets = parse_mail_url(url), secrets

    def __repr__(self) -> str:
        return f"Mail({self._where.host!r})"

    def send(self, message: Message, *, seconds: float) -> str:
        where, password = self._where, self._password()
        email = build_email(message, where)
        refused: dict[str, tuple[int, bytes]] = {}
        try:
            with _Connections(seconds) as clients, clients.connect(where) as client:
                if where.user is not None and password is not None:
                    client.login(where.user, password)
                refused = client.send_message(email, where.sender, list(where.to))
        except smtplib.SMTPRecipientsRefused as error:
            raise _refusal(max(code for code, _ in error.recipients.values()), "every address is refused") from None
        except smtplib.SMTPResponseException as error:
            if isinstance(error.smtp_error, str):  # smtplib's own text, for a line without an end; a reply is bytes
                raise EngineUnavailableError(f"the mail server does not answer: {error.smtp_error}") from None
            is_of_message = isinstance(error, smtplib.SMTPDataError) or error.smtp_code == _TOO_LARGE
            raise _refusal(error.smtp_code, _plain_text(error.smtp_error, password), of_message=is_of_message) from None
        except smtplib.SMTPNotSupportedError as error:
            raise TerminalError(f"the mail server cannot do what is needed: {error}", hint=_TLS) from None
        except ssl.SSLCertVerificationError as error:
            raise TerminalError(f"the mail server's certificate is not trusted: {error.verify_message}") from None
        except (OSError, smtplib.SMTPException, ValueError) as error:
            reason = getattr(error, "strerror", None) or f"nothing whole within {seconds:g} s"
            raise EngineUnavailableError(f"the mail server does not answer: {reason}") from None
        return f"refused for {', '.join(sorted(refused))}" if refused else ""

    def _password(self) -> str | None:
        if self._where.secret is None:
            return self._where.password
        if self._secrets is None:
            raise UsageError("the mail server's password is a secret, and no store of secrets is given")
        return self._secrets.get(self._where.secret)


#: a server that announces its limit may answer so to the sender's address already (RFC 1870)
_TOO_LARGE = 552
_TLS = "smtps:// encrypts from the first byte; tls=none is for a mail server of this machine"


def build_email(message: Message, where: MailServer) -> EmailMessage:
    """The e-mail of a message: plain text, with a header for each value that a filter may use."""
    email = EmailMessage()
    email["Subject"] = _one_line(f"[cumulant] {message.title}")
    email["From"], email["To"] = where.sender, ", ".join(where.to)
    email["Date"] = format_datetime(message.ended or message.at)
    email["Message-ID"] = f"<{digest(message.key)[:32]}@{where.sender.rpartition('@')[2]}>"
    email["Auto-Submitted"] = "auto-generated"
    for name in ("level", "model", "rule", "subject", "status"):
        email[f"X-Cumulant-{name.title()}"] = _one_line(str(getattr(message, name)))
    email.set_content(f"{message.text}\n")
    return email


def _one_line(text: str) -> str:
    """One printable line: a line break in a name would begin another header."""
    return "".join(sign if sign.isprintable() else " " for sign in text)[:400]


def _refusal(code: int, reply: str, *, of_message: bool = False) -> EngineUnavailableError | TerminalError:
    """The error for a reply: 4xx allows a retry, 5xx refuses the message or the sender (RFC 5321, section 4.2.1)."""
    text = f"the mail server answered {code}: {reply}"
    if code < 500:
        return EngineUnavailableError(text)
    if of_message:
        return UndeliverableError(text, hint="see what it says; other messages go on")
    return TerminalError(text, hint="see that the addresses and the password are right")


def _plain_text(reply: bytes | str, password: str | None) -> str:
    text = reply.decode("utf-8", "replace") if isinstance(reply, bytes) else reply
    text = " ".join(text.split())[:200]
    return text.replace(password, "***") if password else text


class _Connections:
    """Connections that are closed after `seconds`, whatever the server does."""

    def __init__(self, seconds: float) -> None:
        self._seconds, self._until = seconds, time.monotonic() + seconds
        self._ended = threading.Event()
        self._opened: list[smtplib.SMTP] = []

    def __enter__(self) -> Self:
        threading.Thread(target=self._close_late, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()

    @contextlib.contextmanager
    def connect(self, where: MailServer) -> Iterator[smtplib.SMTP]:
        context = ssl.create_default_context()
        name = socket.gethostname()  # by default smtplib looks it up in the network, which can take long
        client = (
            smtplib.SMTP_SSL(local_hostname=name, timeout=self._seconds, context=context)
            if where.encrypted
            else smtplib.SMTP(local_hostname=name, timeout=self._seconds)
        )
        self._opened.append(client)
        # As in the class's constructor; here the socket can be closed from the first byte on.
        client._host = where.host  # type: ignore[attr-defined]  # noqa: SLF001 - the name that the certificate is checked for
        try:
            code, reply = client.connect(where.host, where.port)
            if code != 220:
                raise smtplib.SMTPConnectError(code, reply)
            if where.starttls:
                client.starttls(context=context)
            yield client
            with contextlib.suppress(OSError, smtplib.SMTPException):
                client.quit()  # the message is accepted: the reply to this changes nothing
        finally:
            client.close()

    def _close_late(self) -> None:
        if self._ended.wait(max(0.0, self._until - time.monotonic())):
            return
        for client in self._opened:
            with contextlib.suppress(OSError, AttributeError, TypeError):
                socket.socket.shutdown(client.sock, socket.SHUT_RDWR)  # type: ignore[arg-type]
