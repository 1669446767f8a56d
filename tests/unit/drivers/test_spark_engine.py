"""What the client of Spark checks itself."""

from __future__ import annotations

import errno
import os
import shutil
import socket
from pathlib import Path

import pytest

from cumulant.core.errors import MissingPartError, StorageError
from cumulant.drivers.spark.engine import check_answers, check_version, remove_folder
from cumulant.drivers.spark.location import parse_spark_url
from cumulant.drivers.spark.worker import check_folder


@pytest.mark.parametrize("version", ["4.0.1", "3.5.7", "3.10.0-SNAPSHOT"])
def test_a_server_before_4_1_is_refused_before_rows_are_handed_over(version: str):
    with pytest.raises(MissingPartError, match=rf"version {version}, and 4\.1 or later"):
        check_version(version)


@pytest.mark.parametrize("version", ["4.1.0", "4.10.2", "5.0.0-preview1", "client 17"])
def test_newer_servers_and_versions_of_others_are_tried(version: str):
    check_version(version)


def test_a_server_at_an_address_of_ipv6_answers():
    try:
        server = socket.create_server(("::1", 0), family=socket.AF_INET6)
    except OSError as error:
        pytest.skip(f"no IPv6: {error}")
    with server:
        address = parse_spark_url(f"sc://[::1]:{server.getsockname()[1]}?staging=/mnt")
        check_answers(address)
    assert address.connection(None).startswith("sc://[::1]:")


def test_a_folder_whose_files_cannot_be_renamed_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    check = check_folder({"folder": str(tmp_path)})
    assert [block.data for block in check(0, [])] == [b""]
    monkeypatch.setattr(Path, "replace", without_rename)
    with pytest.raises(StorageError, match="rename files there: Function not implemented"):
        list(check(0, []))
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(StorageError, match=r"does not see .*: No such file"):
        list(check_folder({"folder": str(tmp_path / "gone" / "x")})(0, []))


def without_rename(*_paths: Path) -> Path:
    raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))


def test_a_folder_in_which_a_task_still_writes_is_removed_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    remove, tries = shutil.rmtree, list[Path]()

    def written_during_the_first_try(folder: Path, *, ignore_errors: bool) -> None:
        tries.append(folder)
        remove(folder, ignore_errors=ignore_errors)
        if len(tries) == 1:
            folder.mkdir()
            (folder / "late.tmp").touch()

    monkeypatch.setattr(shutil, "rmtree", written_during_the_first_try)
    folder = tmp_path / "cumulant-1"
    folder.mkdir()
    remove_folder(folder)
    assert (len(tries), folder.exists(), caplog.text) == (2, False, "")
    tries.clear()
    remove_folder(folder, patience=0)
    assert f"still in {folder}" in caplog.text
