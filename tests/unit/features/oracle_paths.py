"""Every way to a feature's value against the oracle: offline, apart, served, as of a moment, advanced, two versions."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from oracle_worlds import HALF, Row, World

from cumulant.core.plan import FeaturePlan
from cumulant.features.offline.offline import compute
from cumulant.features.online.materialization import materialize
from cumulant.features.online.online import OnlineFeatures
from cumulant.features.posted.state_update import advance
from cumulant.testing.online import MemoryOnline
from cumulant.testing.plans import oracle


@dataclass
class Comparison:
    """How many values were compared on each path, and those that differ: (path, seed, feature, ours, right)."""

    compared: Counter[str] = field(default_factory=Counter)
    mismatches: list[tuple[str, int, str, Any, Any]] = field(default_factory=list)

    def add(self, path: str, world: World, ours: Sequence[Row], right: Sequence[Row]) -> None:
        assert len(ours) == len(right)
        for mine, expected in zip(ours, right, strict=True):
            self.compared[path] += len(expected)
            self.mismatches += [
                (path, world.seed, name, mine[name], value)
                for name, value in expected.items()
                if not oracle.same(mine[name], value)
            ]


def compare(world: World, found: Comparison) -> None:
    plan = world.plans[0]
    asked = list(range(len(world.rows["new"])))
    new = [world.rows["new"][i] for i in asked]
    found.add("offline", world, compute(plan, world.frames()).to_dicts(), oracle.features(plan, world.rows))
    apart = compute(plan, world.frames(), rows=world.frame("new"))
    found.add("offline, rows apart", world, apart.to_dicts(), oracle.features(plan, world.rows, new))
    frames, rows = world.snapshot()
    store = MemoryOnline()
    materialize(plan, frames, store, table="t")
    right = oracle.features(plan, rows, new)
    found.add("served", world, _served(plan, store, world, asked), right)
    found.add("served, column by column", world, _served(plan, store, world, asked, together_from=1), right)
    _as_of(world, found)
    _advanced(world, found)


def _served(
    plan: FeaturePlan, store: MemoryOnline, world: World, asked: list[int], together_from: int | None = None
) -> list[Row]:
    vectors = OnlineFeatures(plan, store, "t", together_from=together_from).vectors(
        [world.sent("new", i) for i in asked]
    )
    return [{name: values[at] for name, values in vectors.columns.items()} for at in range(len(asked))]


def _as_of(world: World, found: Comparison) -> None:
    plan, rng = world.plans[0], random.Random(world.seed)
    offset = timedelta(microseconds=plan.predict_at.offset_us)
    moments = [None if (at := row[plan.predict_at.column]) is None else at + offset for row in world.rows["new"]]
    known = sorted(moment for moment in moments if moment is not None)
    as_of, since = rng.choice(known), known[0] + rng.randint(0, 4) * HALF
    asked = [i for i, moment in enumerate(moments) if moment is not None and since <= moment <= as_of]
    store, (frames, rows) = MemoryOnline(), world.snapshot()
    materialize(plan, frames, store, table="t", as_of=as_of, since=min(since, as_of))
    right = oracle.features(plan, rows, [world.rows["new"][i] for i in asked], as_of=as_of)
    found.add("served, as of a moment", world, _served(plan, store, world, asked), right)


def _advanced(world: World, found: Comparison) -> None:
    """A snapshot of some rows; all others posted whole or in pieces, repeated, and corrected, which changes nothing."""
    rng, told, order = random.Random(world.seed), dict[str, list[Row]](), dict[str, list[int]]()
    store = MemoryOnline()
    frames = {}
    for name in ("tx", "other"):
        kept, posted = _parted(world, name, rng)
        told[name] = _pieces(world, name, posted, rng)
        order[name] = [*kept, *dict.fromkeys(piece["__at"] for piece in told[name])]
        frames[name] = world.frame(name, kept)
    tables = {"t": world.plans[0], "second": world.plans[1]}
    for table, plan in tables.items():
        materialize(plan, frames, store, table=table)
    writers = [OnlineFeatures(plan, store, table).writer() for table, plan in tables.items()]
    for name, pieces in told.items():
        for start in range(0, len(pieces), 7):
            batch = [
                {key: value for key, value in piece.items() if key != "__at"} for piece in pieces[start : start + 7]
            ]
            advance([writer for writer in writers if writer is not None], name, batch)
    rows = {name: [world.rows[name][i] for i in at] for name, at in order.items()}
    asked = list(range(len(world.rows["new"])))
    for path, (table, plan) in zip(("advanced", "advanced, second version"), tables.items(), strict=True):
        vectors = OnlineFeatures(plan, store, table).vectors([world.sent("new", i) for i in asked])
        full = [at for at in asked if vectors.late[at] is None]
        ours = [{name: values[at] for name, values in vectors.columns.items()} for at in full]
        right = oracle.features(plan, rows, [world.rows["new"][at] for at in full])
        found.add(path, world, ours, right)


def _parted(world: World, source: str, rng: random.Random) -> tuple[list[int], list[int]]:
    """The rows of the snapshot, and those that are posted. A posted row is known by its key, so that it has one."""
    rows = [at for at in world.accepted(source) if world.raw[source][at]["id"] is not None]
    cut = rng.randint(0, len(rows) // 2)
    return rows[:cut], rows[cut:]


def _pieces(world: World, source: str, posted: list[int], rng: random.Random) -> list[Row]:
    pieces: list[Row] = []
    for at in posted:
        row = world.sent(source, at)
        first = set(rng.sample(sorted(row), rng.choice([0, 0, 3, 6])))
        parts = [set(row) - first, first] if first else [set(row)]
        pieces += [{"id": row["id"], "__at": at} | {name: row[name] for name in row if name in part} for part in parts]
    pieces += rng.sample(pieces, len(pieces) // 5)
    rng.shuffle(pieces)
    corrected = []
    for piece in rng.sample(pieces, len(pieces) // 5):
        other = world.sent(source, rng.choice(posted))
        told = {name for name, value in world.sent(source, piece["__at"]).items() if value is not None}
        corrected.append({**piece, **{name: other[name] for name in ("done", "amount", "items") if name in told}})
    return pieces + corrected
