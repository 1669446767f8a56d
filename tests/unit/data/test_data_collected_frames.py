"""Frames put together in a file: the rows and types of all at once, and few of them in memory."""

import io
import json

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cumulant.data.parts import collected_frames
from cumulant.data.parts.collected_frames import CollectedFrames
from cumulant.data.parts.spill import spill_in

plain = st.one_of(st.none(), st.integers(-3, 3), st.floats(-3, 3), st.integers(2**63, 2**70), st.text(max_size=3))
of_one_type = (
    st.integers(-3, 3),
    st.floats(-3, 3),
    st.text(max_size=3),
    st.booleans(),
    st.none(),
    plain,
    st.lists(st.integers(0, 3), max_size=2),
)
#: alone, as Polars' type of objects beside other values depends on what is put together at a time
objects = st.fixed_dictionaries({"u": st.integers(-3, 3)}, optional={"v": st.booleans()})


def frames_of(columns):
    return st.lists(st.dictionaries(st.sampled_from("abc"), columns, min_size=1), min_size=1, max_size=6)


columns = st.sampled_from(of_one_type).flatmap(lambda kind: st.lists(kind, min_size=1, max_size=4))
frames = frames_of(columns) | frames_of(st.lists(objects, min_size=1, max_size=4))


def read(columns):
    """As the log's requests are read; None where columns hold what has no common type."""
    rows = max(map(len, columns.values()))
    lines = [{name: of[row] for name, of in columns.items() if row < len(of)} for row in range(rows)]
    try:
        found = pl.read_ndjson(io.BytesIO("\n".join(map(json.dumps, lines)).encode()), infer_schema_length=None)
    except pl.exceptions.PolarsError:
        return None
    return found if found.width else None


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(given_frames=frames)
def test_rows_from_a_file_are_those_of_all_frames_at_once(given_frames, monkeypatch):
    monkeypatch.setattr(collected_frames, "_HELD", 2)
    some = [frame for one in given_frames if (frame := read(one)) is not None]
    with spill_in(None) as spill:
        collected = CollectedFrames(spill, "rows")
        for frame in some:
            collected.add(frame)
        try:
            whole = pl.concat(some, how="diagonal_relaxed") if some else pl.DataFrame()
        except pl.exceptions.PolarsError:
            with pytest.raises(pl.exceptions.PolarsError):
                collected.rows()
            return
        found = collected.rows().collect()
    assert found.schema == whole.schema
    assert [[_told(value) for value in row] for row in found.rows()] == [
        [_told(value) for value in row] for row in whole.rows()
    ]


def _told(value):
    """An object that is absent is null or has null fields, depending on what Polars puts together at a time."""
    return None if isinstance(value, dict) and not any(field is not None for field in value.values()) else value


def test_few_rows_are_held(monkeypatch):
    monkeypatch.setattr(collected_frames, "_HELD", 10)
    frame = pl.DataFrame({"x": [1, 2, 3, 4]})
    with spill_in(None) as spill:
        collected = CollectedFrames(spill, "rows")
        held = []
        for _ in range(20):
            collected.add(frame)
            held.append(sum(one.height for one in collected._held))
        rows = collected.rows()
        assert max(held) <= 10
        assert not collected._held
        assert "IPC SCAN" in rows.explain().upper()
        assert rows.slice(37, 6).collect()["x"].to_list() == [2, 3, 4, 1, 2, 3]
