"""Releases of servers that are not ours, by https: verified, or refused in words."""

from __future__ import annotations

import shutil

import pytest
from release_servers import project
from releases import MOMENT

from cumulant.cli.release.release import _outside
from cumulant.core.errors import EngineUnavailableError, UsageError
from cumulant.flows.release.controller.evidence import fetch_output_shape
from cumulant.flows.release.controller.external_servers import ExternalServers, external_arms
from cumulant.flows.release.controller.http_probe import fetch_json, find_certificate_fault
from cumulant.flows.release.start.start import start_release
from cumulant.ports.access import Principal
from cumulant.release.state import desired_routes
from cumulant.testing.arms import ArmServer
from cumulant.testing.certificates import Authority
from cumulant.testing.clock import ManualClock

ADA = Principal("user:ada")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """An authority, a stranger, and servers of https that they vouch for."""
    folder = tmp_path_factory.mktemp("tls")
    authority, stranger = Authority(folder / "authority"), Authority(folder / "stranger")
    one, other = (ArmServer(name, tls=authority.signed("IP:127.0.0.1")).start() for name in ("champion", "candidate"))
    yield authority, stranger, one, other
    one.stop()
    other.stop()


def begin(late, one, other, authority=None):
    arms = ExternalServers(champion=one.url, candidate=other.url, authority=authority)
    return start_release(late, principal=ADA, outside=arms, ready_within=0.1, clock=ManualClock(MOMENT)).release


def test_the_authority_is_kept_with_the_arms_up_to_the_promotion(tmp_path, made):
    authority, _, one, other = made
    with project(tmp_path / "late", clock=ManualClock(MOMENT)) as late:
        release = begin(late, one, other, authority.file)
    routes = desired_routes(release)
    assert [arm.authority for arm in routes.arms] == [authority.file] * 2
    assert fetch_output_shape(release.candidate, "late", pytest.fail) is None, (
        "it says nothing of outputs, and is asked"
    )
    assert fetch_json(f"{one.url}/v2", seconds=5, authority=authority.file) == {"ready": True}
    assert fetch_json(f"{one.url}/v2", seconds=5) is None


def test_the_project_file_may_name_it(tmp_path, made):
    authority, _, one, other = made
    folder = tmp_path / "late"
    folder.mkdir()
    shutil.copy(authority.file, folder / "ca.pem")
    with project(folder, "release: {authority: ca.pem}\n", clock=ManualClock(MOMENT)) as late:
        assert begin(late, one, other).champion.authority == str(folder / "ca.pem")
        plain = external_arms(ExternalServers(champion="http://a", candidate="http://b"), folder / "ca.pem")
        assert [arm.authority for arm in plain] == [None, None]


@pytest.mark.parametrize("by", ["a stranger", "the system"])
def test_what_cannot_be_verified_begins_no_release_and_says_why(tmp_path, made, by):
    _, stranger, one, other = made
    with (
        project(tmp_path / "late", clock=ManualClock(MOMENT)) as late,
        pytest.raises(
            EngineUnavailableError, match=r"certificate of the champion's server .* cannot be verified"
        ) as said,
    ):
        begin(late, one, other, stranger.file if by == "a stranger" else None)
    assert "--authority" in said.value.hint
    assert one.received == []


def test_a_server_that_is_down_is_not_said_to_be_untrusted(made):
    authority, _, one, _ = made
    assert find_certificate_fault("https://127.0.0.1:9", seconds=1.0) == ""
    assert find_certificate_fault(one.url, seconds=5.0, authority=authority.file) == ""


@pytest.mark.parametrize(
    ("urls", "authority", "says"),
    [
        (("http://a", "http://b"), "ca.pem", "no server of https"),
        (("https://a", "http://b"), "missing.pem", "missing.pem holds no certificates of authorities: No such file"),
        (("https://a", "http://b"), "junk.pem", "junk.pem holds no certificates of authorities"),
    ],
)
def test_authorities_that_cannot_be_used(tmp_path, monkeypatch, urls, authority, says):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "junk.pem").write_text("no certificate")
    with pytest.raises(UsageError, match=says):
        external_arms(ExternalServers(champion=urls[0], candidate=urls[1], authority=authority))


def test_authorities_without_servers_of_others():
    with pytest.raises(UsageError, match="vouches for servers that are not ours"):
        _outside("", None, None, name="", authority="ca.pem")
