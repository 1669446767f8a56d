"""Taking labels in: every format, all or nothing, once."""

import errno
import gzip
import json
import os
import random
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import polars as pl
import pytest
from outcomes_support import NOW, SALT, SCHEMA, Clock, batch_names, logs, opened, post, put, tell

from cumulant.core.errors import DataError, StorageError, UsageError
from cumulant.core.expr import Column
from cumulant.core.masking import mask
from cumulant.core.plan import Field
from cumulant.outcomes.labels.batches import LabelBatches
from cumulant.outcomes.labels.ingest import count_waiting, ingest_file, ingest_inbox
from cumulant.outcomes.labels.label_facts import newest_labels
from cumulant.outcomes.labels.label_rows import LabelReader, LabelSchema

ROWS = [{"id": "a", "row": 0, "label": True}, {"id": "b", "row": 1, "label": False}]
FAR = datetime(2090, 1, 1, tzinfo=UTC)


def write(path, rows):
    kind = path.name.split(".")[1]
    if kind == "parquet":
        pl.DataFrame(rows).write_parquet(path)
        return path
    text = {
        "jsonl": lambda: "".join(json.dumps(row) + "\n" for row in rows),
        "json": lambda: json.dumps(rows),
        "csv": lambda: "\ufeff" + pl.DataFrame(rows).write_csv(),
        "tsv": lambda: pl.DataFrame(rows).write_csv(separator="\t"),
    }[kind]()
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


@pytest.mark.parametrize("name", ["x.jsonl", "x.json", "x.csv", "x.tsv", "x.parquet", "x.csv.gz", "x.jsonl.gz"])
def test_every_format_says_the_same(tmp_path, name):
    ingest_file(logs(tmp_path / "o"), write(tmp_path / name, ROWS), SCHEMA, clock=Clock())
    found = sorted((one.id, one.row, one.label, one.state) for one in newest_labels(logs(tmp_path / "o"), FAR)[0])
    assert found == [("a", 0, True, "usable"), ("b", 1, False, "usable")]


@pytest.mark.parametrize("limit", [1, 5, None])
def test_the_labels_of_one_request_are_shown_whatever_else_its_files_hold(tmp_path, limit):
    for number in range(4):
        rows = [{"id": name, "row": number, "label": True} for name in ("a", "b", f"c{number}")]
        ingest_file(logs(tmp_path / "o"), write(tmp_path / f"{number}.jsonl", rows), SCHEMA, clock=Clock())
    found = newest_labels(logs(tmp_path / "o"), FAR, request="b", limit=limit)[0]
    assert {one.id for one in found} == {"b"}
    assert len(found) == min(limit or 4, 4)


@pytest.mark.parametrize(
    ("schema", "given", "label"),
    [
        (LabelSchema(task="binary", classes=("no", "yes")), "yes", "yes"),
        (LabelSchema(task="binary", classes=(0, 1)), 1.0, 1),
        (LabelSchema(task="binary", classes=(False, True)), "TRUE", True),
        (LabelSchema(task="multiclass", classes=("a", "b", "c")), "c", "c"),
        (LabelSchema(task="regression"), "2.5", 2.5),
        (LabelSchema(), "2", 2),
        (LabelSchema(), "late", "late"),
        (LabelSchema(task="regression"), "many", None),
        (LabelSchema(task="regression"), True, None),
        (LabelSchema(task="regression"), "1e999", None),
        (LabelSchema(task="multiclass", classes=("a", "b")), "z", None),
        (LabelSchema(), [1], None),
    ],
)
def test_a_label_has_the_type_of_the_task(tmp_path, schema, given, label):
    tell(tmp_path / "o", {"id": "a", "label": given}, schema=schema)
    (one,) = newest_labels(logs(tmp_path / "o"), FAR)[0]
    if label is None:
        assert (one.state, one.problem) == ("refused", "wrong type")
    else:
        assert (one.state, one.label, type(one.label)) == ("usable", label, type(label))


@pytest.mark.parametrize(
    ("row", "known"),
    [
        ({"decided": "20/07/2024 10:00"}, datetime(2024, 7, 20, 8, tzinfo=UTC)),
        ({"decided": "2024-07-20T10:00:00Z"}, datetime(2024, 7, 20, 10, tzinfo=UTC)),
        ({"decided": "20/07/2024 10:00", "known_time": "2024-08-01"}, datetime(2024, 8, 1, tzinfo=UTC)),
        ({"decided": "", "known_time": ""}, NOW),
        ({"decided": ""}, NOW),
        ({}, NOW),
        ({"decided": "soon"}, None),
    ],
)
def test_the_known_time_that_the_source_declares_is_that_of_the_label(tmp_path, row, known):
    field = Field("decided", "time", zone="Europe/Berlin")
    schema = LabelSchema(known=field, date_formats={"decided": "31/12/2024"})
    tell(tmp_path / "o", {"id": "a", "label": 1, **row}, schema=schema)
    (one,) = newest_labels(logs(tmp_path / "o"), FAR)[0]
    if known is None:
        assert one.problem == "unreadable time"
    else:
        assert one.known_time == known


def test_the_target_is_worked_out_of_its_columns(tmp_path):
    from cumulant.features.definition.parsing import parse

    schema = LabelSchema(task="binary", classes=(False, True), target=parse("delay > 15"))
    path = write(
        tmp_path / "x.csv",
        [{"request": "a", "delay": 20}, {"request": "b", "delay": 3}, {"request": "c", "delay": None}],
    )
    ingest_file(logs(tmp_path / "o"), path, schema, names={"id": "request"}, clock=Clock())
    found = sorted((one.id, one.label, one.problem) for one in newest_labels(logs(tmp_path / "o"), FAR)[0])
    assert found == [("a", True, ""), ("b", False, ""), ("c", None, "no label")]


@pytest.mark.parametrize(
    ("given", "value"), [("1.234", 1234.0), ("1.234,50 €", 1234.5), ("12", 12.0), (12.5, 12.5), ("1.5", None)]
)
def test_texts_of_a_target_are_read_in_its_number_format(tmp_path, given, value):
    from cumulant.features.definition.parsing import parse

    schema = LabelSchema(task="regression", target=parse("price"), formats={"price": "1.234,5"})
    for number, column in enumerate(("price", "label")):
        folder = tmp_path / str(number)
        tell(folder, {"id": "a", column: given}, schema=schema)
        (one,) = newest_labels(logs(folder), FAR)[0]
        assert (one.label, one.problem) == ((value, "") if value is not None else (given, "wrong type"))


def test_an_expression_reads_its_columns_in_their_number_formats(tmp_path):
    from cumulant.features.definition.parsing import parse

    schema = LabelSchema(
        task="binary", classes=(False, True), target=parse("price > 100"), formats={"price": "1.234,5"}
    )
    path = write(
        tmp_path / "x.csv", [{"id": "a", "price": "1.234"}, {"id": "b", "price": "7"}, {"id": "c", "price": "x"}]
    )
    ingest_file(logs(tmp_path / "o"), path, schema, clock=Clock())
    found = sorted((one.id, one.label, one.problem) for one in newest_labels(logs(tmp_path / "o"), FAR)[0])
    assert found == [("a", True, ""), ("b", False, ""), ("c", None, "no label")]


@pytest.mark.parametrize(
    ("target", "rows", "said"),
    [
        ("x > 2", [{}], [(None, "no label")]),
        ("x > 2", [{"x": None}, {"x": ""}], [(None, "no label")] * 2),
        (
            "x > 2",
            [{"x": 3}, {"x": "later"}, {"x": "1"}, {"x": [4]}, {"x": {"y": 4}}, {"x": 10**40}, {"x": "true"}],
            [
                (True, ""),
                ("later", "wrong type"),
                (False, ""),
                ("[4]", "wrong type"),
                ("{'y': 4}", "wrong type"),
                (True, ""),
                ("true", "wrong type"),
            ],
        ),
        ("x > 2", [{"x": [1]}], [("[1]", "wrong type")]),
        ('(state == "paid") & (x > 2)', [{"state": "paid"}, {"state": "open"}], [(None, "no label"), (False, "")]),
        (
            '(state == "paid") & (x > 2)',
            [{"state": "paid", "x": "3"}, {"state": "paid", "x": "?"}, {"state": "open", "x": 5}],
            [(True, ""), ("?", "wrong type"), (False, "")],
        ),
        ("x - y > 3", [{"x": "soon", "y": "2026-01-01"}, {}], [("soon", "wrong type"), (None, "no label")]),
    ],
)
def test_one_post_that_the_target_does_not_work_on_stops_no_other(tmp_path, target, rows, said):
    from cumulant.features.definition.parsing import parse

    schema = LabelSchema(task="binary", classes=(False, True), target=parse(target))
    post(tmp_path, "post-1", *({"id": f"id{place}"} | row for place, row in enumerate(rows)))
    (known,) = ingest_inbox(logs(tmp_path), schema)
    assert known.rows == len(rows)
    assert count_waiting(logs(tmp_path)) == 0
    found = {one.id: (one.label, one.problem) for one in newest_labels(logs(tmp_path), FAR)[0]}
    assert [found[f"id{place}"] for place in range(len(rows))] == said


def test_the_key_s_dates_are_read_as_the_source_writes_them_and_known_times_are_not(tmp_path):
    schema = LabelSchema(
        key=(Field("day", "date"),),
        time=Field("at", "time", zone="Europe/Paris"),
        task="binary",
        classes=(False, True),
        date_formats={"day": "31/12/2024", "at": "31/12/2024"},
    )
    rows = [
        {"day": "31/12/2024", "at": "31/12/2024 13:00", "label": True},
        {"day": "2024-12-31", "at": "2024-12-31T12:00:00Z", "label": True},
        {"day": "2024-12-31", "at": "2024-12-31T12:00:00Z", "label": True, "known_time": "05/03/2025"},
    ]
    said = LabelReader(schema, {}, SALT, received=NOW).read(rows)
    assert said[0].ref == said[1].ref
    assert said[2].problem == "unreadable time"


def test_a_key_that_the_server_has_masked_is_the_same_key():
    schema = LabelSchema(key=(Field("mail", "str", personal=True),), time=Field("at", "time"))
    row = {"mail": "ann@example.com", "at": "2024-12-31T12:00:00Z", "label": True}
    raw, masked = LabelReader(schema, {}, SALT, received=NOW).read([row, row | {"mail": mask(row["mail"], SALT)}])
    assert raw == masked
    assert raw.key == json.dumps([mask(row["mail"], SALT)])


def test_columns_that_are_not_there(tmp_path):
    for rows, names, text in (
        ([{"label": 1}], {}, "does not say which predictions"),
        ([{"id": "a"}], {}, "no column with the label"),
        ([{"id": "a", "label": 1}], {"known_time": "when"}, "has no column when"),
    ):
        with pytest.raises(DataError, match=text):
            ingest_file(logs(tmp_path / "o"), write(tmp_path / "x.jsonl", rows), SCHEMA, names=names)
    with pytest.raises(UsageError, match="is no part"):
        ingest_file(logs(tmp_path / "o"), tmp_path / "x.jsonl", SCHEMA, names={"lable": "x"})
    assert batch_names(tmp_path / "o") == []
    assert newest_labels(logs(tmp_path / "o"), FAR)[0] == []


def test_a_column_of_the_target_is_a_label(tmp_path):
    schema = LabelSchema(task="regression", target=Column("delay"))
    tell(tmp_path / "o", {"id": "a", "delay": 4}, schema=schema)
    assert [one.label for one in newest_labels(logs(tmp_path / "o"), FAR)[0]] == [4.0]


HOSTILE = {
    "empty.csv": b"",
    "header.csv": b"id,id,label\n1,2,3\n",
    "open.csv": b'id,label\n"a,1\n',
    "latin.csv": "id,label\nä,1\n".encode("latin-1"),
    "no.parquet": b"PAR1 and then nothing",
    "cut.json": b'[{"id": "a", "label"',
    "cut.jsonl.gz": gzip.compress(b'{"id": "a", "label": 1}\n' * 1000)[:-20],
    "what.exe": b"MZ",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_leaves_nothing(tmp_path, name):
    (tmp_path / name).write_bytes(HOSTILE[name])
    with pytest.raises(DataError, match=r"\w"):
        ingest_file(logs(tmp_path / "o"), tmp_path / name, SCHEMA)
    assert batch_names(tmp_path / "o") == []
    assert not list((tmp_path / "o").rglob("*.parquet"))


def test_lines_that_are_no_labels_are_kept(tmp_path):
    deep = b"[" * 100_000
    lines = [b'{"id":"a","label":1}', b"{", b"\xff\xfe", deep, b"x" * (3 << 20), b"", b'{"id":"b","label":0}']
    (tmp_path / "x.jsonl").write_bytes(b"\n".join(lines) + b"\n")
    taken = ingest_file(logs(tmp_path / "o"), tmp_path / "x.jsonl", SCHEMA)
    assert (taken.file.rows, taken.file.problems) == (6, {"not a row": 4})


@pytest.mark.parametrize(
    ("name", "content", "lines"),
    [
        ("a.csv", b'id,label\n"a\nb",1\n\nc,0\r\nd,1\n', [2, 5, 6]),
        ("a.jsonl", b'\n\n{"id":"a","label":1}\n\n{\n{"id":"b","label":0}\n', [3, 5, 6]),
        ("a.json", b'\n[{"id":"a","label":1},\n\n{"id":"b","label":0}]', [1, 2]),
    ],
)
def test_a_label_names_the_line_in_which_it_begins(tmp_path, name, content, lines):
    (tmp_path / name).write_bytes(content)
    ingest_file(logs(tmp_path / "o"), tmp_path / name, SCHEMA)
    assert [one.line for one in newest_labels(logs(tmp_path / "o"), FAR)[0]] == lines


def test_a_full_disk_leaves_nothing_and_can_be_tried_again(tmp_path, monkeypatch):
    path = write(tmp_path / "x.jsonl", ROWS)

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(StorageError, match="No space left on device"):
            ingest_file(logs(tmp_path / "o"), path, SCHEMA)
    assert batch_names(tmp_path / "o") == []
    assert not list((tmp_path / "o").rglob("*.parquet"))
    assert not ingest_file(logs(tmp_path / "o"), path, SCHEMA).again


def test_the_inbox_is_ingested_once_whatever_was_cut_off(tmp_path, monkeypatch):
    folder, deleted = tmp_path / "o", []
    post(folder, "post-1", {"id": "a", "label": 1})
    post(folder, "batch-0", {"id": "b", "label": 0}, {"id": "c", "label": 0})
    (tmp_path / "o" / "inbox" / "date=1970-01-01" / ".killed.writing").write_bytes(b"{")
    os.utime(tmp_path / "o" / "inbox" / "date=1970-01-01" / ".killed.writing", (1, 1))
    with monkeypatch.context() as patch:  # killed before the posts were deleted
        patch.setattr("cumulant.drivers.local.log.FileLog.delete", lambda _, parts: deleted.append(parts))
        assert [one.rows for one in ingest_inbox(logs(folder), SCHEMA)] == [3]
    assert (len(deleted[-1]), count_waiting(logs(folder))) == (2, 2)
    post(folder, "post-2", {"id": "d", "label": 0})
    assert [one.rows for one in ingest_inbox(logs(folder), SCHEMA)] == [1]
    assert ingest_inbox(logs(folder), SCHEMA) == []
    assert sorted(one.id for one in newest_labels(logs(folder), FAR)[0]) == ["a", "b", "c", "d"]
    assert list((folder / "inbox" / "date=1970-01-01").iterdir()) == [], "a draft of old is of a server that was killed"


def test_a_batch_that_is_posted_again_with_other_labels_after_its_ingestion_is_new(tmp_path):
    post(tmp_path, "batch-monday", {"id": "a", "label": 1})
    ingest_inbox(logs(tmp_path), SCHEMA)
    post(tmp_path, "batch-monday", {"id": "b", "label": 1})
    ingest_inbox(logs(tmp_path), SCHEMA)
    assert sorted(one.id for one in newest_labels(logs(tmp_path), FAR)[0]) == ["a", "b"]


def with_support():
    """The environment of a process that imports this folder's modules."""
    paths = [str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}


WORKER = """
import sys, pathlib
from outcomes_support import logs
from cumulant.outcomes.labels.label_rows import LabelSchema
from cumulant.outcomes.join.joining import Outcomes
from cumulant.outcomes.labels.ingest import ingest_file
from cumulant.testing.log import folder_log
base = pathlib.Path(sys.argv[1])
for path in sorted(base.glob("*.csv")):
    ingest_file(logs(base / "outcomes"), path, LabelSchema())
    Outcomes(logs(base / "outcomes"), folder_log(base / "log")).advance()
print("done")
"""


@pytest.mark.slow
def test_a_killed_process_loses_nothing_and_doubles_nothing(tmp_path):
    for number in range(4):
        rows = [f"r{number}-{one},0,{one % 2},{NOW.isoformat()}" for one in range(25_000)]
        (tmp_path / f"{number}.csv").write_text("id,row,label,known_time\n" + "\n".join(rows) + "\n")
    put(tmp_path / "log", *({"id": f"r{number}-{one}"} for number in range(4) for one in range(50)))
    choice = random.Random(4)
    line, env = [sys.executable, "-c", WORKER, str(tmp_path)], with_support()
    for _ in range(6):
        process = subprocess.Popen(line, stdout=subprocess.DEVNULL, env=env)
        time.sleep(choice.uniform(0.6, 2.5))
        process.send_signal(signal.SIGKILL)
        process.wait()
        outcomes = opened(tmp_path)
        batches = LabelBatches(logs(tmp_path / "outcomes").labels)
        for name in batches.names:
            told = batches.find(name)
            assert told is not None
            assert told.rows == 25_000
        found, _ = outcomes.labelled()
        assert found.select("worker", "sequence", "row").is_unique().all()
    assert subprocess.run(line, capture_output=True, check=True, text=True, env=env).stdout == "done\n"
    assert opened(tmp_path).label_facts().height == 100_000
    found, _ = opened(tmp_path).labelled()
    assert (found.height, found["id"].n_unique()) == (200, 200)


@pytest.mark.slow
def test_two_at_once_take_a_file_in_once(tmp_path):
    path = write(tmp_path / "x.jsonl", [{"id": f"r{one}", "label": 1} for one in range(30_000)])
    code = f"""
import pathlib
from outcomes_support import logs
from cumulant.outcomes.labels.label_rows import LabelSchema
from cumulant.outcomes.labels.ingest import ingest_file
print(ingest_file(logs(pathlib.Path({str(tmp_path / "o")!r})), pathlib.Path({str(path)!r}), LabelSchema()).again)
"""
    line, env = [sys.executable, "-c", code], with_support()
    processes = [subprocess.Popen(line, stdout=subprocess.PIPE, text=True, env=env) for _ in range(3)]
    assert sorted(process.communicate()[0].strip() for process in processes) == ["False", "True", "True"]


def test_salted_keys_differ_by_salt(tmp_path):
    row = {"card": "4000", "number": 7, "at": NOW.isoformat(), "label": 1}
    for salt in (SALT, b"salt"):
        path = write(tmp_path / f"{salt.decode()}.jsonl", [row, {"x": salt.decode()}])
        ingest_file(logs(tmp_path / "o"), path, SCHEMA, salt=salt)
    first, second = (one.key for one in newest_labels(logs(tmp_path / "o"), FAR)[0] if one.key)
    assert (first[0] != second[0], first[1], first[0][0]) == (True, "7", "#")


def test_many_small_batches_become_few_and_say_the_same(tmp_path, monkeypatch):
    from cumulant.outcomes.labels import ingest as ingest_module

    monkeypatch.setattr(ingest_module, "_MANY", 4)
    monkeypatch.setattr(ingest_module, "_GRACE", 0.2)
    folder = tmp_path / "o"
    path = write(tmp_path / "x.jsonl", [{"id": "file", "label": 1}])
    ingest_file(logs(folder), path, SCHEMA)
    for number in range(30):
        post(folder, f"post-{number}", {"id": f"r{number}", "label": 1})
        ingest_inbox(logs(folder), SCHEMA)
        opened(folder.parent).advance()
        assert len(batch_names(folder)) <= 9
    assert sorted(one.id for one in newest_labels(logs(folder), FAR, limit=None)[0]) == sorted(
        ["file", *(f"r{n}" for n in range(30))]
    )
    assert ingest_file(logs(folder), path, SCHEMA).again


def test_a_merge_that_is_cut_off_counts_no_row_twice(tmp_path, monkeypatch):
    import shutil

    from cumulant.outcomes.labels import ingest as ingest_module

    for number in range(4):
        tell(tmp_path / "o", {"id": f"r{number}", "label": 1})
    monkeypatch.setattr(ingest_module, "_MANY", 4)
    monkeypatch.setattr(ingest_module, "_GRACE", 0.0)
    shutil.copytree(tmp_path / "o" / "labels", tmp_path / "before")
    assert ingest_module.compact(logs(tmp_path / "o").labels) == 4
    shutil.copytree(tmp_path / "before", tmp_path / "o" / "labels", dirs_exist_ok=True)
    assert len(newest_labels(logs(tmp_path / "o"), FAR)[0]) == 4
    assert ingest_module.compact(logs(tmp_path / "o").labels) == 0
    assert len(list((tmp_path / "o" / "labels").rglob("*.parquet"))) == 1


def test_a_key_without_a_time_names_no_prediction_and_is_not_offered(tmp_path):
    timeless = LabelSchema(key=(Field("card", "str"),), task="binary", classes=(False, True))
    path = write(tmp_path / "x.jsonl", [{"card": "c1", "label": True}])
    with pytest.raises(DataError, match="does not say which predictions") as caught:
        ingest_file(logs(tmp_path / "o"), path, timeless)
    reason = "this source has no event time, so a label names its prediction by id"
    assert caught.value.hint == f"{reason}: it needs a column id; `--map id=COLUMN` names it"
    assert batch_names(tmp_path / "o") == []
    with pytest.raises(DataError) as caught:
        ingest_file(logs(tmp_path / "o"), path, msgspec.structs.replace(timeless, time=Field("at", "time")))
    assert caught.value.hint == "it needs a column id, or card, at; `--map id=COLUMN` names it"
    assert not ingest_file(
        logs(tmp_path / "o"), write(tmp_path / "y.jsonl", [{"id": "a", "label": 1}]), timeless
    ).file.problems
    dated = [{"card": "c1", "when": "2026-01-01", "label": True}]
    taken = ingest_file(logs(tmp_path / "o"), write(tmp_path / "z.jsonl", dated), timeless, names={"time": "when"})
    assert not taken.file.problems
