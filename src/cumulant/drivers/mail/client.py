"""A message as an e-mail, through one mail server."""

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
from cumulant.drivers.mail.location import Location, location
from cumulant.ports.notifier import Message
from cumulant.ports.secrets import Secrets


class Mail:
    """`smtp://USER@HOST:587?from=A&to=B,C&password=SECRET`; see `location`. Certificates are checked.

    The header `Message-ID` is the same when a message is sent again.

    Raises:
        UsageError: the URL cannot be used.
    """

    def __init__(self, url: str, *, secrets: Secrets | None = None) -> None:
        self._where, self._secrets = location(url), secrets

    def __repr__(self) -> str:
        return f"Mail({self._where.host!r})"

    def send(self, message: Message, *, seconds: float) -> str:
        where, password = self._where, self._password()
        written = mail(message, where)
        refused: dict[str, tuple[int, bytes]] = {}
        try:
            with _Clients(seconds) as clients, clients.connected(where) as client:
                if where.user is not None and password is not None:
                    client.login(where.user, password)
                refused = client.send_message(written, where.sender, list(where.to))
        except smtplib.SMTPRecipientsRefused as error:
            raise _answered(max(code for code, _ in error.recipients.values()), "every address is refused") from None
        except smtplib.SMTPResponseException as error:
            if isinstance(error.smtp_error, str):  # smtplib's own words, for a line without an end; a reply is bytes
                raise EngineUnavailableError(f"the mail server does not answer: {error.smtp_error}") from None
            of_it = isinstance(error, smtplib.SMTPDataError) or error.smtp_code == _TOO_LARGE
            raise _answered(error.smtp_code, _plain(error.smtp_error, password), of_the_message=of_it) from None
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


#: a server that announces its limit says so already when the sender is told (RFC 1870)
_TOO_LARGE = 552
_TLS = "smtps:// encrypts from the first byte; tls=none is for a mail server of this machine"


def mail(message: Message, where: Location) -> EmailMessage:
    """The e-mail of a message: plain text, with one line each for what a filter may look at."""
    found = EmailMessage()
    found["Subject"] = _line(f"[cumulant] {message.title}")
    found["From"], found["To"] = where.sender, ", ".join(where.to)
    found["Date"] = format_datetime(message.ended or message.at)
    found["Message-ID"] = f"<{digest(message.key)[:32]}@{where.sender.rpartition('@')[2]}>"
    found["Auto-Submitted"] = "auto-generated"
    for name in ("level", "model", "rule", "subject", "status"):
        found[f"X-Cumulant-{name.title()}"] = _line(str(getattr(message, name)))
    found.set_content(f"{message.text}\n")
    return found


def _line(text: str) -> str:
    """One printable line: a line break in a name would begin another header."""
    return "".join(sign if sign.isprintable() else " " for sign in text)[:400]


def _answered(code: int, said: str, *, of_the_message: bool = False) -> EngineUnavailableError | TerminalError:
    """4xx asks for another try, 5xx refuses (RFC 5321, section 4.2.1): what it read, or whoever sends it."""
    text = f"the mail server answered {code}: {said}"
    if code < 500:
        return EngineUnavailableError(text)
    if of_the_message:
        return UndeliverableError(text, hint="see what it says; other messages go on")
    return TerminalError(text, hint="see that the addresses and the password are right")


def _plain(said: bytes | str, password: str | None) -> str:
    text = said.decode("utf-8", "replace") if isinstance(said, bytes) else said
    text = " ".join(text.split())[:200]
    return text.replace(password, "***") if password else text


class _Clients:
    """Connections that are cut off after so many seconds, whatever the server does."""

    def __init__(self, seconds: float) -> None:
        self._seconds, self._until = seconds, time.monotonic() + seconds
        self._ended = threading.Event()
        self._made: list[smtplib.SMTP] = []

    def __enter__(self) -> Self:
        threading.Thread(target=self._cut, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()

    @contextlib.contextmanager
    def connected(self, where: Location) -> Iterator[smtplib.SMTP]:
        context = ssl.create_default_context()
        name = socket.gethostname()  # by default smtplib asks the network for it, which can take long
        client = (
            smtplib.SMTP_SSL(local_hostname=name, timeout=self._seconds, context=context)
            if where.encrypted
            else smtplib.SMTP(local_hostname=name, timeout=self._seconds)
        )
        self._made.append(client)
        # What the class's own constructor does; here the socket can be cut off from the first byte on.
        client._host = where.host  # type: ignore[attr-defined]  # noqa: SLF001 - the name that the certificate is checked for
        try:
            code, said = client.connect(where.host, where.port)
            if code != 220:
                raise smtplib.SMTPConnectError(code, said)
            if where.starttls:
                client.starttls(context=context)
            yield client
            with contextlib.suppress(OSError, smtplib.SMTPException):
                client.quit()  # the message is taken: what the server says to this changes nothing
        finally:
            client.close()

    def _cut(self) -> None:
        if self._ended.wait(max(0.0, self._until - time.monotonic())):
            return
        for one in self._made:
            with contextlib.suppress(OSError, AttributeError, TypeError):
                socket.socket.shutdown(one.sock, socket.SHUT_RDWR)  # type: ignore[arg-type]
