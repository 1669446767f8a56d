"""Documents are checked like code: links resolve, named commands and options exist, generated pages are fresh."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LINK = re.compile(r"\]\((?!https?:|mailto:|#)([^)#\s]+)")
COMMAND = re.compile(r"\bcumulant((?: [a-z][a-z-]*)+)")
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]*")


def pages() -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "*.md"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [ROOT / name for name in listed.splitlines()]


def broken_links() -> list[str]:
    return [
        f"{page.relative_to(ROOT)}: link to {target} leads nowhere"
        for page in pages()
        for target in LINK.findall(page.read_text())
        if not (page.parent / target).exists()
    ]


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


def stale_pages() -> list[str]:
    run = subprocess.run(
        [sys.executable, "tools/generate_docs.py", "--check"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return [run.stderr.strip() or run.stdout.strip()] if run.returncode else []


def main() -> int:
    faults = broken_links() + unknown_commands() + stale_pages()
    print("\n".join(faults) or "documents: ok")
    return 1 if faults else 0


if __name__ == "__main__":
    raise SystemExit(main())
