from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import polars as pl
import pytest

from cumulant.data.checks.verdict import SourceBreachError
from cumulant.data.ingestion import ingest
from cumulant.data.snapshot import Snapshot, scan
from cumulant.data.spec import SourceSpec
from cumulant.drivers.local.files import LocalFiles
from cumulant.drivers.local.tables import FileTables
from cumulant.ports.files import FileInfo
from cumulant.project.data_section import declared_source

NOW = datetime(2024, 1, 10, tzinfo=UTC)


class CountingFiles(LocalFiles):
    """The local files, and which of them were opened."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.opened: list[str] = []

    def fetch(self, file: FileInfo) -> Path:
        self.opened.append(Path(file.url).name)
        return super().fetch(file)


@dataclass
class Place:
    """A project's folder with real stores, and the shortest way to bring a source in."""

    root: Path
    files: CountingFiles
    tables: FileTables
    snapshots: dict[str, Snapshot] = field(default_factory=dict)

    def write(self, name: str, content: str | bytes | pl.DataFrame) -> Path:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, pl.DataFrame):
            content.write_parquet(path)
        else:
            path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    def ingest(self, name: str = "trips", *, now: datetime = NOW, previous: Snapshot | None = None, **more) -> Snapshot:
        own = {key: more.pop(key) for key in ("frame", "others", "used", "progress", "force", "budget") if key in more}
        spec = msgspec.convert({"path": "trips.csv"} | more, SourceSpec)
        policy = declared_source(spec, source=name, root=self.root)
        found = ingest(
            name, policy, root=self.root, files=self.files, tables=self.tables, previous=previous, now=now, **own
        )
        assert found.rows_in == found.rows_passed + found.rows_quarantined + found.rows_dropped
        return found

    def refused(self, name: str = "trips", **more) -> Snapshot:
        """The snapshot of a source that breaks its contract."""
        with pytest.raises(SourceBreachError) as caught:
            self.ingest(name, **more)
        found = caught.value.snapshot
        assert found.rows_in == found.rows_passed + found.rows_quarantined + found.rows_dropped
        return found

    def rows(self, snapshot: Snapshot, *columns: str) -> list[tuple[object, ...]]:
        return scan(snapshot, self.tables).select(columns or [f.name for f in snapshot.fields]).collect().rows()

    def quarantine(self, snapshot: Snapshot) -> pl.DataFrame:
        return self.tables.scan(snapshot.quarantine).collect() if snapshot.quarantine else pl.DataFrame()


@pytest.fixture
def place(tmp_path: Path) -> Place:
    root = tmp_path / "project"
    root.mkdir()
    return Place(root, CountingFiles(f"file://{root}"), FileTables(f"file://{tmp_path / 'tables'}"))


@pytest.fixture
def published() -> Callable[[str], Path]:
    """A file of the shared data sets; skips where they are not at hand."""

    def found(name: str) -> Path:
        for base in Path(__file__).resolve().parents:
            path = base / "shared" / "data" / name
            if path.is_file():
                return path
        pytest.skip(f"shared data set {name} is not at hand")

    return found
