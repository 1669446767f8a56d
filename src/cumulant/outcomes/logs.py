"""The logs of outcomes, which all machines of an environment share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from cumulant.core.errors import StorageError
from cumulant.ports.log import Log

#: how often parts are listed again that are merged while they are read
LISTINGS = 100


class OutcomeLogs(NamedTuple):
    """`labels` that were ingested, `joined` rows, and the `inbox` of labels that were posted and are not ingested yet.

    None of them is divided by days: a label comes to a prediction of any day.
    """

    labels: Log
    joined: Log
    inbox: Log


def vanishing_parts_error(log: Log) -> StorageError:
    """The error for parts that vanished in each of `LISTINGS` lists."""
    return StorageError(
        "parts of the log vanish while they are read",
        subject=log.location,
        hint="check for a program that deletes files there",
    )


@contextmanager
def writing_to(place: str) -> Iterator[None]:
    """System errors of writing as StorageErrors that say what to do."""
    try:
        yield
    except FileNotFoundError:  # of what is read meanwhile
        raise
    except OSError as error:
        raise StorageError(
            f"outcomes cannot be written: {error.strerror or error}",
            subject=place,
            hint="nothing of it was ingested: free space or fix the permissions, and run it again",
        ) from error
