"""For which machines a wheel of Envoy is published."""

import platform
import sys
import tomllib
from pathlib import Path

import pytest

from cumulant.core.errors import MissingPartError
from cumulant.drivers.envoy import engine

LINUX = ("linux", "x86_64", ("glibc", "2.31"), "")


@pytest.mark.parametrize(
    ("system", "machine", "library", "macos", "published"),
    [
        (*LINUX, True),
        ("linux", "aarch64", ("glibc", "2.41"), "", True),
        ("linux", "x86_64", ("glibc", "2.28"), "", False),
        ("linux", "x86_64", ("", ""), "", False),
        ("linux", "riscv64", ("glibc", "2.41"), "", False),
        ("darwin", "arm64", ("", ""), "15.3.1", True),
        ("darwin", "arm64", ("", ""), "14.7", False),
        ("darwin", "x86_64", ("", ""), "15.3.1", False),
        ("win32", "AMD64", ("", ""), "", False),
    ],
)
def test_machines_with_a_wheel(monkeypatch, system, machine, library, macos, published):
    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.setattr(platform, "machine", lambda: machine)
    monkeypatch.setattr(platform, "libc_ver", lambda: library)
    monkeypatch.setattr(platform, "mac_ver", lambda: (macos, ("", "", ""), ""))
    assert engine.has_wheel() is published


def test_the_extra_has_the_same_machines():
    pyproject = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())
    [line] = pyproject["project"]["optional-dependencies"]["release"]
    for system, machines in engine._WHEELS.items():
        for machine in machines:
            assert (
                f"platform_machine == '{machine}'"
                in line.split(f"sys_platform == '{system}'")[1].split("sys_platform")[0]
            )


def test_a_program_on_the_path_is_taken_where_there_is_no_wheel(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "envoy", None)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingPartError):
        engine.find_program()
    (tmp_path / "envoy").write_text("#!/bin/sh\n")
    (tmp_path / "envoy").chmod(0o755)
    assert engine.find_program() == tmp_path / "envoy"
