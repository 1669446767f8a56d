"""Run tests in parallel, and the few that failed once more, alone.

`python tools/run_tests.py PYTEST_ARGUMENT...`. Thousands of tests share a few cores with servers that others of them
started; one that waited too long for its turn says nothing of the code. A test that fails alone, too, fails the run. One
that passes alone is listed at the end: it depends on its speed or on what runs beside it, and is to be mended.
"""

from __future__ import annotations

import subprocess
import sys

import pytest

#: more failures than these are no accident of timing; none of them is run again
MOST = 10


class Failures:
    """The names of the tests that failed, or whose fixtures did."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed and report.nodeid not in self.names:
            self.names.append(report.nodeid)


def main(arguments: list[str]) -> int:
    failures = Failures()
    parallel = ["-n", "auto", "--dist", "loadfile", "--no-loadscope-reorder"]
    code = int(pytest.main([*parallel, *arguments], plugins=[failures]))
    names = failures.names
    if code != pytest.ExitCode.TESTS_FAILED or not 0 < len(names) <= MOST:
        return code
    print(f"\n{len(names)} failed; once more, alone:", flush=True)
    code = subprocess.run([sys.executable, "-m", "pytest", *names], check=False).returncode
    if code == pytest.ExitCode.OK:
        print("failed beside other tests, passed alone:", *names, sep="\n  ")
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
