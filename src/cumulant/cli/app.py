"""The root command: its table of commands, its help, and the one place where a run ends in an exit code."""

from __future__ import annotations

import importlib
import os
from collections.abc import Sequence
from typing import Any, NamedTuple

import typer
from typer.main import get_command

from cumulant.cli import errors
from cumulant.cli.command import CommandGroup, application
from cumulant.cli.output import CommandOutput
from cumulant.cli.termination import termination


class HelpEntry(NamedTuple):
    """One line of the root help; `module` of `cumulant.cli` holds the command and is imported when it runs."""

    module: str
    summary: str


PANELS: dict[str, dict[str, HelpEntry]] = {
    "Start": {
        "demo": HelpEntry("demos.flights", "Real flights, from raw tables to a served model, in minutes"),
        "demo-fraud": HelpEntry("demos.fraud", "Card payments from a topic to decisions, through Black Friday"),
        "new": HelpEntry("project.new", "Create a project from your own file or a template"),
        "plan": HelpEntry("project.plan", "What would run, and where every setting comes from"),
        "doctor": HelpEntry("project.doctor", "Check this machine and project, and show how to fix what is wrong"),
    },
    "The loop": {
        "data": HelpEntry("training.data", "Validate sources; show snapshots, checks and quarantine"),
        "ingest": HelpEntry("training.ingest", "Ingest messages of streams; how far that is"),
        "features": HelpEntry("training.features", "What the features are, and their values"),
        "train": HelpEntry("training.train", "Search, evaluate, package, register: a model version"),
        "evaluate": HelpEntry("training.evaluate", "Score a registered model on later data, and apply the gate"),
        "models": HelpEntry("training.models", "List, show, compare, tag, alias, reproduce"),
        "package": HelpEntry("training.package", "A servable from an existing model: ONNX, LightGBM, XGBoost, ..."),
        "predict": HelpEntry("serving.predict", "Score the rows of a file, offline or with a server"),
        "serve": HelpEntry("serving.serve", "Answer requests over HTTP"),
        "release": HelpEntry("release.release", "Release a version in stages; harm rolls it back"),
        "rollback": HelpEntry("release.rollback", "Send all requests to a version served before"),
    },
    "In production": {
        "up": HelpEntry("serving.up", "Serve the champion behind a gateway: all processes, supervised"),
        "ps": HelpEntry("serving.ps", "The processes that serve, with their state"),
        "down": HelpEntry("serving.down", "Stop them all; requests under way are finished"),
        "api": HelpEntry("project.api", "The HTTP API of projects, and their console"),
        "jobs": HelpEntry("project.jobs", "Long operations of a server: list, follow, cancel"),
        "replay": HelpEntry("serving.replay", "A past period again, as requests and labels, many times faster"),
        "alerts": HelpEntry("monitoring.alerts", "Alerts, their receivers, and the delivery of messages"),
        "monitor": HelpEntry("monitoring.monitor", "Drift of a model's rows, and whether it matters"),
        "slo": HelpEntry("monitoring.slo", "Service level objectives: budget, burn rates, Prometheus rules"),
        "backup": HelpEntry("project.backup", "All of a project in one file, while it runs"),
        "restore": HelpEntry("project.restore", "A project from a backup, each file verified"),
        "worker": HelpEntry("training.worker", "Run queued steps of commands, on this machine"),
        "tick": HelpEntry("project.tick", "Do once whatever is due: for cron and schedulers"),
    },
    "Who may call": {
        "login": HelpEntry("project.login", "Sign in to a server: its token is saved for your user"),
        "token": HelpEntry("project.tokens", "API tokens: create, list, revoke"),
        "session": HelpEntry("project.sessions", "Sign-ins of the console: links, sessions, their end"),
    },
    "The record": {
        "runs": HelpEntry("project.runs", "Runs and their steps"),
        "events": HelpEntry("project.events", "The chain of events: list, follow, verify, export"),
        "predictions": HelpEntry("serving.predictions", "The prediction log: list, show, gaps"),
        "labels": HelpEntry("monitoring.labels", "Outcomes of predictions: ingest, list, show, report"),
        "review": HelpEntry("monitoring.review", "Queue predictions for reviewers, and take their answers"),
        "subjects": HelpEntry("project.subjects", "What is stored of one person or customer, and its erasure"),
        "access": HelpEntry("project.access", "Who may do what, and by which policy"),
        "lineage": HelpEntry("project.lineage", "From a model back to files, code and settings"),
        "report": HelpEntry("project.report", "One page about a run or model"),
    },
}
COMMANDS = {name: entry for panel in PANELS.values() for name, entry in panel.items()}


class Root(CommandGroup):
    """The root group: knows every command by name, imports only the one that is called."""

    def list_commands(self, ctx: Any) -> list[str]:
        del ctx
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        del ctx
        return load(cmd_name) if cmd_name in COMMANDS else None

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        del ctx
        for title, panel in PANELS.items():
            with formatter.section(title):
                formatter.write_dl([(name.ljust(11), entry.summary) for name, entry in panel.items()])
        with formatter.section("Every command takes"):
            formatter.write_dl(
                [
                    ("--help", "What it does, with an example"),
                    ("--json", "One JSON document on standard output, nothing else"),
                    ("--project DIR", "The folder of cumulant.yaml; default: here, or above"),
                    ("--env NAME", "An environment of the project file; default: local"),
                    ("--server URL", "Of a project on a server; a command that cannot says what to do instead"),
                    ("--debug", "The traceback of an unexpected error"),
                ]
            )


def load(name: str) -> Any:
    """The parser of one command, built from its module."""
    command = get_command(importlib.import_module(f"cumulant.cli.{COMMANDS[name].module}").app)
    command.name = name
    return command


root = application(
    "cumulant",
    "A model's whole life from one project file: data, features, training, registry, serving.",
    examples=[
        "cumulant demo",
        "cumulant new churn --from customers.csv --target churned",
        "cumulant train --quick",
    ],
)


def _show_version(wanted: bool) -> None:
    if wanted:
        from cumulant.core.version import __version__

        print(f"cumulant {__version__}")
        raise typer.Exit


@root.callback(cls=Root, invoke_without_command=False)
def _root(
    version: bool = typer.Option(
        False, "--version", callback=_show_version, is_eager=True, help="Print the version and exit."
    ),
) -> None:
    del version


def parser() -> Any:
    """The whole command line as one object that can be called with `args=[...]`."""
    return get_command(root)


def run(arguments: Sequence[str]) -> int:
    """Run one command line; returns the exit code and raises nothing.

    With `--json`, whatever else prints to standard output while the command works (a user's function, an engine) goes
    to standard error, so that the document stays alone.
    """
    own, rest = _split(arguments)
    debug = "--debug" in own or bool(os.environ.get("CUMULANT_DEBUG"))
    line = [argument for argument in own if argument != "--debug"] + rest
    with CommandOutput(json="--json" in own) as output, termination() as signals:
        try:
            code = _call(line, output)
            output.flush()
        except BaseException as error:  # noqa: BLE001 - the edge: every ending becomes an exit code here
            code = errors.finish(error, output, debug=debug)
            code = errors.TERMINATED if code == errors.INTERRUPTED and signals.received else code
    return code


def _split(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """The arguments before `--`, and the others with it."""
    line = list(arguments)
    cut = line.index("--") if "--" in line else len(line)
    return line[:cut], line[cut:]


def _call(arguments: list[str], output: CommandOutput) -> int:
    result = parser().main(args=arguments or ["--help"], prog_name="cumulant", standalone_mode=False, obj=output)
    if result == errors.INTERRUPTED:
        raise KeyboardInterrupt  # Typer turned it into an exit code
    return result if isinstance(result, int) else 0


__all__ = ["COMMANDS", "PANELS", "load", "parser", "run"]
