"""Orders to learn from, a small project of them, and how a command refused."""

from __future__ import annotations

import functools
import json
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

HEADER = ("id", "amount", "kind", "late")


def orders(count: int = 300, *, seed: int = 1) -> list[tuple[Any, ...]]:
    """[count] rows of `HEADER`; lateness can be learned from amount and kind."""
    return list(_orders(count, seed))


@functools.cache
def _orders(count: int, seed: int) -> list[tuple[Any, ...]]:
    dice, rows = random.Random(seed), []
    for number in range(count):
        amount, kind = dice.random() * 100, dice.choice("xyz")
        rows.append(
            (f"id{number:04d}", round(amount, 2), kind, int(amount + 20 * (kind == "z") + dice.gauss(0, 15) > 60))
        )
    return rows


def table(
    rows: list[tuple[Any, ...]] | None = None,
    *,
    header: tuple[str, ...] = HEADER,
    separator: str = ",",
    end: str = "\n",
) -> str:
    lines = [header, *(orders() if rows is None else rows)]
    return "".join(separator.join(str(value) for value in line) + end for line in lines)


def changed(column: int, change: Any) -> list[tuple[Any, ...]]:
    """The orders with one column changed: `change` takes the row's number and the value."""
    return [(*row[:column], change(number, row[column]), *row[column + 1 :]) for number, row in enumerate(orders())]


@dataclass
class Ended:
    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        return json.loads(self.out)


def refused(ended: Ended, code: int, *words: str) -> None:
    """Ended with `code`, said `words` and nothing on standard output, and pointed at a page."""
    assert ended.code == code, ended.err
    assert not ended.out
    for word in words:
        assert word in ended.err
    assert "docs/reference/errors.md#" in ended.err


PARQUET = "rows.parquet"


def parquet(frame: pl.DataFrame) -> bytes:
    import io

    buffer = io.BytesIO()
    frame.write_parquet(buffer)
    return buffer.getvalue()


def jsonl(frame: pl.DataFrame) -> bytes:
    return frame.write_ndjson().encode()


FRAME = pl.DataFrame(orders(), schema=list(HEADER), orient="row")


PROJECT = """\
version: 1
data:
  rows:
    path: ../orders.csv
    key: id
    rules:
      amount: {min: 0}
training:
  target: late
  trials: 1
"""


FEATURES = """\
from cumulant.features import col, source

rows = source("rows")
columns = rows.columns("amount", "kind")
"""


def write(project: Path, old: str, new: str, *, text: str = PROJECT) -> None:
    assert old in text
    (project / "cumulant.yaml").write_text(text.replace(old, new))
