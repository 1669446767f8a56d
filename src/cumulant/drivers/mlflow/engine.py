"""The MLflow package: imported on first use, without telemetry and log output."""

from __future__ import annotations

import errno
import logging
import os
import re
import sqlite3
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

from cumulant.core.errors import (
    CumulantError,
    EngineUnavailableError,
    NotFoundError,
    StorageError,
    UsageError,
    causes,
    missing_part,
)

#: Read by MLflow while it is imported. A user's own settings are not replaced.
_SETTINGS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_RECORD_ENV_VARS_IN_MODEL_LOGGING": "false",
}

#: SQLite's codes for a fault of the disk or the file, for which a retry does not help
_STORAGE = {
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_CORRUPT,
    sqlite3.SQLITE_NOTADB,
}
#: errors that MLflow passes on from clients of its server and of the stores of its artifacts, by their module
_STORE_ERRORS = {
    "requests.exceptions": ("RequestException",),
    "botocore.exceptions": ("BotoCoreError", "ClientError"),
    "google.api_core.exceptions": ("GoogleAPIError",),
    "azure.core.exceptions": ("AzureError",),
}
_OTHER_TABLES = re.compile(r"out-of-date database schema \(found version (\w+)")
_UPGRADE = (
    "back up the database; then, once for all machines, `mlflow db upgrade` with its address: sqlite:///FILE or "
    "'postgresql+psycopg://USER:PASSWORD@HOST/DATABASE?options=-csearch_path%3DSCHEMA'"
)
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
    for logger in ("mlflow", "alembic"):
        logging.getLogger(logger).setLevel(logging.ERROR)
    # It logs a traceback of each error that it raises; the error itself is mapped to ours.
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
    # Metrics that a run has already are refused by the database, and MLflow then writes the others.
    logging.getLogger("psycopg").setLevel(logging.ERROR)
    return mlflow


@contextmanager
def engine(subject: str) -> Iterator[ModuleType]:
    """The package, with its errors mapped to ours and without its warnings.

    Raises:
        NotFoundError, UsageError, EngineUnavailableError, StorageError: MLflow's error about `subject`.
    """
    mlflow = load_mlflow()
    import sqlalchemy.exc

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield mlflow
        except mlflow.exceptions.MlflowException as error:
            raise _find_storage_error(error, subject) or _explain(error, subject) from error
        except sqlalchemy.exc.DBAPIError as error:
            message = f"the registry does not answer: {error.orig}"
            raise _find_storage_error(error, subject) or EngineUnavailableError(message, subject=subject) from error
        except _store_errors() as error:
            raise EngineUnavailableError(
                f"the store of the registry's files does not answer as it should: {error}",
                subject=subject,
                hint="check that the tracking server and the store of its artifacts run, then try again",
            ) from error
        except ModuleNotFoundError as error:  # of MLflow's class for the address of a run's files
            raise StorageError(
                f"MLflow needs the Python package {error.name} for {subject}, and it is not installed",
                subject=subject,
                hint=f"pip install {error.name}, or move the files to a bucket: s3:// or gs://",
            ) from error
        except OSError as error:
            raise _storage_error(error.strerror or str(error), subject) from error


@contextmanager
def use_uri(uri: str) -> Iterator[None]:
    """Set MLflow's current tracking URI for a moment: parts of MLflow's stores use nothing else."""
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


def _store_errors() -> tuple[type[Exception], ...]:
    """Those of clients that are loaded: no other one can have raised an error."""
    loaded = [(sys.modules[module], names) for module, names in _STORE_ERRORS.items() if module in sys.modules]
    return tuple(getattr(module, name) for module, names in loaded for name in names)


def _find_storage_error(error: BaseException, subject: str) -> StorageError | None:
    """The error of SQLite or the disk that caused MLflow's error; None if that was not the cause."""
    for cause in causes(error):
        engine_error = getattr(cause, "orig", None) or cause
        if isinstance(engine_error, sqlite3.Error) and getattr(engine_error, "sqlite_errorcode", 0) & 0xFF in _STORAGE:
            return _storage_error(str(engine_error), subject)
        if isinstance(engine_error, OSError) and engine_error.errno in _DISK:
            return _storage_error(engine_error.strerror or str(engine_error), subject)
    return None


def _storage_error(reason: str, subject: str) -> StorageError:
    hint = "free some space, or check that the folder can be written"
    return StorageError(f"the registry cannot write: {reason}", subject=subject, hint=hint)


def _explain(error: Exception, subject: str) -> CumulantError:
    code, text = getattr(error, "error_code", ""), str(getattr(error, "message", error))
    if (other := _OTHER_TABLES.search(text)) is not None:
        return _other_tables(other[1], subject)
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
            hint = "check that its server or database runs and that the address is right"
            return EngineUnavailableError(f"MLflow does not answer for {subject}: {text}", subject=subject, hint=hint)


def _other_tables(revision: str, subject: str) -> StorageError:
    """The error of tables of another version of MLflow, which says of all of them that they are out of date."""
    migrations = Path(str(load_mlflow().__file__)).parent / "store" / "db_migrations" / "versions"
    if any(migrations.glob(f"{revision}_*.py")):
        when, hint = "an earlier", _UPGRADE
    else:
        when, hint = "a later", "install the version of mlflow that the other machines have"
    return StorageError(
        f"the registry's tables are of {when} version of MLflow than the one that is installed here",
        subject=subject,
        hint=hint,
    )
