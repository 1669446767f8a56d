"""Write the diagrams and the generated pages of docs/reference from the code itself: `python tools/generate_docs.py [--check]`."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import draw_diagrams
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
    begin, end = "<!-- server options -->", "<!-- end of the server options -->"
    page = (REFERENCE / "server.md").read_text()
    head, rest = page.split(begin)
    return f"{head}{begin}\n" + "\n".join([*lines, "", end]) + rest.split(end)[1]


def python_page() -> str:
    """The page of the public Python API: its functions, and the methods of a project."""
    import cumulant
    from cumulant.api import monitoring, outcomes, server, stack, subjects

    lines = [
        "# Python API",
        "",
        "Generated from the code. [How to](../how-to/notebook.md) shows it in a notebook. Types of results are in `cumulant.api.results`.",
        "",
        "## Functions",
        "",
    ]
    for name in ("new", "new_from_template", "open", "register"):
        lines += entry(f"cumulant.{name}", getattr(cumulant, name))
    groups = {
        "project": cumulant.Project,
        "project.stack": stack.ProjectStack,
        "project.releases": stack.ProjectReleases,
        "project.outcomes": outcomes.ProjectOutcomes,
        "project.monitoring": monitoring.ProjectMonitoring,
        "project.reviews": monitoring.ProjectReviews,
        "project.subjects": subjects.ProjectSubjects,
        "project.serve()": server.Server,
        "project.stack.up()": stack.RunningStack,
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
    REFERENCE / "errors.md": errors_page,
    REFERENCE / "project-file.md": project_page,
    REFERENCE / "python.md": python_page,
    REFERENCE / "server.md": server_page,
    REFERENCE / "release-world.schema.json": world_schema,
    ROOT / "src/cumulant/flows/release/simulation/world.schema.json": world_schema,
    **{page: partial(release_tables.fresh, page) for page in release_tables.PAGES},
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
