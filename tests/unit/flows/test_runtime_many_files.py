"""The flow `validate` over many small files: one record a snapshot, each file listed once, and `clean` removes the rest."""

from __future__ import annotations

import time
from pathlib import Path

import msgspec

import cumulant
from cumulant.drivers.local.files import LocalFiles
from cumulant.flows.data.validate import NEWEST, SNAPSHOT, load_snapshot, newest_snapshot, validate
from cumulant.flows.ledger.ledger_records import STEP
from cumulant.flows.maintenance.cleanup import clean

PROJECT = "version: 1\nmodel: {name: m}\ndata: {rows: {path: rows, key: n}}\n"


def write(root: Path, first: int, count: int) -> None:
    (root / "rows").mkdir(exist_ok=True)
    for number in range(first, first + count):
        (root / f"rows/{number:04}.csv").write_text(f"n,y\n{number},1\n", encoding="utf-8")


def test_records_and_stored_files_do_not_grow_with_the_files(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "cumulant.yaml").write_text(PROJECT, encoding="utf-8")
    write(tmp_path, 0, 600)
    listed = []
    original = LocalFiles.list
    monkeypatch.setattr(LocalFiles, "list", lambda self, pattern: listed.append(pattern) or original(self, pattern))
    with cumulant.open(tmp_path) as project:
        loaded, who = project.loaded, project.loaded.principal()
        first = validate(loaded, principal=who).snapshots["rows"]
        assert len(listed) == 1
        write(tmp_path, 600, 1)
        second = validate(loaded, principal=who).snapshots["rows"]
        for snapshot, count in ((first, 600), (second, 601)):
            assert [file.url for file in snapshot.files] == [f"rows/{n:04}.csv" for n in range(count)]
            assert load_snapshot(loaded, snapshot.id).files == snapshot.files
        assert newest_snapshot(loaded, "rows").files == second.files
        journal = loaded.journal()
        rows = [journal.get(NEWEST, "rows"), journal.get(SNAPSHOT, second.id), *journal.rows(STEP)]
        assert max(len(msgspec.json.encode(row.value)) for row in rows) < 10_000
        assert len([path for path in loaded.state.rglob("*.parquet") if path.is_file()]) < 15


def test_clean_removes_what_only_expired_snapshots_need(tmp_path: Path) -> None:
    (tmp_path / "cumulant.yaml").write_text(PROJECT, encoding="utf-8")
    write(tmp_path, 0, 110)
    with cumulant.open(tmp_path) as project:
        loaded, who = project.loaded, project.loaded.principal()
        for number in range(110, 128):
            write(tmp_path, number, 1)
            last = validate(loaded, principal=who).snapshots["rows"]
        assert len(clean(loaded, principal=who)) <= 2, "the part that was put together in the run that read it"
    time.sleep(1.1)  # so that each snapshot is older than `keep`, however fast they were made
    with cumulant.open(tmp_path, overrides={"data.rows.keep": "1s"}) as project:
        loaded = project.loaded
        removed = {item.key for item in clean(loaded, principal=who, dry_run=False)}
        assert len([key for key in removed if key.startswith("data/rows/files/")]) >= 10
        assert len([key for key in removed if key.endswith("/facts")]) >= 10, "parts that were put together since"
        again = validate(loaded, principal=who).snapshots["rows"]
        assert (again.id, again.processed, again.files) == (last.id, (), last.files)
        write(tmp_path, 128, 1)
        assert validate(loaded, principal=who).snapshots["rows"].processed == ("rows/0128.csv",)
