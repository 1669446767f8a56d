"""Where a project's logs are, and that projects on one store do not see those of others."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from cumulant.core.errors import UsageError
from cumulant.flows.serving.serve import server_command, service_of
from cumulant.ports.log import PartInfo, current_parts
from cumulant.ports.registry import ModelVersion
from cumulant.project.file.loading import load
from cumulant.testing.log import DAY, append_lines, lines_of


def project(folder, name: str = "shop", env: str = "local", **keys: str):
    folder.mkdir(parents=True, exist_ok=True)
    environments = "".join(f"    {key}: {value}\n" for key, value in keys.items())
    text = f"version: 1\nmodel: {{name: {name}}}\nenvironments:\n  {env}:\n{environments or '    {}'}"
    (folder / "cumulant.yaml").write_text(text)
    return load(folder, environment=env)


def test_by_default_a_log_is_in_the_state_folder(tmp_path):
    opened = project(tmp_path)
    assert opened.log().location == str(opened.state / "predictions")
    assert opened.log("other").location == str(opened.state / "other")
    assert opened.log() is opened.log()


def test_an_environment_of_its_own_has_a_log_of_its_own(tmp_path):
    opened = project(tmp_path, env="prod")
    assert opened.log().location == str(opened.state / "predictions")
    assert opened.state != tmp_path / ".cumulant"


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("s3://acme/logs", "s3://acme/logs/ada/shop/prod/predictions"),
        ("s3://acme/", "s3://acme/ada/shop/prod/predictions"),
        ('"s3://acme/logs?cache=0"', "s3://acme/logs/ada/shop/prod/predictions?cache=0"),
        ("file:///srv/logs", "file:///srv/logs/ada/shop/prod/predictions"),
        ("file://logs", "file://{root}/logs/ada/shop/prod/predictions"),
    ],
)
def test_a_log_elsewhere_is_below_tenant_project_and_environment(tmp_path, url, expected):
    opened = project(tmp_path, env="prod", log=url, tenant="ada")
    assert opened.log_url() == expected.format(root=tmp_path)


def test_a_driver_that_has_no_logs_is_refused(tmp_path):
    with pytest.raises(UsageError, match="cannot serve as log"):
        project(tmp_path, log="sqlite://").log()


def test_projects_on_one_store_do_not_see_the_logs_of_others(tmp_path):
    opened = [
        project(tmp_path / f"{tenant}{name}{env}", name=name, env=env, log=f"file://{tmp_path}/store", tenant=tenant)
        for tenant in ("a", "b")
        for name in ("x", "y")
        for env in ("staging", "prod")
    ]
    for number, each in enumerate(opened):
        append_lines(each.log(), PartInfo(DAY, "life", 1, 1), [str(number)])
        append_lines(each.log(), PartInfo(DAY + timedelta(days=1), "life", 2, 2), [str(number)])
    for each in opened[::2]:
        each.log().delete_day(DAY)
    for number, each in enumerate(opened):
        lines = lines_of(each.log(), current_parts(each.log()))
        assert lines == [str(number)] * (1 if number % 2 == 0 else 2)


def test_a_server_writes_where_the_log_is_or_uploads_to_it(tmp_path):
    version = ModelVersion(name="shop", version="1", uri="models:/shop/1", run_id=None, created=datetime.now(UTC))
    by_default = service_of(opened := project(tmp_path), version, tmp_path)
    assert (by_default.log, by_default.log_upload) == (str(opened.state / "predictions"), None)
    elsewhere = service_of(project(tmp_path, log="file:///srv/logs"), version, tmp_path)
    assert (elsewhere.log, elsewhere.log_upload) == ("/srv/logs/default/shop/local/predictions", None)
    remote = service_of(opened := project(tmp_path, log="s3://acme/logs"), version, tmp_path)
    assert remote.log == str(opened.state / "log-spool")
    assert remote.log_upload == "s3://acme/logs/default/shop/local/predictions"
    line = server_command(remote, http="127.0.0.1:0", given={})
    assert line[line.index("--log-upload") + 1] == remote.log_upload
