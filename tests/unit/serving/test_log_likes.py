"""Entries that follow a pattern read on disk as entries that are written out."""

import asyncio
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from log_support import LONG, client, entry, handed_over, lost, running

from cumulant.core.plan import Field
from cumulant.serving.prediction_log.entry import PATTERNS, PatternEntry
from cumulant.serving.prediction_log.entry_rows import LARGE
from cumulant.serving.prediction_log.personal_values import PersonalValueMask
from cumulant.serving.prediction_log.row_streams import PatternStream
from cumulant.serving.prediction_log.storage.log_reader import find_gaps
from cumulant.serving.prediction_log.storage.part_writer import SCHEMA, LogParts
from cumulant.serving.prediction_log.storage.scanning import scan
from cumulant.testing.log import folder_log

KINDS = {"BOOL": "?", "UINT8": "u1", "INT64": "<i8", "FP16": "<f2", "FP32": "<f4", "FP64": "<f8"}
NOW = 1_750_000_000_000_000


def fail(error, rows):
    raise error


def tensor(name, datatype, rows, inner, values):
    array = np.resize(np.array(values).astype(KINDS[datatype]), (rows, *inner))
    return name, datatype, list(array.shape), array.tobytes()


def pattern_of(one):
    empty = [[(name, datatype, shape, b"") for name, datatype, shape, _ in some] for some in (one.tensors, one.outputs)]
    return entry("", rows=b"", now=0, tensors=empty[0], outputs=empty[1], columns=one.columns)


def written(folder, put, hiding=None):
    parts = LogParts(folder, hiding or PersonalValueMask(b"key", {"m": []}), file_size=1 << 26, failed=fail)
    put(parts)
    parts.close()
    table = scan(folder_log(folder)).dataset.to_table()
    assert table.schema.equals(SCHEMA)
    return sorted(table.to_pylist(), key=lambda row: (row["sequence"], row["row"]))


def both(tmp_path, entries, hiding=None):
    """The rows of the entries written out, and of the same after patterns."""
    for number, one in enumerate(entries, 1):
        one.answers, one.sequence = b"", number

    def plainly(parts):
        for one in entries:
            parts.add(one, "w", "eu")

    def likes(parts):
        streams = {}
        for one in entries:
            made = PatternStream(pattern_of(one), "w", "eu")
            stream = streams.setdefault((one.tensors[0][1], *one.columns), made)
            parts.add_like(
                PatternEntry(0, one.id, one.time_us, 90, one.tensors[0][3], one.outputs[0][3], one.sequence), stream
            )

    return written(tmp_path / "a", plainly, hiding), written(tmp_path / "b", likes, hiding)


VALUES = st.lists(
    st.sampled_from([0.0, -0.0, 1.5, 0.1, -7.25, 250.0, math.nan, math.inf, -math.inf, 1e-30]), min_size=1, max_size=9
)
NAMES = st.sampled_from([(), ("a", "b"), ("a", "a"), ('say "so"', "\\\n"), ("é", "x y"), ("one",)])


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(sorted(KINDS)), st.integers(1, 3), VALUES, NAMES, st.sampled_from([(), (1,), (2,), (2, 2)])
        ),
        min_size=1,
        max_size=4,
    )
)
@pytest.mark.filterwarnings("ignore:invalid value|overflow:RuntimeWarning")
def test_what_follows_a_pattern_reads_as_if_written_out(tmp_path_factory, made):
    for datatype, rows, drawn, names, inner in made:
        whole = [abs(int(value)) for value in drawn if math.isfinite(value)] or [1]
        values = drawn if datatype.startswith("FP") else whole
        with np.errstate(all="ignore"):
            one = entry(
                "r",
                rows=b"",
                now=NOW,
                columns=list(names),
                tensors=[tensor("x", datatype, rows, inner, values)],
                outputs=[tensor("y", "FP64", rows, (1,), values)],
            )
        plain, likes = both(tmp_path_factory.mktemp("log"), [one])
        assert plain == likes


def test_different_patterns_in_turn_and_many_rows(tmp_path):
    columns = [f"c{n}" for n in range(3)]
    entries = [
        entry(
            f"r{number}",
            rows=b"",
            now=NOW + number,
            columns=columns if number % 2 else [],
            tensors=[tensor("x", "FP32", 1 + number % 3 * 50, (3,), [number, 0.5])],
            outputs=[tensor("y", "FP64", 1 + number % 3 * 50, (1,), [number / 7])],
        )
        for number in range(60)
    ]
    plain, likes = both(tmp_path, entries)
    assert len(plain) == sum(one.tensors[0][2][0] for one in entries)
    assert plain == likes


@pytest.mark.parametrize(("rows", "width"), [(2000, 3), (2, LARGE // 8), (1, LARGE)])
def test_more_rows_than_a_batch_and_large_ones(tmp_path, rows, width):
    one = entry(
        "r",
        rows=b"",
        now=NOW,
        tensors=[tensor("x", "FP64", rows, (width,), [1 / 3, 2.5])],
        outputs=[tensor("y", "FP64", rows, (), [1.0])],
    )
    plain, likes = both(tmp_path, [one])
    assert len(plain) == rows
    assert plain == likes


@pytest.mark.parametrize(
    "hiding", [PersonalValueMask(b"key", {"m": [Field("a", "float", personal=True)]}), PersonalValueMask(b"key", {})]
)
def test_personal_values_are_hidden_here_too(tmp_path, hiding):
    one = entry(
        "r",
        rows=b"",
        now=NOW,
        columns=["a", "b"],
        tensors=[tensor("x", "FP64", 2, (2,), [1234.5, 2.0])],
        outputs=[tensor("y", "FP64", 2, (1,), [1.0])],
    )
    plain, likes = both(tmp_path, [one], hiding)
    assert plain == likes
    assert "1234.5" not in likes[0]["request"]


@pytest.mark.parametrize(
    ("asked", "answered"), [(b"", b""), (bytes(7), bytes(8)), (bytes(8), bytes(16)), (bytes(8), b"")]
)
def test_bytes_that_do_not_fit_their_pattern(tmp_path, asked, answered):
    one = entry("r", rows=b"", now=NOW, tensors=[("x", "FP32", [1, 2], b"")], outputs=[("y", "FP64", [1, 1], b"")])
    parts = LogParts(tmp_path, PersonalValueMask(b"key", {"m": []}), file_size=1 << 26, failed=fail)
    stream, like = PatternStream(one, "w", ""), PatternEntry(0, "r", NOW, 90, asked, answered, 1)
    if len(asked) % 8:
        with pytest.raises(ValueError, match="do not fit"):
            parts.add_like(like, stream)
    else:  # a number of rows of its own in each is what an entry may have, too
        parts.add_like(like, stream)
    parts.close()
    assert set(scan(folder_log(tmp_path)).dataset.to_table()["sequence"].to_pylist()) == (
        set() if len(asked) % 8 else {1}
    )


def test_patterns_are_known_to_a_log_process_that_comes_later(tmp_path):
    """It is told of them by the first frame of its connection, and numbers that were sent already are not taken twice."""
    path, folder = tmp_path / "log.sock", tmp_path / "log"

    async def work():
        one = client(path)
        for name in ("x", "z"):
            pattern = entry(
                "", rows=b"", now=0, tensors=[(name, "FP64", [1, 1], b"")], outputs=[("y", "FP64", [1, 1], b"")]
            )
            number = one.pattern(pattern)
            one.put(PatternEntry(number, name, NOW, 90, np.ones(1).tobytes(), np.zeros(1).tobytes()))
            await asyncio.sleep(0.1)
        with running(path, folder) as process:
            await handed_over(one, 2)
            one.put(PatternEntry(0, "x", NOW, 90, np.ones(1).tobytes(), np.zeros(1).tobytes()))
            await one.close(LONG)
            process.terminate()
            await asyncio.to_thread(process.wait)
        return one

    one = asyncio.run(work())
    assert (one.written, one.lost) == (3, 0)
    found = (
        scan(folder_log(folder))
        .dataset.to_table(columns=["sequence", "request"])
        .sort_by("sequence")["request"]
        .to_pylist()
    )
    assert found == ['{"x":1.0}', '{"z":1.0}', '{"x":1.0}']
    assert lost(find_gaps(folder_log(folder))) == []


def test_patterns_of_a_worker_are_bounded(tmp_path):
    one = client(tmp_path / "nobody")
    some = entry("", rows=b"", now=0, tensors=[("x", "FP64", [1, 1], b"")], outputs=[("y", "FP64", [1, 1], b"")])
    assert [one.pattern(some) for _ in range(PATTERNS)] == list(range(PATTERNS))
    assert one.pattern(some) is None


def test_many_wide_patterns_do_not_keep_a_worker_from_another_log_process(tmp_path):
    """All of them are in the first frame of a connection, which the system must take at once."""
    path, folder = tmp_path / "log.sock", tmp_path / "log"
    columns = [f"a column of the table {place}" for place in range(300)]

    async def work():
        one = client(path)
        numbers = []
        for version in range(PATTERNS):
            tensors = [("x", "FP64", [1, len(columns)], b"")]
            outputs = [("y", "FP64", [1, 1], b"")]
            wide = entry(str(version), rows=b"", now=0, columns=columns, tensors=tensors, outputs=outputs)
            numbers.append(one.pattern(wide))
        one.put(PatternEntry(0, "x", NOW, 90, np.ones(len(columns)).tobytes(), np.zeros(1).tobytes()))
        with running(path, folder) as process:
            await one.close(LONG)
            process.terminate()
            await asyncio.to_thread(process.wait)
        return one, numbers

    one, numbers = asyncio.run(work())
    assert (one.written, one.lost) == (1, 0)
    assert numbers[:8] == list(range(8))
    assert numbers[-1] is None
