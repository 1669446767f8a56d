"""Tables outside any source: a file, folder or glob; and a proposed declaration for one."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from cumulant.core.errors import StorageError
from cumulant.core.progress import Progress, silent
from cumulant.ports.plugins import Drivers
from cumulant.project.sources import all_files

if TYPE_CHECKING:
    import polars as pl

    from cumulant.data.files.listed_file import ListedFile
    from cumulant.data.spec import SourceSpec
    from cumulant.data.text.csv_text import FileTable


class Proposed(msgspec.Struct, frozen=True, kw_only=True):
    """A source section that was proposed: what differs from the defaults, and why."""

    name: str
    source: dict[str, Any]
    notes: tuple[str, ...]
    contract: str | None = None


def read_table(file: Path | str, *, like: SourceSpec | None = None, progress: Progress = silent) -> pl.DataFrame:
    """The rows of a file, folder or glob, one file after another; separators and encodings are detected.

    `like`: the declaration of missing marks and types; the rows then have the values of all their folders.

    Raises:
        DataError: nothing is there, or a file cannot be read.
    """
    from cumulant.data.files.reading import refuse_malformed

    return _read(file, like, refuse=refuse_malformed, warn=progress)[0]


def _read(
    file: Path | str,
    like: SourceSpec | None,
    *,
    refuse: Callable[[FileTable, str], None],
    warn: Callable[[str], None],
    sheet: str | None = None,
) -> tuple[pl.DataFrame, SourceSpec]:
    """The rows, and how they are read; `refuse` gets each file that is read and its name, `warn` what is skipped."""
    import polars as pl

    from cumulant.data.checks.file_checks import skipped_warnings
    from cumulant.data.files.listed_file import listed_files
    from cumulant.data.files.listing import list_files
    from cumulant.data.files.unreadable_files import read_each
    from cumulant.data.spec import SourceSpec

    spec, files = like or SourceSpec(sheet=sheet), all_files()
    spec = msgspec.structs.replace(spec, path=_spec(file).path)
    listing = list_files(spec, source=Path(file).name, root=Path.cwd(), files=files)
    for warning in skipped_warnings(listing, Path.cwd()):
        warn(f"warning: {warning}")

    def rows(listed: ListedFile) -> pl.DataFrame:
        nonlocal spec
        table, spec = listed.read_any(spec)
        if like is not None:
            from cumulant.data.files.hive_columns import with_folders

            table = with_folders(table, spec, url=listed.info.url)
        refuse(table, listed.url)
        return table.rows

    frames = read_each(listed_files(listing, spec, root=Path.cwd(), files=files), rows)
    return frames[0] if len(frames) == 1 else pl.concat(frames, how="diagonal_relaxed"), spec


def propose(
    file: Path | str,
    *,
    name: str = "source",
    out: Path | None = None,
    sheet: str | None = None,
    progress: Progress = silent,
) -> Proposed:
    """Keys, times and rules of a file; with `out`, also written as an ODCS file. `sheet`: of an Excel workbook.

    Raises:
        DataError: nothing is there, or it cannot be read.
        StorageError: `out` cannot be written.
    """
    from cumulant.data.formats.nested_paths import columns_of, with_nested
    from cumulant.data.proposal.proposal import infer
    from cumulant.data.proposal.written_spec import to_declaration

    progress(f"looking at {file}")
    broken: list[str] = []
    quoted: set[str] = set()

    def note(table: FileTable, url: str) -> None:
        quoted.update(table.quoted)
        broken.extend(f"warning: {url}: {fault}" for fault in table.notes)
        if table.malformed is not None:
            from cumulant.data.files.reading import describe_malformed

            broken.append(f"warning: {url}: {describe_malformed(table)}, which go to quarantine")

    frame, read = _read(file, None, refuse=note, warn=broken.append, sheet=sheet)
    columns, _ = columns_of(frame.schema)
    frame, _ = with_nested(frame, columns, str(file))
    proposal = infer(frame, path=str(file), quoted=quoted)
    reading = {"separator": read.separator, "encoding": read.encoding, "columns": columns, "sheet": read.sheet}
    spec = msgspec.structs.replace(proposal.spec, path=str(file), **reading)
    contract = None
    if out is not None:
        contract = str(out)
        try:
            out.write_text(_contract(name, spec, progress), encoding="utf-8")
        except OSError as error:
            raise StorageError(f"the contract could not be written: {error.strerror}", subject=contract) from None
    return Proposed(name=name, source=to_declaration(spec), notes=(*broken, *proposal.notes), contract=contract)


def _contract(name: str, spec: SourceSpec, progress: Progress) -> str:
    # The contract lists the columns of a snapshot, so one is written to a temporary folder.
    with tempfile.TemporaryDirectory() as folder:
        from cumulant.data.ingestion import ingest
        from cumulant.data.proposal.odcs import to_odcs
        from cumulant.project.data_section import source_policy

        policy = source_policy(spec)
        snapshot = ingest(
            name,
            policy,
            root=Path.cwd(),
            files=all_files(),
            tables=Drivers.installed().client(Path(folder).as_uri(), "tables"),
            previous=None,
            now=datetime.now(UTC),
            progress=progress,
        )
        return to_odcs(policy, snapshot)


def _spec(file: Path | str) -> SourceSpec:
    from cumulant.data.spec import SourceSpec

    return SourceSpec(path=str(file) if "://" in str(file) else str(Path(file).expanduser()))
