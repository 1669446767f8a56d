"""The champion's requests before a release, from the gateway's log, which fix the length of evidence blocks."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from cumulant.core.traffic import CHAMPION
from cumulant.release.evidence.champion_history import ChampionHistory, no_history
from cumulant.release.evidence.look import Requests, counting

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cumulant.core.traffic import Routes
    from cumulant.ports.traffic import ExchangeSource

#: exchanges of one reading, and the newest ones that are kept
_PAGE, _MOST = 100_000, 2_000_000
#: requests without which no bound of slow ones is taken
_FEWEST = 300
_SECOND = 1_000_000


class _Page(NamedTuple):
    """Microseconds since 1970 UTC [n] of requests [n]."""

    time: npt.NDArray[np.int64]
    requests: Requests


def champion_history(
    source: ExchangeSource, routes: Routes | None, version: str, *, seconds: float, quantile: float
) -> tuple[ChampionHistory, str]:
    """The looks of `seconds` of a champion's `version` in the gateway's log since its present routes, and the cursor.

    Raises:
        CumulantError: the gateway's log cannot be read.
    """
    pages, cursor, stored = list[_Page](), "", 0
    while True:
        exchanges, cursor = source.exchanges(cursor, limit=_PAGE)
        mine = []
        if routes is not None and routes.champion.version == version:
            counted = counting(exchanges, model=routes.model, revision=routes.revision)
            mine = [exchange for exchange in counted if exchange.assigned == CHAMPION]
        if mine:
            pages.append(_Page(np.array([exchange.time for exchange in mine], dtype=np.int64), Requests.of(mine)))
            stored += len(mine)
        while len(pages) > 1 and stored - len(pages[0].time) >= _MOST:
            stored -= len(pages.pop(0).time)
        if len(exchanges) < _PAGE:
            break
    return (_looks(pages, seconds, quantile) if pages else no_history()), cursor


def _looks(pages: Sequence[_Page], seconds: float, quantile: float) -> ChampionHistory:
    time, requests = np.concatenate([page.time for page in pages]), Requests.joined([page.requests for page in pages])
    slow_us = float(np.quantile(requests.micros, quantile)) if len(requests) >= _FEWEST else None
    whole = ChampionHistory.of(time // round(seconds * _SECOND), requests, slow_us)
    # The first and the last look are cut off somewhere within.
    return ChampionHistory(requests=whole.requests[1:-1], bad=whole.bad[1:-1], slow_us=slow_us)
