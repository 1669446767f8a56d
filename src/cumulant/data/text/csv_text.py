"""CSV text as a table: faults are DataErrors, and no value loses signs that distinguish it from another."""

from __future__ import annotations

import codecs
import csv
import io
import json
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import polars as pl

from cumulant.core.errors import DataError
from cumulant.data.spec import SourceSpec
from cumulant.data.text.csv_records import MalformedRecords, count_records, malformed_records, open_quote
from cumulant.data.text.identifier_text import PADDED, may_be_padded, padded_columns, quoted_columns

_TAIL = 1 << 16
#: byte order marks of UTF-16, which no other text begins with
_WIDE_MARKS = (b"\xff\xfe", b"\xfe\xff")
_SEPARATORS = (";", "\t", "|", ",")
#: bytes a column from which on types are found faster than by the engine
_MANY = 12 << 10
#: fields that a table of text may have whatever its length, and for each byte: a whole row has one for each separator
_CELLS, _CELLS_PER_BYTE = 20_000_000, 2
_TRUTH = r"^(?i:true|false)$"
_WHOLE = r"^-?\d+$"
_FRACTION = r"^[-+]?(?:\d*\.\d+(?:[eE][-+]?\d+)?|inf|NaN|\d+[eE][-+]?\d+|\d+\.)$"
#: rows in which most columns of text are recognized
_SAMPLE = 64


class DialectError(DataError):
    """A CSV file that is written otherwise than declared; `declare` are the attributes of a SourceSpec that fit."""

    def __init__(self, message: str, *, subject: str, hint: str, declare: Mapping[str, str]) -> None:
        super().__init__(message, subject=subject, hint=hint)
        self.declare = dict(declare)


class FileTable(NamedTuple):
    """The rows of a file.

    `malformed`: CSV rows with another number of fields than the header, as text, with `__row` and `__line`. `quoted`:
    CSV columns of numbers that stay text for their quotes. `partitions`: columns of the names of its folders.
    `refused`: rows without a plain value at a declared path, as text, with `__rule` and `__row`. `notes`: doubts about
    the file.
    """

    rows: pl.DataFrame
    malformed: pl.DataFrame | None = None
    quoted: frozenset[str] = frozenset()
    partitions: frozenset[str] = frozenset()
    refused: pl.DataFrame | None = None
    notes: tuple[str, ...] = ()


def read_csv(
    content: bytes,
    url: str,
    spec: SourceSpec,
    texts: Collection[str],
    *,
    separator: str,
    begin: bool = True,
    types: Mapping[str, pl.DataType] | None = None,
) -> FileTable:
    """The rows of a CSV text; columns in `texts`, and those declared to be text, are not numbers.

    Without `begin` it is a later block of its file. `types`: those of all columns by the whole file; rows may differ.

    Raises:
        DialectError: another separator or encoding than declared.
        DataError: a quoted field does not end, the last line is cut off, or no row has the header's fields.
        UnicodeDecodeError, csv.Error: there are no rows, and the header is no text.
    """
    content = _utf8(content, url, spec)
    header = _header(content, separator)
    _refuse_other_separator(header, content, url, separator)
    repeated = sorted(name for name, count in Counter(header).items() if count > 1)
    if repeated:
        raise DataError(
            f"{url} has two columns named {', '.join(repeated)}", subject=url, hint="give each column its own name"
        )
    _refuse_open_quote(content, url, separator)
    _refuse_missing_fields(content, url, len(header))
    _refuse_cut_line(content, url, separator, len(header))
    # In a number format of its own `1.234` may be 1234, which an engine would read as 1.234.
    declared = {name for name, rule in spec.rules.items() if rule.type == "str"} | spec.number_formats.keys()
    engine = _Engine(header, separator, spec.missing, types or {})
    as_text = {*declared, *texts}
    content, (frame, numbers), malformed = _split_malformed(content, url, engine, as_text)
    if not frame.height:
        _refuse_binary(content)
    quoted = quoted_columns(content, frame.columns, numbers, separator) if begin else frozenset[str]()
    if as_numbers := [name for name in quoted if frame[name].dtype != pl.String()]:
        frame = frame.with_columns(engine.read_texts(content, as_numbers))
    return FileTable(frame, malformed, quoted)


def _refuse_binary(content: bytes) -> None:
    """Raise UnicodeDecodeError or csv.Error for a header that is no text: of rows the engine does so."""
    content.decode()
    if b"\0" in content:
        raise csv.Error("a NUL byte")


class _Rows(NamedTuple):
    """Rows under their types; `numbers` are columns of numbers, also those that are text for their leading zeros."""

    frame: pl.DataFrame
    numbers: frozenset[str]


class _Engine(NamedTuple):
    """How the engine reads a CSV text of this header, whose columns may have known types."""

    header: Sequence[str]
    separator: str
    missing: Sequence[str]
    types: Mapping[str, pl.DataType]

    def read(self, content: bytes, texts: Collection[str], *, ragged: bool = False) -> _Rows:
        """The rows with the columns `texts` as text; with `ragged`, fields beyond the header's are left out."""
        if self.types and self.types.keys() == set(self.header):
            with _unless_ragged():
                frame = self._read(content, self.types, ragged=ragged)
                return _Rows(frame, _numbers(frame))
        # A return after a field makes it text, from which it is left out.
        if len(content) >= _MANY * len(self.header) and content.count(b"\r") == content.count(b"\r\n"):
            with _unless_ragged():
                frame = self._read(content, {}, ragged=ragged)
                numbers = assign_types(frame, set(texts).intersection(self.header))
                if numbers is not None:
                    return _Rows(frame, numbers)
        return self._inferred(content, texts, ragged=ragged)

    def _inferred(self, content: bytes, texts: Collection[str], *, ragged: bool) -> _Rows:
        """The rows under the types that the engine finds, which takes it several times as long."""
        frame = self._read(content, dict.fromkeys(texts, pl.String()), ragged=ragged, infer=True)
        numbers = _numbers(frame)
        if not numbers or not may_be_padded(content, self.separator):
            return _Rows(frame, numbers)
        texts_of_numbers = self.read_texts(content, list(numbers), ragged=ragged)
        return _Rows(frame.with_columns(padded_columns(texts_of_numbers)), numbers)

    def _read(
        self, content: bytes, types: Mapping[str, pl.DataType], *, ragged: bool, infer: bool = False
    ) -> pl.DataFrame:
        """The rows with these columns under these types, and others as text or as the engine infers them."""
        names = self._names()
        frame = pl.read_csv(
            io.BytesIO(content),
            separator=self.separator,
            infer_schema=infer,
            infer_schema_length=None,
            null_values=list(self.missing) or None,
            schema_overrides={names[name]: dtype for name, dtype in types.items() if name in names} or None,
            truncate_ragged_lines=ragged,
        )
        return frame.rename({raw: name for name, raw in names.items() if raw != name}, strict=False)

    def read_texts(self, content: bytes, columns: Sequence[str], *, ragged: bool = False) -> pl.DataFrame:
        """These columns alone, as text."""
        names = self._names()
        frame = pl.read_csv(
            io.BytesIO(content),
            separator=self.separator,
            columns=[names.get(name, name) for name in columns],
            infer_schema=False,
            null_values=list(self.missing) or None,
            truncate_ragged_lines=ragged,
        )
        return frame.rename({names.get(name, name): name for name in columns}).select(columns)

    def _names(self) -> dict[str, str]:
        """Each column to what the engine calls it, which leaves doubled quotes in a header as they are."""
        return {name: name.replace('"', '""') for name in self.header}


@contextmanager
def _unless_ragged() -> Iterator[None]:
    """Pass over the engine's errors but the one of a row with too many fields, which another reading has too."""
    try:
        yield
    except pl.exceptions.PolarsError as error:
        if "more fields" in str(error):
            raise


def _numbers(frame: pl.DataFrame) -> frozenset[str]:
    return frozenset(name for name, dtype in frame.schema.items() if dtype.is_numeric())


def _utf8(content: bytes, url: str, spec: SourceSpec) -> bytes:
    if spec.encoding.lower().replace("-", "") != "utf8":
        content = content.decode(spec.encoding).encode()
    elif content.startswith(_WIDE_MARKS):
        raise DialectError(
            f"{url} is not UTF-8 text but UTF-16",
            subject=url,
            hint="set encoding: utf-16, or convert the file to UTF-8",
            declare={"encoding": "utf-16"},
        )
    if b"\n" not in content:  # lines that end with a carriage return alone, as some spreadsheets write them
        content = content.replace(b"\r", b"\n")
    return content


def _split_malformed(
    content: bytes, url: str, engine: _Engine, texts: Collection[str]
) -> tuple[bytes, _Rows, pl.DataFrame | None]:
    """The text without rows of another number of fields, its rows, and those rows."""
    separator = engine.separator
    records: MalformedRecords | None = None
    try:
        rows = engine.read(content, texts)
    except pl.exceptions.ComputeError as error:
        if "more fields" not in str(error):
            raise
        frame = engine.read(content, texts, ragged=True).frame
        records = malformed_records(content, separator, frame.columns, records=frame.height)
        if records is None:
            raise
    else:
        frame = rows.frame
        # A row with too few fields lacks the last one: there is none where that is never null.
        if frame.width > 1 and frame[:, -1].null_count():
            records = malformed_records(content, separator, frame.columns, records=frame.height)
    if records is None:
        return content, rows, None
    rows = engine.read(records.content, texts)
    malformed = records.rows if records.rows.height else None
    if malformed is not None and not rows.frame.height:
        raise DataError(
            f"{url}: none of its {malformed.height:,} rows has all the {frame.width} fields of the header, and no more",
            subject=url,
            hint="check its separator and header, and write it again",
        )
    return records.content, rows, malformed


def _refuse_open_quote(content: bytes, url: str, separator: str) -> None:
    line = open_quote(content, separator)
    if line is not None:
        raise DataError(
            f"{url} has a quoted field that does not end, in the row that begins in line {line:,}",
            subject=url,
            hint="copy the file again, for it may be cut off there; or close the quotes",
        )


def _refuse_missing_fields(content: bytes, url: str, width: int) -> None:
    """Rows that lack most of the header's fields take more memory than their text by any factor."""
    limit = _CELLS + _CELLS_PER_BYTE * len(content)
    if content.count(b"\n") * width <= limit or (count := count_records(content)) * width <= limit:
        return
    raise DataError(
        f"{url}: the header has {width:,} fields, which most of its {count:,} rows lack",
        subject=url,
        hint="check its separator and header, and write it again",
    )


def _header(content: bytes, separator: str) -> list[str]:
    record = _first_record(content.removeprefix(codecs.BOM_UTF8))
    try:
        return next(csv.reader([record.decode(errors="replace")], delimiter=separator), [])
    except csv.Error:  # a return within a name, or one of more than 128 KiB
        names = pl.read_csv(io.BytesIO(record), separator=separator, infer_schema=False, n_rows=0).columns
        return [name.replace('""', '"') for name in names]


def _first_record(content: bytes) -> bytes:
    """The first record that is no blank line, without its end."""
    begin = place = quotes = 0
    while (end := content.find(b"\n", place)) >= 0:
        quotes += content.count(b'"', place, end)
        place = end + 1
        if quotes % 2 == 0:
            if record := content[begin:end].removesuffix(b"\r"):
                return record
            begin = place
    return content[begin:]


def _refuse_other_separator(header: Sequence[str], content: bytes, url: str, separator: str) -> None:
    """A header that is one field, but several with another sign, which its first row has as often."""
    lines = content[:_TAIL].lstrip(b"\r\n").splitlines()[:2]
    if len(header) != 1 or len(lines) < 2:
        return
    for sign in _SEPARATORS:
        if sign != separator and lines[0].count(sign.encode()) == lines[1].count(sign.encode()) > 0:
            written = json.dumps(sign)
            raise DialectError(
                f'{url}: its fields are separated by {written}, not by "{separator}"',
                subject=url,
                hint=f"set separator: {written} in the source's declaration",
                declare={"separator": sign},
            )


def _refuse_cut_line(content: bytes, url: str, separator: str, width: int) -> None:
    """A last line without its end and with too few fields was cut off; an engine would fill it with nulls."""
    if content.endswith((b"\n", b"\r")):
        return
    last = content[-_TAIL:].rsplit(b"\n", 1)[-1].decode("utf-8", errors="replace")
    fields = next(csv.reader(io.StringIO(last, newline=""), delimiter=separator), [])
    if last.count('"') % 2 == 0 and 0 < len(fields) < width:
        raise DataError(
            f"{url} is cut off: its last line has {len(fields)} of {width} fields",
            subject=url,
            hint="copy or write it again",
        )


def assign_types(rows: pl.DataFrame, texts: Collection[str]) -> frozenset[str] | None:
    """Assign types in place to the text columns of `rows`; `texts`, and numbers with leading zeros, stay text.

    Returns the columns of numbers with leading zeros; None where only the engine can infer a type.
    """
    numbers = set()
    for index, name in enumerate(rows.columns):
        if name in texts:
            continue
        text = rows.to_series(index)  # by its place: each replacement makes the engine forget the places of names
        values = _values(text)
        if values is None:
            return None
        if values.dtype.is_numeric():
            numbers.add(name)
            if text.str.contains(PADDED).any():
                continue
        rows.replace_column(index, values)  # one after the other, for the texts take more memory than the numbers
    return frozenset(numbers)


def _values(text: pl.Series) -> pl.Series | None:
    """A column under its type. A column of nulls is one of text."""
    if _is_text(text.head(_SAMPLE)) or text.null_count() == text.len():
        return text
    if text.str.contains(_TRUTH).all():
        return text.str.to_lowercase() == "true"
    whole = text.str.contains(_WHOLE)
    if whole.all():
        values = _cast(text, pl.Int64())
        return _cast(text, pl.Int128()) if values is None else values
    if not (whole | text.str.contains(_FRACTION)).all():
        return text
    short = text.filter(whole).cast(pl.Int64, strict=False).is_not_null()
    # Numbers of three types are text to the engine.
    return text if short.any() and not short.all() else _cast(text, pl.Float64())


def _is_text(text: pl.Series) -> bool:
    return not text.str.contains(f"{_TRUTH}|{_WHOLE}|{_FRACTION}").all()


def _cast(text: pl.Series, dtype: pl.DataType) -> pl.Series | None:
    """None where there are digits that are no number for the engine: of other scripts, or too many."""
    values = text.cast(dtype, strict=False)
    return values if values.null_count() == text.null_count() else None
