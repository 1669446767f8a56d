"""New projects from a user's own table: the shortest ones that train on it."""

from __future__ import annotations

import json
import keyword
import os
import re
from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from cumulant.core.errors import ProjectFileError, missing_part
from cumulant.ports.plugins import Drivers, scheme_of
from cumulant.project.file.document import parse_document
from cumulant.project.file.layers import FILE, folder_name
from cumulant.project.new import plain_columns
from cumulant.project.new.calendar_parts import CalendarPart
from cumulant.project.new.elapsed_days import Elapsed
from cumulant.project.new.inspection import Inspection, inspect_table
from cumulant.project.new.new_folder import new_folder, target_folder
from cumulant.project.new.table_sample import fields_notes, read_sample
from cumulant.project.new.templates import Created, write_schema
from cumulant.training.spec import WITHOUT_PART

if TYPE_CHECKING:
    from cumulant.data.spec import Member, RuleSpec, SourceSpec

_SOURCE = "rows"
#: trainers of a new project, where they are installed. The perceptron is last: its first fit, which may be slow, then
#: takes no time from the searches of the others
_TRAINERS = ("naive", "linear", "lightgbm", "xgboost", "catboost", "mlp")
#: text that may stand unquoted; whether it reads back as text is tried all the same
_PLAIN = re.compile(r"[A-Za-z_./][A-Za-z0-9_ ./*<>=+-]*[A-Za-z0-9_*]|[A-Za-z_]")
_PLAIN_IN_LIST = re.compile(r"[A-Za-z_][A-Za-z0-9_./-]*")


def create_from(
    file: Path | str,
    target: str,
    *,
    name: str,
    directory: Path | str = ".",
    time: str | None = None,
    key: str | Sequence[str] = (),
    sheet: str | None = None,
) -> Created:
    """A new project `directory/name` that predicts `target` from the other columns of `file`.

    `file` is a path, folder, glob or URL in a format of sources; `sheet` names a sheet of an Excel workbook. The file
    is referred to and never copied: by a relative path where it was given as one. `time` and `key` name columns; left
    out, they are looked for.

    Raises:
        DataError: the file cannot be read, a column does not exist, or the target has fewer than two values.
        UsageError: the name cannot be one, the place is taken, or no column is left to learn from.
        StorageError: the project cannot be written; nothing is left behind.
        MissingPartError: Polars is not installed.
    """
    _engines()
    parent = Path(directory).absolute()
    root = target_folder(name, parent)
    path = _reference(str(file), root)
    sample = read_sample(str(file), Drivers.installed(), sheet=sheet)
    raw = sample.rows
    inspection = inspect_table(
        raw,
        path=path,
        target=target,
        time=time,
        key=_columns(key),
        known=sample.spec,
        quoted=sample.quoted,
        whole=sample.whole,
    )
    with new_folder(name, parent) as content:
        _write(content, inspection, target, name=folder_name(root))
    return Created(
        root, (f"{raw.height:,} rows and {raw.width} columns were looked at", *sample.notes, *inspection.notes)
    )


def create_from_frame(
    frame: object,
    target: str,
    *,
    name: str,
    directory: Path | str = ".",
    time: str | None = None,
    key: str | Sequence[str] = (),
) -> Created:
    """A new project from a Polars, pandas or PyArrow table, which is written to `data/NAME.parquet` inside it.

    Raises:
        DataError, UsageError, StorageError: see `create_from`; also for what is no table.
    """
    _engines()
    from cumulant.data.files.user_frames import to_polars
    from cumulant.data.formats.nested_paths import columns_of, with_nested
    from cumulant.data.spec import SourceSpec

    parent = Path(directory).absolute()
    root = target_folder(name, parent)
    notes: list[str] = []
    if type(frame).__module__.partition(".")[0] == "pandas":
        frame, notes = plain_columns.mixed_as_text(frame)
    raw, left_out = plain_columns.storable(to_polars(frame, source="the frame"))
    path = f"data/{name}.parquet"
    columns, lists = columns_of(raw.schema)
    rows, _ = with_nested(raw, columns, "the frame")
    known = SourceSpec(columns=columns)
    inspection = inspect_table(rows, path=path, target=target, time=time, key=_columns(key), known=known)
    with new_folder(name, parent) as content:
        (content / "data").mkdir()
        raw.write_parquet(content / path, compression="zstd")
        _write(content, inspection, target, name=folder_name(root))
    return Created(
        root,
        (
            f"{raw.height:,} rows were written to {path}",
            *notes,
            *left_out,
            *fields_notes(columns, lists),
            *inspection.notes,
        ),
    )


def _engines() -> None:
    try:
        import_module("polars")  # the packages below import it by themselves
    except ModuleNotFoundError as error:
        raise missing_part("polars", "local") from error


def _columns(key: str | Sequence[str]) -> tuple[str, ...]:
    return (key,) if isinstance(key, str) else tuple(key)


def _reference(file: str, root: Path) -> str:
    """How the project file names the data: as given, but a relative path from the project's folder."""
    if (scheme := scheme_of(file)) is not None and len(scheme) > 1 and "://" in file:
        return file
    path = Path(file).expanduser()
    if path.is_absolute():
        return str(path)
    return Path(os.path.relpath(Path.cwd() / path, root)).as_posix()


def _write(folder: Path, inspection: Inspection, target: str, *, name: str) -> None:
    (folder / FILE).write_text(project_text(inspection.spec, target, name=name), encoding="utf-8")
    (folder / "features.py").write_text(
        features_text(inspection.features, inspection.calendar, inspection.elapsed), encoding="utf-8"
    )
    if inspection.nested:
        text = plain_columns.prepare_text([_quoted(name) for name in inspection.nested])
        (folder / plain_columns.FILE).write_text(text, encoding="utf-8")
    (folder / ".gitignore").write_text(".cumulant/\n", encoding="utf-8")
    write_schema(folder)


def project_text(spec: SourceSpec, target: str, *, name: str) -> str:
    """The project file: what differs from the defaults, and the name, which a copy of the folder keeps."""
    lines = [
        "# yaml-language-server: $schema=cumulant.schema.json",
        "version: 1",
        f"model: {{name: {yaml_text(name)}}}",
        "data:",
        f"  {_SOURCE}:",
        f"    path: {yaml_text(spec.path)}",
    ]
    lines += _dialect(spec)
    if spec.columns:
        lines += [
            "    columns:",
            *(f"      {yaml_text(name)}: {yaml_text(path)}" for name, path in spec.columns.items()),
        ]
    if spec.prepare is not None:
        lines.append(f"    prepare: {yaml_text(spec.prepare)}")
    if spec.keys:
        lines.append(f"    key: {_flow(spec.keys) if len(spec.keys) > 1 else yaml_text(spec.keys[0])}")
    if (event := spec.time) is not None:
        column = yaml_text(event.column)
        value = f"{{column: {column}, zone: {event.zone}}}" if event.zone else column
        lines.append(f"    event_time: {value}")
    if spec.personal:
        lines.append(f"    personal: {_flow(spec.personal)}")
    if typed := {column: rule for column, rule in spec.rules.items() if rule.type is not None or rule.in_}:
        lines += ["    rules:", *(f"      {yaml_text(column)}: {_rule(rule)}" for column, rule in typed.items())]
    lines += ["training:", f"  target: {yaml_text(_expression(target))}"]
    trainers = [name for name in _TRAINERS if name in WITHOUT_PART or find_spec(name) is not None]
    lines.append(f"  trainers: {_flow(trainers)}  # averaged where that is better than the best of them")
    return "\n".join([*lines, "  final_fit: all  # after the test, the test rows are learned from too", ""])


def _dialect(spec: SourceSpec) -> list[str]:
    """How a file is read, where it differs from the defaults."""
    lines = []
    if spec.separator != ",":
        lines.append(f"    separator: {yaml_text(spec.separator)}")
    if spec.encoding != "utf-8":
        lines.append(f"    encoding: {yaml_text(spec.encoding)}")
    if spec.sheet is not None:
        lines.append(f"    sheet: {yaml_text(spec.sheet)}")
    if spec.missing:
        lines.append(f"    missing: {_flow(spec.missing)}")
    return lines


def _rule(rule: RuleSpec) -> str:
    formats = {"number_format": rule.number_format, "date_format": rule.date_format}
    written: dict[str, str] = {} if rule.type is None else {"type": rule.type}
    written |= {key: yaml_text(form) for key, form in formats.items() if form is not None}
    if rule.in_:
        written["in"] = _flow(rule.in_)
    return f"{{{', '.join(f'{key}: {text}' for key, text in written.items())}}}"


def _expression(column: str) -> str:
    """A target that is a column: its name, or `col("...")` where blanks around it would be lost."""
    return column if column == column.strip() else f"col({_quoted(column)})"


def features_text(
    columns: Sequence[str], calendar: Sequence[CalendarPart] = (), elapsed: Sequence[Elapsed] = ()
) -> str:
    """The features file: columns of the row, by name; those with a leading underscore under a name without it; parts of
    the event time, and days from other times to it.
    """
    plain = [column for column in columns if not column.startswith("_")]
    derived = [*(part.feature for part in calendar), *(days.feature for days in elapsed)]
    taken = [*plain, *derived]
    renamed = _public_names([column for column in columns if column.startswith("_")], taken=taken)
    lines = [
        '"""What the model may use. Public names below are features."""',
        "",
        f"from cumulant.features import {'col, ' if renamed or derived else ''}source",
        "",
        f'{_SOURCE} = source("{_SOURCE}")',
        "",
        "# Every column of the row that a request brings. Add expressions and windows below.",
    ]
    if plain:
        lines += [f"columns = {_SOURCE}.columns(", *(f"    {_quoted(column)}," for column in plain), ")"]
    lines += [f"{name} = col({_quoted(column)})" for column, name in renamed.items()]
    if calendar:
        lines += [
            "",
            '# Parts of the event time, in UTC. For a local clock name its zone: .hour("Europe/Paris"); where the',
            "# times have no offset, also declare it in cumulant.yaml: event_time: {column: NAME, zone: Europe/Paris}.",
        ]
        lines += [f"{part.feature} = col({_quoted(part.column)}).dt.{part.part}()" for part in calendar]
    if elapsed:
        lines += ["", "# Days from other times of the row to the event time."]
        lines += [
            f"{days.feature} = col({_quoted(days.column)}).dt.seconds_since(col({_quoted(days.since)})) / 86_400"
            for days in elapsed
        ]
    return "\n".join([*lines, ""])


def _public_names(columns: Sequence[str], *, taken: Sequence[str]) -> dict[str, str]:
    """Column to a name that a public variable can have and that nothing else in the features file has."""
    used = {*taken, _SOURCE, "columns", "col", "source"}
    names: dict[str, str] = {}
    for column in columns:
        stem = column.strip("_")
        name = stem = (
            stem
            if stem.isascii() and stem.isidentifier() and not keyword.iskeyword(stem)
            else f"column_{len(names) + 1}"
        )
        number = 2
        while name in used:
            name, number = f"{stem}_{number}", number + 1
        used.add(name)
        names[column] = name
    return names


def _quoted(column: str) -> str:
    return json.dumps(column, ensure_ascii=False)


def yaml_text(text: str, *, plain: re.Pattern[str] = _PLAIN) -> str:
    """`text` as a YAML scalar that reads back as the same text, quoted only where it must be."""
    if plain.fullmatch(text):
        try:
            if parse_document(f"a: {text}", "").plain() == {"a": text}:
                return text
        except ProjectFileError:
            pass
    return f'"{"".join(_escaped(letter) for letter in text)}"'


def _escaped(letter: str) -> str:
    if letter in '"\\':
        return f"\\{letter}"
    if letter == "\t":
        return "\\t"
    if letter.isprintable():
        return letter
    code = ord(letter)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _flow(values: Sequence[Member]) -> str:
    written = (
        yaml_text(member, plain=_PLAIN_IN_LIST) if isinstance(member, str) else json.dumps(member) for member in values
    )
    return f"[{', '.join(written)}]"
