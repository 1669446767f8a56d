"""What a source declares of its batches of rows and of broken rules: ranges of figures, and which refuse a snapshot."""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

Severity = Literal["warn", "fail"]
Period = Literal["hour", "day", "week", "month"]


class Range(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a figure of a batch may be."""

    min: Annotated[float | None, Meta(description="The least.")] = None
    max: Annotated[float | None, Meta(description="The greatest.")] = None


class ShareRange(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a share of a batch's rows may be."""

    min: Annotated[str | float | None, Meta(description="The least share, such as `30%`.")] = None
    max: Annotated[str | float | None, Meta(description="The greatest share, such as `60%`.")] = None


class Severities(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a broken rule of the source does: `fail` refuses the snapshot, `warn` accepts it with a warning."""

    quarantine: Annotated[Severity, Meta(description="More rows refused than `quarantine` allows.")] = "fail"
    columns: Annotated[Severity, Meta(description="Rules of columns that set no `severity` of their own.")] = "fail"
    where: Annotated[Severity, Meta(description="Rows refused by `table.where`.")] = "fail"
    min_rows: Annotated[Severity, Meta(description="Fewer rows than `table.min_rows` or `batch.min_rows`.")] = "fail"
    max_rows: Annotated[Severity, Meta(description="More rows than `table.max_rows` or `batch.max_rows`.")] = "fail"
    fresh: Annotated[Severity, Meta(description="No event as new as `table.fresh` requires.")] = "fail"
    unreadable_files: Annotated[
        Severity,
        Meta(
            description="Files that cannot be read: damaged, empty or in another format; `warn` goes on without them."
        ),
    ] = "fail"


class BatchPolicy(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How the rows that a run reads for the first time are evaluated, beside the source as a whole."""

    period: Annotated[
        Period | None,
        Meta(
            description="Evaluate the new rows by this period of `event_time` too, in its zone (default UTC). Without "
            "it they are evaluated by file: each new file, the rows added to a file, and all of them together."
        ),
    ] = None
    min_rows: Annotated[
        Annotated[int, Meta(ge=0)] | str | None,
        Meta(
            description="The fewest rows of a new file, or of the rows added to one: a number, or a share (`50%`) of "
            "the median of the last 30 such batches, once there are 3. A share is broken only beyond chance (Poisson)."
        ),
    ] = None
    max_rows: Annotated[
        Annotated[int, Meta(ge=0)] | str | None,
        Meta(description="The most rows of a new file, or of the rows added to one: a number, or a share (`200%`)."),
    ] = None
    severity: Annotated[
        Severity,
        Meta(
            description="What a rule does that only a new batch breaks: `fail` refuses the snapshot, `warn` accepts it "
            "with a warning."
        ),
    ] = "fail"


class TableRule(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Rules of the source as a whole and across its columns."""

    min_rows: Annotated[Annotated[int, Meta(ge=0)] | None, Meta(description="The fewest accepted rows.")] = None
    max_rows: Annotated[Annotated[int, Meta(ge=0)] | None, Meta(description="The most accepted rows.")] = None
    fresh: Annotated[
        str | None, Meta(description="How old the newest event may be, such as `2d`; rows after now do not count.")
    ] = None
    where: Annotated[
        list[str],
        Meta(
            description="Conditions across the columns of one row, as in the WHERE clause of SQL: "
            "`landed >= sched_dep and air_time is not null`, texts in single quotes. A row for which one is false is "
            "refused, a row for which it is null passes."
        ),
    ] = []
