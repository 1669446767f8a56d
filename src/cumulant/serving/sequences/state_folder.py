"""Folder of the sequence state."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec

from cumulant.serving.settings import Settings


@contextmanager
def sequence_folder(settings: Settings) -> Iterator[Settings]:
    """The settings with a folder for all workers; by default a temporary one for the life of the server.

    A machine without any place to write keeps None: models with state are refused there, others are served.
    """
    if settings.sequences is not None:
        yield settings
        return
    try:
        scratch = tempfile.TemporaryDirectory(prefix="cumulant-sequences-", ignore_cleanup_errors=True)
    except OSError:
        yield settings
        return
    with scratch as folder:
        yield msgspec.structs.replace(settings, sequences=folder)
