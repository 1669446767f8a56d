"""Rows of erased subjects are left out when a source is read, whatever its format and `prepare`."""

from datetime import UTC, datetime, timedelta

import polars as pl
import pytest

from cumulant.core.errors import DataError
from cumulant.core.masking import mask
from cumulant.data.erased_subjects import ErasedSubjects
from cumulant.data.ingestion import ingest
from cumulant.data.snapshot import scan, source_of
from cumulant.data.spec import EventTime, RuleSpec, SourceSpec
from cumulant.drivers.local.files import LocalFiles
from cumulant.drivers.local.tables import FileTables
from cumulant.project.data_section import source_policy
from cumulant.project.file.loading import load

SALT = b"0" * 32
NOW = datetime(2026, 1, 1, tzinfo=UTC)


def read(tmp_path, spec, *erased, previous=None, column="who", admitted=None):
    hashes = frozenset(mask(value, SALT) for value in erased)
    returned = {} if admitted is None else dict.fromkeys(hashes, admitted)
    subjects = ErasedSubjects(column, hashes, SALT, returned, spec) if erased else None
    return ingest(
        "visits",
        source_policy(spec),
        root=tmp_path,
        files=LocalFiles(f"file://{tmp_path}"),
        tables=FileTables(f"file://{tmp_path}/tables"),
        previous=previous,
        now=NOW,
        erased=subjects,
    )


def whose(tmp_path, snapshot):
    return scan(snapshot, FileTables(f"file://{tmp_path}/tables")).collect()["who"].to_list()


@pytest.mark.parametrize("kind", ["csv", "parquet", "jsonl"])
def test_rows_of_an_erased_subject_are_dropped(tmp_path, kind):
    frame = pl.DataFrame({"id": [1, 2, 3, 4], "who": ["ann", "bob", None, "ann"]})
    writers = {"csv": frame.write_csv, "parquet": frame.write_parquet, "jsonl": frame.write_ndjson}
    writers[kind](tmp_path / f"a.{kind}")
    spec = SourceSpec(path=f"a.{kind}", key="id", personal=["who"], subject="who")
    before = read(tmp_path, spec)
    after = read(tmp_path, spec, "ann", previous=before)
    assert whose(tmp_path, before) == ["ann", "bob", None, "ann"]
    assert whose(tmp_path, after) == ["bob", None]
    assert (after.rows_in, after.rows_passed, after.rows_dropped) == (4, 2, 2)
    assert after.id != before.id
    assert not {part.key for part in after.parts} & {part.key for part in before.parts}
    assert source_of(after).subject == "who"


def test_many_small_files_and_numbers_as_subjects(tmp_path):
    for day in range(40):
        pl.DataFrame({"id": [day * 2, day * 2 + 1], "who": [day % 4, 7]}).write_csv(tmp_path / f"d{day:02}.csv")
    spec = SourceSpec(path="d*.csv", key="id", rules={}, personal=["who"], subject="who")
    after = read(tmp_path, spec, "7")
    assert sorted(set(whose(tmp_path, after))) == [0, 1, 2, 3]
    assert after.rows_dropped == 40


def test_a_key_of_several_columns_has_a_subject_of_one(tmp_path):
    orders = {"order": [1, 1, 2, 2], "line": [1, 2, 1, 2], "who": ["ann", "ann", "bob", "ann"]}
    pl.DataFrame(orders).write_csv(tmp_path / "a.csv")
    for subject, remaining in (("who", ["bob"]), ("order", ["bob", "ann"])):
        spec = SourceSpec(path="a.csv", key=["order", "line"], personal=["who"], subject=subject)
        after = read(tmp_path, spec, "ann" if subject == "who" else "1", column=subject)
        assert whose(tmp_path, after) == remaining


@pytest.mark.parametrize("written", ["text", "day first", "zone", "typed"])
def test_rows_of_an_admitted_subject_count_from_the_erasure_on(tmp_path, written):
    moments = [NOW + timedelta(hours=hours) for hours in (-30, -1, 0, 30)]
    frame = pl.DataFrame({"id": range(5), "who": ["ann"] * 4 + ["bob"], "at": [*moments, moments[0]]})
    rule, event, file = {}, EventTime(column="at", zone="UTC"), "a.csv"
    text = {"text": "%Y-%m-%dT%H:%M:%S", "day first": "%d.%m.%Y %H:%M", "zone": "%Y-%m-%d %H:%M:%S"}.get(written)
    if written == "typed":
        file = "a.parquet"
        frame.write_parquet(tmp_path / file)
    else:
        if written == "zone":
            event = EventTime(column="at", zone="America/New_York")
            frame = frame.with_columns(pl.col("at").dt.convert_time_zone("America/New_York"))
        if written == "day first":
            rule = {"at": RuleSpec(date_format="31/12/2024")}
        frame.with_columns(pl.col("at").dt.strftime(text)).write_csv(tmp_path / file)
    spec = SourceSpec(path=file, key="id", event_time=event, personal=["who"], subject="who", rules=rule)
    after = read(tmp_path, spec, "ann", admitted=NOW)
    assert scan(after, FileTables(f"file://{tmp_path}/tables")).collect()["id"].to_list() == [2, 3, 4]
    again = read(tmp_path, spec, "ann", previous=after)
    assert whose(tmp_path, again) == ["bob"]


def test_a_row_of_an_admitted_subject_without_a_time_stays_out(tmp_path):
    rows = {"id": [1, 2, 3], "who": ["ann", "ann", "bob"], "at": ["2026-02-01", None, "2026-02-01"]}
    pl.DataFrame(rows).write_csv(tmp_path / "a.csv")
    event = EventTime(column="at", zone="UTC")
    spec = SourceSpec(path="a.csv", key="id", event_time=event, personal=["who"], subject="who", quarantine="50%")
    assert read(tmp_path, spec, "ann", admitted=NOW).rows_dropped == 1


def test_the_rows_after_prepare_count(tmp_path):
    (tmp_path / "clean.py").write_text(
        "import polars as pl\n\n\ndef clean(rows: pl.LazyFrame) -> pl.LazyFrame:\n"
        "    return rows.with_columns(pl.col('who').str.to_lowercase())\n"
    )
    pl.DataFrame({"id": range(6), "who": ["ANN", "Bob", "cid", "ann", "dee", "eve"]}).write_csv(tmp_path / "a.csv")
    spec = SourceSpec(path="a.csv", key="id", prepare="clean.py:clean", personal=["who"], subject="who")
    assert whose(tmp_path, read(tmp_path, spec, "ann")) == ["bob", "cid", "dee", "eve"]


def test_a_subject_that_no_file_has_is_refused(tmp_path):
    pl.DataFrame({"id": [1]}).write_csv(tmp_path / "a.csv")
    with pytest.raises(DataError, match=r'has no column "who", which (personal|subject) names'):
        read(tmp_path, SourceSpec(path="a.csv", key="id", personal=["who"], subject="who"))


def test_a_subject_that_is_not_declared_is_refused(tmp_path):
    (tmp_path / "cumulant.yaml").write_text(
        "version: 1\ndata: {visits: {path: a.csv, personal: [mail], subject: mial}}\n"
    )
    with pytest.raises(
        Exception, match=r'visits\.subject names "mial", which is no declared column; did you mean "mail"\?'
    ):
        load(tmp_path)


def test_a_subject_of_several_columns_is_refused_with_what_to_do(tmp_path):
    (tmp_path / "cumulant.yaml").write_text(
        "version: 1\ndata: {visits: {path: a.csv, key: [land, number], subject: [land, number]}}\n"
    )
    with pytest.raises(Exception, match=r"visits\.subject must be text.*several say whose row.*from `prepare`"):
        load(tmp_path)


@pytest.mark.parametrize("named", ["key: who", "personal: [who]", "rules: {who: {type: str}}"])
def test_a_subject_is_a_declared_column(tmp_path, named):
    (tmp_path / "cumulant.yaml").write_text(f"version: 1\ndata: {{visits: {{path: a.csv, subject: who, {named}}}}}\n")
    with load(tmp_path) as project:
        assert project.policies.sources["visits"].spec.subject == "who"
