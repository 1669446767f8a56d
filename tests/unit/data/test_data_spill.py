"""Frames set aside on disk."""

from __future__ import annotations

import resource
import signal
from datetime import UTC, date, datetime
from decimal import Decimal

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from cumulant.core.errors import StorageError
from cumulant.data.parts.spill import spill_in

AWKWARD = pl.DataFrame(
    {
        "i": [2**63 - 1, None, -1],
        "f": [float("nan"), -0.0, float("-inf")],
        "t": ["", None, "\u00e9\n\x00"],
        "d": pl.Series([Decimal("0.10"), None, Decimal("-9.99")], dtype=pl.Decimal(38, 2)),
        "at": [datetime(1900, 1, 1, tzinfo=UTC), None, datetime(2262, 1, 1, tzinfo=UTC)],
        "day": [date(1, 1, 1), None, date(9999, 12, 31)],
        "list": [[1], None, []],
        "row": [{"a": 1, "b": None}, None, {"a": None, "b": "x"}],
    }
)


@pytest.mark.parametrize("release", [None, 0, 17, 39])
@pytest.mark.parametrize("in_memory", [0, 5_000, 1 << 20])
def test_appended_frames_come_back_in_their_order_and_to_the_bit(tmp_path, in_memory, release):
    with spill_in(tmp_path, in_memory=in_memory) as spill:
        for number in range(40):
            spill.append(f"part-{number % 3}", AWKWARD.slice(number % 4).with_columns(number=number))
            if number == release:
                spill.release_memory()
        for part in range(3):
            found = pl.concat(spill.appended(f"part-{part}"))
            expected = [AWKWARD.slice(number % 4).with_columns(number=number) for number in range(part, 40, 3)]
            assert_frame_equal(found, pl.concat(expected), check_exact=True)
            assert found["f"].to_numpy().tobytes() == pl.concat(expected)["f"].to_numpy().tobytes()
        (folder,) = tmp_path.iterdir()
        assert {path.stat().st_mode & 0o777 for path in folder.glob("part-*")} <= {0o600}
        assert len(list(folder.glob("part-*"))) == (0 if release is None and in_memory == 1 << 20 else 3)


def test_frames_in_memory_take_what_was_given_and_are_given_back(tmp_path):
    rows = pl.DataFrame({"a": np.arange(10_000)})  # 80 kB
    with spill_in(tmp_path, in_memory=200_000) as spill:
        (folder,) = tmp_path.iterdir()
        for name in "abc":
            spill.append(name, rows)
        assert [path.name for path in folder.glob("?")] == ["c"]
        spill.delete(["a"])
        spill.append("d", rows)
        assert [path.name for path in folder.glob("?")] == ["c"]
        spill.release_memory()
        spill.append("e", rows)
        assert sorted(path.name for path in folder.glob("?")) == ["b", "c", "d", "e"]
        assert all(pl.concat(spill.appended(name)).equals(rows) for name in "bcde")


def test_what_is_deleted_begins_anew(tmp_path):
    with spill_in(tmp_path) as spill:
        spill.append("part", AWKWARD)
        spill.delete(["part", "never-written"])
        spill.append("part", AWKWARD.head(1))
        assert pl.concat(spill.appended("part")).height == 1


def test_a_frame_that_does_not_fit_the_disk_is_an_error_in_words(tmp_path):
    before, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        with spill_in(tmp_path) as spill:
            spill.append("part", AWKWARD)
            resource.setrlimit(resource.RLIMIT_FSIZE, (5_000, before[1]))
            with pytest.raises(StorageError, match="cannot be set aside on disk"):
                spill.append("part", pl.DataFrame({"a": np.random.default_rng(1).normal(size=10_000)}))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert not list(tmp_path.iterdir())
