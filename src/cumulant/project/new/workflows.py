"""Workflow files for continuous integration: plan, validate, train, gate, report."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from cumulant.core.errors import StorageError, UsageError, not_found
from cumulant.project.file.layers import FILE

#: the commands of the loop, in order; those after the first two change what others see, and wait for the main branch
STEPS = {
    "plan": "cumulant plan",
    "validate": "cumulant data validate",
    "train": "cumulant train",
    "gate": "cumulant evaluate",
    "report": "cumulant report latest --out report.html",
}
_CHECKED = ("plan", "validate")

_HEAD = """\
# Every change is planned and its data validated; on the main branch the model is trained, asked at the gate, and
# reported. A gate that says no ends the job with exit code 1.
#
# What a run stores under .cumulant/ is gone after it. To keep models, snapshots and events, give the project file an
# environment with `tracking_uri`, `store` and `journal` that all runs reach, and name it in CUMULANT_ENV.
"""
_GITHUB = """\
name: cumulant
on:
  pull_request:
  push:
    branches: [main]
  workflow_dispatch:
concurrency: {group: "cumulant-${{ github.ref }}"}
permissions: {contents: read}
env:
  CUMULANT_ENV: local
jobs:
  model:
    runs-on: ubuntu-latest
    timeout-minutes: 120
    steps:
      - uses: actions/checkout@v4
      - uses: actions/setup-python@v5
        with: {python-version: "3.12"}
      - name: install
        run: pip install "cumulant[local]"
"""
_GITLAB = """\
image: python:3.12-slim
variables:
  CUMULANT_ENV: local
stages: [check, model]
workflow:
  rules:
    - if: $CI_PIPELINE_SOURCE == "merge_request_event"
    - if: $CI_COMMIT_BRANCH == $CI_DEFAULT_BRANCH
default:
  before_script:
    - pip install "cumulant[local]"
"""


def _github() -> str:
    parts = [_HEAD, _GITHUB]
    for name, line in STEPS.items():
        parts.append(f"      - name: {name}\n")
        if name == "report":
            parts.append("        if: ${{ !cancelled() && github.event_name != 'pull_request' }}\n")
        elif name not in _CHECKED:
            parts.append("        if: ${{ github.event_name != 'pull_request' }}\n")
        parts.append(f'        run: {line} --env "$CUMULANT_ENV"\n')
    parts.append(
        "      - name: keep the report\n"
        "        if: ${{ !cancelled() && github.event_name != 'pull_request' }}\n"
        "        uses: actions/upload-artifact@v4\n"
        "        with: {name: report, path: report.html, if-no-files-found: ignore}\n"
    )
    return "".join(parts)


def _gitlab() -> str:
    def script(names: tuple[str, ...]) -> str:
        return "".join(f'    - {STEPS[name]} --env "$CUMULANT_ENV"\n' for name in names)

    trained = tuple(name for name in STEPS if name != "report")
    return (
        f"{_HEAD}{_GITLAB}"
        f"check:\n  stage: check\n  script:\n{script(_CHECKED)}"
        f"model:\n  stage: model\n  rules:\n    - if: $CI_COMMIT_BRANCH == $CI_DEFAULT_BRANCH\n"
        f"  resource_group: cumulant\n  script:\n{script(trained)}"
        f"  after_script:\n{script(('report',))}"
        "  artifacts:\n    when: always\n    paths: [report.html]\n"
    )


class _Service(NamedTuple):
    path: str
    text: str


SERVICES = {
    "github": _Service(".github/workflows/cumulant.yml", _github()),
    "gitlab": _Service(".gitlab-ci.yml", _gitlab()),
}


def check_service(service: str) -> None:
    """Raises NotFoundError where there is no workflow file for such a service."""
    if service not in SERVICES:
        raise not_found("service", service, SERVICES)


def write_workflow(folder: Path, service: str) -> Path:
    """Write the workflow file of a service into a project's folder; returns its path.

    Raises:
        NotFoundError: no such service.
        UsageError: the folder holds no project, or such a file is there already.
        StorageError: it cannot be written.
    """
    check_service(service)
    if not (folder / FILE).is_file():
        hint = "`cumulant new NAME --ci github` makes one with it"
        raise UsageError(f"there is no project in {folder}", subject=str(folder), hint=hint)
    path = folder / SERVICES[service].path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("x", encoding="utf-8") as stream:
            stream.write(SERVICES[service].text)
    except FileExistsError:
        hint = "move it away, or copy the steps that you want into it by hand"
        raise UsageError(f"{path} is there already", subject=str(path), hint=hint) from None
    except OSError as error:
        raise StorageError(f"{path} cannot be written: {error.strerror}", subject=str(path)) from None
    return path
