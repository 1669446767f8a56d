"""Labels and joined rows that an earlier version kept in the folder `outcomes` of the state, moved to the logs.

labels/NAME/*.parquet, file.json   a batch of labels and its facts
joined/, pairs/, graded/           joined rows
inbox/*.jsonl, claimed/*/*.jsonl   labels that were posted and not ingested
imports/*.json                     reports of imported predictions

A file is deleted when it is in its log, so that a killed move is finished by the next one.
"""

from __future__ import annotations

import shutil
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from cumulant.core.errors import StorageError
from cumulant.core.system.json_files import read_json
from cumulant.outcomes.logs import OutcomeLogs
from cumulant.ports.log import UNDATED, Log, PartInfo

if TYPE_CHECKING:
    from cumulant.outcomes.join.joining import Outcomes

_FOLDER, _TABLES = "outcomes", ("joined", "pairs", "graded")


def has_earlier_files(state: Path) -> bool:
    """Whether an earlier version has left such a folder."""
    return (state / _FOLDER).is_dir()


def move_earlier_files(state: Path, logs: OutcomeLogs, predictions: Log) -> None:
    """Move what is there to the logs; the caller holds the lease.

    Raises:
        StorageError: a file is damaged, or a log cannot be written; what was not moved stays.
    """
    from cumulant.outcomes.join.joining import Outcomes

    folder = state / _FOLDER
    try:
        _move_labels(folder / "labels", logs)
        for claim in sorted((folder / "claimed").glob("*")):
            _move_posts(claim, logs)
        _move_posts(folder / "inbox", logs)
        _move_rows(folder, Outcomes(logs, predictions))
        for path in sorted((folder / "imports").glob("*.json")):
            predictions.put_state(f"imports/{path.name}", path.read_bytes())
        _remove(folder, logs)
    except OSError as error:
        raise StorageError(
            f"labels of an earlier version cannot be moved: {error.strerror or error}",
            subject=str(folder),
            hint="check the folder and its permissions, and run the command again",
        ) from error


def _remove(folder: Path, logs: OutcomeLogs) -> None:
    """Remove what was moved. A server that still runs with the earlier version may have stored posts meanwhile: what is
    in its inbox is moved, and what it is writing stays for the next time.
    """
    inbox = folder / "inbox"
    for path in folder.iterdir():
        if path.is_dir() and path != inbox:
            shutil.rmtree(path)
        elif path != inbox:
            path.unlink()
    _move_posts(inbox, logs)
    for empty in (inbox, folder):
        with suppress(OSError):  # not empty
            empty.rmdir()


def _move_labels(folder: Path, logs: OutcomeLogs) -> None:
    import pyarrow.parquet as pq

    from cumulant.outcomes.labels.batches import IngestedFile
    from cumulant.outcomes.labels.store import FACTS, batch_writer

    batches = {path.name: facts for path in folder.glob("*") if (facts := read_json(path / "file.json", IngestedFile))}
    covered = {part.content for facts in batches.values() for part in facts.covers}
    for name, facts in sorted(batches.items()):
        if name not in covered:
            with batch_writer(logs.labels, name) as batch:
                for path in sorted((folder / name).glob("[0-9]*.parquet")):
                    batch.add_table(pq.read_table(path).cast(FACTS))
                batch.facts = facts
            # Of a batch of posts the claim may still be there.
            shutil.rmtree(folder.parent / "claimed" / name, ignore_errors=True)
            shutil.rmtree(folder / name)


def _move_posts(folder: Path, logs: OutcomeLogs) -> None:
    for path in sorted(folder.glob("[!.]*.jsonl")):
        with logs.inbox.append(PartInfo(UNDATED, path.stem, 1, 1, "jsonl")) as stream, path.open("rb") as source:
            shutil.copyfileobj(source, stream)
        path.unlink()


def _move_rows(folder: Path, outcomes: Outcomes) -> None:
    import polars as pl

    for name, table in zip(_TABLES, outcomes.tables, strict=True):
        for path in sorted((folder / name).glob("*.parquet")):
            rows = pl.read_parquet(path)
            missing = [column for column in table.columns if column not in rows.columns]
            table.append(rows.with_columns(pl.lit(None).alias(column) for column in missing))
            path.unlink()
