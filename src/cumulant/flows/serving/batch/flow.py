"""The flow of batch prediction: read, prepare, score and write in a thread each, and one file at the end."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, NamedTuple

import msgspec

from cumulant.core.errors import DataError, UsageError
from cumulant.core.progress import Progress, silent
from cumulant.flows.serving.batch.answer_parts import AnswerManifest, AnswerParts
from cumulant.flows.serving.batch.batch_model import BatchModel
from cumulant.flows.serving.batch.parallel_engine import Lanes, available_cores, find_best_size, part_rows
from cumulant.flows.serving.batch.piece_scoring import PreparedPiece, answer_piece
from cumulant.flows.serving.batch.prefetch import prefetch
from cumulant.project.sources import all_files

if TYPE_CHECKING:
    import polars as pl

    from cumulant.data.files.listed_file import ListedFile
    from cumulant.data.files.streaming import FileStream, Piece
    from cumulant.ports.files import FileInfo

#: rows of a row group, at least, where there are so many
_GROUP = 1 << 17
#: rows read before the size of parts is chosen
_SAMPLE = 4096
#: a history is gone through once a part, so parts are as large as they may be
_MOST_ROWS = 1 << 17


def writer(output: Path) -> Callable[[Sequence[Path], IO[bytes]], None]:
    """Writer of parts in the format of the output's name: .parquet, .csv or .jsonl."""
    return _WRITERS[output.suffix.lower()]


def _tables(parts: Sequence[Path]) -> Iterator[pl.DataFrame]:
    """The rows of the parts, under common types."""
    import polars as pl

    empty = [pl.DataFrame(schema=pl.read_parquet_schema(part)) for part in parts]
    schema = pl.concat(empty, how="vertical_relaxed").schema
    for part in parts:
        yield pl.read_parquet(part, glob=False).cast(schema)


def _parquet(parts: Sequence[Path], stream: IO[bytes]) -> None:
    import polars as pl
    import pyarrow.parquet as pq

    out: pq.ParquetWriter | None = None
    try:
        for rows in _join_small_tables(_tables(parts)):
            table = rows.to_arrow(compat_level=pl.CompatLevel.oldest())
            out = out or pq.ParquetWriter(stream, table.schema, compression="zstd")
            out.write_table(table, row_group_size=max(1, table.num_rows))
    finally:
        if out is not None:
            out.close()


def _join_small_tables(tables: Iterator[pl.DataFrame]) -> Iterator[pl.DataFrame]:
    """Small tables together, so that row groups are not tiny."""
    import polars as pl

    waiting: list[pl.DataFrame] = []
    for table in tables:
        waiting.append(table)
        if sum(part.height for part in waiting) >= _GROUP:
            yield pl.concat(waiting)
            waiting = []
    if waiting:
        yield pl.concat(waiting)


def _csv(parts: Sequence[Path], stream: IO[bytes]) -> None:
    for number, rows in enumerate(_tables(parts)):
        _flat(rows).write_csv(stream, include_header=number == 0)


def _flat(rows: pl.DataFrame) -> pl.DataFrame:
    """Structs as a column for each field, lists as text, lists of structs as JSON."""
    import polars as pl

    for name, dtype in rows.schema.items():
        if isinstance(dtype, pl.Struct):
            rows = rows.with_columns(pl.col(name).name.prefix_fields(f"{name}.")).unnest(name)
        elif isinstance(dtype, pl.List):
            texts = (
                pl.col(name).list.eval(pl.element().struct.json_encode())
                if isinstance(dtype.inner, pl.Struct)
                else pl.col(name).cast(pl.List(pl.String))
            )
            rows = rows.with_columns(pl.format("[{}]", texts.list.join(",")).alias(name))
    return rows


def _jsonl(parts: Sequence[Path], stream: IO[bytes]) -> None:
    for rows in _tables(parts):
        rows.write_ndjson(stream)


_WRITERS: Mapping[str, Callable[[Sequence[Path], IO[bytes]], None]] = {
    ".parquet": _parquet,
    ".csv": _csv,
    ".jsonl": _jsonl,
}


class BatchRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What to answer: `input` is a file, folder, glob or URL; `output` ends in .parquet, .csv or .jsonl."""

    input: str
    output: Path
    #: None: about a second's work, by measurement
    part_rows: int | None = None
    threads: int | None = None


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """What was done; `rows_per_second` counts the rows that were scored now."""

    file: str
    rows: int
    seconds: float
    rows_per_second: float
    parts: int
    reused_parts: int
    reused_rows: int
    threads: int
    part_rows: int
    #: what a person should know of values and missing fields that training did not have, one sentence a check
    warnings: tuple[str, ...] = ()


class _Input(NamedTuple):
    file: ListedFile
    path: Path
    #: share of all bytes before this file, and of this file
    before: float
    share: float


class _Place(NamedTuple):
    """Which part a piece becomes, and the share of all that is read with it."""

    file: int
    number: int
    share: float


def predict_file(model: BatchModel, request: BatchRequest, *, progress: Progress = silent) -> Summary:
    """Answer every row, in order. Killed and called again, it resumes after the last finished part.

    Raises:
        DataError: the input is not there or damaged; finished parts are kept.
        RequestError: a column is absent, or a value does not fit; names column and row.
        StorageError: the output cannot be written; finished parts are kept.
        LeaseHeldError: another process writes the same output.
    """
    begun = time.perf_counter()
    inputs = _inputs(model, request, progress)
    threads = request.threads or available_cores()
    with ExitStack() as stack:
        parts = stack.enter_context(AnswerParts(request.output))
        stack.enter_context(_naming_all_unreadable(model, inputs))
        manifest, done = _resume_or_begin(model, request, inputs, parts, progress)
        reused = sum(map(sum, done))
        lanes = Lanes(threads, manifest.slice_rows)
        stack.callback(lanes.close)
        progress("answering")
        job = _Job(model, inputs, manifest, done)
        fresh = 0
        for rows, share in job.scored(parts, lanes):
            fresh += rows
            progress(f"{fresh + reused:,} rows", share)
        if not parts.paths():
            parts.write(0, 0, _empty_answer(model, inputs[0], lanes))
        count = len(parts.paths())
        warnings = model.work.warnings(parts.faults(), reused + fresh)
        progress("joining the parts into one file")
        parts.finish(writer(request.output))
    seconds = time.perf_counter() - begun
    return Summary(
        file=str(request.output),
        rows=reused + fresh,
        seconds=round(seconds, 3),
        rows_per_second=round(fresh / seconds, 1),
        parts=count,
        reused_parts=sum(map(len, done)),
        reused_rows=reused,
        threads=threads,
        part_rows=manifest.part_rows,
        warnings=warnings,
    )


def _inputs(model: BatchModel, request: BatchRequest, progress: Progress) -> list[_Input]:
    from cumulant.data.checks.file_checks import skipped_warnings
    from cumulant.data.files.listed_file import listed_files
    from cumulant.data.files.listing import list_files

    spec = msgspec.structs.replace(model.reading, path=request.input)
    place = all_files()
    listing = list_files(spec, source=Path(request.input).name, root=Path.cwd(), files=place)
    for warning in skipped_warnings(listing, Path.cwd()):
        progress(f"warning: {warning}")
    infos = listing.files
    _refuse_output_in_input(request, infos)
    total, before, inputs = sum(info.bytes for info in infos) or 1, 0, []
    for file in listed_files(listing, spec, root=Path.cwd(), files=place):
        inputs.append(_Input(file, file.fetch(), before / total, file.info.bytes / total))
        before += file.info.bytes
    return inputs


@contextmanager
def _naming_all_unreadable(model: BatchModel, inputs: list[_Input]) -> Iterator[None]:
    """Where one file cannot be read, the others that cannot are named with it."""
    try:
        yield
    except DataError as error:
        from cumulant.data.files.unreadable_files import join_errors

        named = {source.file.url for source in inputs}
        if error.subject not in named:
            raise
        others = [source for source in inputs if source.file.url != error.subject]
        more = [fault for source in others if (fault := _fault(model, source)) is not None]
        raise join_errors([error, *more], len(inputs)) from error


def _fault(model: BatchModel, source: _Input) -> DataError | None:
    """Why not even the head of a file can be read."""
    try:
        _stream(model, source, _SAMPLE)
    except DataError as error:
        return error
    return None


def _refuse_output_in_input(request: BatchRequest, infos: list[FileInfo]) -> None:
    """The output must not be read as input, by this run or the next."""
    output = request.output.resolve()
    inside = Path(request.input).is_dir() and output.is_relative_to(Path(request.input).resolve())
    if inside or any(Path(info.url.removeprefix("file://")).resolve() == output for info in infos):
        message = f"{request.output} is among the rows to answer"
        raise UsageError(message, subject=str(request.output), hint="write the answers to another place")


def _resume_or_begin(
    model: BatchModel, request: BatchRequest, inputs: list[_Input], parts: AnswerParts, progress: Progress
) -> tuple[AnswerManifest, list[list[int]]]:
    """The manifest to go by, and the rows of the parts of each file that are done."""
    infos = tuple(source.file.info for source in inputs)
    stored = parts.manifest()
    if stored is not None:
        changed = stored.change(infos, model.identity, request.part_rows)
        if changed is None:
            done = [parts.done(number) for number in range(len(inputs))]
            for source in inputs:  # columns to keep are read too
                model.work.columns(_stream(model, source, stored.part_rows).head)
            progress(f"going on after {sum(map(len, done)):,} parts with {sum(map(sum, done)):,} rows")
            return stored, done
        progress(f"starting over: {changed} changed since {parts.folder.name} was written")
    head = _stream(model, inputs[0], _SAMPLE).head
    model.work.columns(head)
    for remark in model.work.remarks(head):
        progress(remark)
    size, rows = _sizes(model, inputs, request)
    manifest = AnswerManifest(inputs=infos, model=model.identity, part_rows=request.part_rows or rows, slice_rows=size)
    parts.begin(manifest)
    return manifest, [[] for _ in inputs]


def _sizes(model: BatchModel, inputs: list[_Input], request: BatchRequest) -> tuple[int, int]:
    """Rows that a thread scores at once, and rows of a part: measured on the first rows of the input."""
    for source in inputs:
        stream = _stream(model, source, min(_SAMPLE, request.part_rows or _SAMPLE))
        columns = model.work.columns(stream.head)
        piece = next(iter(stream.pieces(columns)), None)
        if piece is None or not piece.rows.height:
            continue
        return _measure_sizes(model, model.work.prepare(piece), request.threads or available_cores())
    return _SAMPLE, _MOST_ROWS


def _measure_sizes(model: BatchModel, sample: PreparedPiece, threads: int) -> tuple[int, int]:
    if not model.together(sample):
        _, speed = find_best_size(lambda _: model.work.score(sample, slice(0, 1)), 1)
        return 1, part_rows(1, speed, threads)
    size, speed = find_best_size(lambda rows: model.work.score(sample, rows), sample.rows)
    return size, _MOST_ROWS if model.history else part_rows(size, speed, threads)


def _stream(model: BatchModel, source: _Input, rows: int) -> FileStream:
    from cumulant.data.files.streaming import FileStream

    return FileStream(source.path, source.file.url, model.reading, rows=rows, partition=source.file.partition)


class _Job(NamedTuple):
    """What is to be scored. `done` are the rows of the finished parts of each input."""

    model: BatchModel
    inputs: list[_Input]
    manifest: AnswerManifest
    done: list[list[int]]

    def scored(self, parts: AnswerParts, lanes: Lanes) -> Iterator[tuple[int, float]]:
        """Score what is not done, and write the parts: the rows of each, and the share of all that is read."""
        work = self.model.work
        with (
            prefetch(self._pieces()) as read,
            prefetch((place, work.prepare(piece)) for place, piece in read) as ready,
            prefetch((place, answer_piece(work, piece, lanes), piece.faults) for place, piece in ready) as answers,
        ):
            for place, frame, faults in answers:
                parts.write(place.file, place.number, frame, faults)
                yield frame.height, place.share

    def _pieces(self) -> Iterator[tuple[_Place, Piece]]:
        for number, (source, finished) in enumerate(zip(self.inputs, self.done, strict=True)):
            stream = _stream(self.model, source, self.manifest.part_rows)
            columns = self.model.work.columns(stream.head)
            for at, piece in enumerate(stream.pieces(columns, done=finished), len(finished)):
                if piece.rows.height:
                    yield _Place(number, at, source.before + source.share * piece.share), piece


def _empty_answer(model: BatchModel, source: _Input, lanes: Lanes) -> pl.DataFrame:
    """The columns of an answer to no rows."""
    from cumulant.data.files.streaming import Piece

    head = _stream(model, source, 1).head.clear()
    columns = model.work.columns(head)
    return answer_piece(model.work, model.work.prepare(Piece(head.select(columns), 0, 1.0)), lanes)
