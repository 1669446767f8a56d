"""Rows that cannot be answered, names that do not exist, secrets, busy ports and interruptions."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import pytest
from wrong_input_support import FRAME, PROJECT, parquet, refused, table

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("new.csv", b"", "is empty (0 bytes)"),
        ("new.csv", b"amount,kind\n3,x\n4", "is cut off"),
        ("new.csv", b"amount,kind\n3,x\n4\n5,y\n", "1 row has fewer or more fields than the header (line 3)"),
        ("new.csv", b'amount,kind\n3,x\n4,"', "a quoted field that does not end"),
        ("new.csv", b"amuont,kind\n3,x\n", 'did you mean "amuont"?'),
        ("new.csv", b"weight,colour\n3,x\n", "the rows lack amount, kind"),
        ("new.csv", b"amount,kind\n3,x\nlots,y\n", '"amount" must be a number, and is not in row 2'),
        ("new.csv", b'amount,kind\n"1,234.5",x\n', '"amount" must be a number, and is not in row 1'),
        ("new.jsonl", b'{"amount": 3, "kind": "x"\n', "no line that is a JSON object"),
        ("new.parquet", parquet(FRAME)[:900], "not a whole Parquet file"),
        ("new.doc", b"PK", "save it as CSV or Parquet"),
    ],
)
def test_rows_that_cannot_be_answered(cumulant, trained, here, name, content, said):
    (here / name).write_bytes(content)
    refused(cumulant("predict", name, "--project", trained, "--out", "answers.csv"), 2, said)
    assert [path.name for path in here.iterdir()] == [name]


@pytest.mark.parametrize(
    ("content", "count"),
    [
        (b"amount,kind\n3,x\n90,z\n", 2),
        (b"late,kind,id,amount,more\n1,x,7,3,q\n", 1),
        (b"amount;kind\n3;x\n", 1),
        (b"\xef\xbb\xbfamount,kind\r\n3,x\r\n", 1),
        (b"amount,kind\n?,x\n", 1),
        (b"amount,kind\n,\n", 1),
        (b"amount,kind\n3,7\n", 1),
        (b"amount,kind\n1e308,never seen\n", 1),
        (b"amount\n3\n", 1),
        (b"amount,kind\n", 0),
    ],
)
def test_rows_that_can_be_answered_all_the_same(cumulant, trained, here, content, count):
    (here / "new.csv").write_bytes(content)
    ended = cumulant("predict", "new.csv", "--project", trained, "--json")
    assert ended.code == 0, ended.err
    assert len(ended.document["answers"]) == count


def test_a_field_that_is_left_out_is_named(cumulant, trained, here):
    (here / "new.csv").write_text("amount\n3\n")
    assert "taken as missing: kind" in cumulant("predict", "new.csv", "--project", trained).err


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("predict", "orders.csv", "--model", "shopp"), 2, 'did you mean "shop"?'),
        (("predict", "orders.csv", "--model", "shop@candidat"), 2, 'did you mean "candidate"?'),
        (("predict", "orders.csv", "--model", "shop/99"), 2, "known: 1"),
        (("predict", "orders.csv", "--model", "@@"), 2, "NAME@ALIAS"),
        (("predict", "ordrs.csv"), 2, 'did you mean "orders.csv"?'),
        (("predict", "orders.csv", "--as-of", "garbage"), 2, "write 2013-04-01"),
        (("predict", "orders.csv", "--url", "banana"), 2, "http://127.0.0.1:8080"),
        (("predict", "orders.csv", "--url", "http://127.0.0.1:1"), 3, "cumulant serve"),
        (("predict", "orders.csv", "--out", "answers.xyz"), 2, ".csv, .parquet or .jsonl"),
        (("models", "show", "shop@nope"), 2, "known: candidate"),
        (("models", "tag", "shop/1", "novalue"), 2, "KEY=VALUE"),
        (("models", "compare", "shop/1", "shop/7"), 2, "known: 1"),
        (("models", "reproduce", "shop/7"), 2, "known: 1"),
        (("lineage", "shop/7"), 2, "known: 1"),
        (("evaluate", "shop@nope"), 2, "known: candidate"),
        (("serve", "shop@nope"), 2, "known: candidate"),
        (("serve", "--host", "0.0.0.0", "--port", "0"), 2, "--insecure"),
        (("serve", "--port", "80000"), 2, "is not in the range"),
        (("report", "nope"), 2, "known: shop"),
        (("report", "shop", "--out", "page.pdf"), 2, ".html, .md or .json"),
    ],
)
def test_names_that_do_not_exist(cumulant, trained, here, words, code, said):
    (here / "orders.csv").write_text(table())
    refused(cumulant(*words, "--project", trained), code, said)
    assert [path.name for path in here.iterdir()] == ["orders.csv"]


def test_before_the_first_training(cumulant, project):
    for words in (("predict", "orders.csv"), ("serve",), ("models", "show"), ("evaluate",), ("lineage",)):
        refused(cumulant(*words, "--project", project), 2, 'no registered model named "shop"', "cumulant train")


def test_a_secret_is_missing_or_wrong_and_its_value_is_never_told(cumulant, project, monkeypatch):
    place = "environments:\n  prod:\n    tracking_uri: http://me:${secret:SHOP_PASSWORD}@127.0.0.1:1\n"
    (project / "cumulant.yaml").write_text(PROJECT + place)
    monkeypatch.delenv("SHOP_PASSWORD", raising=False)
    where = ("--project", project, "--env", "prod")
    refused(cumulant("models", "list", *where), 2, "no secret named SHOP_PASSWORD", "CUMULANT_SECRET_SHOP_PASSWORD")
    monkeypatch.setenv("SHOP_PASSWORD", "hunter2s3cret")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    shown = [cumulant("plan", "--resolved", *where), cumulant("models", "list", *where)]
    refused(shown[1], 3, "MLflow does not answer", "the same command may work later")
    several = (
        ("train", "--quick"),
        ("train", "--quick", "--json"),
        ("events", "list", "--json"),
        ("runs", "list", "--json"),
    )
    shown += [cumulant(*words, *where) for words in several]
    assert not [ended for ended in shown if "hunter2" in ended.out + ended.err]
    debugged = subprocess.run(
        [sys.executable, "-m", "cumulant.cli", "models", "list", "--debug", *map(str, where)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert debugged.returncode == 3
    assert "Traceback" in debugged.stderr
    assert "hunter2" not in debugged.stdout + debugged.stderr
    kept = [path for path in project.rglob("*") if path.is_file() and b"hunter2" in path.read_bytes()]
    assert kept == []


#: a command of its own, which Ctrl-C reaches even where the tests run in the background
BY_HAND = """\
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
from cumulant.cli.app import run
sys.exit(run(sys.argv[1:]))
"""


def started(*words: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", BY_HAND, *map(str, words)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_a_port_in_use(cumulant, trained):
    with socket.socket() as busy:
        busy.bind(("127.0.0.1", 0))
        busy.listen(1)
        port = busy.getsockname()[1]
        refused(
            cumulant("serve", "--port", port, "--project", trained),
            3,
            f"127.0.0.1:{port} is already in use",
            "--port 0",
        )


BODIES = [
    (b"", "the body is empty; send the fields"),
    (b'{"rows": [{"amount": 3}', "no valid JSON"),
    (b"\xff\xfe{}", "no valid JSON"),
    (b"null", "expected an object"),
    (b'{"rows": {}}', "must be a list"),
    (b'{"rows": [1]}', "expected an object"),
    (b'{"rows": [{"amuont": 3}]}', 'did you mean \\"amount\\"?'),
    (b'{"rows": [{"amount": "3"}]}', "must be a finite number"),
    (b'{"rows": [{"amount": 1e999}]}', "beyond the range of a 64-bit float"),
    (b'{"rows": [{"kind": 7}]}', "must be text"),
    (b'{"rows": ' + b"[" * 100_000, "nested too deeply"),
]


def test_bad_requests_and_ctrl_c(trained):
    server = started("serve", "--port", "0", "--project", trained, "--json")
    try:
        lines: list[str] = []
        while not lines or lines[-1] != "}\n":
            lines.append(server.stdout.readline())
            assert lines[-1], server.stderr.read()
        url = json.loads("".join(lines))["url"]
        for body, said in BODIES:
            code, text = asked(f"{url}/v1/models/shop/predict", body)
            assert (code, said in text) == (400, True), text
        assert asked(f"{url}/v1/models/shopp/predict", b"{}")[0] == 404
        assert asked(f"{url}/v1/models/shop/predict", b'{"rows": [{"amount": 3, "kind": "x"}]}')[0] == 200
        server.send_signal(signal.SIGINT)
        assert server.wait(30) == 0
    finally:
        if server.poll() is None:
            server.terminate()
        server.communicate()


def asked(url: str, body: bytes) -> tuple[int, str]:
    call = urllib.request.Request(url, data=body, headers={"content-type": "application/json"})
    try:
        with urllib.request.urlopen(call, timeout=20) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def test_ctrl_c_and_the_same_command_again(cumulant, project):
    process = started("train", "--trials", "3", "--project", project)
    try:
        while "search" not in (line := process.stderr.readline()):
            assert line, "the training ended before its search"
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()
    if process.returncode != 0:  # it may have been quicker
        assert process.returncode == 130
        assert "Traceback" not in out + err
        assert "continue from the last finished step" in err
        assert cumulant("runs", "list", "--project", project, "--json").document[0]["status"] == "interrupted"
    again = cumulant("train", "--trials", "3", "--project", project, "--json")
    assert again.code == 0, again.err
    assert "features" in again.document["reused"]
    assert cumulant("events", "verify", "--project", project).code == 0
    assert not list(project.rglob("*.part"))


def test_the_reader_of_the_output_may_leave(cumulant, trained):
    done = subprocess.run(
        f"'{sys.executable}' -m cumulant.cli events list --json --project '{trained}' | head -1",
        shell=True,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "COLUMNS": "200"},
    )
    assert done.returncode == 0
    assert not done.stderr
