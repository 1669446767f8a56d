"""A secret's value is nowhere but in the client that it was made for."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cumulant.core.errors import CumulantError, NotFoundError, ProjectFileError, UsageError
from cumulant.core.ids import canonical
from cumulant.ports.driver import Driver
from cumulant.ports.plugins import Drivers
from cumulant.project.file.loading import load
from cumulant.project.file.text_values import masked

VALUE = "hunter2-Zq9"


class Vaulted:
    """A secrets client that knows one secret."""

    def __init__(self, url: str) -> None:
        self.url = url

    def get(self, name: str) -> str:
        if name != "PASSWORD":
            raise NotFoundError(f"no secret named {name}", subject=name)
        return VALUE


class Database:
    """A client that keeps its URL, and refuses one host with an error that quotes it."""

    def __init__(self, url: str, *, secrets=None) -> None:
        if "refused" in url:
            raise UsageError(f"cannot open {url}", subject=url, hint=f"look at {url}")
        self.url = url
        self.secrets = secrets


DRIVERS = Drivers(
    {
        "env": Driver(clients={"secrets": f"{__name__}:Vaulted"}),
        "db": Driver(
            clients={
                "journal": f"{__name__}:Database",
                "online": f"{__name__}:Database",
                "tables": f"{__name__}:Database",
            }
        ),
    }
)


def project(folder, text: str, **options):
    (folder / "cumulant.yaml").write_text(text)
    return load(folder, drivers=DRIVERS, **options)


def everything_shown(found) -> str:
    """All that a project prints, stores or hashes."""
    rows = [(row.path, row.value, str(row.origin), repr(row)) for row in found.file.resolved(found.endpoints)]
    return "\n".join(
        [
            repr(found),
            str(found),
            repr(found.spec),
            repr(found.file.environment),
            repr(found.endpoints),
            repr(found.vault),
            json.dumps(rows, default=str),
            canonical(found.file.settings("data", "monitoring")).decode(),
        ]
    )


def test_a_secret_is_filled_in_only_where_a_client_is_made(tmp_path):
    found = project(tmp_path, "version: 1\nenvironments: {local: {journal: 'db://me:${secret:PASSWORD}@host/x'}}\n")
    assert "${secret:PASSWORD}" in found.endpoints.journal
    client = found.journal()
    assert client.url == f"db://me:{VALUE}@host/x"
    assert found.journal() is client
    assert VALUE not in everything_shown(found)


def test_special_characters_of_a_secret_are_escaped_in_the_login_of_a_url(tmp_path, monkeypatch):
    monkeypatch.setattr(Vaulted, "get", lambda _, name: {"PASSWORD": "p@ss/w:rd%", "PLACE": "host/x"}[name])
    url = "db://me:${secret:PASSWORD}@${secret:PLACE}"
    found = project(tmp_path, f"version: 1\nenvironments: {{local: {{journal: '{url}'}}}}\n")
    assert found.journal().url == "db://me:p%40ss%2Fw%3Ard%25@host/x"
    assert found.vault.redact("p%40ss%2Fw%3Ard%25 p@ss/w:rd%") == "${secret:PASSWORD} ${secret:PASSWORD}"


def test_a_driver_that_asks_for_secrets_gets_them(tmp_path):
    found = project(tmp_path, "version: 1\nenvironments: {local: {online: 'db://host'}}\n")
    assert found.online().secrets is found.secrets()


def test_an_error_of_a_driver_does_not_tell_the_secret(tmp_path):
    found = project(tmp_path, "version: 1\nenvironments: {local: {journal: 'db://me:${secret:PASSWORD}@refused/x'}}\n")
    with pytest.raises(UsageError) as caught:
        found.journal()
    told = f"{caught.value!r} {caught.value} {caught.value.as_dict()} {caught.value.__cause__!r}"
    assert VALUE not in told
    assert "${secret:PASSWORD}" in told


def test_a_secret_that_does_not_exist_is_told_when_it_is_needed(tmp_path):
    found = project(tmp_path, "version: 1\nenvironments: {local: {journal: 'db://${secret:NONE}@host'}}\n")
    with pytest.raises(NotFoundError, match="NONE"):
        found.journal()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("${env:HOME}", "${env:...} is not read"),
        ("${secrets:X}", "a secret is written ${secret:NAME}"),
        ("${secret:}", "a secret is written ${secret:NAME}"),
        ("${secret:two words}", "a secret is written ${secret:NAME}"),
        ("${SECRET:X", "a secret is written ${secret:NAME}"),
    ],
)
def test_references_that_would_never_be_filled_in(tmp_path, text, said):
    with pytest.raises(ProjectFileError) as caught:
        project(tmp_path, f"version: 1\nmonitoring:\n  notify: ['{text}']\n")
    [(_, line, problem)] = caught.value.problems
    assert line == 3
    assert said in problem


def test_passwords_written_into_a_url_are_masked(tmp_path):
    found = project(
        tmp_path, f"version: 1\nenvironments: {{local: {{journal: 'db://me:{VALUE}@host/x', salt: {VALUE}}}}}\n"
    )
    shown = {row.path: row.value for row in found.file.resolved(found.endpoints)}
    assert shown["environment.journal"] == "db://me:***@host/x"
    assert shown["environment.salt"] == "***"
    assert masked("s3://key:${secret:K}@bucket") == "s3://key:${secret:K}@bucket"
    assert masked("mailto:me@example.com http://a/b:c@d") == "mailto:me@example.com http://a/b:c@d"


def test_the_salt_may_be_a_secret(tmp_path):
    found = project(tmp_path, "version: 1\nenvironments: {local: {salt: '${secret:PASSWORD}'}}\n")
    assert found.salt() == VALUE.encode()
    assert not (tmp_path / ".cumulant").exists()
    assert {row.path: row.value for row in found.file.resolved(found.endpoints)}[
        "environment.salt"
    ] == "${secret:PASSWORD}"


REFERENCE = "${secret:PASSWORD}"
#: places of the file that take text, as paths of keys
PLACES = [
    ("model", "owner"),
    ("model", "purpose"),
    ("model", "name"),
    ("model", "risk"),
    ("features",),
    ("training", "target"),
    ("training", "trials"),
    ("training", "since"),
    ("training", "time"),
    ("training", "trainers", "LIST"),
    ("evaluation", "test"),
    ("evaluation", "gate", "f1", "margin"),
    ("data", "tx", "path"),
    ("data", "tx", "key", "LIST"),
    ("data", "tx", "quarantine"),
    ("data", "tx", "rules", "a", "pattern"),
    ("data", "tx", "rules", "a", "in", "LIST"),
    ("data", "tx", "known_time", "7d"),
    ("serving", "log", "keep"),
    ("serving", "http"),
    ("release", "approval"),
    ("release", "key"),
    ("monitoring", "notify", "LIST"),
    ("monitoring", "labels"),
    ("monitoring", "retrain", "when"),
    ("environments", "local", "journal"),
    ("environments", "local", "store"),
    ("environments", "prod", "secrets"),
    ("environments", "prod", "training", "target"),
    ("nonsense",),
    ("model", "nonsense"),
    ("environments", "local", "journal", "nested"),
    ("version",),
    ("extends",),
]


def placed(path: tuple[str, ...], text: str) -> dict[str, object]:
    value: object = text
    for part in reversed(path):
        value = [value] if part == "LIST" else {part: value}
    return value  # type: ignore[return-value]


@settings(deadline=None)
@given(
    st.sampled_from(PLACES),
    st.sampled_from(["{}", "x{}", "{}/y", "a://b:{}@c/d", "{}{}"]),
    st.sampled_from(["local", "prod"]),
)
def test_a_secret_is_never_shown_wherever_it_stands(tmp_path_factory, path, form, environment):
    folder = tmp_path_factory.mktemp("project")
    content = {"version": 1, "environments": {"prod": {}}}
    for key, value in placed(path, form.format(REFERENCE, REFERENCE)).items():
        content[key] = (
            {**content[key], **value} if isinstance(content.get(key), dict) and isinstance(value, dict) else value  # type: ignore[dict-item]
        )
    # JSON is YAML. The value of the secret is at hand through the driver, so that a leak would show.
    try:
        found = project(folder, json.dumps(content), environment=environment)
    except CumulantError as error:
        told = f"{error!r} {error} {error.as_dict()} {error.hint}"
    else:
        assert found.vault.reveal(REFERENCE) == VALUE
        told = everything_shown(found)
        assert found.vault.redact(f"<{VALUE}>") == f"<{REFERENCE}>"
    assert VALUE not in told
