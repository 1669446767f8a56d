"""Help, typos, exit codes, JSON, imports: what holds for every command."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from cumulant.cli import errors
from cumulant.cli.app import COMMANDS, load, run
from cumulant.cli.command import application, command
from cumulant.cli.invocation import Invocation
from cumulant.cli.output import CommandOutput
from cumulant.core import errors as tree
from cumulant.core.errors import CumulantError, TerminalError
from cumulant.flows.ledger.actions import ACTIONS

HEAVY = (
    "polars",
    "pandas",
    "numpy",
    "mlflow",
    "sklearn",
    "lightgbm",
    "onnxruntime",
    "optuna",
    "scipy",
    "pydantic",
    "rich",
    "httpx",
)


def leaves() -> Iterator[tuple[str, ...]]:
    """Every command as the words that call it."""
    for name in COMMANDS:
        inner = getattr(load(name), "commands", None)
        if inner:
            yield from ((name, part) for part in inner)
        else:
            yield (name,)


LEAVES = list(leaves())
GROUPS = [name for name in COMMANDS if getattr(load(name), "commands", None)]


def test_the_commands_are_those_that_were_promised() -> None:
    spoken = {" ".join(words) for words in LEAVES}
    promised = {
        "new",
        "plan",
        "train",
        "evaluate",
        "predict",
        "serve",
        "lineage",
        "report",
        "demo",
        "doctor",
        "data validate",
        "data infer",
        "data quarantine",
        "data show",
        "data clean",
        "features show",
        "features get",
        "models list",
        "models show",
        "models compare",
        "models tag",
        "models alias",
        "models reproduce",
        "runs list",
        "runs show",
        "events list",
        "events follow",
        "events verify",
        "events export",
    }
    assert promised <= spoken


@pytest.mark.parametrize("words", LEAVES, ids=" ".join)
def test_help_of_every_command_has_an_example_and_the_common_options(words: tuple[str, ...], cumulant: Any) -> None:
    ended = cumulant(*words, "--help")
    assert ended.code == 0
    assert ended.err == ""
    example = ended.out.split("Examples:\n", 1)[1].splitlines()[0].strip()
    assert example.startswith(f"cumulant {' '.join(words)}")
    for option in ("--json", "--project DIR", "--env NAME"):
        assert option in ended.out
    summary = ended.out.split("\n\n")[1].strip()
    assert summary.endswith((".", "1.", "interrupted.")), summary


@pytest.mark.parametrize("words", LEAVES, ids=" ".join)
def test_examples_use_options_that_exist(words: tuple[str, ...]) -> None:
    found = load(words[0])
    if len(words) == 2:
        found = found.commands[words[1]]
    known = {name for param in found.params for name in (*param.opts, *param.secondary_opts)}
    for example in found.epilog.splitlines():
        spoken = {word.split("=")[0] for word in shlex.split(example) if word.startswith("--")}
        assert spoken <= known, example


@pytest.mark.parametrize("name", GROUPS)
def test_help_of_every_group_has_an_example(name: str, cumulant: Any) -> None:
    ended = cumulant(name, "--help")
    assert ended.code == 0
    assert f"  cumulant {name} " in ended.out.split("Examples:\n", 1)[1]


def test_root_help_lists_every_command_in_the_order_of_the_loop(cumulant: Any) -> None:
    ended = cumulant("--help")
    assert ended.code == 0
    places = [ended.out.index(f"\n  {name} ") for name in COMMANDS]
    assert places == sorted(places)
    assert cumulant().out == ended.out
    assert all(len(line) <= 100 for line in ended.out.splitlines())


def test_version(cumulant: Any) -> None:
    import cumulant as package

    assert cumulant("--version").out == f"cumulant {package.__version__}\n"


@pytest.mark.parametrize("words", [["--help"], ["train", "--help"], ["--version"]])
def test_help_imports_no_engine(words: list[str]) -> None:
    code = f"import sys; from cumulant.cli.app import run; run({words!r}); sys.stderr.write(' '.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    loaded = {name.partition(".")[0] for name in done.stderr.split()}
    # Typer 0.29 parses with pydantic; that is its own matter, except where nothing is parsed.
    assert not loaded & set(HEAVY) - ({"pydantic"} if "train" in words else set())


@pytest.mark.parametrize(
    ("typo", "meant"),
    [("trian", "train"), ("modles", "models"), ("lineag", "lineage"), ("event", "events")],
)
def test_a_mistyped_command_is_answered_with_the_nearest(typo: str, meant: str, cumulant: Any) -> None:
    ended = cumulant(typo)
    assert ended.code == 2
    assert ended.out == ""
    assert f'did you mean "{meant}"?' in ended.err


def test_a_mistyped_command_of_a_group_and_a_mistyped_option(cumulant: Any) -> None:
    assert 'did you mean "verify"?' in cumulant("events", "verfy").err
    ended = cumulant("events", "list", "--jsn")
    assert (ended.code, ended.out) == (2, "")
    assert 'did you mean "--json"?' in ended.err


def test_missing_and_wrong_arguments_are_usage_errors(cumulant: Any) -> None:
    assert cumulant("new").code == 2
    ended = cumulant("events", "list", "--last", "many")
    assert ended.code == 2
    assert "--last" in ended.err


def test_a_usage_error_with_json_is_one_document(cumulant: Any) -> None:
    ended = cumulant("trian", "--json")
    assert (ended.code, ended.err) == (2, "")
    assert ended.document["error"]["code"] == "usage"
    assert ended.document["error"]["hint"] == 'did you mean "train"?'


def kinds() -> list[type[CumulantError]]:
    return [found for found in vars(tree).values() if isinstance(found, type) and issubclass(found, CumulantError)]


@pytest.mark.parametrize("kind", kinds())
def test_every_error_of_the_tree_has_its_exit_code(kind: type[CumulantError]) -> None:
    expected = 4
    for parent, code in ((tree.RefusedError, 1), (tree.UsageError, 2), (tree.RetryableError, 3)):
        expected = code if issubclass(kind, parent) else expected
    assert errors.exit_code(kind("it happened")) == expected


def test_an_error_says_what_happened_to_what_and_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    error = tree.PortInUseError("port 8080 is taken", subject="127.0.0.1:8080", hint="cumulant serve --port 8081")
    with CommandOutput(json=False) as output:
        code = errors.finish(error, output, debug=False)
    found = capsys.readouterr()
    assert (code, found.out) == (3, "")
    for part in (
        "port 8080 is taken",
        "127.0.0.1:8080",
        "--port 8081",
        "port-in-use",
        "docs/reference/errors.md#port-in-use",
    ):
        assert part in found.err


def test_every_fault_of_a_project_file_is_shown_with_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    problems = [("cumulant.yaml", 3, 'unknown key "treshold"'), ("cumulant.yaml", None, "no target")]
    error = tree.ProjectFileError("2 faults in the project file", problems=problems)
    with CommandOutput(json=True) as output:
        assert errors.finish(error, output, debug=False) == 2
    document = json.loads(capsys.readouterr().out)
    assert document["error"]["problems"][0] == {"file": "cumulant.yaml", "line": 3, "problem": 'unknown key "treshold"'}
    with CommandOutput(json=False) as output:
        errors.finish(error, output, debug=False)
    assert 'cumulant.yaml:3  unknown key "treshold"' in capsys.readouterr().err


def test_text_from_outside_cannot_steer_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    error = tree.DataError("bad \x1b[31mname\x07 [bold]x[/bold]", subject="\u202egnp.exe")
    with CommandOutput(json=False) as output:
        errors.finish(error, output, debug=False)
    said = capsys.readouterr().err
    assert not set(said) & {"\x1b", "\x07", "\u202e"}
    assert "[bold]x[/bold]" in said


@pytest.mark.parametrize("debug", [False, True])
def test_an_unexpected_error_ends_with_4_and_shows_its_traceback_only_on_demand(
    debug: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        {}["nothing"]
    except KeyError as error:
        with CommandOutput(json=False) as output:
            code = errors.finish(error, output, debug=debug)
    said = capsys.readouterr().err
    assert code == 4
    assert ("Traceback" in said) is debug
    assert "KeyError" in said


def test_a_missing_engine_is_answered_with_the_install_line(capsys: pytest.CaptureFixture[str]) -> None:
    with CommandOutput(json=False) as output:
        code = errors.finish(ModuleNotFoundError("No module named 'polars'", name="polars"), output, debug=False)
    assert code == 2
    assert 'pip install "cumulant[local]"' in capsys.readouterr().err


def test_interruption_and_closed_pipe_have_the_codes_of_the_shell(capsys: pytest.CaptureFixture[str]) -> None:
    with CommandOutput(json=False) as output:
        assert errors.finish(KeyboardInterrupt(), output, debug=False) == 130
    assert "last finished step" in capsys.readouterr().err


@pytest.mark.parametrize("words", ["--help", "plan --resolved", "plan --resolved --json"])
def test_a_reader_that_goes_away_is_no_error(words: str, project: Path) -> None:
    line = (
        f"set -o pipefail; {sys.executable} -m cumulant.cli {words} --project {project} | true; echo ${{PIPESTATUS[0]}}"
    )
    line = line.replace(f" --project {project}", "") if words == "--help" else line
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=60, check=False)
    assert done.stderr == ""
    assert done.stdout in {"141\n", "0\n"}  # 0 where it had written everything before the reader left


def test_with_json_nothing_but_the_document_reaches_standard_output() -> None:
    code = """
import os, sys
from cumulant.cli.output import CommandOutput
with CommandOutput(json=True) as output:
    print("a user's function talks")
    os.write(1, b"an engine in C talks\\n")
    output.document({"answer": 1})
    print("and again")
print("after")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == '{\n  "answer": 1\n}\nafter\n'
    assert done.stderr.count("talks") == 2


def test_a_command_without_example_or_declared_action_stops_at_start_up() -> None:
    app = application("x", "Something.")

    def good(call: Invocation) -> None:
        """Do."""

    with pytest.raises(TypeError, match="example"):
        command(app, action=None, examples=[])(good)
    with pytest.raises(TerminalError, match="is not declared"):
        command(app, action="model.trian", examples=["x"])
    assert "model.train" in ACTIONS


def test_plain_output_without_a_terminal_or_with_no_color(monkeypatch: pytest.MonkeyPatch) -> None:
    pty = pytest.importorskip("pty")
    for setting, coloured in (({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)):
        controller, terminal = pty.openpty()
        env = {**os.environ, "TERM": "xterm", "COLUMNS": "60"} | setting
        env.pop("NO_COLOR", None) if "NO_COLOR" not in setting else None
        subprocess.run([sys.executable, "-m", "cumulant", "--help"], stdout=terminal, env=env, check=True, timeout=60)
        os.close(terminal)
        said = os.read(controller, 65536).decode()
        os.close(controller)
        assert ("\x1b[1m" in said) is coloured
    del monkeypatch


def test_the_edge_returns_a_code_for_whatever_is_raised(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["runs", "list"]) == 2
    assert run(["runs", "list", "--project", str(tmp_path / "nowhere")]) == 2
    assert isinstance(typer.Exit(), RuntimeError)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("train", "--trials", "x"), "'x' is no whole number"),
        (("events", "follow", "--for", "soon"), '"soon" is not a duration'),
    ],
)
def test_an_option_that_takes_a_number_says_so(words: tuple[str, ...], said: str, cumulant: Any) -> None:
    ended = cumulant(*words)
    assert (ended.code, said in ended.err) == (2, True), ended.err
