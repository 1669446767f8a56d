"""What `clean` removes of the stored state and of servers' copies, what it leaves, and how it and runs wait for each other."""

import shutil
import threading
import time
from pathlib import Path

import e2e_shop
import pytest
from e2e_support import opened

from cumulant.core.errors import LeaseHeldError
from cumulant.core.events import Actor
from cumulant.core.progress import silent
from cumulant.flows.ledger.ledger_records import runs
from cumulant.flows.ledger.run_context import open_run
from cumulant.flows.maintenance.cleanup import clean
from cumulant.flows.registry.candidate_alias import ModelCandidate
from cumulant.flows.registry.model_record import MODEL, find_record
from cumulant.flows.serving import serve
from cumulant.flows.training.train import train

pytestmark = pytest.mark.slow

QUICK = e2e_shop.PROJECT.replace("  trials: 3\n", "  trials: 1\n").replace("  ensemble: 2\n", "")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = e2e_shop.make(tmp_path_factory.mktemp("clean") / "shop", rows=2000, project=QUICK)
    with opened(folder) as project:
        train(project, principal=project.principal())
        clean(project, principal=project.principal(), dry_run=False)
    return folder


@pytest.fixture
def project(made, tmp_path):
    """The trained project; notes of what this test's process serves from are its own."""
    with opened(made) as project:
        yield project
        shutil.rmtree(project.state / serve.USES, ignore_errors=True)


def forget_uses(project):
    """As if the process that prepared a service had ended."""
    shutil.rmtree(project.state / serve.USES)


def more_orders(folder):
    """A third file of orders, so that the next snapshot is another one."""
    source, number = folder / "data" / "orders" / "a.parquet", len(list((folder / "data" / "orders").iterdir()))
    table = e2e_shop.orders(200, seed=10 + number).with_columns(order=10_000 * number + e2e_shop.pl.int_range(200))
    table.write_parquet(source.with_name(f"more{number}.parquet"))


def keys(items, kind):
    return {item.key for item in items if item.kind == kind}


def states(project):
    """Tables of state; beside them are the logs of what was posted, which no clean touches."""
    return [table for table in project.online().tables() if not table.startswith("events.")]


def test_what_looks_compare_with_goes_with_its_version(project):
    from cumulant.flows.monitoring.reference import served_reference
    from cumulant.flows.review.review_reference import key_of, reference_of  # type: ignore[attr-defined]

    who, objects = project.principal(), project.objects()
    (version,) = project.registry().versions(project.name)
    with open_run(project, "review fill", principal=who, progress=silent) as context:
        reference_of(context, version)
    of_review = key_of(find_record(project, version))
    with served_reference(project, principal=who) as served:
        of_drift = served.key
    assert {*objects.keys("monitoring/"), *objects.keys("review/")} == {of_drift, of_review}
    assert keys(clean(project, principal=who), "object") == set()
    for key in (of_drift, of_review):
        with objects.open(key) as folder:
            objects.put(f"{key}0", folder)
    listed = clean(project, principal=who, dry_run=False)
    assert keys(listed, "object") == {f"{of_drift}0", f"{of_review}0"}
    assert all(item.bytes > 0 for item in listed)
    assert {*objects.keys("monitoring/"), *objects.keys("review/")} == {of_drift, of_review}


def test_state_of_older_snapshots_goes_and_the_newest_stays(project):
    who = project.principal()
    first = serve.prepare_service(project, "returns", principal=who)
    more_orders(project.root)
    second = serve.prepare_service(project, "returns", principal=who)
    assert first.table != second.table
    # This process prepared both, and may serve either.
    assert keys(clean(project, principal=who), "state") == set()
    forget_uses(project)
    listed = clean(project, principal=who)
    assert keys(listed, "state") == {first.table}
    assert all(item.bytes > 0 for item in listed if item.kind == "state")
    assert set(states(project)) == {first.table, second.table}
    assert clean(project, principal=who, dry_run=False) == listed
    assert states(project) == [second.table]
    assert clean(project, principal=who) == []
    assert Path(second.folder).exists()


def test_tables_of_others_in_the_same_store_stay(project):
    who = project.principal()
    project.online().put("state_of_another", [(b"a", b"1")])
    try:
        assert "state_of_another" not in keys(clean(project, principal=who), "state")
    finally:
        project.online().drop("state_of_another")


def test_a_running_server_keeps_what_it_reads(project):
    who = project.principal()
    service = serve.prepare_service(project, "returns", principal=who)
    with serve.run_server(service) as running:
        more_orders(project.root)
        newer = serve.prepare_service(project, "returns", principal=who)
        for note in (project.state / serve.USES).iterdir():
            if not note.name.startswith(f"{running.pid}-"):
                note.unlink()
        assert keys(clean(project, principal=who), "state") == set()
    assert keys(clean(project, principal=who, dry_run=False), "state") == {service.table}
    assert states(project) == [newer.table]


def test_copies_that_no_version_in_use_needs_go(project):
    who = project.principal()
    service = serve.prepare_service(project, "returns", principal=who)
    forget_uses(project)
    old = Path(service.folder).with_name("0-000000000000")
    shutil.copytree(service.folder, old)
    fetched = project.state / "fetched" / "returns" / "0-000000000000"
    shutil.copytree(service.folder, fetched)
    draft = old.with_name(".new-abc")
    draft.mkdir()
    listed = keys(clean(project, principal=who), "folder")
    assert listed == {path.relative_to(project.state).as_posix() for path in (old, fetched, draft)}
    clean(project, principal=who, dry_run=False)
    assert not any(path.exists() for path in (old, fetched, draft))
    assert Path(service.folder).exists()


def test_a_run_that_begins_while_things_are_removed_waits(project, monkeypatch):
    who = project.principal()
    stray = project.root / "stray.txt"
    stray.write_text("nothing needs this")
    project.objects().put("models/stray", stray)
    removing, go_on, began = threading.Event(), threading.Event(), threading.Event()
    delete = type(project.objects()).delete

    def slowly(store, key):
        removing.set()
        assert go_on.wait(30)
        delete(store, key)

    monkeypatch.setattr(type(project.objects()), "delete", slowly)

    def begin():
        with open_run(project, "train", principal=who, progress=lambda *_: None):
            began.set()

    cleaner = threading.Thread(target=clean, args=(project,), kwargs={"principal": who, "dry_run": False})
    cleaner.start()
    assert removing.wait(30)
    runner = threading.Thread(target=begin)
    runner.start()
    time.sleep(0.5)
    assert not began.is_set()
    go_on.set()
    runner.join(30)
    cleaner.join(30)
    assert began.is_set()
    assert project.objects().find("models/stray") is None


def test_a_run_that_began_first_is_not_cleaned_under(project):
    who = project.principal()
    stray = project.root / "stray.txt"
    stray.write_text("nothing needs this")
    project.objects().put("models/stray", stray)
    with (
        open_run(project, "train", principal=who, progress=lambda *_: None),
        pytest.raises(LeaseHeldError, match="is in progress"),
    ):
        clean(project, principal=who, dry_run=False)
    assert project.objects().find("models/stray") is not None
    assert runs(project.journal())[0].flow == "clean"
    assert {item.key for item in clean(project, principal=who, dry_run=False)} == {"models/stray"}


def test_a_version_whose_record_a_kill_prevented_is_healed_by_the_next_run(tmp_path, monkeypatch):
    folder = e2e_shop.make(tmp_path / "shop", rows=2000, project=QUICK)

    class KilledError(BaseException):
        """Nothing in the program expects it, as nothing expects a kill."""

    def killed(*_):
        raise KilledError

    with opened(folder) as project:
        who = project.principal()
        with monkeypatch.context() as patch:
            patch.setattr(ModelCandidate, "record_in", killed)
            with pytest.raises(KilledError):
                train(project, principal=who)
        version = project.registry().resolve("returns")
        assert find_record(project, version) is None
        # It is registered, so what it is made of is needed.
        needed = {version.tags["cumulant.servable"], version.tags["cumulant.snapshot.orders"]}
        assert not any(part in item.key for item in clean(project, principal=who) for part in needed)
        again = train(project, principal=who)
        assert again.model.version == version.version
        assert again.model.aliases == ("candidate", "champion")
        assert "register" not in again.reused
        record = find_record(project, again.model)
        assert record is not None
        assert record.servable.key == version.tags["cumulant.servable"]
        assert len(project.registry().versions("returns")) == 1
        # Also where the registration was found done, as ledgers of older versions may have it.
        with project.journal().transaction(actor=Actor("test")) as transaction:
            transaction.delete(MODEL, "returns/1")
        third = train(project, principal=who)
        assert third.model.version == "1"
        assert "register" in third.reused
        assert find_record(project, third.model) is not None
