"""What is in a backup, what is left out of it, and where it is restored."""

from __future__ import annotations

import os
import shutil
import sqlite3
import tarfile
from contextlib import closing
from datetime import UTC, datetime

import pytest
from backup_support import SPEC, backup, files, made

from cumulant.core.errors import UsageError
from cumulant.flows.backup.restore import restore
from cumulant.flows.identities.device_logins import begin_device_login
from cumulant.flows.identities.last_use import LastUse
from cumulant.flows.identities.sessions import Sessions
from cumulant.flows.identities.sign_in_links import create_link
from cumulant.flows.identities.tokens import USE_INTERVAL, USES, create_token, find_token, list_tokens, revoke_token
from cumulant.flows.stack.identity import read_identity
from cumulant.project.file.loading import load

_REVOKED = ("identities.token_revoked", "identities.session_ended")


def test_files_modes_times_and_what_is_left_out(root, tmp_path):
    done = backup(root, tmp_path)
    assert done.archive.parent == tmp_path
    assert done.archive.stat().st_mode & 0o777 == 0o600
    content = done.archive.read_bytes()
    assert not any(secret in content for secret in (b"hidden-1", b"hidden-2", b"hidden-3"))
    folder = tmp_path / "elsewhere" / "restored"
    told = restore(done.archive, folder)
    with load(root) as one, load(folder) as other:
        assert one.salt() == other.salt()
        assert one.objects().find("servables/one") == other.objects().find("servables/one")
    names = {"cumulant.yaml", "features.py", "data/a.csv"}
    assert {path.name for path in folder.iterdir()} == {"cumulant.yaml", "features.py", "data", ".cumulant"}
    for name in names:
        assert (folder / name).read_bytes() == (root / name).read_bytes()
        assert (folder / name).stat().st_mtime_ns == (root / name).stat().st_mtime_ns
    for one in done.manifest.files:
        assert (folder / one.path).stat().st_mode & 0o777 == 0o600, one.path
        assert all(
            parent.stat().st_mode & 0o777 == 0o700 for parent in [*(folder / one.path).parents][: -len(folder.parents)]
        )
    assert told.manifest.left_out == ()
    without = backup(root, tmp_path / "b.tar.gz", sources=False)
    assert without.manifest.left_out == ("files of source a; their snapshots are in it",)
    restore(without.archive, tmp_path / "c")
    assert not (tmp_path / "c" / "data").exists()


def test_a_token_that_was_revoked_after_the_backup_stays_revoked(root, tmp_path):
    now = datetime.now(UTC)
    with load(root) as project:
        ada, journal = project.principal(), project.journal()
        new = create_token(project, "old", principal=ada)
        session = Sessions(journal, project.sign_in.limits).open(ada, "link", now)
        create_link(project, principal=ada)
        begin_device_login(journal, "10.0.0.5", now)
        archive = backup(root, tmp_path / "b.tar").archive
        revoke_token(project, new.token.id, principal=ada)
    told = restore(archive, tmp_path / "restored")
    assert "2 API tokens and sessions of the backup are revoked" in " ".join(told.notes)
    with load(tmp_path / "restored") as project:
        journal = project.journal()
        assert find_token(journal, new.secret, now, LastUse(USES, USE_INTERVAL)) is None
        assert Sessions(journal, project.sign_in.limits).find(session.secret, now) is None
        assert not [*journal.rows("sign_in_link"), *journal.rows("device_login")]
        revoked = [event for event in journal.events() if event.kind in _REVOKED]
        assert [event.kind for event in revoked] == list(_REVOKED)
        assert {event.reason for event in revoked} == {"the state was restored from a backup"}
    with load(root) as project:
        assert Sessions(project.journal(), project.sign_in.limits).find(session.secret, now), "the original keeps its"
        assert list_tokens(project, principal=ada) == []


@pytest.mark.parametrize("log", ["s3://acme/logs", "file://logs"])
def test_a_log_outside_of_the_state_is_named_as_left_out(tmp_path, log):
    root = made(tmp_path / "original")
    with (root / "cumulant.yaml").open("a") as file:
        file.write(f"environments:\n  local:\n    log: {log}\n")
    scheme = log.partition(":")[0]
    assert backup(root, tmp_path / "b.tar").manifest.left_out == (f"log at {scheme}://: back it up with its own tools",)


@pytest.mark.parametrize("inside", [True, False])
def test_topics_are_named_as_left_out_where_they_are_elsewhere(tmp_path, inside):
    root = made(tmp_path / "original")
    streams = root / ".cumulant" / "streams" if inside else tmp_path / "streams"
    with (root / "cumulant.yaml").open("a") as file:
        file.write(f"  s: {{stream: pay}}\nenvironments:\n  local:\n    streams: folder://{streams}\n")
    (streams / "pay").mkdir(parents=True)
    (streams / "pay" / "0.jsonl").write_text('{"id": 1}\n')
    left_out = backup(root, tmp_path / "b.tar").manifest.left_out
    assert left_out == (() if inside else ("topic pay of source s; the rows that were ingested are tables",))
    with tarfile.open(tmp_path / "b.tar") as archive:
        assert any(name.endswith("streams/pay/0.jsonl") for name in archive.getnames()) == inside


def test_snapshots_outside_of_the_folder_are_not_said_to_be_in_the_backup(tmp_path):
    root = made(tmp_path / "original")
    with (root / "cumulant.yaml").open("a") as file:
        file.write(f"environments:\n  local:\n    store: file://{tmp_path / 'store'}\n")
    left_out = backup(root, tmp_path / "b.tar", sources=False).manifest.left_out
    assert left_out[-1] == "files of source a"
    assert any(text.startswith("tables at file://") for text in left_out)


def test_results_of_monitoring_that_are_made_again_are_not_in_it(root, tmp_path):
    with load(root) as project:
        for name in ("rows/key/a.arrow", "estimators/key/classes", "profiles/key/reference"):
            (project.state / "monitoring" / name).parent.mkdir(parents=True)
            (project.state / "monitoring" / name).write_text("stored")
    stored = {one.path for one in backup(root, tmp_path).manifest.files if "monitoring" in one.path}
    assert stored == {".cumulant/monitoring/profiles/key/reference"}


def test_a_restored_project_has_an_identity_of_its_own_and_says_so(root, tmp_path):
    from cumulant.flows.stack.folder_claim import claim_folder

    with load(root) as project:
        claim_folder(project)
    done = backup(root, tmp_path / "b.tar")
    before = files(root)
    told = restore(done.archive, tmp_path / "restored")
    one, other = (read_identity(folder / ".cumulant") for folder in (root, tmp_path / "restored"))
    assert one.id != other.id
    assert f"a copy of {root / '.cumulant'}" in told.notes[0]
    with load(tmp_path / "restored") as project:
        (event,) = project.journal().events(kinds=("backup.restored",))
        assert event.data["head_hash"] == done.manifest.head_hash
    assert files(root) == before


def test_a_source_that_is_not_at_its_path_from_the_new_folder_is_named(root, tmp_path):
    (tmp_path / "orders.csv").write_text("x\n1\n")
    (root / "cumulant.yaml").write_text(SPEC + "  orders: {path: ../orders.csv}\n")
    archive = backup(root, tmp_path / "b.tar").archive
    assert not any("orders" in note for note in restore(archive, tmp_path / "beside").notes)
    (tmp_path / "far").mkdir()
    (note,) = restore(archive, tmp_path / "far" / "restored").notes
    assert note.startswith("warning: source orders: no file matches ../orders.csv from ")
    assert "data.orders.path" in note


def test_nothing_is_restored_over_anything(root, tmp_path):
    done = backup(root, tmp_path / "b.tar")
    before = files(root)
    with pytest.raises(UsageError, match="not an empty folder") as caught:
        restore(done.archive, root)
    assert "new folder" in caught.value.hint
    assert files(root) == before
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for target in (tmp_path / "link", root / "cumulant.yaml"):
        with pytest.raises(UsageError, match="not an empty folder"):
            restore(done.archive, target)
    (tmp_path / "empty").mkdir()
    restore(done.archive, tmp_path / "empty")
    assert (tmp_path / "empty" / "cumulant.yaml").exists()
    with pytest.raises(UsageError, match="never replaces"):
        backup(root, done.archive)
    for target in (tmp_path / "not-mounted", tmp_path / "not-mounted" / "b.tar"):
        with pytest.raises(UsageError, match="no folder"):
            backup(root, target)
    with pytest.raises(UsageError, match="lies in the state"):
        backup(root, root / ".cumulant" / "b.tar")


def test_a_state_folder_that_is_a_link_to_another_disk_is_in_it(root, place, tmp_path):
    other = tmp_path / "other-disk"
    (root / ".cumulant").rename(other)
    (root / ".cumulant").symlink_to(other)
    done = backup(root, place / "b.tar")
    assert done.manifest.left_out == ()
    restore(done.archive, place / "restored")
    assert not (place / "restored" / ".cumulant").is_symlink()
    with load(root) as one, load(place / "restored") as other:
        assert one.salt() == other.salt()
        assert one.objects().keys() == other.objects().keys() == ["servables/one"]
        assert len(list(other.journal().events(kinds=("test.noted",)))) == 1


def test_parts_of_the_state_on_another_disk_are_in_it_and_links_below_them_are_listed(root, place, tmp_path):
    state, disk = root / ".cumulant", tmp_path / "other-disk"
    (disk / "predictions" / "date=2026-11-01").mkdir(parents=True)
    (disk / "predictions" / "date=2026-11-01" / "L-000001-000001.parquet").write_text("x")
    (disk / "day").mkdir()
    (state / "predictions").symlink_to(disk / "predictions")
    (state / "predictions" / "date=2026-11-02").symlink_to(disk / "day")
    with closing(sqlite3.connect(disk / "mlflow.db")) as database:
        database.executescript("CREATE TABLE t (x)")
    (state / "mlflow.db").symlink_to(disk / "mlflow.db")
    (state / "profiles").symlink_to(tmp_path / "not-mounted")
    (disk / "hidden").mkdir()
    (disk / "hidden" / "token.py").write_text("hidden-4")
    shutil.rmtree(state / "secrets")
    (state / "secrets").symlink_to(disk / "hidden")
    (root / "token.py").symlink_to(disk / "hidden" / "token.py")
    done = backup(root, place / "b.tar")
    stored = {one.path for one in done.manifest.files}
    assert stored >= {".cumulant/predictions/date=2026-11-01/L-000001-000001.parquet", ".cumulant/mlflow.db"}
    assert done.manifest.left_out == (
        ".cumulant/profiles: a link that leads nowhere: is the disk mounted?",
        "token.py: a link, which is not followed",
        ".cumulant/predictions/date=2026-11-02: a link, which is not followed",
    )
    assert b"hidden-4" not in done.archive.read_bytes()


def test_a_store_elsewhere_is_listed(root, tmp_path):
    (root / "cumulant.yaml").write_text(SPEC + f"environments: {{local: {{store: 'file://{tmp_path}/elsewhere'}}}}\n")
    left_out = backup(root, tmp_path / "b.tar").manifest.left_out
    assert [one.split(" ")[0] for one in left_out] == ["tables", "objects"]


def test_what_lies_outside_of_the_folder_is_named_and_not_followed(tmp_path):
    root = made(tmp_path / "original")
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "a.csv").write_text("x,y\n9,9\n")
    shutil.rmtree(root / "data")
    (root / "data").symlink_to(outside)
    (root / "stolen.py").symlink_to(outside / "a.csv")
    (root / ".cumulant" / "predictions").mkdir(exist_ok=True)
    (root / ".cumulant" / "predictions" / "link").symlink_to(outside)
    (root / "cumulant.yaml").write_text(
        SPEC + f"environments: {{local: {{journal: 'sqlite://{outside}/journal.db'}}}}\n"
    )
    done = backup(root, tmp_path / "b.tar")
    assert [one.split(" ")[0] for one in done.manifest.left_out[:2]] == ["journal", "files"]
    assert done.manifest.left_out[2:] == (
        "data: a link, which is not followed",
        "stolen.py: a link, which is not followed",
        ".cumulant/predictions/link: a link, which is not followed",
    )
    assert not any("a.csv" in one.path or "stolen" in one.path for one in done.manifest.files)


def test_a_file_whose_name_no_archive_can_hold_is_named(root, place):
    (root / "data" / "全角　空白.csv").write_text("x,y\n1,2\n")
    restore(backup(root, place / "a.tar").archive, place / "restored")
    assert (place / "restored" / "data" / "全角　空白.csv").exists()
    for name in (os.fsdecode(b"\xff.csv"), "a\\b.csv"):
        (root / "data" / name).write_text("x,y\n1,2\n")
        with pytest.raises(UsageError, match="a name that an archive cannot hold"):
            backup(root, place / "b.tar")
        (root / "data" / name).unlink()
