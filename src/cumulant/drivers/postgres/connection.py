"""A connection that is given up where its server owes an answer and nothing comes."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from psycopg import Connection, OperationalError
from psycopg.rows import TupleRow

Result = TypeVar("Result")
Need = TypeVar("Need")
Ready = TypeVar("Ready")


class SilentServerError(OperationalError):
    """The server answered nothing within the limit of the connection."""


class LimitedConnection(Connection[TupleRow]):
    """A connection that is closed where its server sends and takes nothing for `limit` seconds of a statement.

    TCP notices a host that is gone. Behind a paused pooler, a server process that hangs or a load balancer after a
    failover, what is sent is acknowledged, and no answer comes.
    """

    limit: float = math.inf

    # psycopg does everything but connecting by this method.
    def wait(self, gen: Generator[Any, Any, Result], *own: Any, **limits: Any) -> Result:
        """The result of `gen`, which reads and writes. `notifies` gives a limit of its own, which holds instead."""
        if own or limits:
            return super().wait(gen, *own, **limits)
        try:
            return super().wait(limit_silence(gen, self.limit))
        except SilentServerError:
            self.close()
            raise

    @contextmanager
    def unlimited(self) -> Iterator[None]:
        """No limit within the block: its statements may work for longer before they answer."""
        limit, self.limit = self.limit, math.inf
        try:
            yield
        finally:
            self.limit = limit


def limit_silence(
    gen: Generator[Need, Ready, Result], limit: float, *, steady: Callable[[], float] = time.monotonic
) -> Generator[Need, Ready, Result]:
    """What `gen` does. It is told again and again what is ready, and ends when for `limit` seconds nothing was.

    Raises:
        SilentServerError: nothing was ready for `limit` seconds.
    """
    active = steady()
    try:
        need = next(gen)
        while True:
            ready = yield need
            if ready:
                active = steady()
            elif steady() - active > limit:
                raise SilentServerError(f"it accepts what is sent, and has not answered for {limit:g} s")
            need = gen.send(ready)
    except StopIteration as ended:
        result: Result = ended.value
        return result
