"""`--server`: the command line over a real process of the API shows what it shows of the project itself."""

import json
import os
import shutil
import subprocess
import sys

import msgspec
import pytest
from filled_project import fill_journal, write_project

from cumulant.cli.app import COMMANDS, load, run
from cumulant.cli.local_commands import REASONS
from cumulant.project.file.loading import load as load_project
from cumulant.server.operation_list import OPERATIONS
from cumulant.server.operations.data import RefusedRows

pytestmark = pytest.mark.slow

#: command lines that read, in an order in which they may run; CASE is a waiting case
READS = [
    "plan",
    "plan --resolved",
    "data show",
    "data show visits --rows 0",
    "data quarantine",
    "data quarantine --file visits.csv --rows 3",
    "data clean",
    "features show",
    "features sql",
    "features get --rows 3",
    "features status",
    "features freshness",
    "features get --online page=1",
    "models list",
    "models show",
    "models show shop/1",
    "models compare shop/1 shop@champion",
    "lineage",
    "lineage shop/1",
    "runs list",
    "runs list --flow train --last 1",
    "runs show latest",
    "events list --last 5",
    "events list --kind snapshot.accepted --last 0",
    "predictions list --limit 7",
    "predictions list --since 2h",
    "predictions show r3",
    "predictions gaps",
    "labels list",
    "labels list --state usable --limit 3",
    "labels show r3",
    "labels report",
    "labels report --by week",
    "alerts list --ended",
    "alerts list --model none",
    "review list",
    "review list --status all --limit 2",
    "review show CASE",
    "review report",
    "release status",
    "release why",
    "release history",
    "release plan --requests 200/s",
    "ps",
    "slo rules",
    "slo show",
    "subjects find 5",
    "access roles",
    "access check ada runs.show",
    "access explain ada --group risk",
    "token list",
    "session list",
    "jobs list",
    # errors are the same, too
    "alerts show NONE",
    "features start-job",
    "features stop-job",
    "features jobs",
    "runs show NONE",
    "models show none/9",
    "data show none",
    "predictions show none",
    "review show zz",
    "release why none",
    "access policies",
    "session revoke",
    "token revoke none",
    "jobs show NONE",
    "jobs follow NONE",
    "jobs cancel NONE",
    "release watch",
    # names that are no plain segments of a path
    *(f"predictions show {name}" for name in ("a/b", "../../etc", "a?b#c", "x%2Fy", "%2e%2e", "é/ü", "..%2f", "a//")),
    "models show shop/1/2",
    "jobs show ../1",
    "events follow --after 0 --for 0 --kind model.al*",
]
#: command lines that write, run on a copy of the project each
WRITES = [
    "data validate",
    "train --quick",
    "evaluate",
    "models tag shop/1 reviewed=yes",
    "models alias shop/1 candidate --reason tested",
    "models alias shop candidate --remove",
    "models reproduce shop/1",
    "features materialize",
    "features backfill",
    "features verify --since 1h",
    "alerts silence --for 2h --rule covariate --reason known",
    "alerts test",
    "alerts retry",
    "alerts drop none",
    "alerts ack none",
    "labels ingest",
    "review next",
    "review decide CASE 1 --note sure",
    "review skip CASE",
    "review escalate CASE",
    "review note CASE text",
    "review assign CASE bob",
    "review fill --now",
    "release start shop/1",
    "release pause",
    "release resume",
    "release promote --reason now",
    "release abort --reason now",
    "release approve",
    "release override-slo --reason now",
    "rollback --reason now --within 0",
    "subjects erase 5 --yes",
    "subjects admit 5",
    "features forget card=c17",
    "tick",
]
#: fields that name a moment, a run or a random id of their own
OWN = {
    *("run", "seconds", "id", "at", "until", "since", "used", "created", "updated", "sentence", "last", "message"),
    *("lease", "history", "deadline", "url", "held_until", "revision", "retry_after"),
}


class Api:
    """A process of `cumulant api`, with a token for it."""

    def __init__(self, folder):
        self.folder = folder
        with load_project(folder) as project:
            from datetime import timedelta

            from cumulant.flows.identities.tokens import create_token

            new = create_token(
                project, "cli", principal=project.principal(), scope=(), service="", expires=timedelta(hours=1)
            )
            self.token, self.token_id = new.secret, new.token.id
        words = ["api", "--http", "127.0.0.1:0", "--no-link", "--json", "--project", str(folder)]
        self.process = subprocess.Popen([sys.executable, "-m", "cumulant.cli", *words], stdout=subprocess.PIPE)
        document = b""
        for line in self.process.stdout:
            document += line
            if line.startswith(b"}"):
                break
        self.url = json.loads(document)["url"]

    def close(self):
        self.process.terminate()
        self.process.wait(60)
        self.process.stdout.close()


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    folder = write_project(tmp_path_factory.mktemp("shop"))
    with load_project(folder) as project:
        fill_journal(project)
    assert run(["train", "--quick", "--project", str(folder)]) in (0, 1)
    assert run(["models", "alias", "shop/1", "champion", "--project", str(folder)]) == 0
    return folder


@pytest.fixture(scope="module")
def api(shop):
    server = Api(shop)
    yield server
    server.close()


@pytest.fixture
def call(capfd, monkeypatch):
    """Runs a command line in this process; its exit code, and what it wrote to standard output and error."""

    def run_line(*words, token=""):
        monkeypatch.setenv("CUMULANT_API_TOKEN", token)
        monkeypatch.setenv("COLUMNS", "160")
        capfd.readouterr()
        code = run(words)
        written = capfd.readouterr()
        return code, written.out, written.err

    return run_line


def case_of(folder):
    with load_project(folder) as project:
        from cumulant.flows.review.service import first_cases

        return first_cases(project, principal=project.principal())[0][0].id


def document(out):
    return [json.loads(line) for line in out.splitlines()] if out.startswith('{"') else json.loads(out) if out else None


def same(value):
    """A document without what differs from run to run."""
    if isinstance(value, dict):
        return {name: same(inner) for name, inner in value.items() if name not in OWN}
    return [same(inner) for inner in value] if isinstance(value, list) else value


def from_folder(text, folder):
    """Files named from the project's folder, as a server names them: it may be on another machine."""
    return text.replace(f"{folder}/", "").replace(str(folder), ".")


@pytest.mark.live
@pytest.mark.parametrize("line", READS)
def test_reads_are_the_same_at_the_project_and_at_its_server(shop, api, call, line):
    words = [case_of(shop) if word == "CASE" else word for word in line.split()]
    local = call(*words, "--json", "--project", str(shop))
    remote = call(*words, "--json", "--server", api.url, token=api.token)
    assert remote[0] == local[0], remote
    if line.startswith(("runs list", "events list")) and "--kind" not in line:
        assert len(document(remote[1])) == len(document(local[1]))  # each read of personal values is an event
        return
    left, right = (same(document(from_folder(ended[1], shop))) for ended in (local, remote))
    assert right == left


@pytest.fixture(scope="module")
def copies(shop, tmp_path_factory):
    """Two copies of the project, and a server of the second one."""
    folders = [tmp_path_factory.mktemp(place) / "shop" for place in ("local", "remote")]
    for folder in folders:
        shutil.copytree(shop, folder)
    server = Api(folders[1])
    yield folders[0], server
    server.close()


@pytest.mark.live
@pytest.mark.parametrize("line", WRITES)
def test_writes_are_the_same_at_the_project_and_at_its_server(shop, copies, call, line):
    """Each on the state that those before have left."""
    folder, server = copies
    ended = []
    for place in (folder, server.folder):
        words = [case_of(place) if word == "CASE" else word for word in line.split()]
        if place is folder:
            code, out, err = call(*words, "--json", "--project", str(place))
        else:
            code, out, err = call(*words, "--json", "--server", server.url, token=server.token)
        ended.append((code, same(document(from_folder(out, place))), err))
    local, remote = ended
    assert remote[:2] == local[:2], (local[2], remote[2])


@pytest.mark.live
@pytest.mark.parametrize("format_", ["json", "ocsf"])
def test_an_export_is_the_same_to_the_byte(shop, api, call, tmp_path, format_):
    line = ("events", "export", "--format", format_, "--kind", "data.snapshot_accepted", "--kind", "labels.ingested")
    for name, place in (("local", ("--project", str(shop))), ("remote", ("--server", api.url))):
        assert call(*line, str(tmp_path / name), *place, token=api.token)[0] == 0
    local = (tmp_path / "local").read_bytes()
    assert local
    assert (tmp_path / "remote").read_bytes() == local
    assert call(*line, "-", "--server", api.url, token=api.token)[1].encode() == local
    assert sorted(path.name for path in tmp_path.iterdir()) == ["local", "remote"], "no draft is left"


@pytest.mark.live
@pytest.mark.parametrize("name", ["..", ".", ""])
def test_a_name_that_no_address_can_have_is_refused_before_it_is_sent(api, call, name):
    code, out, _ = call("predictions", "show", name, "--server", api.url, "--json", token=api.token)
    assert (code, "cannot be named in a request" in document(out)["error"]["error"]) == (2, True), out


@pytest.mark.live
def test_a_file_is_sent_and_imported_once(copies, call, tmp_path):
    folder, server = copies
    (tmp_path / "scores.csv").write_text("request,at,p\nn1,2026-03-01T00:00:00Z,0.5\nn2,,0.5\n")
    line = (
        "labels",
        "import-predictions",
        str(tmp_path / "scores.csv"),
        "--map",
        "id=request,time=at,score=p",
        "--json",
    )
    for times in range(2):
        local = call(*line, "--project", str(folder))
        remote = call(*line, "--server", server.url, token=server.token)
        assert (remote[0], document(remote[1])) == (local[0], document(local[1])), remote
        assert (document(local[1])["rows"], document(local[1])["again"]) == (1, times == 1)
    missing = ("labels", "import-predictions", str(tmp_path / "none.csv"), "--map", "id=request,time=at,score=p")
    assert "cannot be read" in call(*missing, "--server", server.url, token=server.token)[2]
    import httpx

    place = f"{server.url}/v1/projects/shop/predictions/import"
    headers = {"authorization": f"Bearer {server.token}"}
    for name in ("../x.csv", "", "..", "a/b.csv", "x" * 300, "x.exe", "a\nb.csv"):
        answered = httpx.post(place, params={"name": name, "part": "id=a"}, content=b"a\n1\n", headers=headers)
        assert answered.status_code in (400, 422), (name, answered.text)
    # more than may be sent is refused while it comes
    answered = httpx.post(place, params={"name": "x.csv"}, content=b"x" * ((64 << 20) + 1), headers=headers, timeout=60)
    assert answered.status_code == 413


@pytest.mark.live
def test_work_is_submitted_and_followed(shop, api, call):
    line = ("evaluate", "shop/99", "--json")
    remote = {"server": ("--server", api.url), "local": ("--project", str(shop))}
    submitted = call(*line, "--detach", *remote["server"], token=api.token)
    job = document(submitted[1])
    assert (submitted[0], job["operation"]) == (0, "training.evaluate")
    followed = call("jobs", "follow", job["id"], "--json", *remote["server"], token=api.token)
    local = call(*line, *remote["local"])
    assert (followed[0], document(followed[1])["error"]["error"]) == (local[0], document(local[1])["error"]["error"])
    listed = document(call("jobs", "list", "--json", *remote["local"])[1])
    assert [each["status"] for each in listed if each["id"] == job["id"]] == ["failed"]
    code, _, err = call(*line[:2], "--detach", *remote["local"])
    assert (code, "--server URL" in err) == (2, True), err


def commands():
    """Each command with its parser."""
    for name in COMMANDS:
        parser = load(name)
        children = getattr(parser, "commands", None)
        yield from (
            ((f"{name} {child}", command) for child, command in children.items()) if children else ((name, parser),)
        )


def operations_of(command):
    return getattr(command.callback, "operations", None) or getattr(
        getattr(command.callback, "__wrapped__", None), "operations", ()
    )


def test_each_command_has_an_operation_or_a_reason():
    names = {operation.name: operation for operation in OPERATIONS}
    with_operations = {path: operations_of(command) for path, command in commands() if operations_of(command)}
    assert with_operations.keys() | REASONS.keys() | {"login"} == {path for path, _ in commands()}
    assert not with_operations.keys() & REASONS.keys()
    assert {name for used in with_operations.values() for name in used} <= names.keys()
    for line in (*READS, *WRITES):
        words = line.split()
        assert words[0] in with_operations or " ".join(words[:2]) in with_operations, line
    tried = {" ".join(line.split()[:2]) for line in (*READS, *WRITES)} | {line.split()[0] for line in (*READS, *WRITES)}
    assert with_operations.keys() - tried == {
        *("report", "token create", "monitor backtest"),
        *("events export", "events checkpoint", "labels import-predictions"),
    }


def test_refused_rows_of_an_earlier_server_are_read():
    answer = {"rows_in": 3, "total": 1, "columns": ["id"], "rows": [{"id": 7}]}
    assert msgspec.convert(answer, RefusedRows).rules == {}


def test_each_operation_has_a_command_or_is_of_the_api_alone():
    used = {name for _, command in commands() for name in operations_of(command)}
    alone = {
        *("data.quarantine_cells", "data.history", "monitoring.overview", "monitoring.quality"),  # the console's
        *("monitoring.drift", "monitoring.retraining", "stack.show", "releases.verdict", "review.list", "review.undo"),
        *("releases.looks", "runs.trials"),  # the console's
        *("monitoring.run", "monitoring.retrain"),  # see REASONS
        "events.verify",
        "training.predict",
    }
    assert {operation.name for operation in OPERATIONS} - used == alone


@pytest.mark.parametrize("path", sorted(REASONS))
def test_a_command_of_the_machine_says_what_to_do_instead(call, path):
    words = {
        "new": ["x"],
        "data infer": ["x"],
        "features import-feast": ["x"],
        "package": ["x"],
        "ingest refused": ["x"],
        "ingest late": ["x"],
        "predict": ["x"],
        "replay": ["--from", "2026-01-01", "--to", "2026-01-02"],
        "restore": ["a", "b"],
    }
    needed = {
        "backup": ["x"],
        "review export": ["x"],
        "review import": ["x"],
        "monitor run": ["--reference", "a", "--predictions", "b"],
    }
    code, out, err = call(*path.split(), *{**words, **needed}.get(path, []), "--server", "http://127.0.0.1:1", "--json")
    assert code == 2, (out, err)
    error = json.loads(out)["error"]
    assert (error["subject"], error["code"]) == ("--server", "usage"), error
    assert error["hint"].split(";")[0]


def test_the_variable_stands_for_the_option(call, monkeypatch, tmp_path):
    monkeypatch.setenv("CUMULANT_SERVER", "http://127.0.0.1:1")
    monkeypatch.setattr("cumulant.server.client.http_api._DELAY", 0.001)
    code, _, err = call("runs", "list", "--project", "shop")
    assert (code, "does not answer" in err) == (3, True), err
    code, _, err = call("backup", str(tmp_path / "x"))
    assert (code, "CUMULANT_SERVER" in err) == (2, True), err
    code, _, err = call("runs", "list", "--server", "", "--project", str(tmp_path))
    assert "cumulant.yaml" in err
    code, _, err = call("runs", "list", "--env", "prod")
    assert (code, "--env" in err) == (2, True)


@pytest.mark.parametrize("address", ["nonsense", "http://cumulant.example.com", "ftp://127.0.0.1", "https://"])
def test_a_token_is_sent_by_https_alone_or_within_the_machine(call, address):
    code, out, _ = call("runs", "list", "--server", address, "--json", token="cml_x")
    assert (code, json.loads(out)["error"]["code"]) == (2, "usage"), out


def test_options_that_need_the_project_are_refused_with_a_server(call, tmp_path):
    (tmp_path / "log").mkdir()
    code, _, err = call("predictions", "list", "--log", str(tmp_path / "log"), "--server", "http://127.0.0.1:1")
    assert (code, "--log" in err) == (2, True), err
    outside = "release start --champion-url http://127.0.0.1:1 --candidate-url http://127.0.0.1:2 --model x"
    for line in ("labels ingest x.csv", "review decide --from x.csv", outside):
        code, _, err = call(*line.split(), "--server", "http://127.0.0.1:1", "--project", "shop")
        assert (code, "machine" in err) == (2, True), (line, err)


@pytest.mark.live
def test_a_token_that_is_unknown_is_refused_and_the_saved_one_is_used(shop, api, call, monkeypatch, tmp_path):
    code, out, _ = call("models", "list", "--server", api.url, "--json", token="cml_" + "A" * 43)
    assert (code, json.loads(out)["error"]["code"]) == (2, "credentials"), out
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    from cumulant.core.system.saved_tokens import save_token

    save_token(api.url, api.token, os.environ)
    code, out, _ = call("models", "list", "--server", api.url, "--json")
    assert (code, len(json.loads(out))) == (0, 1)


def test_the_help_of_a_command_says_whether_it_takes_a_server(call):
    assert "--server" in call("runs", "list", "--help")[1]
    assert "--server" not in call("serve", "--help")[1]
