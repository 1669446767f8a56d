"""The workflow files that `cumulant new --ci` writes: YAML of the service's shape, whose commands exist."""

from __future__ import annotations

import shlex

import pytest
from ruamel.yaml import YAML

from cumulant.cli.app import parser
from cumulant.project.new.workflows import SERVICES, workflow_text

STEPS = [
    "cumulant plan",
    "cumulant data validate",
    "cumulant train",
    "cumulant evaluate",
    "cumulant report latest --out report.html",
]
CREATED = "version: 1\nmodel: {name: late}\n"


def lines(service, document):
    """The shell commands that a workflow runs, in order."""
    if service == "github":
        return [step["run"] for step in document["jobs"]["model"]["steps"] if "run" in step]
    jobs = [document["default"]["before_script"]]
    jobs += [document[job].get(part, []) for job in ("check", "model") for part in ("script", "after_script")]
    return [line for part in jobs for line in part]


@pytest.mark.parametrize("service", SERVICES)
def test_it_is_yaml_whose_commands_the_program_knows(service):
    document = YAML(typ="safe", pure=True).load(workflow_text(service))
    found = [line for line in lines(service, document) if line.startswith("cumulant ")]
    assert [line.rpartition(" --env ")[0] for line in found[-len(STEPS) :]] == STEPS
    for line in found:
        assert 'CUMULANT_ENV"' in line
        group, words = parser(), shlex.split(line)[1:]
        # Parses as the program would; an unknown command or option raises.
        context = group.make_context("cumulant", words, resilient_parsing=False)
        while hasattr(group, "resolve_command") and context._protected_args + context.args:
            name, group, rest = group.resolve_command(context, context._protected_args + context.args)
            context = group.make_context(name, list(rest), parent=context)
        assert context.params["env"] == "$CUMULANT_ENV"


def test_github_changes_nothing_for_a_pull_request():
    document = YAML(typ="safe", pure=True).load(workflow_text("github"))
    assert set(document["on"]) == {"pull_request", "push", "workflow_dispatch"}
    steps = {step["name"]: step for step in document["jobs"]["model"]["steps"] if "name" in step}
    assert "if" not in steps["plan"]
    assert "if" not in steps["validate"]
    for name in ("train", "gate", "report"):
        assert "pull_request" in steps[name]["if"]
    assert "!cancelled()" in steps["report"]["if"]


def test_gitlab_trains_on_the_main_branch_only():
    document = YAML(typ="safe", pure=True).load(workflow_text("gitlab"))
    assert document["model"]["rules"] == [{"if": "$CI_COMMIT_BRANCH == $CI_DEFAULT_BRANCH"}]
    assert document["check"]["script"] == document["model"]["script"][:2]


def test_it_is_written_into_a_project_and_never_over_a_file(tmp_path, monkeypatch):
    from cumulant.core.errors import NotFoundError, UsageError
    from cumulant.project.new.workflows import write_workflow

    with pytest.raises(UsageError, match="no project"):
        write_workflow(tmp_path, "github")
    (tmp_path / "cumulant.yaml").write_text(CREATED)
    path = write_workflow(tmp_path, "github")
    assert path == tmp_path / ".github" / "workflows" / "cumulant.yml"
    path.write_text("mine")
    with pytest.raises(UsageError, match="is there already"):
        write_workflow(tmp_path, "github")
    assert path.read_text() == "mine"
    with pytest.raises(NotFoundError, match="gitlub"):
        write_workflow(tmp_path, "gitlub")


def test_new_writes_it_with_a_project_or_into_the_one_that_is_here(cumulant, tmp_path):
    ended = cumulant("new", "mine", "--template", "blank", "--ci", "gitlab", "--project", str(tmp_path), "--json")
    assert ended.code == 0, ended.err
    assert (tmp_path / "mine" / ".gitlab-ci.yml").is_file()
    assert ".gitlab-ci.yml" in ended.document["assumptions"][-1]
    ended = cumulant("new", "--ci", "github", "--project", str(tmp_path / "mine"), "--json")
    assert ended.document == {"path": str(tmp_path / "mine" / ".github" / "workflows" / "cumulant.yml")}
    assert cumulant("new", "--ci", "github", "--project", str(tmp_path / "mine")).code == 2
    assert cumulant("new", "other", "--ci", "gitlub", "--project", str(tmp_path)).code == 2
    assert not (tmp_path / "other").exists()
    assert "needs a name" in cumulant("new", "--project", str(tmp_path)).err
