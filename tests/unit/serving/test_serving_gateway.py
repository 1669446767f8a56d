"""What a gateway says of a request: believed where the server was started for it, and nowhere else."""

from __future__ import annotations

from datetime import timedelta

import httpx
import pytest
from serving_models import ROW, WINDOWED, flights, servable, windowed_model
from test_serving_app import tensors
from test_serving_recording import PREDICT, REQUEST, ask, rows_of, serving, tell

from cumulant.drivers.local.online import SqliteOnline
from cumulant.features import materialize
from cumulant.serving.gateway import NONE, Marks, marks_of
from cumulant.serving.log import find

SAID = {"x-request-id": "q1", "cumulant-arm": "candidate", "cumulant-shadow": "1"}


def infer(url, headers, name="body-id"):
    body = {"id": name, "inputs": tensors([ROW])}
    return httpx.post(f"{url}/v2/models/flight-late/infer", json=body, headers=headers, timeout=30)


@pytest.mark.parametrize(
    ("headers", "marks"),
    [
        ({}, NONE),
        ({b"cumulant-arm": b"champion"}, Marks(arm="champion")),
        ({b"cumulant-arm": b"candidate", b"cumulant-served-arm": b"champion"}, Marks("candidate", "champion")),
        ({b"cumulant-arm": b"third", b"cumulant-served-arm": b"", b"cumulant-shadow": b"yes"}, NONE),
        ({b"cumulant-shadow": b"1", b"x-request-id": b"a-1"}, Marks(shadow=True, request="a-1")),
        ({b"x-request-id": b"a\x07"}, NONE),
        ({b"x-request-id": "é".encode()}, NONE),
        ({b"x-request-id": b"x" * 300}, NONE),
    ],
)
def test_marks(headers, marks):
    assert marks_of(headers) == marks


def test_the_log_has_the_gateways_words_on_arm_copy_and_request(tmp_path):
    folder, log = servable(tmp_path / "servable"), tmp_path / "log"
    with serving(folder, "--log", log, "--behind-gateway", "--workers", 2) as (_, url):
        assert infer(url, SAID).status_code == 200
        headers = {"x-request-id": "q2", "cumulant-arm": "candidate", "cumulant-served-arm": "champion"}
        assert httpx.post(url + PREDICT, json=ROW, headers=headers).status_code == 200
        assert infer(url, {}).status_code == 200
    (copy,), (rescued,), (plain,) = find(log, "q1"), find(log, "q2"), find(log, "body-id")
    assert (copy.arm, copy.served_arm, copy.shadow) == ("candidate", "", True)
    assert (rescued.arm, rescued.served_arm, rescued.shadow) == ("candidate", "champion", False)
    assert (plain.arm, plain.served_arm, plain.shadow) == ("", "", False)


def test_no_caller_of_a_server_without_a_gateway_chooses_its_arm(tmp_path):
    folder, log = servable(tmp_path / "servable"), tmp_path / "log"
    with serving(folder, "--log", log) as (_, url):
        assert infer(url, SAID).status_code == 200
    (one,) = find(log, "body-id")
    assert (one.arm, one.served_arm, one.shadow) == ("", "", False)
    assert find(log, "q1") == []


def test_a_row_that_both_versions_take_in_moves_each_state_once(tmp_path):
    """Mirrored rows reach both servers: the log of rows knows each by its key, and both states come to the same."""
    url = f"sqlite://{tmp_path / 'online.db'}"
    store = SqliteOnline(url)
    for table in ("one", "two"):
        materialize(WINDOWED, {"flights": flights(150).lazy()}, store, table=table)
    store.close()
    folder = servable(
        tmp_path / "servable", plan=WINDOWED, model=windowed_model(), sample={"hour": [1, 2], "late_1d": [0.5, None]}
    )
    whole = flights(180)
    told = rows_of(whole[150:], [*REQUEST, "late", "landed"])
    row = ROW | {"sched_dep": (whole["landed"].max() + timedelta(hours=2)).isoformat()}
    place = [folder, "--online", url, "--behind-gateway"]
    with (
        serving(*place, "--state-table", "one") as (_, champion),
        serving(*place, "--state-table", "two") as (_, other),
    ):
        for begin in range(0, 30, 10):
            first, second = (champion, other) if begin % 20 else (other, champion)
            part = told[begin : begin + 10]
            assert tell(first, part).json()["accepted"] == 10
            assert tell(second, part).json()["duplicates"] == 10
        found = [ask(one, row).json()["probability"] for one in (champion, other)]
    assert found[0] == found[1]
    with serving(*place, "--state-table", "one") as (_, champion):
        assert ask(champion, row).json()["probability"] == found[0]
