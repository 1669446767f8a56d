"""A database of MLflow's tables without rows of a project, kept for the user's next one: to make it takes seconds."""

from __future__ import annotations

import os
from contextlib import suppress
from importlib import import_module
from pathlib import Path

from cumulant.core.ids import digest
from cumulant.core.system.atomic_files import read_checked, write_checked
from cumulant.core.system.user_cache import add_entry, is_own, user_cache

#: databases that are kept, of as many versions of MLflow
_MOST = 3


class EmptyTables:
    """The tables of the installed MLflow in a folder that only the user of this process can write to."""

    def __init__(self) -> None:
        cache = user_cache(os.environ)
        self._folder = None if cache is None else cache / "mlflow"

    def read(self) -> bytes | None:
        """The database; None where there is none, or it is damaged."""
        if self._folder is None or not is_own(self._folder):
            return None
        with suppress(OSError):
            return read_checked(self._folder / _key())
        return None

    def keep(self, content: bytes) -> None:
        """Keep a database; without effect where the folder cannot be written."""
        if self._folder is not None:
            add_entry(self._folder, lambda folder: write_checked(folder / _key(), content), most=_MOST)


def _key() -> str:
    """Key of the tables: the installed version, and the names of the migrations that make them."""
    migrations = import_module("mlflow.store.db_migrations.versions").__path__
    names = sorted(path.name for folder in migrations for path in Path(folder).glob("*.py"))
    return digest([import_module("mlflow.version").VERSION, names])
