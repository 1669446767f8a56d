"""How much memory a training takes beside what its process holds, by measured bytes (`bench/training/memory.py`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import msgspec

from cumulant.core.plan import DType
from cumulant.training.policy import TrainingPolicy
from cumulant.training.spec import SEARCHED

#: bytes that a process holds after a search, beside any rows: libraries of a training and of its registration, and what
#: its allocators have not given back, which beside few rows is as much again as the rows
LIBRARIES = 520 << 20
#: and while it reads and searches, before the registry's are loaded
SEARCH_LIBRARIES = 270 << 20

#: so that a training which is admitted stays within its bound: measured peaks are up to a tenth above the sums below
_MARGIN = 1.15
#: of later steps, whose memory the allocator of Polars gives back half a second after it was freed: on a busy machine
#: they take a third less
_LATER_MARGIN = 1.1

#: bytes of a value in a column of a frame
_VALUE, _TEXT = 9, 24
#: of a row beside its columns, and what the checks of one column after the other take meanwhile
_ROW, _CHECKED = 48, 100
#: of a row while it is hashed, where rows have no time
_HASHED = 64
#: rows of a fold at most, and the parts of the training rows that a fold learns from and is judged by
_FOLD, _LEARNED, _JUDGED = 100_000, 0.75, 0.25
#: of a row in a sample, beside its values of 4 bytes each
_SAMPLE, _ENCODED = 32, 4
#: of one bin of a histogram
_BIN = 16
#: sets of parameters that are no draws: their trees are small, and so are those drawn for fewer rows than these
_FIRST, _FEW = 3, 2000
#: rows to a node of a tree at least, as trees of few rows end before their depth
_NODE = 4


class _Fit(NamedTuple):
    """Bytes that one fit takes: of a number, of a text's code, of a row, and whatever there is.

    retained: whether the engine's allocator never gives back what fits took: all later steps have it beside them.
    nodes: how many nodes of a tree have histograms of all numbers at a time, with the sets of parameters that are tried
    first and with most others. One draw of XGBoost's deepest trees with the most bins can take half as much again.
    """

    number: float
    text: float
    row: float
    fixed: int = 0
    retained: bool = False
    nodes: tuple[int, int] = (0, 0)


_LINEAR = _Fit(12, 12, 54, fixed=10 << 20)
_FITS: Mapping[str, _Fit] = {
    "naive": _Fit(0, 0, 0),
    "linear": _LINEAR,
    "logistic": _LINEAR,
    "ridge": _LINEAR,
    "lightgbm": _Fit(4.7, 4.7, 30, nodes=(31, 127)),
    "xgboost": _Fit(9, 9, 30, nodes=(85, 680)),
    "catboost": _Fit(10, 24, 140, fixed=10 << 20, retained=True),
    "mlp": _Fit(8, 8, 90, fixed=16 << 20),
}
#: a trainer that is none of these reads a copy in 64 bits, and may make one more
_OTHER = _Fit(16, 16, 64)


class TrainingRows(msgspec.Struct, frozen=True, kw_only=True):
    """What a training reads.

    features: the types of its features. columns: how many further columns of the source it needs. timed: whether rows
    have times. share: the part of the training rows that a quick look learns from. tested: the part of the rows that is
    the test; 0 where that is not known before.
    """

    rows: int
    features: Sequence[DType]
    columns: int
    timed: bool
    share: float = 1.0
    tested: float = 0.0

    @property
    def texts(self) -> int:
        return sum(kind == "str" for kind in self.features)

    @property
    def numbers(self) -> int:
        return len(self.features) - self.texts


class TrainingNeed(NamedTuple):
    """Bytes of the largest step of a training until a model is found, and of the largest `later` one."""

    search: int
    later: int


def training_need(rows: TrainingRows, spec: TrainingPolicy, *, threads: int) -> TrainingNeed:
    """What a training with so many `threads` takes. Until a model is found, that is of reading its rows, or of the fits
    of one of its trainers, where the rows are encoded and the folds are made. Later steps read the rows again, to judge
    the model and to package it, or to fit it on all.

    What a number of classes, few different numbers or a trainer of the user's own change is not known before.
    """
    every = spec.final_fit == "all"
    learned = round(rows.rows * rows.share * (1.0 if every else 1.0 - rows.tested))
    fits = {name: _fits(name, learned, rows, spec, threads) for name in ("naive", *spec.trainers)}
    retained = sum(size for name, size in fits.items() if _fit_of(name).retained)
    others = max((size for name, size in fits.items() if not _fit_of(name).retained), default=0)
    search = round(_MARGIN * max(_read(rows), _held(learned, rows, spec) + retained + others))
    later = round(_LATER_MARGIN * _read(rows)) + retained
    return TrainingNeed(search, max(search, later) if every else later)


def total_need(need: TrainingNeed, resident: int) -> int:
    """Bytes that the process takes in all at most, which holds `resident` bytes before it reads the rows."""
    return max(max(resident, SEARCH_LIBRARIES) + need.search, max(resident, LIBRARIES) + need.later)


def _read(rows: TrainingRows) -> int:
    features = rows.numbers * _VALUE + rows.texts * _TEXT
    # rows of a time lie together mostly, others are copied to their side of the split
    copied = 0 if rows.timed else features + _ROW + _HASHED
    return rows.rows * (features + rows.columns * _VALUE + _ROW + _CHECKED + copied)


def _held(learned: int, rows: TrainingRows, spec: TrainingPolicy) -> int:
    """The encoded rows, and those of the folds. Texts with many values are encoded twice."""
    width = _ENCODED * len(rows.features)
    encoded = learned * (width * (2 if rows.texts else 1) + _ROW)
    fold = min(_FOLD, round(learned * _LEARNED)) + min(_FOLD, round(learned * _JUDGED))
    return encoded + spec.folds * fold * (width + _SAMPLE)


def _fits(name: str, learned: int, rows: TrainingRows, spec: TrainingPolicy, threads: int) -> int:
    """The fits of one trainer at the same time: of the folds, or of the boosters that are averaged."""
    searched = name in SEARCHED
    folds = min(threads, spec.folds) * _fit(name, min(_FOLD, round(learned * _LEARNED)), learned, rows, spec)
    final = (min(threads, spec.ensemble) if searched else 1) * _fit(name, learned, learned, rows, spec)
    return max(folds, final)


def _fit(name: str, fitted: int, learned: int, rows: TrainingRows, spec: TrainingPolicy) -> int:
    need = _fit_of(name)
    size = fitted * (need.number * rows.numbers + need.text * rows.texts + need.row) + need.fixed
    return round(size) + (_histograms(name, fitted, learned, rows, spec) if any(need.nodes) else 0)


def _fit_of(name: str) -> _Fit:
    return _FITS.get(name, _OTHER)


def _histograms(name: str, fitted: int, learned: int, rows: TrainingRows, spec: TrainingPolicy) -> int:
    """Of trees of `fitted` rows, whose bins and sizes are those for `learned` rows."""
    from cumulant.training.trainers.lightgbm_trainer import bins  # loads numpy

    fixed, nodes = spec.parameters.get(name, {}), _FITS[name].nodes[spec.trials > _FIRST and learned >= _FEW]
    if name == "lightgbm":
        nodes = _whole(fixed.get("num_leaves"), nodes)
    else:
        nodes = 2 ** min(_whole(fixed.get("max_depth"), 30), 30) if "max_depth" in fixed else nodes
    most = min(_whole(fixed.get("max_bin"), bins(learned)[-1]), fitted)
    return rows.numbers * most * min(nodes, fitted // _NODE) * _BIN


def _whole(value: object, otherwise: int) -> int:
    """A parameter that the project fixes, where it is a number that counts something."""
    return int(value) if isinstance(value, int | float) and value >= 1 else otherwise
