"""Requests that are sent again: `Idempotency-Key` makes a request that changes something happen at most once.

The first request of a key is recorded in the project's journal before it runs, and its response with it afterwards.
The same request again gets the same response; another request under the key is refused. A request whose process ended
before its response was recorded may have happened or not, which the caller is told.
"""

from __future__ import annotations

import hashlib
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import msgspec

from cumulant.core.clock import Clock, SystemClock
from cumulant.core.errors import ConflictError, LeaseHeldError
from cumulant.core.events import Actor
from cumulant.flows.ledger.ledger_records import API_REQUEST as KIND
from cumulant.serving.errors import HttpError

if TYPE_CHECKING:
    from cumulant.ports.journal import Journal

#: how long a response is kept; how many expired ones are removed with each new one
KEPT = timedelta(days=1)
_REMOVED = 20
#: after which a request without a response counts as ended
_UNDER_WAY = timedelta(minutes=10)
_MOST_LETTERS = 255


class RecordedRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A row: `request` is the hash of method, path and body; `status` 0: no response yet."""

    request: str
    begun: datetime
    status: int = 0
    body: str = ""


class IdempotentRequest:
    """One request under a key of a principal."""

    def __init__(
        self, journal: Journal, key: str, principal: str, request: bytes, *, clock: Clock | None = None
    ) -> None:
        """Raises HttpError: the key is too long, or has other letters than ASCII's visible ones."""
        if not key.isascii() or not key.isprintable() or not 1 <= len(key) <= _MOST_LETTERS:
            raise HttpError(400, f"an idempotency key has 1 to {_MOST_LETTERS} visible letters of ASCII")
        self._journal, self._clock = journal, clock or SystemClock()
        self._name = hashlib.sha256(f"{principal}\n{key}".encode()).hexdigest()
        self._key = ""
        self._request = hashlib.sha256(request).hexdigest()
        self._actor = Actor(principal)

    def begin(self) -> RecordedRequest | None:
        """Record that the request begins; the recorded one where it has a response already.

        Raises:
            HttpError: 422, the key is of another request.
            ConflictError: the outcome of the same request is not known.
            LeaseHeldError: the same request is under way.
        """
        now = self._clock.now()
        with self._journal.transaction(actor=self._actor) as transaction:
            # Keys begin with the day, so that the oldest rows are the first ones.
            for day in (now, now - KEPT):
                row = transaction.get(KIND, f"{day:%Y%m%d}/{self._name}")
                record = None if row is None else msgspec.convert(row.value, RecordedRequest)
                if record is not None and now - record.begun < KEPT:
                    return self._known(record, now)
            for old in transaction.rows(KIND, limit=_REMOVED):
                if now - msgspec.convert(old.value, RecordedRequest).begun >= KEPT:
                    transaction.delete(KIND, old.key)
            self._key = f"{now:%Y%m%d}/{self._name}"
            record = RecordedRequest(request=self._request, begun=now)
            transaction.put(KIND, self._key, msgspec.to_builtins(record))
        return None

    def _known(self, record: RecordedRequest, now: datetime) -> RecordedRequest:
        if record.request != self._request:
            raise HttpError(422, "this idempotency key was used for another request", hint="use a new key a request")
        if record.status:
            return record
        if now - record.begun < _UNDER_WAY:
            raise LeaseHeldError("the same request is under way", hint="send it again in some seconds")
        raise ConflictError(
            "the same request began and its server ended before it answered: it may have happened or not",
            hint="look at the events, then use a new key",
        )

    def end(self, status: int, body: bytes, *, retryable: bool = False) -> None:
        """Record the response; one after which nothing has happened and that may be another later is forgotten instead:
        of an error that is retryable, and of a refused permission.
        """
        with self._journal.transaction(actor=self._actor) as transaction:
            row = transaction.get(KIND, self._key)
            if row is None:
                return
            if retryable:
                transaction.delete(KIND, self._key)
                return
            record = msgspec.convert(row.value, RecordedRequest)
            ended = msgspec.structs.replace(record, status=status, body=body.decode())
            transaction.put(KIND, self._key, msgspec.to_builtins(ended))
