"""The node of a Valkey server or cluster that holds a scope: its clients, redirections and errors."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import msgspec
from valkey.client import Valkey
from valkey.connection import ConnectionPool, SSLConnection
from valkey.exceptions import AuthenticationError, BusyLoadingError, NoPermissionError, ValkeyError
from valkey.exceptions import ConnectionError as PeerConnectionError
from valkey.exceptions import TimeoutError as PeerTimeoutError

from cumulant.core.errors import CredentialsError, CumulantError, EngineUnavailableError, StorageError, UsageError
from cumulant.drivers.valkey.location import ValkeyAddress
from cumulant.drivers.valkey.pipeline import CREDENTIALS
from cumulant.ports.secrets import Secrets

Result = TypeVar("Result")
#: a client of the library, or its pipeline: its types do not know keys and values of bytes
Client = Any
#: seconds for connecting, and for one reply
_CONNECT_SECONDS, _REPLY_SECONDS = 2.0, 5.0
#: seconds to wait before each further attempt: a server that starts again, or a slot that moves to another node; and
#: after which there is none
_PAUSES, _PATIENCE = (0.05, 0.2, 0.5, 1.0), 8.0
#: seconds after a reply that did not come, in which nothing more is sent: what follows need not wait for as long again
_SILENCE = 1.0
_MOVED = re.compile(r"\bMOVED \d+ (\S*):(\d+)")
#: what passes while a cluster moves slots or elects a node
_PASSING = re.compile(r"\b(ASK \d+|TRYAGAIN|CLUSTERDOWN|MASTERDOWN|LOADING)\b")
#: how the client library begins the error of a command in a pipeline; the command may hold personal values
_IN_PIPELINE = re.compile(r"^Command # .* of pipeline caused error: ", re.DOTALL)
_ERROR_LENGTH = 200
_PEER_ERRORS = (PeerConnectionError, PeerTimeoutError)


def redirected(text: str) -> tuple[str, int] | None:
    """The node that an error names as the one that has the slot; its host is empty where it is the same."""
    match = _MOVED.search(_IN_PIPELINE.sub("", text))
    return None if match is None else (match[1], int(match[2]))


def attempts() -> Iterator[float]:
    """The seconds to wait before each further attempt."""
    deadline = time.monotonic() + _PATIENCE
    for pause in _PAUSES:
        if time.monotonic() > deadline:
            return
        yield pause


class Node:
    """Clients of one node, for any thread; it becomes another one where a cluster says so."""

    def __init__(self, address: ValkeyAddress, secrets: Secrets | None) -> None:
        self.address, self._secrets = address, secrets
        #: the node that the URL names
        self._first = address
        self._client: Client | None = None
        self._lock = threading.Lock()
        #: when a reply failed to come, by the monotonic clock
        self._unanswered = -_SILENCE

    def __str__(self) -> str:
        return str(self.address)

    def password(self) -> str | None:
        """As the secret is now.

        Raises:
            NotFoundError: there is no such secret.
            UsageError: the URL names a secret, and no store of secrets is given.
        """
        if self.address.secret is None:
            return None
        if self._secrets is None:
            raise UsageError("the online store's password is a secret, and no store of secrets is given")
        return self._secrets.get(self.address.secret)

    def client(self) -> Client:
        """Raises EngineUnavailableError: the node has just left another command unanswered."""
        if time.monotonic() - self._unanswered < _SILENCE:
            raise self._unavailable(f"no reply within {_REPLY_SECONDS:g} s")
        with self._lock:
            if self._client is None:
                options = self.address.settings(self.password())
                if self.address.encrypted:
                    options["connection_class"] = SSLConnection
                self._client = Valkey(
                    connection_pool=ConnectionPool(
                        **options,
                        socket_connect_timeout=_CONNECT_SECONDS,
                        socket_timeout=_REPLY_SECONDS,
                        lib_name=None,
                        lib_version=None,
                    )
                )
            return self._client

    def call(self, function: Callable[[Client], Result]) -> Result:
        """What `function` gives; it is called again where the node does not answer or another one has the slot.

        Raises:
            EngineUnavailableError: no node answers.
            StorageError: the node refuses.
        """
        pauses = attempts()
        while True:
            try:
                return function(self.client())
            except ValkeyError as error:
                self.pause_after(error, pauses)

    def pause_after(self, error: Exception, pauses: Iterator[float]) -> None:
        """Wait before another attempt.

        Raises:
            CumulantError: no attempt can help, or there were enough: as `explain`.
        """
        pause = next(pauses, None) if self.may_pass(error) else None
        if pause is None:
            raise self.explain(error) from None
        time.sleep(pause)

    def may_pass(self, error: Exception) -> bool:
        """Whether another attempt can help; where another node has the slot, the next one goes there."""
        if (moved := redirected(str(error))) is not None:
            self.move(moved)
            return True
        if isinstance(error, AuthenticationError):
            return False
        if isinstance(error, _PEER_ERRORS):
            is_first = self.address == self._first
            self.leave()
            if isinstance(error, PeerTimeoutError) and is_first:  # it was waited for long enough
                self._unanswered = time.monotonic()
                return False
            return True
        return _PASSING.search(_IN_PIPELINE.sub("", str(error))) is not None

    def move(self, to: tuple[str, int]) -> None:
        """Go on with another node."""
        with self._lock:
            host = to[0] or self.address.host
            self.address = msgspec.structs.replace(self.address, host=host, port=to[1])
            client, self._client = self._client, None
        if client is not None:
            client.connection_pool.disconnect(inuse_connections=False)

    def leave(self) -> None:
        """Go on with the node that the URL names: where this one ended, it knows which one has the slot now."""
        if self.address != self._first:
            self.move((self._first.host, self._first.port))

    def explain(self, error: Exception) -> CumulantError:
        """The CumulantError for an error of the server or the client library."""
        text = _IN_PIPELINE.sub("", str(error) or type(error).__name__)[:_ERROR_LENGTH]
        where = str(self)
        if isinstance(error, AuthenticationError) or text.startswith(CREDENTIALS):
            return CredentialsError(
                f"the online store refused the connection: {text}",
                subject=where,
                hint="check the user and the secret that ?password= names in the URL",
            )
        if isinstance(error, NoPermissionError) or text.startswith("NOPERM"):
            hint = "allow the user the keys of this project, and all commands on them"
            return StorageError(f"the online store refused: {text}", subject=where, hint=hint)
        if isinstance(error, BusyLoadingError):
            return EngineUnavailableError("the online store is loading its data", subject=where)
        if isinstance(error, _PEER_ERRORS) or _PASSING.search(text) is not None:
            return self._unavailable(text)
        if "maxmemory" in text:
            return StorageError(
                "the memory of the online store is full",
                subject=where,
                hint="raise its maxmemory; then `clean` can delete what is unused",  # a full one refuses the lock
            )
        no_database = "DB index" in text
        return StorageError(
            f"the online store refused: {text}",
            subject=where,
            hint="write a database of the server at the end of the URL: 0, in a cluster no other"
            if no_database
            else None,
        )

    def _unavailable(self, reason: str) -> EngineUnavailableError:
        hint = "check that it runs and can be reached from here"
        return EngineUnavailableError(
            f"the online store at {self} does not answer: {reason}",
            subject=str(self),
            hint=f"{hint}, and that its port expects TLS" if self.address.encrypted else hint,
        )

    def close(self) -> None:
        """Close the connections. The next use makes new ones."""
        with self._lock:
            client, self._client = self._client, None
        if client is not None:
            client.connection_pool.disconnect()
