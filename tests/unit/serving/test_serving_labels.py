"""`POST /v1/labels`: in the log before it is answered, once by its batch or content."""

import asyncio
import errno
import hashlib
import json
import os
import threading

import pytest

from cumulant.core.errors import OverloadedError
from cumulant.core.masking import mask
from cumulant.core.plan import FeaturePlan, Field
from cumulant.core.servable import Servable
from cumulant.ports.log import UNDATED, PartInfo
from cumulant.serving.app import ServingApplication
from cumulant.serving.http.messages import Request
from cumulant.serving.models.model import ModelSet
from cumulant.serving.models.stores import open_log
from cumulant.serving.posted.label_inbox import InboxQuota, LabelInbox
from cumulant.serving.posted.label_masking import label_fields
from cumulant.serving.prediction_log.personal_values import PersonalValueMask
from cumulant.testing.log import append_lines, folder_log

GOOD = {"labels": [{"id": "a", "label": True}, {"id": "b", "label": 1, "known_time": "2026-01-01"}]}


BLOCK = 4096


async def ask(app, body, method="POST"):
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    found = app(Request(method, b"/v1/labels", {}, raw))
    return found if not asyncio.iscoroutine(found) else await found


def post(app, body, method="POST"):
    found = asyncio.run(ask(app, body, method))
    return found.status, json.loads(found.body)


@pytest.fixture
def app(tmp_path):
    found = ServingApplication(ModelSet([]))
    found.inbox = LabelInbox(folder_log(tmp_path / "inbox"), 4 * BLOCK)
    return found


def kept(tmp_path):
    files = sorted((tmp_path / "inbox").rglob("*.jsonl"))
    return [json.loads(line) for path in files for line in path.read_text().splitlines()]


def test_labels_are_kept_once(app, tmp_path):
    assert post(app, GOOD) == (200, {"accepted": 2, "duplicates": 0})
    assert post(app, GOOD) == (200, {"accepted": 0, "duplicates": 2})
    first, second = kept(tmp_path)
    assert (first["id"], second["known_time"]) == ("a", "2026-01-01")
    assert first["known_time"].endswith("+00:00")
    (path,) = (tmp_path / "inbox").rglob("*.jsonl")
    assert path.name.startswith("post-")


def test_personal_values_are_stored_as_the_hashes_that_the_log_has(tmp_path):
    salt = b"salt of a test"
    fields = {
        "mail": Field("mail", "str", personal=True),
        "number": Field("number", "int", personal=True),
        "born": Field("born", "date", personal=True),
    }
    app = ServingApplication(ModelSet([]))
    app.inbox = LabelInbox(folder_log(tmp_path / "inbox"), 4 * BLOCK, personal=lambda: fields, salt=salt)
    row = {"mail": "ann@example.com", "number": 7, "born": "1990-01-02"}
    again = {name: mask(value, salt) for name, value in row.items()}
    texts = {**row, "number": "7", "born": "02/01/1990"}
    labels = [{**given, "at": "2026-01-01", "label": True} for given in (row, again, texts)]
    assert post(app, {"labels": labels})[0] == 200
    first, second, third = kept(tmp_path)
    logged = dict(row)
    PersonalValueMask(salt, {"m": fields.values()}).of("m")(logged)
    assert {name: first[name] for name in row} == {name: second[name] for name in row} == logged
    assert (third["mail"], third["number"], third["born"]) == (logged["mail"], logged["number"], "02/01/1990")
    assert {(label["at"], label["label"]) for label in (first, second, third)} == {("2026-01-01", True)}
    body = json.dumps({"labels": labels}).encode()
    (path,) = (tmp_path / "inbox").rglob("*.jsonl")
    assert hashlib.sha256(body).hexdigest()[:32] not in path.name


def test_a_label_s_own_parts_are_never_masked():
    names = ("id", "label", "known_time", "customer")
    fields = [Field(name, "str", personal=True) for name in names]
    plan = FeaturePlan(entity="orders", predict_at=None, sources={}, features=(), request=tuple(fields))
    servable = Servable(name="m", task="binary", inputs=(), plan=plan)
    assert set(label_fields([servable])) == {"customer"}


def test_a_folder_of_posts_is_its_user_s_alone(tmp_path):
    inbox = open_log(str(tmp_path / "posts"))
    assert (tmp_path / "posts").stat().st_mode & 0o777 == 0o700
    append_lines(inbox, PartInfo(UNDATED, "post-1", 1, 1, "jsonl"), ["{}"])
    assert len(list((tmp_path / "posts").rglob("*.jsonl"))) == 1


def test_a_batch_counts_once_whatever_is_in_it(app, tmp_path):
    assert post(app, GOOD | {"batch": "monday"})[1]["accepted"] == 2
    assert post(app, {"labels": [{"id": "c", "label": 1}], "batch": "monday"})[1] == {"accepted": 0, "duplicates": 1}
    assert post(app, GOOD | {"batch": "tuesday"})[1]["accepted"] == 2
    assert len(kept(tmp_path)) == 4


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        {"labels": []},
        {"labels": [1]},
        {"labels": {}},
        {"lables": []},
        b"[" * 9999,
        b'{"labels":[{"a":"\xff"}]}',
    ],
)
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
    assert not [path for path in (tmp_path / "inbox").rglob("*") if path.is_file()]
    assert post(app, GOOD)[1]["accepted"] == 2


def test_a_server_without_a_place_for_them(app):
    app.inbox = None
    status, answer = post(app, GOOD)
    assert (status, "--labels" in answer["error"]) == (400, True)
    assert post(app, GOOD, method="GET")[0] == 405


def test_the_document_tells_of_them_where_they_are_taken(app):
    from cumulant.serving.endpoints.openapi import document

    assert "/v1/labels" in document(app)["paths"]
    app.inbox = None
    assert "/v1/labels" not in document(app)["paths"]


def one(name, size=10):
    return {"labels": [{"id": name, "label": "x" * size}]}


def counted(app):
    return {(series.family, *series.labels): series.value for series in asyncio.run(app.inbox.series())}


def test_beyond_its_bound_labels_are_refused_and_none_that_was_accepted_is_lost(app, tmp_path):
    for name in "abcd":
        assert post(app, one(name))[0] == 200
    found = asyncio.run(ask(app, one("e")))
    assert found.status == 429
    assert dict(found.headers)[b"retry-after"] == b"30"
    assert "no more than 16,384 bytes of them may wait" in json.loads(found.body)["error"]
    assert post(app, one("a")) == (200, {"accepted": 0, "duplicates": 1}), "it is there already"
    assert [line["id"] for line in sorted(kept(tmp_path), key=lambda one: one["id"])] == list("abcd")
    assert counted(app) == {
        ("cumulant_label_posts_total", "accepted"): 4,
        ("cumulant_label_posts_total", "duplicate"): 1,
        ("cumulant_label_posts_total", "refused"): 1,
        ("cumulant_labels_waiting_bytes",): 4 * BLOCK,
    }


def test_requests_go_on_while_the_folder_is_looked_through(app, tmp_path, monkeypatch):
    entered, gate, scanned = threading.Event(), threading.Event(), os.scandir

    def slowly(folder):
        entered.set()
        assert gate.wait(60)
        return scanned(folder)

    async def talk():
        asked = asyncio.ensure_future(app.inbox.series())
        assert await asyncio.to_thread(entered.wait, 10)
        gate.set()  # only a loop that goes on comes here
        return await asked

    assert post(app, one("a"))[0] == 200
    app.inbox = LabelInbox(folder_log(tmp_path / "inbox"), BLOCK)
    with monkeypatch.context() as patch:
        patch.setattr(os, "scandir", slowly)
        found = asyncio.run(talk())
    assert found[-1].value == BLOCK


def test_a_post_that_never_fits_is_said_to_be_too_large(app, tmp_path):
    status, answer = post(app, one("a", 5 * BLOCK))
    assert status == 400
    assert "all posted labels together may take 16,384" in answer["error"]
    assert not (tmp_path / "inbox").exists()


def test_room_is_what_others_leave_and_comes_back_when_they_are_taken_in(tmp_path):
    now = [0.0]
    inbox = folder_log(tmp_path)
    quota = InboxQuota(inbox, 2 * BLOCK, steady=lambda: now[0])
    assert quota.used() == 0
    another = PartInfo(UNDATED, "post-1", 1, 1, "jsonl")
    append_lines(inbox, another, ["x" * BLOCK])
    (tmp_path / another.key).with_name(".draft").write_bytes(b"x")
    quota.reserve(1)
    quota.complete(1, written=True)
    assert quota.used() == BLOCK, "another process is seen at the next look"
    now[0] += 1.1
    assert quota.used() == 2 * BLOCK
    with pytest.raises(OverloadedError):
        quota.reserve(1)
    inbox.delete([another])
    now[0] += 1.1
    quota.reserve(2 * BLOCK)
    with pytest.raises(OverloadedError):
        quota.reserve(1)
    quota.complete(2 * BLOCK, written=False)
    assert quota.used() == 0
    assert InboxQuota(folder_log(tmp_path / "none"), 1).used() == 0


def test_posts_at_once_never_pass_the_bound(tmp_path):
    app = ServingApplication(ModelSet([]))
    app.inbox = LabelInbox(folder_log(tmp_path / "inbox"), 8 * BLOCK)

    async def all_at_once():
        return await asyncio.gather(*(ask(app, one(str(number))) for number in range(40)))

    answers = [answer.status for answer in asyncio.run(all_at_once())]
    accepted = answers.count(200)
    assert 1 <= accepted <= 8
    assert answers.count(429) == 40 - accepted
    assert len(kept(tmp_path)) == accepted
