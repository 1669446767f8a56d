"""The MLflow package itself: imported on first use, without telemetry and without chatter."""

from __future__ import annotations

import errno
import logging
import os
import sqlite3
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

from cumulant.core.errors import (
    CumulantError,
    EngineUnavailableError,
    NotFoundError,
    StorageError,
    UsageError,
    missing_part,
)

#: Read by MLflow while it is imported, and by nothing of ours. What a user has set stays.
_SETTINGS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_RECORD_ENV_VARS_IN_MODEL_LOGGING": "false",
}

#: of SQLite: the disk or the file is at fault, and asking again does not help
_STORAGE = {
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_CORRUPT,
    sqlite3.SQLITE_NOTADB,
}
_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}


def load_mlflow() -> ModuleType:
    """The `mlflow` package.

    Raises:
        MissingPartError: it is not installed.
    """
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            import mlflow
            import mlflow.artifacts
            import mlflow.entities
            import mlflow.models
            import mlflow.pyfunc
            import mlflow.types.schema
        except ModuleNotFoundError as error:
            raise missing_part(error.name or "mlflow", "train") from None
    for chatty in ("mlflow", "alembic"):
        logging.getLogger(chatty).setLevel(logging.ERROR)
    # It logs a traceback of each error that it raises; what is raised reaches the user in our words.
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
    return mlflow


@contextmanager
def engine(subject: str) -> Iterator[ModuleType]:
    """The package, with its errors in our words and its warnings kept from the user.

    Raises:
        NotFoundError, UsageError, EngineUnavailableError, StorageError: what MLflow said about `subject`.
    """
    mlflow = load_mlflow()
    import sqlalchemy.exc

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield mlflow
        except mlflow.exceptions.MlflowException as error:
            raise _unwritable(error, subject) or _explain(error, subject) from error
        except sqlalchemy.exc.DBAPIError as error:
            message = f"the registry does not answer: {error.orig}"
            raise _unwritable(error, subject) or EngineUnavailableError(message, subject=subject) from error
        except OSError as error:
            raise _storage(error.strerror or str(error), subject) from error


@contextmanager
def current(uri: str) -> Iterator[None]:
    """Make `uri` MLflow's own current one for a moment: parts of MLflow's stores ask for nothing else."""
    mlflow = load_mlflow()
    variable = os.environ.get("MLFLOW_TRACKING_URI")
    before = mlflow.get_tracking_uri() if mlflow.tracking.is_tracking_uri_set() else None
    mlflow.set_tracking_uri(uri)
    try:
        yield
    finally:
        mlflow.set_tracking_uri(before)
        if variable is None:
            os.environ.pop("MLFLOW_TRACKING_URI", None)
        else:
            os.environ["MLFLOW_TRACKING_URI"] = variable


def _unwritable(error: BaseException, subject: str) -> StorageError | None:
    """What a file of SQLite, or the disk under it, said below MLflow's own error; None where that was not the cause."""
    found: BaseException | None = error
    while found is not None:
        said = getattr(found, "orig", None) or found
        if isinstance(said, sqlite3.Error) and getattr(said, "sqlite_errorcode", 0) & 0xFF in _STORAGE:
            return _storage(str(said), subject)
        if isinstance(said, OSError) and said.errno in _DISK:
            return _storage(said.strerror or str(said), subject)
        found = found.__cause__ or found.__context__
    return None


def _storage(said: str, subject: str) -> StorageError:
    hint = "free some space, or check that the folder can be written"
    return StorageError(f"the registry cannot write: {said}", subject=subject, hint=hint)


def _explain(error: Exception, subject: str) -> CumulantError:
    code, text = getattr(error, "error_code", ""), str(getattr(error, "message", error))
    text = text.removeprefix(f"{code}: ").strip()
    match code:
        case "RESOURCE_DOES_NOT_EXIST" | "NOT_FOUND" | "ENDPOINT_NOT_FOUND":
            return NotFoundError(f"MLflow knows nothing of {subject}: {text}", subject=subject)
        case "INVALID_PARAMETER_VALUE" | "BAD_REQUEST" | "RESOURCE_ALREADY_EXISTS":
            return UsageError(f"MLflow refuses {subject}: {text}", subject=subject)
        case "PERMISSION_DENIED" | "UNAUTHENTICATED":
            hint = "set MLFLOW_TRACKING_TOKEN, or a user and password, as MLflow describes"
            return UsageError(f"MLflow gives no access to {subject}: {text}", subject=subject, hint=hint)
        case _:
            hint = "check that the tracking server runs and that its address is right"
            return EngineUnavailableError(f"MLflow does not answer for {subject}: {text}", subject=subject, hint=hint)
