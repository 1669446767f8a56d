"""Write the diagrams and the generated pages of docs/reference from the code itself: `python tools/generate_docs.py [--check]`."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import asvs
import dashboards
import draw_diagrams
import feature_engines
import release_tables

ROOT = Path(__file__).resolve().parents[1]
REFERENCE = ROOT / "docs" / "reference"


def commands_page() -> str:
    from cumulant.cli.app import COMMANDS, load

    lines = [
        "# Commands",
        "",
        "Generated from the command line itself; every command also prints this with `--help`.",
        "",
    ]
    for path, command in (found for name in COMMANDS for found in walk(load(name), f"cumulant {name}")):
        lines += [f"## `{path}`", "", inspect.cleandoc(command.help or "").replace("\b", "").strip(), ""]
        options = [option for option in command.params if not getattr(option, "hidden", False)]
        if options:
            lines += ["| option | meaning | default |", "|---|---|---|"]
            lines += [row(option) for option in options]
            lines.append("")
    return "\n".join(lines).rstrip() + "\n"


def walk(command, path: str) -> Iterator[tuple[str, object]]:
    children = getattr(command, "commands", None)
    if children is None:
        yield path, command
        return
    for name in sorted(children):
        if not children[name].hidden:
            yield from walk(children[name], f"{path} {name}")


def row(option) -> str:
    names = ", ".join(f"`{name}`" for name in [*option.opts, *option.secondary_opts])
    if option.param_type_name == "argument":
        names = f"`{(option.metavar or option.name or '').upper()}`"
    default = "" if option.default in (None, False, (), "") or callable(option.default) else f"`{option.default}`"
    meaning = (getattr(option, "help", None) or "").replace("|", "\\|").replace("\n", " ")
    return f"| {names} | {meaning} | {default} |"


def errors_page() -> str:
    from cumulant.core import errors

    lines = [
        "# Errors",
        "",
        (
            "Every error that Cumulant raises on purpose carries one of these codes. The exit code of a command follows from the branch: "
            "1 a gate said no, 2 usage, 3 the same call may work later, 4 trying again will not help. A command that Ctrl-C "
            "ended gives 130, one that was asked to end (SIGTERM) 143, one whose reader went away 141."
        ),
        "",
    ]
    exits = {"UsageError": 2, "RefusedError": 1, "RetryableError": 3, "TerminalError": 4}
    meanings = tree_meanings(inspect.getdoc(errors) or "")
    for branch, code in exits.items():
        for kind in [getattr(errors, branch), *subclasses(getattr(errors, branch))]:
            lines += [f"## {kind.code}", "", f"`{kind.__name__}`, exit code {code}: {meanings[kind.__name__]}.", ""]
    lines += [
        "## unexpected",
        "",
        "Exit code 4: something nobody foresaw. `--debug` shows the traceback; please report it.",
        "",
    ]
    return "\n".join(lines).rstrip() + "\n"


def subclasses(kind: type) -> Iterator[type]:
    for child in kind.__subclasses__():
        if child.__module__ == "cumulant.core.errors":
            yield child
            yield from subclasses(child)


def tree_meanings(text: str) -> dict[str, str]:
    found = {}
    for line in text.splitlines():
        words = line.lstrip(" │├└─").split(maxsplit=1)
        if len(words) == 2 and words[0].endswith("Error"):
            found[words[0]] = words[1]
    return found


def project_page() -> str:
    from project_reference import reference_markdown

    return reference_markdown()


def server_page() -> str:
    """The page of the server with its table of options."""
    from cumulant.serving.options import options

    lines = ["", "| option | default | meaning | in the project file |", "|---|---|---|---|"]
    for one in sorted(options(), key=lambda one: one.name):
        value = one.metavar if one.choices is None else " or ".join(one.choices)
        default = f"`{one.default}`" if one.kind in ("text", "number") and one.default not in (None, "") else ""
        again = " May be repeated." if one.kind == "several" else ""
        name = f"`{one.name} {value}`" if value else f"`{one.name}`"
        cells = [name, default, one.help + again, f"`{one.section}`" if one.section else ""]
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return between(REFERENCE / "server.md", "<!-- server options -->", "<!-- end of the server options -->", lines)


def access_page() -> str:
    """The page of roles with the table of actions."""
    from cumulant.core.roles import ROLES, ROLES_OF
    from cumulant.flows.ledger.actions import ACTIONS

    lines = ["", "| action | roles | what |", "|---|---|---|"]
    for action, roles in ROLES_OF.items():
        named = "every role" if len(roles) == len(ROLES) else ", ".join(roles)
        lines.append(f"| `{action}` | {named} | {ACTIONS[action].text} |")
    return between(ROOT / "docs/how-to/access.md", "<!-- roles -->", "<!-- end of the roles -->", lines)


def between(page: Path, begin: str, end: str, lines: list[str]) -> str:
    """A page with other lines between two marks."""
    head, rest = page.read_text().split(begin)
    return f"{head}{begin}\n" + "\n".join([*lines, "", end]) + rest.split(end)[1]


def api_page() -> str:
    from cumulant.server.operation_list import OPERATIONS

    lines = [
        "# HTTP API",
        "",
        "Operations of `cumulant api` ([guide](../how-to/api.md)), generated from the code. Paths are relative to `/v1/projects/{project}`; `GET /v1/openapi.json` has all types. *Job*: the response is 202 and names the job that does it.",
        "",
        "Further paths: `/v1` (version, caller, projects), `/v1/projects`, `/v1/openapi.json`, `/v1/health/live`, and `/v1/projects/{project}/events/stream` (server-sent events).",
        "",
    ]
    subject = ""
    for operation in OPERATIONS:
        area = operation.name.partition(".")[0]
        if area != subject:
            lines += ["", f"## {area}", "", "| method | path | action | |", "|---|---|---|---|"]
            subject = area
        job = " *Job.*" if operation.long else ""
        lines.append(f"| {operation.method} | `{operation.path}` | `{operation.action}` | {operation.summary}{job} |")
    return "\n".join(lines).replace("\n\n\n", "\n\n") + "\n"


def metrics_page() -> str:
    """The page of all metrics."""
    from cumulant.flows.observe.families import FAMILIES as OF_PROJECTS
    from cumulant.flows.observe.families import MOST_FEATURES
    from cumulant.server.request_metrics import FAMILIES as OF_API
    from cumulant.serving.telemetry.metrics import FAMILIES as OF_SERVERS

    lines = [
        "# Metrics",
        "",
        "Generated from the code. [How to observe a project](../how-to/observe.md) shows rules, dashboards and traces.",
        "Histograms have buckets, `_sum` and `_count`. A scraper that accepts OpenMetrics gets that format, with the trace",
        "of the newest request of each bucket of `cumulant_request_seconds` where traces are on.",
        "",
        "## Prediction servers",
        "",
        "At `/metrics` of each server, summed over its workers. `arm` is the arm that the gateway assigned (`champion`,",
        "`candidate`), `shadow` for mirrored copies, and empty without a gateway. Series: of `cumulant_requests_total` at",
        "most versions x 4 arms x 5 endpoints x statuses; no label has a value that callers choose.",
        "",
        *metric_table(OF_SERVERS),
        "",
        "## Projects",
        "",
        "At `/metrics` of the controller, whose address is in `.cumulant/stack/controller.json`. Read at most once in 5 s.",
        f"Series: per model at most {MOST_FEATURES} columns (those with the greatest effect) x 3; else one for each alert rule,",
        "receiver, source, table, job, process, and metric of the newest release.",
        "",
        *metric_table(OF_PROJECTS),
        "",
        "## API",
        "",
        "At `/v1/metrics` of the API and the console, beside those of the projects that the caller may see. `project` is that",
        "of the path; requests for no project have none, and only a caller with `stack.show` in all projects sees them.",
        "`route` is the template of a path; other paths and methods are `other`.",
        "",
        *metric_table(OF_API),
    ]
    return "\n".join(lines) + "\n"


def metric_table(families) -> Iterator[str]:
    yield from ("| name | type | labels | meaning |", "|---|---|---|---|")
    for name, family in families.items():
        yield f"| `{name}` | {family.kind} | {', '.join(family.labels)} | {family.help.rstrip('.')} |"


def python_page() -> str:
    """The page of the public Python API: its functions, and the methods of a project."""
    import cumulant
    from cumulant.api import feature_store, monitoring, outcomes, server, stack, subjects
    from cumulant.api.remote import groups
    from cumulant.api.remote import project as remote_project

    lines = [
        "# Python API",
        "",
        "Generated from the code. [How to](../how-to/notebook.md) shows it in a notebook. Types of results are in `cumulant.api.results`.",
        "",
        "## Functions",
        "",
    ]
    for name in ("new", "new_from_template", "open", "connect", "register"):
        lines += entry(f"cumulant.{name}", getattr(cumulant, name))
    groups = {
        "project": cumulant.Project,
        "project.stack": stack.ProjectStack,
        "project.releases": stack.ProjectReleases,
        "project.outcomes": outcomes.ProjectOutcomes,
        "project.monitoring": monitoring.ProjectMonitoring,
        "project.reviews": monitoring.ProjectReviews,
        "project.subjects": subjects.ProjectSubjects,
        "project.feature_store": feature_store.ProjectFeatureStore,
        "project.serve()": server.Server,
        "project.stack.up()": stack.RunningStack,
        "cumulant.connect()": remote_project.RemoteProject,
        "cumulant.connect().stack": groups.RemoteStack,
        "cumulant.connect().releases": groups.RemoteReleases,
        "cumulant.connect().outcomes": groups.RemoteOutcomes,
        "cumulant.connect().monitoring": groups.RemoteMonitoring,
        "cumulant.connect().reviews": groups.RemoteReviews,
        "cumulant.connect().subjects": groups.RemoteSubjects,
        "cumulant.connect().feature_store": groups.RemoteFeatureStore,
    }
    for path, kind in groups.items():
        lines += [f"## `{path}`", "", inspect.getdoc(kind) or "", ""]
        for name, member in vars(kind).items():
            if not name.startswith("_"):
                lines += entry(f"{path}.{name}", member)
    return "\n".join(lines).rstrip() + "\n"


def entry(path: str, member: object) -> list[str]:
    """The lines of one function, method or property."""
    title, text = path, (inspect.getdoc(member) or "").replace("\nRaises:\n", "\nRaises:\n\n").splitlines()
    if callable(member):
        parameters = [each for each in inspect.signature(member).parameters.values() if each.name != "self"]
        title += str(inspect.Signature([each.replace(annotation=inspect.Parameter.empty) for each in parameters]))
    errors = [f"- {line.strip()}" if line.startswith("    ") else line for line in text]
    return [f"### `{title}`", "", *errors, *([""] if errors else [])]


def world_schema() -> str:
    from cumulant.flows.release.simulation.world_loading import schema_text

    return schema_text()


PAGES = {
    **draw_diagrams.PICTURES,
    REFERENCE / "commands.md": commands_page,
    REFERENCE / "engines.md": feature_engines.page,
    REFERENCE / "errors.md": errors_page,
    REFERENCE / "metrics.md": metrics_page,
    REFERENCE / "project-file.md": project_page,
    REFERENCE / "python.md": python_page,
    REFERENCE / "server.md": server_page,
    REFERENCE / "http-api.md": api_page,
    asvs.PAGE: asvs.page,
    ROOT / "docs/how-to/access.md": access_page,
    REFERENCE / "release-world.schema.json": world_schema,
    ROOT / "src/cumulant/flows/release/simulation/world.schema.json": world_schema,
    **{page: partial(release_tables.fresh, page) for page in release_tables.PAGES},
    **{page: partial(dashboards.text_of, page) for page in dashboards.PATHS},
}


def main() -> int:
    check = "--check" in sys.argv
    stale = []
    for path, make in PAGES.items():
        text = make()
        if check and (not path.exists() or path.read_text() != text):
            stale.append(path.relative_to(ROOT).as_posix())
        elif not check:
            path.write_text(text)
    if stale:
        print(f"out of date: {', '.join(stale)}; run: python tools/generate_docs.py", file=sys.stderr)
    return 1 if stale else 0


if __name__ == "__main__":
    raise SystemExit(main())
