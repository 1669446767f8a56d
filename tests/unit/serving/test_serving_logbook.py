"""What a worker hands to the log: short entries after a pattern where that can be, and whole ones where not."""

import time
from types import SimpleNamespace

import msgspec
import numpy as np
import pytest
import serving_graphs as graphs
from serving_models import FIELDS, PLAIN, ROW, SOURCE, servable

from cumulant.core.plan import Field, KnownAt
from cumulant.servable.folder import load_servable
from cumulant.serving.gateway_headers import NONE, Marks
from cumulant.serving.logged_answers import PredictionLogger
from cumulant.serving.models.model import ModelSet, open_model
from cumulant.serving.models.request_work import RequestWork
from cumulant.serving.prediction_log.entry import PATTERNS, PatternEntry
from cumulant.serving.prediction_log.personal_values import personal_fields
from cumulant.serving.prediction_log.row_streams import PatternStream
from cumulant.serving.prediction_log.storage.part_writer import SCHEMA


class Kept:
    """Keeps what it is given, short entries as the log process reads them."""

    def __init__(self):
        self.entries, self.streams, self.likes = [], [], 0

    def describe(self, model, fields):
        pass

    def pattern(self, entry):
        self.streams.append(PatternStream(entry, "w", ""))
        return len(self.streams) - 1

    def put(self, entry):
        if isinstance(entry, PatternEntry):
            self.likes += 1
            entry.request, entry.outputs = bytes(entry.request), bytes(entry.outputs)
            entry = self.streams[entry.pattern].whole(entry)
        self.entries.append(entry)


@pytest.fixture
def book(tmp_path):
    model = open_model(graphs.echo(tmp_path / "m", ("FP32",), columns=("a", "b", "c"), version="7"))
    found = PredictionLogger(Kept())
    found.describe(ModelSet([model]))
    yield found, model
    model.close()


def put(book, feed, raw, *, marks=NONE, **more):
    found, model = book
    (name,) = model.inputs
    scoring = SimpleNamespace(work=RequestWork({name: feed}, len(feed), **more), id="r")
    found.put(model, scoring, [raw], time.perf_counter(), marks)
    return found.client.entries[-1]


def test_one_matrix_is_a_short_entry_with_all_that_a_whole_one_says(book):
    feed, raw = np.arange(6, dtype=np.float32).reshape(2, 3), np.arange(6, dtype=np.float32).reshape(2, 3) * 2
    marks = Marks(arm="candidate", served="champion", shadow=True)
    found = put(book, feed, raw, marks=marks, fallback="cached")
    (asked,), (answered,) = found.tensors, found.outputs
    assert book[0].client.likes == 1
    assert (asked[1:], answered[1:]) == (("FP32", [2, 3], feed.tobytes()), ("FP32", [2, 3], raw.tobytes()))
    assert (found.id, found.version, found.served_arm, found.fallback) == ("r", "7", "champion", "cached")
    assert (found.arm, found.shadow) == ("candidate", True)
    assert found.columns == ["a", "b", "c"]
    assert put(book, feed[:1], raw[:1]).served_arm == ""
    assert put(book, feed[:1], raw[:1], marks=marks, fallback="cached").tensors[0][2] == [1, 3]
    assert len(book[0].client.streams) == 2


def test_each_entry_names_who_sent_it(book):
    """Also where entries of several callers follow patterns."""
    feed = np.arange(6, dtype=np.float32).reshape(2, 3)
    senders = ["user:ada", "service:batch", "user:ada", ""]
    entries = [put(book, feed, feed, marks=NONE._replace(principal=who)) for who in senders]
    assert [entry.principal for entry in entries] == senders
    assert book[0].client.likes == 4
    table = book[0].client.streams[1].columns([like_of(entries[1])], SCHEMA)[SCHEMA.get_field_index("principal")]
    assert table.to_pylist() == ["service:batch"] * 2


def like_of(entry):
    (asked,), (answered,) = entry.tensors, entry.outputs
    return PatternEntry(1, entry.id, entry.time_us, entry.latency_us, asked[3], answered[3])


@pytest.mark.parametrize("feed", [np.ones((3, 2), np.float32).T, np.ones((4, 3), np.float32)[::2]])
def test_values_that_do_not_lie_side_by_side(book, feed):
    found = put(book, feed, np.zeros((2, 1), np.float32))
    assert book[0].client.likes == 1
    assert found.tensors[0][3] == feed.tobytes()


@pytest.mark.parametrize(("feed", "raw"), [((2, 3), (3, 1)), ((2, 0), (2, 1)), ((2, 3), (2, 0)), ((2, 3), ())])
def test_shapes_of_no_common_rows_are_whole_entries(book, feed, raw):
    found = put(book, np.ones(feed, np.float32), np.ones(raw, np.float32))
    assert book[0].client.likes == 0
    assert (found.tensors[0][2], found.outputs[0][2]) == (list(feed), list(raw))


def test_patterns_are_bounded_and_start_anew_with_other_models(book):
    feed = np.ones((1, 3), np.float32)
    for width in range(1, PATTERNS + 2):
        put(book, feed, np.ones((1, width), np.float32))
    assert (book[0].client.likes, len(book[0].client.entries)) == (PATTERNS, PATTERNS + 1)
    book[0].describe(ModelSet([book[1]]))
    put(book, feed, np.ones((1, PATTERNS + 1), np.float32))
    assert book[0].client.likes == PATTERNS + 1


def test_tensors_without_rows_are_not_logged(book):
    put(book, np.ones((1, 3), np.float32), np.ones((1, 3), np.float32))
    put(book, np.ones((0, 3), np.float32), np.ones((0, 3), np.float32))
    assert len(book[0].client.entries) == 1


def test_a_model_that_is_loaded_again_needs_no_other_pattern(book):
    feed, raw = np.ones((1, 3), np.float32), np.ones((1, 1), np.float32)
    for _ in range(3):
        put(book, feed, raw)
        book[0].describe(ModelSet([book[1]]))
    assert (book[0].client.likes, len(book[0].client.streams)) == (3, 1)


def test_columns_that_the_model_does_not_read_are_not_logged(tmp_path):
    """They may be personal, which a servable that does not read them does not know."""
    model = open_model(servable(tmp_path / "m", unread={"ssn": "unused", "arr_delay": "target"}))
    found = PredictionLogger(Kept())
    found.describe(ModelSet([model]))
    for rows in ([ROW | {"ssn": "078-05-1120"}], [ROW, ROW | {"ssn": "078-05-1120", "arr_delay": 3.5}], [ROW]):
        work = model.from_rows(rows)
        scoring = SimpleNamespace(work=work, id="r")
        found.put(model, scoring, model.runner.run_now(work.feeds, work.rows), time.perf_counter(), NONE)
        assert msgspec.json.decode(found.client.entries[-1].rows) == [ROW] * len(rows)  # type: ignore[attr-defined]
    model.close()


def test_the_target_is_not_logged_and_the_key_is(tmp_path):
    asked = tuple(field for field in FIELDS if field.name != "tail")
    late = Field("arr_delay", "float")
    source = msgspec.structs.replace(
        SOURCE, fields=(*FIELDS, late), known={"arr_delay": KnownAt(delay_us=3_600_000_000)}
    )
    plan = msgspec.structs.replace(PLAIN, request=asked, sources={"flights": source})
    model = open_model(servable(tmp_path / "m", plan=plan, unread={"tail": "unused", "arr_delay": "late"}))
    found = PredictionLogger(Kept())
    found.describe(ModelSet([model]))
    work = model.from_rows([ROW | {"arr_delay": 3.5}])
    found.put(model, SimpleNamespace(work=work, id="r"), model.runner.run_now(work.feeds, 1), time.perf_counter(), NONE)
    assert msgspec.json.decode(found.client.entries[-1].rows) == [ROW]  # type: ignore[attr-defined]
    model.close()


def test_fields_that_come_with_a_row_are_personal_where_the_source_says_so(tmp_path):
    asked = tuple(field for field in FIELDS if field.name != "tail")
    one = load_servable(servable(tmp_path / "m", plan=msgspec.structs.replace(PLAIN, request=asked)))
    assert [field.name for field in personal_fields(one)] == ["tail"]
