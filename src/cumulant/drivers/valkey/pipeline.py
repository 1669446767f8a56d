"""A connection to Valkey that the requests of one event loop share, without waiting for each other's replies."""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from typing import Any, cast

import libvalkey

from cumulant.core.errors import CredentialsError, EngineUnavailableError, StorageError
from cumulant.drivers.valkey.location import ValkeyAddress

#: how a refusal of the user or the password begins
CREDENTIALS = ("NOAUTH", "WRONGPASS", "ERR AUTH", "ERR Client sent AUTH")
_ERROR_LENGTH = 200
_INCOMPLETE = object()


class RefusedCommandError(Exception):
    """A command was refused. Its text begins with a code, such as `MOVED`."""


class _ReplyError(Exception):
    """The bytes are no replies of the protocol."""


Value = bytes | int | RefusedCommandError | None
Reply = Value | list[Value]


class PipelinedConnection(asyncio.Protocol):
    """Commands are sent as they come; replies are in their order. A caller that is cancelled leaves the others alone.

    Where nothing at all comes in time, the connection ends, and with it all commands that wait on it.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._replies = libvalkey.Reader(_ReplyError, RefusedCommandError, notEnoughData=_INCOMPLETE)
        self._waiting: deque[asyncio.Future[Reply]] = deque()
        self._transport: asyncio.Transport | None = None
        self._lost: Exception | None = None
        #: when the server sent something last, by the clock of the event loop
        self._received = 0.0

    @property
    def is_open(self) -> bool:
        return self._transport is not None and self._lost is None

    async def execute(self, *parts: bytes, seconds: float) -> Reply:
        """The reply to a command.

        Raises:
            RefusedCommandError: it was refused.
            EngineUnavailableError: the reply does not come within `seconds`, or the connection ended.
        """
        if self._transport is None or self._lost is not None:
            raise _unavailable(self._lost)
        done: asyncio.Future[Reply] = self.loop.create_future()
        self._waiting.append(done)
        self._transport.write(libvalkey.pack_command(parts))
        try:
            async with asyncio.timeout(seconds):
                reply = await done
        except TimeoutError:
            late = TimeoutError(f"no reply within {seconds:g} s")
            # A server that answers others is behind, or this process is: the commands after this one may be in time.
            if self.loop.time() - self._received > seconds:
                self.abort(late)
            raise _unavailable(late) from None
        if isinstance(reply, RefusedCommandError):
            raise reply
        return reply

    def abort(self, reason: Exception | None = None) -> None:
        """Close at once; what was sent is not waited for."""
        self._lost = self._lost or reason or ConnectionError("it was closed")
        if self._transport is not None and not self.loop.is_closed():
            self._transport.abort()
        self._fail_waiting()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is of no such class

    def data_received(self, data: bytes) -> None:
        self._received = self.loop.time()
        try:
            self._replies.feed(data)
            while (reply := self._replies.gets()) is not _INCOMPLETE:
                done = self._waiting.popleft()
                if not done.done():  # the caller was cancelled
                    done.set_result(reply)
        except (_ReplyError, IndexError) as error:  # the second: nothing waits for a reply
            self.abort(ConnectionError(f"it does not answer as a Valkey does: {error}"))

    def connection_lost(self, error: Exception | None) -> None:
        self._lost = self._lost or error or ConnectionError("the server closed the connection")
        self._fail_waiting()

    def _fail_waiting(self) -> None:
        while self._waiting:
            done = self._waiting.popleft()
            if not done.done():
                done.set_exception(_unavailable(self._lost))


async def connect(address: ValkeyAddress, password: str | None, *, seconds: float) -> PipelinedConnection:
    """A connection that is ready for commands.

    Raises:
        EngineUnavailableError: the server is not reached within `seconds`.
        CredentialsError: it refuses the user or the password.
        StorageError: it refuses the database.
    """
    loop = asyncio.get_running_loop()
    connection = PipelinedConnection(loop)
    options: dict[str, Any] = {}
    if address.encrypted:
        options = {"ssl": _encryption(address), "server_hostname": address.host}
    try:
        async with asyncio.timeout(seconds):
            await loop.create_connection(lambda: connection, address.host, address.port, **options)
        if password is not None or address.user is not None:
            user = () if address.user is None else (address.user.encode(),)
            await connection.execute(b"AUTH", *user, (password or "").encode(), seconds=seconds)
        if address.database:
            await connection.execute(b"SELECT", b"%d" % address.database, seconds=seconds)
    except RefusedCommandError as error:
        connection.abort()
        kind = CredentialsError if str(error).startswith(CREDENTIALS) else StorageError
        raise kind(
            f"the online store refused the connection: {_text(error)}",
            subject=str(address),
            hint="check the user, the secret that ?password= names, and the number of the database",
        ) from None
    except (OSError, TimeoutError) as error:
        connection.abort()
        raise EngineUnavailableError(
            f"the online store at {address} cannot be reached: {_text(error)}", subject=str(address)
        ) from None
    except BaseException:
        connection.abort()
        raise
    return connection


def _encryption(address: ValkeyAddress) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=address.files.get("ssl_ca_certs"))
    if (certificate := address.files.get("ssl_certfile")) is not None:
        context.load_cert_chain(certificate, address.files.get("ssl_keyfile"))
    return context


def _unavailable(reason: Exception | None) -> EngineUnavailableError:
    return EngineUnavailableError(f"the online store does not answer: {_text(reason)}")


def _text(error: Exception | None) -> str:
    return (str(error) or type(error).__name__)[:_ERROR_LENGTH]
