"""Import of predictions that were logged elsewhere, as files of the prediction log."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping
from datetime import UTC, date, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import msgspec

from cumulant.core.errors import DataError, UsageError, did_you_mean
from cumulant.core.masking import mask
from cumulant.core.plan import Field
from cumulant.core.units import EPOCH, micros
from cumulant.outcomes.labels import label_files
from cumulant.outcomes.labels.label_rows import parse_value, read_moment
from cumulant.outcomes.labels.target_values import parse_number
from cumulant.outcomes.logs import writing_to
from cumulant.ports.log import Log
from cumulant.serving.prediction_log.personal_values import convert_value
from cumulant.serving.prediction_log.storage.log_folder import list_day_files, list_days

if TYPE_CHECKING:
    from cumulant.serving.prediction_log.storage.part_writer import LogPart

_ENCODE = msgspec.json.Encoder(enc_hook=str).encode
_DECODE = msgspec.json.Decoder().decode
#: what a column of the file may be
PARTS = ("id", "row", "time", "event_time", "model", "version", "arm", "score", "prediction", "probabilities")
#: days whose rows are gathered at a time
_OPEN = 32
#: reports of imports, among the log's records
_IMPORTS = "imports"


_Show = Callable[[str, object], object]


class ImportReport(msgspec.Struct, frozen=True, kw_only=True):
    """`rows` came into the log; `refused` have no id, no time or no answer, or are of the future, as `future` of them.
    `again`: nothing was added.
    """

    content: str
    rows: int
    refused: int
    future: int = 0
    again: bool = False


class Defaults(msgspec.Struct, frozen=True, kw_only=True):
    """Values of parts that the file does not have."""

    model: str
    version: str = "imported"


def import_predictions(
    predictions: Log,
    path: Path,
    names: Mapping[str, str],
    defaults: Defaults,
    *,
    fields: Mapping[str, Field],
    salt: bytes,
    key: Collection[str] = (),
    until: datetime | None = None,
) -> ImportReport:
    """Write the file's rows into the prediction log; all of them, once, whatever is killed.

    `names` maps parts (`PARTS`) to columns; every other column is a part of the request, and so are the
    columns of `key`, by which labels find a prediction. Texts of a CSV file get the types of `fields`; values of those
    that are personal become keyed hashes. Rows that were answered after `until` are refused: no answer is of the
    future, and its day would stay in the log for ever and be the newest of every evaluation. A file of which nothing
    came in may be imported again, with other `names`.

    Raises:
        UsageError: a part that there is not, or no column for the answer.
        DataError: the file cannot be read, or lacks a column.
        StorageError: the log cannot be written; nothing of it was.
    """
    _check(names)
    content = label_files.content_hash(path)
    note = f"{_IMPORTS}/{content}.json"
    if (known := predictions.state(note)) is not None:
        return msgspec.structs.replace(msgspec.json.decode(known, type=ImportReport), again=True)
    shown = _value_masker(fields, salt)
    with TemporaryDirectory(prefix="cumulant-import-") as scratch:
        draft = Path(scratch)
        report = _ImportWriter(draft, content, names, defaults, shown, key=key, until=until).write(path)
        _publish(draft, predictions)
    if report.rows:
        predictions.put_state(note, msgspec.json.encode(report))
    return report


def _check(names: Mapping[str, str]) -> None:
    for part in names:
        if part not in PARTS:
            hint = did_you_mean(part, PARTS) or f"parts: {', '.join(PARTS)}"
            raise UsageError(f'"{part}" is no part of a prediction', subject=part, hint=hint)
    if not {"id", "time"} <= names.keys() or not {"score", "prediction"} & names.keys():
        raise UsageError(
            "the columns of id, time and answer are not named", hint="--map id=COLUMN,time=COLUMN,score=COLUMN"
        )


class _ImportWriter:
    def __init__(
        self,
        draft: Path,
        content: str,
        names: Mapping[str, str],
        defaults: Defaults,
        shown: _Show,
        *,
        key: Collection[str],
        until: datetime | None,
    ) -> None:
        self._draft, self._content, self._names, self._defaults = draft, content, names, defaults
        self._shown, self._used = shown, set(names.values()) - set(key)
        self._until = until
        self._parts: dict[date, LogPart] = {}
        self._number = 0

    def write(self, path: Path) -> ImportReport:
        rows = refused = future = 0
        for given in self._rows(path):
            read = self._read(given, rows + 1)
            ahead = read is not None and self._until is not None and read[2] > self._until
            if read is None or ahead:
                refused, future = refused + 1, future + ahead
                continue
            rows += 1
            with writing_to(str(self._draft)):
                self._part(read[2].date()).add(read, 300)
        with writing_to(str(self._draft)):
            self._close()
        return ImportReport(content=self._content, rows=rows, refused=refused, future=future)

    def _rows(self, path: Path) -> Iterator[object]:
        for place, batch in enumerate(label_files.read_batches(path)):
            if place == 0:
                known = {str(name) for row in batch if isinstance(row, dict) for name in row}
                for column in self._names.values():
                    if column not in known:
                        hint = did_you_mean(column, known) or f"columns: {', '.join(sorted(known)[:12])}"
                        raise DataError(f"{path} has no column {column}", subject=str(path), hint=hint)
            yield from batch

    def _part(self, day: date) -> LogPart:
        # The same file has the same parts, by name and content, however often it is begun.
        if day not in self._parts:
            from cumulant.serving.prediction_log.storage.part_writer import LogPart

            if len(self._parts) >= _OPEN:
                self._close()
            self._number += 1
            ordinal = (day - EPOCH.date()).days
            self._parts[day] = LogPart(self._draft, ordinal, f"imported.{self._content}", self._number)
        return self._parts[day]

    def _close(self) -> None:
        for part in self._parts.values():
            part.close()
        self._parts = {}

    def _read(self, given: object, sequence: int) -> tuple[Any, ...] | None:
        """The row in the order of the log's columns; None where it has no id, no time or no answer."""
        if not isinstance(given, dict):
            return None
        parts = {part: given.get(column) for part, column in self._names.items()}
        when, answer = _time(parts.get("time")), _outputs(parts)
        if parts.get("id") in (None, "") or when is None or not answer:
            return None
        moment = _time(parts.get("event_time"))
        request = {name: self._shown(name, value) for name, value in given.items() if name not in self._used}
        row = parse_number(parts.get("row") or 0)
        return (
            str(parts["id"]),
            int(row or 0),
            when,
            moment,
            str(parts.get("model") or self._defaults.model),
            str(parts.get("version") or self._defaults.version),
            str(parts.get("arm") or ""),
            str(parts.get("arm") or ""),
            False,
            "",
            None,
            _ENCODE(request).decode(),
            _ENCODE(answer).decode(),
            0,
            "",
            f"imported.{self._content}",
            sequence,
            "",
            "",
            "",
            "",
            "",
            "",
            "",
        )


def _value_masker(fields: Mapping[str, Field], salt: bytes) -> _Show:
    """A value of the request as it may stand in the log."""

    def show(name: str, value: object) -> object:
        field = fields.get(name)
        if field is None or value is None:
            return value
        sent = _typed_value(value, field)
        return sent if sent is None or not field.personal else mask(convert_value(sent, field), salt)

    return show


def _typed_value(value: object, field: Field) -> object:
    """A text of a CSV file as a caller would have sent it; as it stands where it is no value of the field's type."""
    if not isinstance(value, str) or field.dtype not in ("bool", "int", "float"):
        return value
    if not value.strip():
        return None
    with contextlib.suppress(ValueError):
        return convert_value(int(value), field)
    return convert_value(parse_value(value), field)


def _outputs(parts: Mapping[str, Any]) -> dict[str, object]:
    """The outputs: a score is a probability where a prediction stands beside it, or else the predicted number."""
    score, prediction, several = parse_number(parts.get("score")), parts.get("prediction"), _class_probabilities(parts)
    prediction = parse_value(prediction) if isinstance(prediction, str) else prediction
    if prediction in (None, ""):
        return {} if score is None else {"score": score}
    if score is None and several:
        score = max(several.values())
    outputs: dict[str, object] = {"prediction": prediction} | ({} if score is None else {"probability": score})
    return outputs | {"probabilities": several} if several else outputs


def _class_probabilities(parts: Mapping[str, Any]) -> dict[str, float]:
    """The probability of each class by its name: of a column of structs, or of JSON objects as text."""
    given = parts.get("probabilities")
    if isinstance(given, str):
        with contextlib.suppress(msgspec.DecodeError):
            given = _DECODE(given)
    if not isinstance(given, Mapping):
        return {}
    return {str(name): figure for name, value in given.items() if (figure := parse_number(value)) is not None}


def _time(value: object) -> datetime | None:
    if value in (None, ""):
        return None
    with contextlib.suppress(ValueError, TypeError, OverflowError):
        moment = read_moment(value, UTC)
        micros(moment - EPOCH)
        return moment
    return None


def _publish(draft: Path, predictions: Log) -> None:
    """Append the files to the log. Cut off, the next attempt appends parts of the same names and content."""
    for day, folder in list_days(draft):
        for part in list_day_files(draft, day):
            with predictions.append(part) as stream, (folder / part.name).open("rb") as source:
                shutil.copyfileobj(source, stream)
