"""Warn of commits whose message is not `area: imperative summary` with a body that says why.

`python tools/check_commits.py [RANGE]`, without one the commits that origin's main branch has not.
"""

from __future__ import annotations

import re
import subprocess
import sys

SUBJECT = re.compile(r"[a-z][\w/ -]*: [a-z].*[^.]")
LONGEST = 72


def main(arguments: list[str]) -> int:
    chosen = arguments[0] if arguments else "origin/main..HEAD"
    log = ["git", "log", "--no-merges", "--format=%h%x00%s%x00%b%x01", chosen]
    done = subprocess.run(log, capture_output=True, text=True, check=False)
    for record in done.stdout.split("\x01"):
        if record.strip():
            commit, subject, body = record.strip("\n").split("\x00")
            for fault in faults(subject, body):
                print(f"warning: commit {commit}: {fault}")
    return 0


def faults(subject: str, body: str) -> list[str]:
    rules = [
        (len(subject) <= LONGEST, f"the subject has {len(subject)} characters, {LONGEST} are allowed"),
        (SUBJECT.fullmatch(subject) is not None, f'"{subject}" is not `area: imperative summary`'),
        (bool(body.strip()), "no body says why"),
    ]
    return [text for holds, text in rules if not holds]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
