"""Messages as rows: each is one JSON object. One that is not, or that fits no table, is refused alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import msgspec
import polars as pl

from cumulant.core.errors import DataError
from cumulant.core.plan import DType
from cumulant.data.formats.json_faults import BLANK, NOT_JSON
from cumulant.data.formats.json_limits import DEPTH, is_deep
from cumulant.data.formats.json_lines import read_jsonl
from cumulant.data.row_columns import ROW, RULE
from cumulant.data.spec import SourceSpec
from cumulant.data.streams.typed_decoding import decode_typed

#: the rule that a message without a value breaks, or with an object without a field
EMPTY = "row:empty"
#: the number of a row's message
MESSAGE = "__message"
_Kind = Literal["bool", "number", "text", "nested"]
_PLAIN: tuple[_Kind, ...] = ("text", "number", "bool")
_KINDS: Mapping[type, _Kind] = {
    bool: "bool",
    int: "number",
    float: "number",
    str: "text",
    dict: "nested",
    list: "nested",
}
_KIND_OF: Mapping[str, _Kind] = {"bool": "bool", "int": "number", "float": "number"}


class Decoded(NamedTuple):
    """The rows of messages as they came, with the number of each one's message; number to rule of those refused."""

    rows: pl.DataFrame
    refused: dict[int, str]


def decode(
    values: Sequence[bytes | None],
    spec: SourceSpec,
    known: Mapping[str, DType],
    source: str,
    schema: Mapping[str, pl.DataType] | None = None,
) -> Decoded:
    """The rows of messages, with the declared columns that are taken from paths. `known`: types of earlier messages;
    `schema`: the columns of the messages just before, under which these are tried first.

    Raises:
        DataError: the messages together have more fields than a table can have.
    """
    lines: dict[int, bytes] = {}
    refused: dict[int, str] = {}
    for number, value in enumerate(values):
        if value is not None and value[:2] == b'{"' and b"\n" not in value:
            lines[number] = value
        else:
            _sort_out(number, value, lines, refused)
    if schema is not None and not spec.columns:
        quick = _decode_quickly(lines, spec, known, source, schema)
        if quick is not None:
            return Decoded(quick.rows, refused | quick.refused)
    return _decode_lines(lines, refused, spec, known, source)


def _decode_quickly(
    lines: Mapping[int, bytes],
    spec: SourceSpec,
    known: Mapping[str, DType],
    source: str,
    schema: Mapping[str, pl.DataType],
) -> Decoded | None:
    """The rows of messages of which all have the columns of `schema`, or are refused; None: some have others."""
    numbers, texts = list(lines), list(lines.values())
    typed = decode_typed(texts, schema)
    if typed is None:
        return None
    others = {numbers[place]: texts[place] for place in typed.others}
    decoded = _decode_lines(others, {}, spec, known, source)
    if decoded.rows.height:
        return None
    messages = numbers if not others else [numbers[place] for place in typed.places]
    return Decoded(typed.rows.with_columns(pl.Series(MESSAGE, messages, dtype=pl.Int64)), decoded.refused)


def _decode_lines(
    lines: dict[int, bytes],
    refused: dict[int, str],
    spec: SourceSpec,
    known: Mapping[str, DType],
    source: str,
) -> Decoded:
    while lines:
        try:
            rows, more = _read(list(lines.values()), list(lines), spec, source)
        except (DataError, pl.exceptions.PolarsError):
            more = _find_faults(lines, spec, known, source)
            if not more:
                raise
        else:
            mixed = _columns_of_text(rows.schema, spec, known)
            if mixed and _all_typed(lines, rows.schema):
                mixed = set()
            odd = _of_other_kinds(_kinds_of(lines, more, mixed), spec, known) if mixed else {}
            if not odd:
                return Decoded(*_without_misfits(rows, refused | more))
            more |= odd
        refused |= more
        lines = {number: line for number, line in lines.items() if number not in more}
    return Decoded(pl.DataFrame(schema={MESSAGE: pl.Int64}), refused)


def _sort_out(number: int, value: bytes | None, lines: dict[int, bytes], refused: dict[int, str]) -> None:
    """Add a message that may be written unlike others to `lines` or `refused`."""
    text = (value or b"").strip(BLANK).replace(b"\n", b" ")  # a line end in JSON is a space, or a fault
    if not text or (text[:1] == b"{" and text[1:].strip(BLANK) == b"}"):
        refused[number] = EMPTY
    elif text[:1] == b"{":
        lines[number] = text
    else:
        refused[number] = NOT_JSON


def _read(
    lines: Sequence[bytes], numbers: Sequence[int], spec: SourceSpec, source: str
) -> tuple[pl.DataFrame, dict[int, str]]:
    """The rows of lines, and the rule by number of those refused. Raises DataError, PolarsError."""
    table = read_jsonl(b"\n".join(lines) + b"\n", f"the messages of {source}", spec.columns, spec.memory_bytes)
    messages, faults = pl.Series(MESSAGE, numbers, dtype=pl.Int64), dict[int, str]()
    if table.refused is not None:
        places = table.refused[ROW]
        faults = dict(zip(messages.gather(places).to_list(), table.refused[RULE].to_list(), strict=True))
        messages = messages.filter(~messages.is_in(list(faults)))
    if table.rows.height != messages.len():  # a line held two objects
        raise DataError(f"the messages of {source} are not one object each", subject=source)
    return table.rows.with_columns(messages), faults


def _without_misfits(rows: pl.DataFrame, refused: dict[int, str]) -> tuple[pl.DataFrame, dict[int, str]]:
    """`rows` without fields that no table can hold, and without the messages that have a value there."""
    misfits = {
        name: f"{name}:{'name' if name.startswith('__') else 'nested'}"
        for name, dtype in rows.schema.items()
        if name != MESSAGE and (name.startswith("__") or dtype.is_nested())
    }
    for name, rule in misfits.items():
        bad = rows.filter(pl.col(name).is_not_null())[MESSAGE].to_list()
        refused = dict.fromkeys(bad, rule) | refused
    if misfits:
        rows = rows.drop(misfits).filter(~pl.col(MESSAGE).is_in(list(refused)))
    return rows, refused


def _columns_of_text(schema: Mapping[str, pl.DataType], spec: SourceSpec, known: Mapping[str, DType]) -> set[str]:
    """Columns that the messages give a text, though they may be numbers or truth values in most of them."""
    return {
        name
        for name, dtype in schema.items()
        if isinstance(dtype, pl.String) and _KIND_OF.get(known.get(name, "int")) and not _is_typed(name, spec)
    } - {*spec.columns}


def _all_typed(lines: Mapping[int, bytes], schema: Mapping[str, pl.DataType]) -> bool:
    """Whether every message has values of these types alone, as JSON has them."""
    columns = {name: dtype for name, dtype in schema.items() if name != MESSAGE}
    typed = decode_typed(list(lines.values()), columns)
    return typed is not None and not typed.others


def _is_typed(name: str, spec: SourceSpec) -> bool:
    """Whether the declaration says how texts of a column are read."""
    rule = spec.rules.get(name)
    limits = (rule.type, rule.number_format, rule.date_format, rule.min, rule.max) if rule is not None else ()
    times = {*spec.known_times, *([spec.time.column] if spec.time else [])}
    return name in times or any(limit is not None for limit in limits)


def _find_faults(
    lines: Mapping[int, bytes], spec: SourceSpec, known: Mapping[str, DType], source: str
) -> dict[int, str]:
    """The messages that keep the others from being read, with the rule that each breaks."""
    faults: dict[int, str] = {}
    kinds = _kinds_of(lines, faults)
    roots = {path.split(".")[0] for path in spec.columns.values()}
    plain = {number: {name: fields[name] for name in fields.keys() - roots} for number, fields in kinds.items()}
    faults |= _of_other_kinds(plain, spec, known)
    return faults or dict.fromkeys(_unreadable_alone(list(lines.items()), spec, source), NOT_JSON)


def _kinds_of(
    lines: Mapping[int, bytes], faults: dict[int, str], names: Collection[str] | None = None
) -> dict[int, dict[str, _Kind]]:
    """The kind of each value by message and field (None: of all); messages that are no JSON object become `faults`."""
    decoder = msgspec.json.Decoder(dict[str, Any])
    kinds: dict[int, dict[str, _Kind]] = {}
    for number, line in lines.items():
        if number in faults:
            continue
        if line.count(b"{") + line.count(b"[") > 1 and is_deep(line.decode("utf-8", errors="replace")):
            faults[number] = DEPTH
            continue
        try:
            fields = decoder.decode(line)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            faults[number] = NOT_JSON
            continue
        kinds[number] = {
            name: _KINDS[type(value)]
            for name, value in fields.items()
            if value is not None and (names is None or name in names)
        }
    return kinds


def _of_other_kinds(
    kinds: Mapping[int, Mapping[str, _Kind]], spec: SourceSpec, known: Mapping[str, DType]
) -> dict[int, str]:
    """The messages with a value of another kind than its field had before, or has in most messages.

    A number or truth value in a field of texts is read as text.
    """
    counts: dict[str, Counter[_Kind]] = {}
    for fields in kinds.values():
        for name, kind in fields.items():
            counts.setdefault(name, Counter())[kind] += 1
    refused: dict[str, set[_Kind]] = {}
    for name, count in counts.items():
        plain = [kind for kind in _PLAIN if kind in count]
        usual = max(plain, key=lambda kind: count[kind], default=None)
        if _is_typed(name, spec):
            usual = "text" if "text" in count else usual  # which is read as declared
        elif name in known:
            usual = _KIND_OF.get(known[name], "text")
        if usual is not None:
            refused[name] = {"nested"} if usual == "text" else set(count) - {usual}
    return {
        number: f"{name}:{'nested' if kind == 'nested' else 'kind'}"
        for number, fields in kinds.items()
        for name, kind in fields.items()
        if kind in refused.get(name, ())
    }


def _unreadable_alone(lines: Sequence[tuple[int, bytes]], spec: SourceSpec, source: str) -> Iterator[int]:
    """The messages that cannot be read without any other."""
    try:
        _read([line for _, line in lines], [number for number, _ in lines], spec, source)
    except (DataError, pl.exceptions.PolarsError):
        if len(lines) == 1:
            yield lines[0][0]
            return
        middle = len(lines) // 2
        yield from _unreadable_alone(lines[:middle], spec, source)
        yield from _unreadable_alone(lines[middle:], spec, source)
