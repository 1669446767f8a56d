"""The `data` section of the project file: one `SourceSpec` a source."""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from cumulant.core.errors import DataError
from cumulant.core.plan import DType
from cumulant.core.units import size
from cumulant.data.corrections.repeat_spec import DeletedRows, OnRepeat, SequenceBy
from cumulant.data.rules.verdict_spec import BatchPolicy, Range, Severities, Severity, ShareRange, TableRule
from cumulant.data.schema_policy import ChangePolicy, SchemaPolicy
from cumulant.ports.streams import SchemaKind

_MISSING_FILES = "1%"
Format = Literal["auto", "parquet", "orc", "csv", "jsonl", "excel", "avro", "protobuf"]
Member = bool | int | float | str
NumberFormat = Literal["1,234.5", "1.234,5"]
DateFormat = Literal["31/12/2024", "12/31/2024", "2024/12/31"]
Bound = int | float | str
#: attributes of a declaration that do not change which rows a snapshot holds
_NOT_READING = frozenset(
    {
        *("path", "stream", "lateness", "idle", "quarantine", "severity", "batch", "table", "on_schema_change"),
        *("keep", "keep_refused", "contract", "missing_files", "owner", "freshness", "ttl", "on_expired"),
    }
)
#: keys of a column's rules that decide whether a snapshot is accepted, and not which rows it holds
_VERDICT_KEYS = ("mean", "quantiles", "shares", "drift", "severity")


class EventTime(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """When a row happened, where the data hold local times."""

    column: Annotated[str, Meta(description="The column that holds the time of the row's event.")]
    zone: Annotated[
        str | None, Meta(description="The IANA zone in which times without an offset are read, such as `UTC`.")
    ] = None


class RuleSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Rules of one column. Nulls break a rule only where `nulls` is limited."""

    type: Annotated[
        DType | None, Meta(description="The column's type; rows whose value cannot be read as it are refused.")
    ] = None
    number_format: Annotated[
        NumberFormat | None,
        Meta(
            description="How the numbers of a text column are written; its type is then float, or int where `type` "
            "declares it. A currency sign, a common ISO 4217 code such as EUR, or `%` beside the number is dropped, so "
            "that `12%` is 12, and `(5)` is -5. Requests carry plain numbers."
        ),
    ] = None
    date_format: Annotated[
        DateFormat | None,
        Meta(
            description="The order of day, month and year in a text column of dates; its type is then time, or date "
            "if `type` declares it. The marks may be `/`, `.` or `-`, the year may have two digits, and a time of day "
            "may follow (`15:04:05`, `3:04 PM`). ISO 8601 needs no format, and is what requests carry."
        ),
    ] = None
    nulls: Annotated[
        str | float | None,
        Meta(
            description="The largest share of nulls (`5%` or `0.05`), over the source and over each new batch; `0` "
            "refuses each such row, and each whose text is blank or whose number is infinite."
        ),
    ] = None
    min: Annotated[Bound | None, Meta(description="The smallest allowed number or time.")] = None
    max: Annotated[Bound | None, Meta(description="The largest allowed number or time.")] = None
    in_: Annotated[list[Member] | None, Meta(description="The allowed values.")] = msgspec.field(
        default=None, name="in"
    )
    pattern: Annotated[
        str | None,
        Meta(description="A regular expression that the text must contain; anchor it with `^` and `$`."),
    ] = None
    unique: Annotated[bool, Meta(description="Each value once in the source; repeats are refused.")] = False
    references: Annotated[
        str | None,
        Meta(description="`source.column` that must hold each value; other values are refused."),
    ] = None
    mean: Annotated[
        Range | None, Meta(description="The mean of each new batch; broken where its confidence interval is outside.")
    ] = None
    quantiles: Annotated[
        dict[str, Range],
        Meta(
            description="Quantiles of each new batch, such as `{50%: {min: 10, max: 20}}`; by an exact binomial test."
        ),
    ] = {}
    shares: Annotated[
        dict[str, ShareRange],
        Meta(
            description="The share of a value among the values of each new batch, such as `{card: {min: 30%}}`; by an "
            "exact binomial test."
        ),
    ] = {}
    drift: Annotated[
        Annotated[float, Meta(ge=0, le=1)] | None,
        Meta(
            description="The greatest distance (Jensen-Shannon, 0 to 1; nulls count as a value) of each new batch from "
            "the rows accepted before; 0.1 is a small change, 0.3 a large one. Broken where its interval is above."
        ),
    ] = None
    severity: Annotated[
        Severity | None,
        Meta(
            description="What breaking the column's rules does: `fail` refuses the snapshot, `warn` accepts it with a "
            "warning. Rows that break a rule go to quarantine either way; with `warn` they do not count towards its "
            "limit. Default: `severity` of the source."
        ),
    ] = None
    description: Annotated[str, Meta(description="What the column means, for readers.")] = ""

    @property
    def gives_verdicts_only(self) -> bool:
        """Whether it has no rule on single rows."""
        default = RuleSpec()
        values = {key: getattr(default, key) for key in _VERDICT_KEYS}
        return self != default and msgspec.structs.replace(self, **values) == default


class SourceSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One source: where its rows are, what identifies them, when they are known, and their rules."""

    path: Annotated[
        str,
        Meta(
            description="A file, folder, glob, or URL (`s3://`, `gs://`, `az://`); relative to the project. Folders "
            "below it that are named `column=value` are columns."
        ),
    ] = ""
    stream: Annotated[
        str | None,
        Meta(
            description="In place of a path: the topic whose messages, one object each, `cumulant ingest run` ingests: "
            "JSON, or what `format` says. Where topics are, `streams` of the environment says."
        ),
    ] = None
    format: Annotated[
        Format,
        Meta(
            description="The file format; `auto` goes by the file's name. Of a stream: `avro` or `protobuf`, by the "
            "registry that `schemas` of the environment names, or `auto`: JSON."
        ),
    ] = "auto"
    separator: Annotated[str, Meta(description="The separator of CSV fields.", min_length=1, max_length=1)] = ","
    encoding: Annotated[str, Meta(description="The text encoding of CSV files.")] = "utf-8"
    sheet: Annotated[
        str | None,
        Meta(description="The sheet of an Excel workbook. Default: the only one that is visible."),
    ] = None
    missing: Annotated[
        list[str], Meta(description="Texts of a CSV or Excel file that mean a missing value, such as `?`.")
    ] = []
    columns: Annotated[
        dict[str, str],
        Meta(
            description="Columns that are taken from structs, JSON objects and JSON texts: name to path, such as "
            "`{city: address.city}`. A row without a value there has null; one with a list or an object is refused."
        ),
    ] = {}
    prepare: Annotated[
        str | None,
        Meta(
            description="`file.py:function`: your own cleaning, row by row, with Polars or pandas. It may drop rows, "
            "which are counted."
        ),
    ] = None
    key: Annotated[
        str | list[str],
        Meta(description="The column or columns that identify a row; `on_repeat` sets how repeats are handled."),
    ] = []
    on_repeat: OnRepeat = "quarantine"
    sequence_by: SequenceBy = None
    deleted: Annotated[
        DeletedRows | None,
        Meta(description="Rows that delete the row of their key, such as `{column: op, values: [D]}`."),
    ] = None
    event_time: Annotated[
        str | EventTime | None, Meta(description="The column with the time of the row's event, and its zone.")
    ] = None
    known_time: Annotated[
        dict[str, str | list[str]],
        Meta(
            description="When columns become known: a time column, or a delay after the event such as `7d`, to the "
            "columns concerned. All others are known with the row."
        ),
    ] = {}
    lateness: Annotated[
        str | None,
        Meta(
            description="Of a stream: how much older than the newest row before it in its partition a row may be, such "
            "as `1h`. Later ones are stored and counted, and are in online features once these are filled again. "
            "Default: rows are never too late."
        ),
    ] = None
    idle: Annotated[
        str | None,
        Meta(
            description="Of a stream: after how long without a row a partition no longer holds back the watermark, "
            "such as `5m`. Default: 1m."
        ),
    ] = None
    rules: Annotated[dict[str, RuleSpec], Meta(description="Column to its rules.")] = {}
    table: Annotated[TableRule, Meta(description="Rules of the source as a whole.")] = TableRule()
    contract: Annotated[
        str | None,
        Meta(description="An Open Data Contract Standard file; its rules are added, `rules` here go before them."),
    ] = None
    quarantine: Annotated[
        str | float,
        Meta(
            description="The largest share of rows that may be refused, of the source and of each new batch; above it "
            "the run stops. A batch breaks it where chance does not explain the excess (exact binomial test)."
        ),
    ] = "1%"
    missing_files: Annotated[
        str | float,
        Meta(
            description="The largest share of rows that may be lost with files that are gone, or have fewer rows, "
            "since the last accepted snapshot and that other files do not make up for; above it the run stops. `100%` "
            "accepts every loss."
        ),
    ] = _MISSING_FILES
    severity: Annotated[
        Severities | Severity,
        Meta(
            description="What a broken rule does: one word for all but `unreadable_files`, or by rule. A column may "
            "set its own."
        ),
    ] = Severities()
    batch: Annotated[BatchPolicy, Meta(description="How new rows are evaluated, beside the source as a whole.")] = (
        BatchPolicy()
    )
    personal: Annotated[list[str], Meta(description="Columns with personal data: shown only as keyed hashes.")] = []
    subject: Annotated[
        str | None,
        Meta(
            description="The column that says whose row it is, such as a customer's number: one of the key, or one "
            "that `personal` or `rules` names. `cumulant subjects` finds and erases rows by it.",
            extra={"advice": "a subject is one column; where several say whose row it is, return one from `prepare`"},
        ),
    ] = None
    on_schema_change: Annotated[
        SchemaPolicy | ChangePolicy, Meta(description="What to do when columns differ from the last accepted snapshot.")
    ] = SchemaPolicy()
    memory: Annotated[
        str | None,
        Meta(
            description="The most memory that one Parquet, ORC or JSON lines file may take when it is read, such as "
            "`8GiB`. Default: half of the machine's."
        ),
    ] = None
    keep: Annotated[
        str | None,
        Meta(description="How long old snapshots are kept, such as `400d`; the newest always is. Default: forever."),
    ] = None
    owner: Annotated[
        str, Meta(description="Who answers for the features that are stored of the source. Default: the model's owner.")
    ] = ""
    freshness: Annotated[
        str | None, Meta(description="How old the newest stored event may be, such as `10m`; an older one is an alert.")
    ] = None
    ttl: Annotated[
        str | None,
        Meta(description="The largest age of an entity's newest event in `features get --online`; then `on_expired`."),
    ] = None
    on_expired: Annotated[
        Literal["missing", "refuse"],
        Meta(description="Features of an entity beyond `ttl`: `missing`, they are null; `refuse`, the read fails."),
    ] = "missing"
    keep_refused: Annotated[
        str | None,
        Meta(description="With `stream`: how long refused messages are kept, such as `90d`. Default: forever."),
    ] = None

    def plain(self) -> dict[str, Any]:
        """The declaration as values, without later keys that are not set, so that its identity stays."""
        values: dict[str, Any] = msgspec.to_builtins(self)
        for key in ("memory", "owner", "freshness", "ttl", "on_expired"):  # they change nothing of what is read
            del values[key]
        unset = {
            "on_repeat": self.on_repeat == "quarantine",
            "deleted": self.deleted is None,
            "sequence_by": self.sequence_by is None,
            "columns": not self.columns,
            "subject": self.subject is None,
            "stream": self.stream is None,
            "lateness": self.lateness is None,
            "idle": self.idle is None,
            "keep_refused": self.keep_refused is None,
            "sheet": not self.sheet,
            "missing_files": self.missing_files == _MISSING_FILES,
            "batch": self.batch == BatchPolicy(),
            "severity": self.severities == Severities(),
        }
        for key in (key for key, left_out in unset.items() if left_out):
            del values[key]
        for rule in values["rules"].values():
            for key in ("number_format", "date_format", *_VERDICT_KEYS):
                if not rule[key] and rule[key] != 0:
                    del rule[key]
        return values

    def reading_values(self) -> dict[str, Any]:
        """The declared values that decide which rows pass, and how they are read."""
        values = {key: value for key, value in self.plain().items() if key not in _NOT_READING}
        for column, rule in self.rules.items():
            for key in _VERDICT_KEYS:
                values["rules"][column].pop(key, None)
            if rule.gives_verdicts_only:
                del values["rules"][column]
        return values

    @property
    def registered(self) -> SchemaKind | None:
        """The kind of its messages' schemas in a registry; None: they are JSON."""
        return self.format if self.format in ("avro", "protobuf") else None

    @property
    def number_formats(self) -> dict[str, NumberFormat]:
        """Columns of text whose numbers are written in a format of their own."""
        return {name: rule.number_format for name, rule in self.rules.items() if rule.number_format is not None}

    @property
    def date_formats(self) -> dict[str, DateFormat]:
        """Columns of text whose dates are not written in ISO 8601."""
        return {name: rule.date_format for name, rule in self.rules.items() if rule.date_format is not None}

    @property
    def keys(self) -> tuple[str, ...]:
        return (self.key,) if isinstance(self.key, str) else tuple(self.key)

    @property
    def declared_columns(self) -> frozenset[str]:
        """The columns of the key, and those that `personal`, `rules` and `columns` name."""
        return frozenset({*self.keys, *self.personal, *self.rules, *self.columns})

    @property
    def known_times(self) -> tuple[str, ...]:
        """The columns of times at which others become known."""
        return tuple(when for when in self.known_time if not is_delay(when))

    @property
    def memory_bytes(self) -> int | None:
        """The most memory that one file may take, in bytes."""
        return None if self.memory is None else size(self.memory)

    @property
    def time(self) -> EventTime | None:
        return EventTime(column=self.event_time) if isinstance(self.event_time, str) else self.event_time

    @property
    def policy(self) -> SchemaPolicy:
        answer = self.on_schema_change
        if isinstance(answer, SchemaPolicy):
            return answer
        return SchemaPolicy(added=answer, widened=answer, removed=answer, narrowed=answer, renamed=answer)

    @property
    def severities(self) -> Severities:
        word = self.severity
        if isinstance(word, Severities):
            return word
        rules = (name for name in Severities.__struct_fields__ if name != "unreadable_files")  # whole files would go
        return Severities(**dict.fromkeys(rules, word))

    @property
    def known_columns(self) -> dict[str, str]:
        """Column to the key of `known_time` that sets when it is known.

        Raises:
            DataError: a column is named under two of them.
        """
        keys_by_column: dict[str, str] = {}
        for when, named in self.known_time.items():
            for column in [named] if isinstance(named, str) else named:
                if column in keys_by_column:
                    raise DataError(
                        f'column "{column}" is under known_time twice: "{keys_by_column[column]}" and "{when}"',
                        subject=column,
                        hint="name each column once",
                    )
                keys_by_column[column] = when
        return keys_by_column


def is_delay(text: str) -> bool:
    """Whether a key of `known_time` is a duration and not a column."""
    return text[:1].isdigit()
