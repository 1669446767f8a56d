"""Batches of the log: what is read ahead of a slow reader is bounded."""

import time
from datetime import date

import pyarrow as pa
import pyarrow.parquet as pq

from cumulant.serving.prediction_log.storage.part_writer import OPTIONS, SCHEMA
from cumulant.serving.prediction_log.storage.scanning import batches
from cumulant.testing.log import folder_log

GROUPS, ROWS = 12, 1_000
REQUEST = "x" * 20_000


def value(field, row):
    if field.name == "request":
        return f"{row} {REQUEST}"
    if pa.types.is_boolean(field.type):
        return False
    return "" if pa.types.is_string(field.type) else row


def test_little_is_read_ahead_of_a_slow_reader(tmp_path):
    folder = tmp_path / "date=2026-03-01"
    folder.mkdir()
    rows = pa.Table.from_arrays(
        [
            pa.array(
                [value(field, row) for row in range(ROWS)], pa.int64() if pa.types.is_timestamp(field.type) else None
            ).cast(field.type)
            for field in SCHEMA
        ],
        schema=SCHEMA,
    )
    with pq.ParquetWriter(folder / "a-000001-000001.parquet", SCHEMA, **OPTIONS) as writer:
        for _ in range(GROUPS):
            writer.write_table(rows)
    own = rows.nbytes
    del rows
    before, most, seen = pa.total_allocated_bytes(), 0, []
    for batch in batches(folder_log(tmp_path), ["sequence", "request"], since=date(2026, 3, 1)):
        time.sleep(0.05)  # a slow reader, of which the rest of the file was read ahead
        most = max(most, pa.total_allocated_bytes() - before)
        seen += batch["sequence"].to_pylist()
    assert seen == [*range(ROWS)] * GROUPS
    assert most < 6 * own, f"{most / own:.1f} of {GROUPS} row groups were in memory"
