"""Which rows of data without times train and which test: by a hash of what identifies a row, so that a row stays where
it is when others are added, and it is known of an earlier version which rows it learned from.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import TYPE_CHECKING

import msgspec

from cumulant.core import expr
from cumulant.data.row_columns import ROW
from cumulant.flows.training.chosen_rows import blocks, chosen_rows, take_chosen
from cumulant.training.row_hash import places, row_hashes

if TYPE_CHECKING:
    import numpy as np
    import polars as pl
    from numpy.typing import NDArray

    from cumulant.data.snapshot import Snapshot
    from cumulant.flows.features.task import Task
    from cumulant.flows.training.training_identity import TrainingWork
    from cumulant.project.project import Project
    from cumulant.training.policy import EvaluationPolicy
    from cumulant.training.splits import TrainTestSplit

#: learned rows by which a later look at the data tells whether they are the same rows
_MARKS = 64
#: share of them that has to be there still
_RECOGNISED = 0.9


class SplitRule(msgspec.Struct, frozen=True, kw_only=True):
    """A row is a test row where the hash of `columns` lies below `share`, in the order of `salt`.

    copies: whether equal rows are numbered. labels: columns of the target. marks: hashes of `columns` and `labels` of
    some rows that were learned from. largest: the largest hash of the rows that `training.rows` chose; "" where it
    chose none, or not by the hash of `columns`.
    """

    columns: tuple[str, ...]
    share: float
    salt: int = 0
    copies: bool = False
    labels: tuple[str, ...] = ()
    marks: tuple[str, ...] = ()
    largest: str = ""


def identity_of(snapshot: Snapshot, task: Task, evaluation: EvaluationPolicy) -> tuple[tuple[str, ...], bool]:
    """The columns that identify a row, and whether equal rows are to be numbered.

    What `evaluation.clusters` names, so that whole clusters stay together; else the key; else all columns.
    """
    if evaluation.clusters not in ("auto", "day", "row"):
        return (evaluation.clusters,), False
    if key := tuple(task.plan.sources[task.entity].key):
        return key, False
    return tuple(sorted(field.name for field in snapshot.fields)), True


def hashes(
    frame: pl.DataFrame, snapshot: Snapshot, task: Task, evaluation: EvaluationPolicy
) -> NDArray[np.uint64] | None:
    """[n] the hash of each row of `combined`; None where a column that identifies it is not there."""
    columns, copies = identity_of(snapshot, task, evaluation)
    return _hashes(frame, columns, copies=copies)


def rule_of(project: Project, work: TrainingWork, split: TrainTestSplit) -> SplitRule | None:
    """The rule that made `split`; None where rows were not split by their hash."""
    import numpy as np

    if split.share is None or split.train.identity is None:
        return None
    columns, copies = identity_of(work.snapshot, work.task, work.evaluation)
    target = expr.columns(work.task.target)
    chosen = chosen_rows(project, work.snapshot, work.training, as_of=work.as_of)
    frame = take_chosen(_identity_columns(project, work, {*columns, *target}), chosen)
    labels = tuple(sorted(set(target) & set(frame.columns)))
    first = split.train.rows[np.argsort(split.train.identity, kind="stable")[:_MARKS]]
    marks = [_text(mark) for mark in _mark_hashes(frame[first], columns, labels).tolist()]
    return SplitRule(
        columns=columns,
        share=split.share,
        salt=split.salt,
        copies=copies,
        labels=labels,
        marks=tuple(sorted(marks)),
        largest="" if chosen is None or columns != work.snapshot.key else _text(chosen.largest),
    )


def unlearned_rows(rule: SplitRule, project: Project, work: TrainingWork) -> NDArray[np.bool_] | None:
    """[n] the rows of `work` that a version split by `rule` did not learn from; None where the rows of its training
    are not recognised among those of the source.
    """
    import numpy as np

    chosen = chosen_rows(project, work.snapshot, work.training, as_of=work.as_of)
    every = _identity_columns(project, work, {*rule.columns, *rule.labels})
    frame = take_chosen(every, chosen)
    known = _hashes(frame, rule.columns, copies=rule.copies)
    if known is None or not set(rule.labels) <= set(frame.columns):
        return None
    # Those of the marks that are not chosen today are there all the same.
    present = _count_present(rule, [frame] if chosen is None else blocks(every))
    if present < _RECOGNISED * len(rule.marks):
        return None
    tested = places(known, rule.salt) < rule.share
    return np.asarray(tested if not rule.largest else tested | (known > np.uint64(int(rule.largest, 16))))


def _count_present(rule: SplitRule, frames: Iterable[pl.DataFrame]) -> int:
    """How many of the rule's marks are those of rows of `frames`."""
    import numpy as np

    marks = np.array([int(mark, 16) for mark in rule.marks], dtype=np.uint64)
    present = np.zeros(len(marks), dtype=bool)
    for frame in frames:
        present |= np.isin(marks, _mark_hashes(frame, rule.columns, rule.labels))
    return int(present.sum())


def _identity_columns(project: Project, work: TrainingWork, names: Collection[str]) -> pl.LazyFrame:
    """Of the work's rows, chosen or not, `__row` and those columns of `combined` that `names` has."""
    import polars as pl

    from cumulant.data.snapshot import scan

    raw, computed = scan(work.snapshot, project.tables(), as_of=work.as_of), project.tables().scan(work.table)
    own = [name for name in raw.collect_schema() if name in names]
    more = [name for name in computed.collect_schema() if name in names and name not in own]
    raw = raw.select(ROW, *own)
    return pl.concat([raw, computed.select(more)], how="horizontal") if more else raw


def combine_columns(raw: pl.DataFrame, computed: pl.DataFrame) -> pl.DataFrame:
    """The columns of the entity's rows, and the features by whose values rows may be held together."""
    present = {*raw.columns}
    return raw.with_columns(column for column in computed.get_columns() if column.name not in present)


def _hashes(frame: pl.DataFrame, columns: Sequence[str], *, copies: bool) -> NDArray[np.uint64] | None:
    if not set(columns) <= set(frame.columns):
        return None
    return row_hashes(frame, _plain(frame, columns), copies=copies)


def _mark_hashes(frame: pl.DataFrame, columns: Sequence[str], labels: Sequence[str]) -> NDArray[np.uint64]:
    return row_hashes(frame, _plain(frame, dict.fromkeys([*columns, *labels])))


def _text(value: int) -> str:
    return f"{value:016x}"


def _plain(frame: pl.DataFrame, columns: Sequence[str] | dict[str, None]) -> list[str]:
    """Those of the columns that hold one value a row."""
    return [name for name in columns if not frame[name].dtype.is_nested()]
