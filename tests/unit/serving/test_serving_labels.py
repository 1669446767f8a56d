"""`POST /v1/labels`: on the disk before it is answered, once by its batch or content."""

import asyncio
import errno
import json
import os

import pytest

from cumulant.serving import Application, ModelSet
from cumulant.serving.http import Request
from cumulant.serving.inbox import Inbox

GOOD = {"labels": [{"id": "a", "label": True}, {"id": "b", "label": 1, "known_time": "2026-01-01"}]}


def post(app, body, method="POST"):
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()

    async def ask():
        found = app(Request(method, b"/v1/labels", {}, raw))
        return found if not asyncio.iscoroutine(found) else await found

    found = asyncio.run(ask())
    return found.status, json.loads(found.body)


@pytest.fixture
def app(tmp_path):
    found = Application(ModelSet([]))
    found.inbox = Inbox(tmp_path / "inbox")
    return found


def kept(tmp_path):
    files = sorted((tmp_path / "inbox").iterdir())
    return [json.loads(line) for path in files for line in path.read_text().splitlines()]


def test_labels_are_kept_once(app, tmp_path):
    assert post(app, GOOD) == (200, {"accepted": 2, "duplicates": 0})
    assert post(app, GOOD) == (200, {"accepted": 0, "duplicates": 2})
    first, second = kept(tmp_path)
    assert (first["id"], second["known_time"]) == ("a", "2026-01-01")
    assert first["known_time"].endswith("+00:00")
    (path,) = (tmp_path / "inbox").iterdir()
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_batch_counts_once_whatever_is_in_it(app, tmp_path):
    assert post(app, GOOD | {"batch": "monday"})[1]["accepted"] == 2
    assert post(app, {"labels": [{"id": "c", "label": 1}], "batch": "monday"})[1] == {"accepted": 0, "duplicates": 1}
    assert post(app, GOOD | {"batch": "tuesday"})[1]["accepted"] == 2
    assert len(kept(tmp_path)) == 4


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", {"labels": []}, {"labels": [1]}, {"labels": {}}, {"lables": []}, b"[" * 9999, b'{"labels":[{"a":"\xff"}]}']
)  # fmt: skip
def test_what_is_no_label_is_refused_in_words(app, tmp_path, body):
    status, answer = post(app, body)
    assert status == 400
    assert "labels" in answer["error"]
    assert not (tmp_path / "inbox").exists()


def test_a_full_disk_says_so_and_leaves_nothing(app, tmp_path, monkeypatch):
    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        status, answer = post(app, GOOD)
    assert status == 503
    assert "No space left" in answer["error"]
    assert list((tmp_path / "inbox").iterdir()) == []
    assert post(app, GOOD)[1]["accepted"] == 2


def test_a_server_without_a_place_for_them(app):
    app.inbox = None
    status, answer = post(app, GOOD)
    assert (status, "--labels" in answer["error"]) == (400, True)
    assert post(app, GOOD, method="GET")[0] == 405


def test_the_document_tells_of_them_where_they_are_taken(app):
    from cumulant.serving.openapi import document

    assert "/v1/labels" in document(app)["paths"]
    app.inbox = None
    assert "/v1/labels" not in document(app)["paths"]
