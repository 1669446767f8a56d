"""Parts of the log `exchanges`: one row per request, numbered within its writer's life by the part's name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, BinaryIO

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from cumulant.core.traffic import Exchange

#: the fields of `core.traffic.Exchange` but the gateway: the name of a part says whose it is
SCHEMA = pa.schema(
    [
        pa.field("request", pa.string(), nullable=False),
        pa.field("time", pa.timestamp("us", "UTC"), nullable=False),
        pa.field("model", pa.string(), nullable=False),
        pa.field("assigned", pa.string(), nullable=False),
        pa.field("served", pa.string(), nullable=False),
        pa.field("status", pa.int32(), nullable=False),
        pa.field("duration_us", pa.int64(), nullable=False),
        pa.field("key", pa.string(), nullable=False),
        pa.field("forced", pa.bool_(), nullable=False),
        pa.field("fault", pa.string(), nullable=False),
        pa.field("revision", pa.int64(), nullable=False),
        pa.field("predicts", pa.bool_(), nullable=False),
        pa.field("caller_id", pa.string(), nullable=False),
    ]
)
_TIME = SCHEMA.get_field_index("time")
_OPTIONS: dict[str, Any] = {"compression": "zstd", "compression_level": 1}


def write_part(stream: BinaryIO, exchanges: Sequence[Exchange]) -> None:
    columns = {name: [getattr(exchange, name) for exchange in exchanges] for name in SCHEMA.names}
    pq.write_table(pa.table(columns, schema=SCHEMA), stream, **_OPTIONS)


def read_part(stream: BinaryIO, *, gateway: str = "") -> list[Exchange]:
    """The exchanges of a part of this gateway, in order.

    Raises:
        pyarrow.ArrowException, OSError: it is damaged.
    """
    table = pq.read_table(stream, partitioning=None, use_threads=False)
    table = table.set_column(_TIME, "time", table["time"].cast(pa.int64()))
    rows = table.to_pylist()
    for row in rows:
        row["gateway"] = gateway
    return msgspec.convert(rows, list[Exchange])
