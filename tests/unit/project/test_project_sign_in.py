"""`sign_in` of an environment: what it means, what it may not say, and what `plan --resolved` shows of it."""

from __future__ import annotations

from datetime import timedelta
from ipaddress import ip_network

import pytest

from cumulant.core.errors import ProjectFileError
from cumulant.project.file.loading import load
from cumulant.project.sign_in_section import SessionLimits, SignInPolicy

PROVIDER = "url: https://c.example.com/, issuer: https://idp.example.com/realms/acme"
TRUSTED = (
    "{issuer: https://ci.example.com, audience: cumulant, subject: 'repo:acme/shop:*', service: ci, scope: [runs.show]"
)


def load_with(folder, sign_in):
    text = f"version: 1\nmodel: {{name: shop}}\nenvironments:\n  local:\n    sign_in: {{{sign_in}}}\n"
    (folder / "cumulant.yaml").write_text(text)
    return load(folder)


def test_without_the_section_there_is_no_provider(tmp_path):
    (tmp_path / "cumulant.yaml").write_text("version: 1\nmodel: {name: shop}\n")
    project = load(tmp_path)
    assert project.sign_in == SignInPolicy()
    assert not [row for row in project.file.resolved(project.endpoints) if "sign_in" in row.path]


def test_the_section_as_a_policy(tmp_path):
    secret = "client_secret: '${secret:OIDC}'"
    project = load_with(
        tmp_path,
        f"{PROVIDER}, {secret}, idle: 10m, longest: 8h, proxies: [10.0.0.7, 'fd00::/8'], trusted: [{TRUSTED}}}]",
    )
    policy = project.sign_in
    assert policy.url == "https://c.example.com"
    assert policy.provider is not None
    assert (policy.provider.client_secret, policy.provider.scopes) == ("${secret:OIDC}", ("openid", "profile"))
    assert policy.limits == SessionLimits(timedelta(minutes=10), timedelta(hours=8))
    assert policy.proxies == (ip_network("10.0.0.7/32"), ip_network("fd00::/8"))
    assert policy.trusted[0].expires == timedelta(minutes=15)
    rows = {row.path: row for row in project.file.resolved(project.endpoints)}
    assert rows["environment.sign_in.issuer"].value == "https://idp.example.com/realms/acme"
    assert rows["environment.sign_in.issuer"].origin.line == 5


@pytest.mark.parametrize("url", ["http://127.0.0.1:8700", "http://localhost:8700", "http://[::1]:8700"])
def test_plain_http_is_for_loopback(tmp_path, url):
    assert load_with(tmp_path, f"url: '{url}'").sign_in.url == url


@pytest.mark.parametrize(
    ("section", "fault"),
    [
        ("url: http://c.example.com", "is no address of a console"),
        ("url: https://c.example.com/path", "is no address of a console"),
        ("url: 'https://u:p@c.example.com'", "is no address of a console"),
        ("url: 'https://c.example.com?x=1'", "is no address of a console"),
        ("url: c.example.com", "is no address of a console"),
        ("url: 'https://c.example.com:x'", "is no address of a console"),
        ("issuer: https://idp.example.com", "sends users back"),
        ("url: https://c.example.com, issuer: http://idp.example.com", "is no issuer"),
        (f"{PROVIDER}, client_secret: hunter2", "write ${secret:NAME}"),
        (f"{PROVIDER}, client_secret: 'x${{secret:OIDC}}'", "write ${secret:NAME}"),
        ("idle: 0s", "must be more than 0"),
        ("recheck_tokens: 0s", "must be more than 0"),
        ("idle: 2h, longest: 1h", "at most `longest`"),
        ("proxies: [example.com]", "no address or network"),
        ("proxies: [10.0.0.1/8]", "no address or network"),
        (f"trusted: [{TRUSTED.replace('repo:acme/shop:*', '*')}}}]", "a subject that anybody has"),
        (f"trusted: [{TRUSTED}, expires: 2d}}]", "at most 1d"),
        (f"trusted: [{TRUSTED.replace('https://ci', 'http://ci')}}}]", "is no issuer"),
        (f"trusted: [{TRUSTED.replace('service: ci', 'service: a b')}}}]", "service"),
        (f"trusted: [{TRUSTED.replace('[runs.show]', '[]')}}}]", "scope"),
    ],
)
def test_what_the_section_may_not_say(tmp_path, section, fault):
    with pytest.raises(ProjectFileError) as caught:
        load_with(tmp_path, section)
    (problem,) = caught.value.problems
    assert problem[:2] == ("cumulant.yaml", 5)
    assert fault in problem[2]
    assert "hunter2" not in str(caught.value)
