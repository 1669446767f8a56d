"""Which rows of data without times train and which test: by a hash of what identifies a row, so that a row stays where
it is when others are added, and it is known of an earlier version which rows it learned from.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

import msgspec

from cumulant.core import expr
from cumulant.training.row_hash import places, row_hashes

if TYPE_CHECKING:
    import numpy as np
    import polars as pl
    from numpy.typing import NDArray

    from cumulant.data.snapshot import Snapshot
    from cumulant.flows.training.task import Task
    from cumulant.flows.training.training_identity import Work
    from cumulant.project.project import Project
    from cumulant.training.spec import EvaluationSpec
    from cumulant.training.splits import Split

#: learned rows by which a later look at the data tells whether they are the same rows
_MARKS = 64
#: share of them that has to be there still
_RECOGNISED = 0.9


class SplitRule(msgspec.Struct, frozen=True, kw_only=True):
    """A row is a test row where the hash of `columns` lies below `share`, in the order of `salt`.

    copies: whether equal rows are numbered. labels: columns of the target. marks: hashes of `columns` and `labels` of
    some rows that were learned from.
    """

    columns: tuple[str, ...]
    share: float
    salt: int = 0
    copies: bool = False
    labels: tuple[str, ...] = ()
    marks: tuple[str, ...] = ()


def identity_of(snapshot: Snapshot, task: Task, evaluation: EvaluationSpec) -> tuple[tuple[str, ...], bool]:
    """The columns that identify a row, and whether equal rows are to be numbered.

    What `evaluation.clusters` names, so that whole clusters stay together; else the key; else all columns.
    """
    if evaluation.clusters not in ("auto", "day", "row"):
        return (evaluation.clusters,), False
    if key := tuple(task.plan.sources[task.entity].key):
        return key, False
    return tuple(sorted(field.name for field in snapshot.fields)), True


def hashes(
    frame: pl.DataFrame, snapshot: Snapshot, task: Task, evaluation: EvaluationSpec
) -> NDArray[np.uint64] | None:
    """[n] the hash of each row of `combined`; None where a column that identifies it is not there."""
    columns, copies = identity_of(snapshot, task, evaluation)
    return _hashes(frame, columns, copies=copies)


def rule_of(project: Project, work: Work, split: Split) -> SplitRule | None:
    """The rule that made `split`; None where rows were not split by their hash."""
    import numpy as np

    if split.share is None or split.train.identity is None:
        return None
    columns, copies = identity_of(work.snapshot, work.task, work.evaluation)
    target = expr.columns(work.task.target)
    frame = identified(project, work, {*columns, *target})
    labels = tuple(sorted(set(target) & set(frame.columns)))
    first = split.train.rows[np.argsort(split.train.identity, kind="stable")[:_MARKS]]
    marks = _marks(frame[first], columns, labels)
    return SplitRule(
        columns=columns,
        share=split.share,
        salt=split.salt,
        copies=copies,
        labels=labels,
        marks=tuple(sorted(marks)),
    )


def unlearned(rule: SplitRule, frame: pl.DataFrame) -> NDArray[np.bool_] | None:
    """[n] the rows of `frame` that a version split by `rule` did not learn from; None where the rows of its training
    are not recognised among them.
    """
    import numpy as np

    known = _hashes(frame, rule.columns, copies=rule.copies)
    if known is None or not set(rule.labels) <= set(frame.columns):
        return None
    present = set(_marks(frame, rule.columns, rule.labels))
    if sum(mark in present for mark in rule.marks) < _RECOGNISED * len(rule.marks):
        return None
    return np.asarray(places(known, rule.salt) < rule.share)


def identified(project: Project, work: Work, names: Collection[str]) -> pl.DataFrame:
    """Of the work's rows, those columns of `combined` that `names` has."""
    from cumulant.data.snapshot import scan

    scans = scan(work.snapshot, project.tables(), as_of=work.as_of), project.tables().scan(work.table)
    raw, computed = (one.select([name for name in one.collect_schema() if name in names]).collect() for one in scans)
    return combined(raw, computed)


def combined(raw: pl.DataFrame, computed: pl.DataFrame) -> pl.DataFrame:
    """The columns of the entity's rows, and the features by whose values rows may be held together."""
    return raw.with_columns(column for column in computed.get_columns() if column.name not in raw.columns)


def _hashes(frame: pl.DataFrame, columns: Sequence[str], *, copies: bool) -> NDArray[np.uint64] | None:
    if not set(columns) <= set(frame.columns):
        return None
    return row_hashes(frame, _plain(frame, columns), copies=copies)


def _marks(frame: pl.DataFrame, columns: Sequence[str], labels: Sequence[str]) -> list[str]:
    names = _plain(frame, dict.fromkeys([*columns, *labels]))
    return [f"{value:016x}" for value in row_hashes(frame, names).tolist()]


def _plain(frame: pl.DataFrame, columns: Sequence[str] | dict[str, None]) -> list[str]:
    """Those of the columns that hold one value a row."""
    return [name for name in columns if not frame.schema[name].is_nested()]
