"""The flow `validate` where files of a folder come and go."""

from __future__ import annotations

from pathlib import Path

import pytest

import cumulant
from cumulant.data.checks.verdict import SourceBreachError, warnings_of
from cumulant.flows.data.validate import validate


def folder(root: Path, name: str, rows: int) -> None:
    path = root / "rows" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("n,y\n" + "".join(f"{row},{row % 2}\n" for row in range(rows)), encoding="utf-8")


def test_files_as_they_were_once_are_no_reason_to_lose_later_ones(tmp_path: Path) -> None:
    (tmp_path / "cumulant.yaml").write_text(
        "version: 1\nmodel: {name: m}\ndata: {rows: {path: rows}}\n", encoding="utf-8"
    )
    folder(tmp_path, "a.csv", 1)
    with cumulant.open(tmp_path) as project:
        loaded, who = project.loaded, project.loaded.principal()
        first = validate(loaded, principal=who).snapshots["rows"]
        folder(tmp_path, "b.csv", 998)
        second = validate(loaded, principal=who).snapshots["rows"]
        assert (first.rows_in, second.rows_in) == (1, 999)
        (tmp_path / "rows/b.csv").unlink()
        for _ in range(2):
            with pytest.raises(SourceBreachError, match="998 of 999") as caught:
                validate(loaded, principal=who)
            assert "missing_files" in str(caught.value.hint)
    with cumulant.open(tmp_path, overrides={"data.rows.missing_files": "100%"}) as project:
        loaded = project.loaded
        again = validate(loaded, principal=who)
        assert any("b.csv" in warning for warning in warnings_of(again.snapshots["rows"]))
        assert again.snapshots["rows"].rows_in == 1
        (tmp_path / "rows/c.avro").write_bytes(b"ORC")
        skipped = validate(loaded, principal=who).snapshots["rows"]
        assert any("c.avro" in warning for warning in warnings_of(skipped))
