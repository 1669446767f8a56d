"""Documents are checked like code: links resolve, named commands and options exist, generated pages are fresh."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from functools import cache
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parents[1]
LINK = re.compile(r"\]\((?!https?:|mailto:)([^)#\s]*)(?:#([^)\s]+))?\)")
FENCED = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)
PYTHON = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
COMMAND = re.compile(r"\bcumulant((?: [a-z][a-z-]*)+)")
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]*")


def pages() -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "*.md"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [ROOT / name for name in listed.splitlines()]


def broken_links() -> list[str]:
    faults = []
    for page in pages():
        for name, anchor in LINK.findall(page.read_text()):
            target = page.parent / name if name else page
            if not target.exists():
                faults.append(f"{page.relative_to(ROOT)}: link to {name} leads nowhere")
            elif anchor and target.suffix == ".md" and anchor not in anchors(target):
                faults.append(f"{page.relative_to(ROOT)}: {name or page.name} has no heading #{anchor}")
    return faults


@cache
def anchors(page: Path) -> frozenset[str]:
    """The anchors that GitHub gives the headings of a page."""
    headings = HEADING.findall(FENCED.sub("", page.read_text()))
    return frozenset(re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings)


def repeated_sections() -> list[str]:
    """Sections of guides that a page has twice, as a merge may leave them."""
    faults = []
    for page in pages():
        titles = re.findall(r"^## (.+)$", FENCED.sub("", page.read_text()), re.MULTILINE)
        repeated = {title for title in titles if titles.count(title) > 1}
        faults += [f'{page.relative_to(ROOT)}: the section "{title}" is there twice' for title in sorted(repeated)]
    return faults


def unknown_commands() -> list[str]:
    from cumulant.cli.app import COMMANDS, load

    commands = {name: load(name) for name in COMMANDS}
    faults = []
    for page in pages():
        for line in page.read_text().splitlines():
            if line.strip().startswith(("cumulant ", "$ cumulant ")):
                fault = unknown(commands, line.strip().removeprefix("$ ").split("#")[0])
                faults += [f"{page.relative_to(ROOT)}: {fault}"] if fault else []
    return faults


def unknown(commands, line: str) -> str | None:
    # What is quoted is of another program, or a value.
    words = re.sub(r"'[^']*'", "''", line).split()[1:]
    if not words or words[0].startswith("-"):
        return None
    name = words.pop(0)
    if name not in commands:
        return f'"{name}" in "{line}" is no command'
    command = commands[name]
    while words and hasattr(command, "commands"):
        name = words.pop(0)
        if name.startswith("-"):
            continue
        if name not in command.commands:
            return f'"{name}" in "{line}" is no command'
        command = command.commands[name]
    known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    missing = [option for option in OPTION.findall(" ".join(words)) if option not in known | {"--help", "--debug"}]
    return f'{missing[0]} in "{line}" is no option' if missing else None


def unknown_names() -> list[str]:
    """Names of Cumulant that an example in Python imports, or takes of an imported module, and that are not there."""
    faults = []
    for page in pages():
        for example in PYTHON.findall(page.read_text()):
            try:
                tree = ast.parse(example)
            except SyntaxError:  # an excerpt, or notebook syntax
                continue
            faults += [f"{page.relative_to(ROOT)}: {fault}" for fault in unknown_imports(tree)]
    return faults


def unknown_imports(tree: ast.Module) -> list[str]:
    names: dict[str, object] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom) and "cumulant" in ast.unparse(node):
            try:
                exec(ast.unparse(node), names)
            except ImportError as error:
                return [f'"{ast.unparse(node)}" fails: {error}']
    return [
        f'"{ast.unparse(node)}" is not there'
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and isinstance(module := names.get(node.value.id), ModuleType)
        and not hasattr(module, node.attr)
    ]


def stale_pages() -> list[str]:
    run = subprocess.run(
        [sys.executable, "tools/generate_docs.py", "--check"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return [run.stderr.strip() or run.stdout.strip()] if run.returncode else []


def main() -> int:
    faults = broken_links() + repeated_sections() + unknown_commands() + unknown_names() + stale_pages()
    print("\n".join(faults) or "documents: ok")
    return 1 if faults else 0


if __name__ == "__main__":
    raise SystemExit(main())
