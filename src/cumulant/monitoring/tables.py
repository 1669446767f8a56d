"""Monitored tables: files in Parquet, CSV or JSON lines, or a prediction log, as one frame with times."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from cumulant.core.errors import ContractBreachError, CumulantError, DataError, did_you_mean
from cumulant.data.parts.collected_frames import CollectedFrames
from cumulant.outcomes.labels.label_files import kind_of
from cumulant.ports.log import Log
from cumulant.ports.plugins import Drivers

if TYPE_CHECKING:
    from cumulant.data.parts.spill import Spill

#: rows of a column that are read at a time
_PART = 1_000_000
#: names that a column of times goes by where no column has the type
_TIMES = ("event_time", "timestamp", "time", "datetime", "date")
#: rows that decide whether a column of texts holds times
_HEAD = 1_000
#: names that an answer goes by
_ANSWERS = ("prediction", "probability", "score", "y_pred", "y_pred_proba", "y_hat", "predicted_probability")
#: what a log knows of each row beside request and answer, and how the answer's fields begin
TOLD, MOMENT, ANSWER = ("id", "row", "model", "version"), "moment", "answer."
_MOMENT = pl.coalesce("event_time", "time").alias(MOMENT)
#: the server's own fields beside the model's answer
_SERVER = ("state_age", "incomplete", "warnings", "degraded", "reasons")


@dataclass(frozen=True)
class PredictionTable:
    """`time` is the column of each row's moment, if there is one; `answers` are what was predicted."""

    name: str
    rows: pl.LazyFrame
    columns: tuple[str, ...]
    time: str | None
    answers: tuple[str, ...]
    is_log: bool = False
    #: rows of a log that are of other versions, and not among `rows`
    others: int = 0
    #: of a log that is read for one version: the moments of the rows of all versions of its model, in one column
    traffic: pl.LazyFrame | None = None
    #: of each day of a log on which rows were answered, those that are dated after that by more than clocks may differ;
    #: they are not among `rows`
    misdated: Mapping[date, int] = field(default_factory=dict)
    #: rows of a log whose time is still to come, and not among `rows`
    coming: int = 0

    def timed(self, name: str | None) -> PredictionTable:
        """This table with the times in column `name`; as it is where none is named.

        Raises:
            DataError: there is no such column.
        """
        if name is None:
            return self
        self.require([name])
        return replace(self, time=name)

    def require(self, names: Sequence[str]) -> None:
        """Raises DataError where a column is not there."""
        require_columns(self.name, self.columns, names)

    def series(self, name: str) -> pl.Series:
        """One column.

        Raises:
            DataError: the file cannot be read.
        """
        with readable(self.name):
            return self.rows.select(name).collect().to_series()

    def parts(self, name: str) -> Iterator[pl.Series]:
        """One column in parts, of which there is at least one.

        Raises:
            DataError: the file cannot be read.
        """
        with readable(self.name):
            yield from parts_of(self.rows.select(name))

    def tells_apart(self, name: str) -> bool:
        """Whether every row has its own name or number in that column, as a key.

        Raises:
            DataError: the file cannot be read.
        """
        values = self.series(name)
        named = values.dtype == pl.String or values.dtype.is_integer()
        return named and 1 < len(values) == values.n_unique()

    def count(self) -> int:
        """How many rows there are.

        Raises:
            DataError: the file cannot be read.
        """
        with readable(self.name):
            return int(self.rows.select(pl.len()).collect().item())


def parts_of(column: pl.LazyFrame) -> Iterator[pl.Series]:
    """The only column of `column` in parts, of which there is at least one."""
    rows = int(column.select(pl.len()).collect().item())
    for begin in range(0, max(rows, 1), _PART):
        yield (column if rows <= _PART else column.slice(begin, _PART)).collect().to_series()


def open_table(
    source: Path | Log,
    *,
    since: date | None = None,
    until: date | None = None,
    of: tuple[str, str] | None = None,
    skew: timedelta | None = None,
    spill: Spill | None = None,
    name: str = "log",
) -> PredictionTable:
    """A file, a folder or glob of Parquet files, or a prediction log, of which `since` and `until` are days.

    `of`: of a log, only the answers of this model and version. `skew`, `spill`, `name`: as in `open_log`.

    Raises:
        DataError: nothing is there, the format is unknown, or it cannot be read.
        ContractBreachError: all rows of the log are misdated.
        StorageError: a file of the log is damaged.
    """
    if not isinstance(source, Path) or (source.is_dir() and any(source.glob("date=*"))):
        log = log_at(source)
        table = open_log(log, since=since, until=until, of=of, skew=skew, spill=spill, name=name)
        return _some_rows(table, log, of)
    path = source
    with readable(str(path)):
        lazy = _scan(path)
        schema = lazy.collect_schema()
    names = tuple(schema)
    times = [name for name, kind in schema.items() if isinstance(kind, pl.Datetime) or kind == pl.Date]
    texts = [name for name, kind in schema.items() if kind == pl.String]
    times += [name for name in _TIMES if name in texts]
    if not times and texts:
        # A CSV file has no type for times. A later text that is none is a row without a time, which is reported.
        from cumulant.monitoring.drift.blocks import hold_times

        with readable(str(path)):
            head = lazy.select(texts).head(_HEAD).collect()
        times = [column.name for column in head.get_columns() if hold_times(column)]
    return PredictionTable(
        str(path), lazy, names, next(iter(times), None), tuple(column for column in names if column in _ANSWERS)
    )


def log_at(source: Path | Log) -> Log:
    """The log that is named, be it by the folder of its parts."""
    if isinstance(source, Path):
        return Drivers.installed().client(f"file://{source.absolute()}", "log")  # type: ignore[no-any-return]
    return source


def _scan(path: Path) -> pl.LazyFrame:
    pattern = path / "*.parquet" if path.is_dir() else path
    if not any(pattern.parent.glob(pattern.name)):
        raise DataError(f"nothing is at {path}", subject=str(path), hint="name a file, a glob or a log's folder")
    kind = kind_of(pattern)
    if kind == "parquet":
        return pl.scan_parquet(pattern)
    if kind == "csv":
        separator = "\t" if ".tsv" in pattern.name.lower() else ","
        return pl.scan_csv(pattern, infer_schema_length=10_000, separator=separator)
    if kind == "jsonl":
        return pl.scan_ndjson(pattern, infer_schema_length=10_000)
    raise DataError(
        f"{path}: its name does not show its format",
        subject=str(path),
        hint="tables are read from .parquet, .csv, .tsv and .jsonl, and from the folder of a prediction log",
    )


def open_log(
    log: Log,
    *,
    since: date | None,
    until: date | None,
    of: tuple[str, str] | None = None,
    skew: timedelta | None = None,
    spill: Spill | None = None,
    name: str = "log",
) -> PredictionTable:
    """The answered rows of a log, with a column a field of request and answer, without mirrored copies.

    Rows dated later than `skew` (None: no limit) after their answer are left out. Without rows it has no columns. Many
    rows are stored in `spill` (None: in memory), under names that begin with `name`.

    Raises:
        DataError: rows cannot be read.
        StorageError: a file is damaged, or rows cannot be stored.
    """
    from cumulant.serving.prediction_log.storage.scanning import batches

    columns = ["id", "row", "time", "event_time", "model", "version", "shadow", "request", "outputs"]
    title, others, misdated = f"the log {log.location}", 0, Counter[date]()
    rows, moments = CollectedFrames(spill, name), CollectedFrames(spill, f"{name}.moments")
    for batch in batches(log, columns, since=since, until=until):
        frame = pl.from_arrow(batch)
        assert isinstance(frame, pl.DataFrame)
        # A request without rows was logged by earlier versions as one row with an empty answer.
        empty = (pl.col("request") == "{}") & (pl.col("outputs") == "{}")
        answered = frame.filter(~pl.col("shadow") & ~empty)
        if skew is not None:
            ahead = (pl.col("event_time") - pl.col("time") > skew).fill_null(value=False)
            by_day = answered.group_by(pl.col("time").dt.date()).agg((ahead & _of(of)).sum().alias("rows"))
            misdated.update(dict(by_day.iter_rows()))
            answered = answered.filter(~ahead)
        own = answered.filter(_of(of))
        others += answered.height - own.height
        if of is not None:
            moments.add(answered.filter(pl.col("model") == of[0]).select(_MOMENT))
        if own.height:
            with readable(title):
                rows.add(_flat(own))
    with readable(title):
        log_rows = rows.rows()
        names = tuple(log_rows.collect_schema())
    answers = tuple(column for column in names if column.startswith(ANSWER))
    traffic = None if moments.is_empty else moments.rows()
    return PredictionTable(
        title, log_rows, names, MOMENT, answers, is_log=True, others=others, traffic=traffic, misdated=misdated
    )


def _of(of: tuple[str, str] | None) -> pl.Expr:
    """The rows of a model and version; None: all."""
    return pl.lit(True) if of is None else (pl.col("model") == of[0]) & (pl.col("version") == of[1])  # noqa: FBT003


def _some_rows(table: PredictionTable, log: Log, of: tuple[str, str] | None) -> PredictionTable:
    if table.columns:
        return table
    if misdated := sum(table.misdated.values()):
        raise none_is_past(log, of, misdated=misdated)
    if of is None or not table.others:
        raise DataError(
            f"no prediction is in the log {log.location}", subject=log.location, hint="look at --since and --until"
        )
    raise DataError(
        f"no prediction of {of[0]}/{of[1]} is in the log {log.location}, but {table.others:,} of other versions",
        subject=f"{of[0]}/{of[1]}",
        hint="name rows to compare them with by --reference FILE",
    )


def none_is_past(log: Log, of: tuple[str, str] | None, *, misdated: int = 0, coming: int = 0) -> CumulantError:
    """Why all rows of a log are left out for their time, as in `PredictionTable`: a breach, or all to come."""
    rows = (
        f"all {misdated + coming:,} predictions {'' if of is None else f'of {of[0]}/{of[1]} '}in the log {log.location}"
    )
    if misdated:
        return ContractBreachError(
            f"{rows} are dated after they were answered, {misdated:,} by more than serving.clock_skew",
            subject=log.location,
            hint="correct the clock of the callers, or raise serving.clock_skew",
        )
    return DataError(
        f"{rows} are dated after this look",
        subject=log.location,
        hint="correct the clock of the callers, if it is wrong; they count when their time has come",
    )


def _flat(frame: pl.DataFrame) -> pl.DataFrame:
    """What is known of each row, then the request's fields, then the answer's as `answer.FIELD`."""
    known = frame.select(*TOLD, _MOMENT)
    request, answer = _objects(frame["request"]), _objects(frame["outputs"]).drop(_SERVER, strict=False)
    request = request.rename(request_column)
    return pl.concat([known, request, answer.rename(lambda name: ANSWER + name)], how="horizontal")


def request_column(name: str) -> str:
    """The column of a request's field, beside a log's own columns."""
    return f"request.{name}" if name in (*TOLD, MOMENT) or name.startswith(ANSWER) else name


def _objects(texts: pl.Series) -> pl.DataFrame:
    """JSON objects as columns; a field with values of several types is text. What is no object has no fields."""
    texts = pl.select(
        pl.when(texts.str.strip_chars_start().str.starts_with("{")).then(texts).otherwise(pl.lit("{}"))
    ).to_series()
    objects = pl.read_ndjson(io.BytesIO("\n".join(texts).encode()), infer_schema_length=None) if len(texts) else None
    return pl.DataFrame() if objects is None or not objects.width else objects


@contextmanager
def readable(name: str) -> Iterator[None]:
    """Errors of reading as DataErrors. Their own text is not repeated where it may quote values."""
    try:
        yield
    except (pl.exceptions.PolarsError, OSError) as error:
        raise DataError(
            f"{name} cannot be read: it is damaged, cut off, or of another format",
            subject=name,
            hint="copy or write it again; the ending of its name is the format",
        ) from error


def require_columns(rows: str, columns: Sequence[str], names: Sequence[str]) -> None:
    """Raise DataError where the `columns` of these rows lack one of `names`."""
    for name in names:
        if name not in columns:
            hint = did_you_mean(name, columns) or f"columns: {', '.join(columns[:12])}"
            raise DataError(f"{rows} has no column {name}", subject=name, hint=hint)
