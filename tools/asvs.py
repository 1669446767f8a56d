"""The OWASP ASVS requirements of docs/reference/asvs.yaml: their numbers, and the page: `python tools/asvs.py`."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from ruamel.yaml import YAML

ROOT = Path(__file__).resolve().parents[1]
FILE = ROOT / "docs" / "reference" / "asvs.yaml"
PAGE = FILE.with_suffix(".md")
#: how many requirements the standard has, by level
REQUIREMENTS = {1: 70, 2: 183}
STATUSES = ("met", "by_design", "not_applicable", "open")
CHAPTERS = {
    1: "Encoding and sanitization",
    2: "Validation and business logic",
    3: "Web frontend",
    4: "API and web service",
    5: "File handling",
    6: "Authentication",
    7: "Session management",
    8: "Authorization",
    9: "Self-contained tokens",
    10: "OAuth and OpenID Connect",
    11: "Cryptography",
    12: "Secure communication",
    13: "Configuration",
    14: "Data protection",
    15: "Secure coding and architecture",
    16: "Logging and error handling",
    17: "WebRTC",
}
_TEST = re.compile(r"^\s*(?:async )?def (test_\w+)", re.MULTILINE)


class Requirement(NamedTuple):
    """`tests`: of a requirement that is met, as `FILE::NAME`; of any other the `reason`."""

    id: str
    level: int
    title: str
    status: str
    tests: tuple[str, ...]
    reason: str

    @property
    def chapter(self) -> int:
        return int(self.id.partition(".")[0])


class Coverage(NamedTuple):
    """Requirements of a level. `applicable`: all but those that are not applicable."""

    total: int
    met: int
    by_design: int
    not_applicable: int
    open: int

    @property
    def applicable(self) -> int:
        return self.total - self.not_applicable

    @property
    def tested(self) -> float:
        """The share of the applicable ones that tests show."""
        return self.met / self.applicable


def read_requirements(file: Path = FILE) -> list[Requirement]:
    items = YAML(typ="safe").load(file.read_text())["items"]
    return [
        Requirement(
            str(item["id"]),
            item["level"],
            item["title"],
            item["status"],
            tuple(item.get("tests", ())),
            item.get("reason", ""),
        )
        for item in items
    ]


def coverage(requirements: list[Requirement], level: int) -> Coverage:
    counts = Counter(each.status for each in requirements if each.level == level)
    return Coverage(sum(counts.values()), *(counts[status] for status in STATUSES))


def missing_tests(requirements: list[Requirement], root: Path = ROOT) -> list[str]:
    """Named tests that do not exist."""
    files = {test.partition("::")[0] for each in requirements for test in each.tests}
    known = {
        f"{name}::{test}"
        for name in files
        if (root / name).exists()
        for test in _TEST.findall((root / name).read_text())
    }
    return sorted({test for each in requirements for test in each.tests} - known)


def page() -> str:
    requirements = read_requirements()
    lines = [
        "# OWASP ASVS 5.0",
        "",
        "Generated from [asvs.yaml](asvs.yaml). Levels 1 and 2 of the [OWASP Application Security Verification Standard](https://github.com/OWASP/ASVS) 5.0.0 for the API, the console, prediction servers and the gateway; titles are our own words, the requirements themselves are in the standard. *Met*: by the named tests, which exist. A test may show a part of a requirement only.",
        "",
        "| level | requirements | not applicable | applicable | met | by design | open | tested |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for level in REQUIREMENTS:
        of = coverage(requirements, level)
        cells = (level, of.total, of.not_applicable, of.applicable, of.met, of.by_design, of.open, f"{of.tested:.0%}")
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    for chapter, title in CHAPTERS.items():
        lines += [
            "",
            f"## V{chapter} {title}",
            "",
            "| | level | requirement | status | tests or reason |",
            "|---|---|---|---|---|",
        ]
        lines += [_row(each) for each in requirements if each.chapter == chapter]
    return "\n".join(lines) + "\n"


def _row(requirement: Requirement) -> str:
    why = ", ".join(_link(test) for test in requirement.tests) or requirement.reason
    status = requirement.status.replace("_", " ")
    return f"| {requirement.id} | {requirement.level} | {requirement.title} | {status} | {why} |"


def _link(test: str) -> str:
    file, _, name = test.partition("::")
    return f"[{name.removeprefix('test_').replace('_', ' ')}](../../{file})"


def main() -> None:
    requirements = read_requirements()
    for level in REQUIREMENTS:
        of = coverage(requirements, level)
        print(
            f"level {level}: {of.met} of {of.applicable} applicable requirements are shown by tests ({of.tested:.1%}),"
            f" {of.by_design} by design, {of.open} open, {of.not_applicable} not applicable"
        )


if __name__ == "__main__":
    main()
