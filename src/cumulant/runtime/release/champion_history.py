"""The champion's requests before a release, from the gateway's log: what fixes the length of blocks of evidence."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from cumulant.core.traffic import CHAMPION
from cumulant.release.history import ChampionHistory, no_history
from cumulant.release.look import failed, timed_out

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cumulant.core.traffic import Exchange
    from cumulant.ports.traffic import Traffic

#: exchanges of one reading, and the newest ones that are kept
_PAGE, _MOST = 100_000, 2_000_000
#: requests without which no bound of slow ones is taken
_FEWEST = 300
_SECOND = 1_000_000


class _Page(NamedTuple):
    """Columns of exchanges [n]."""

    time: npt.NDArray[np.int64]
    micros: npt.NDArray[np.float64]
    failed: npt.NDArray[np.bool_]
    timed_out: npt.NDArray[np.bool_]


def champion_history(
    traffic: Traffic, model: str, version: str, *, seconds: float, quantile: float
) -> tuple[ChampionHistory, str]:
    """The looks of `seconds` of a champion's `version` in the gateway's log since its present routes, and the cursor.

    Of several versions that were the champion one after the other, only this one is meant.

    Raises:
        CumulantError: the gateway's log cannot be read.
    """
    routes = traffic.in_force(model)
    pages, cursor, kept = list[_Page](), "", 0
    while True:
        exchanges, cursor = traffic.exchanges(cursor, limit=_PAGE)
        mine = []
        if routes is not None and routes.champion.version == version:
            mine = _of_champion(exchanges, model, routes.revision)
        if mine:
            pages.append(_columns(mine))
            kept += len(mine)
        while len(pages) > 1 and kept - len(pages[0].time) >= _MOST:
            kept -= len(pages.pop(0).time)
        if len(exchanges) < _PAGE:
            break
    return (_looks(pages, seconds, quantile) if pages else no_history()), cursor


def _of_champion(exchanges: Sequence[Exchange], model: str, revision: int) -> list[Exchange]:
    return [
        one
        for one in exchanges
        if one.model == model
        and one.predicts
        and not one.forced
        and one.revision == revision
        and one.assigned == CHAMPION
    ]


def _columns(exchanges: Sequence[Exchange]) -> _Page:
    return _Page(
        np.array([one.time for one in exchanges], dtype=np.int64),
        np.array([one.duration_us for one in exchanges], dtype=np.float64),
        np.array([failed(one) for one in exchanges], dtype=np.bool_),
        np.array([timed_out(one) for one in exchanges], dtype=np.bool_),
    )


def _looks(pages: Sequence[_Page], seconds: float, quantile: float) -> ChampionHistory:
    time, micros, bad, late = (np.concatenate([page[place] for page in pages]) for place in range(4))
    slow_us = float(np.quantile(micros, quantile)) if len(micros) >= _FEWEST else None
    slow = micros > slow_us if slow_us is not None else np.zeros(len(micros), dtype=np.bool_)
    _, look = np.unique(time // round(seconds * _SECOND), return_inverse=True)
    # The first and the last look are cut off somewhere within.
    counts = np.zeros((int(look.max()) + 1, 4))
    np.add.at(counts, look, np.stack([np.ones(len(look)), bad, late, slow], axis=1))
    counts = counts[1:-1]
    return ChampionHistory(requests=counts[:, 0], bad=counts[:, 1:], slow_us=slow_us)
