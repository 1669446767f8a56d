"""Awkward worlds on every path against the oracle; `bench/features/oracle.py` runs many more of them."""

from __future__ import annotations

import pytest
from oracle_paths import Comparison, compare
from oracle_worlds import world

from cumulant.features.online import entity_history


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(7))
def test_every_path_gives_what_a_loop_over_all_rows_finds(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    if seed % 2:  # keys of so few events are searched as those of many are
        monkeypatch.setattr(entity_history, "_SHARED", 2)
    found = Comparison()
    compare(world(seed, rows=16), found)
    assert not found.mismatches, found.mismatches[:5]
    assert sum(found.compared.values()) > 3_000
