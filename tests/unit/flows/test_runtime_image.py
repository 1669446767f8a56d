"""The build folder of an image: its wheel, its Dockerfile, what is refused. No tool is run but a stand-in."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import json
import os
import re
import shlex
import subprocess
import sys
import zipfile
from pathlib import Path

import lightgbm
import numpy as np
import pytest

from cumulant.core.errors import TerminalError, UsageError
from cumulant.core.expr import Column
from cumulant.core.plan import FeaturePlan, FeatureSpec, Field, PredictAt, Source, Window
from cumulant.core.servable import GraphServable, Servable
from cumulant.core.version import __version__
from cumulant.flows.packaging.image import trim as trimming
from cumulant.flows.packaging.image.build import build_image, find_tool
from cumulant.flows.packaging.image.build_context import check_reference, write_context
from cumulant.flows.packaging.image.dockerfile import dockerfile, parse_server_options
from cumulant.flows.packaging.image.run_command import build_run_command
from cumulant.flows.packaging.image.wheel import write_wheel
from cumulant.flows.packaging.package_model import package

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def servable(tmp_path_factory):
    folder = tmp_path_factory.mktemp("late")
    matrix = np.random.default_rng(0).normal(size=(200, 2))
    data = lightgbm.Dataset(matrix, (matrix[:, 0] > 0).astype(int))
    lightgbm.train({"objective": "binary", "verbose": -1, "num_threads": 1}, data, 2).save_model(folder / "late.txt")
    package(str(folder / "late.txt"), folder / "late")
    (folder / "late" / "secret.txt").write_text("no part of the servable")
    return folder / "late"


def test_the_wheel_is_whole_and_the_same_each_time(tmp_path):
    (tmp_path / "again").mkdir()
    path = write_wheel(tmp_path)
    assert path.name == f"cumulant-{__version__}-py3-none-any.whl"
    assert path.read_bytes() == write_wheel(tmp_path / "again").read_bytes()
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        records = csv.reader(io.StringIO(archive.read(f"cumulant-{__version__}.dist-info/RECORD").decode()))
        told = {name: code for name, code, _ in records}
        assert set(told) == set(names)
        for name in names[:-1]:
            code = base64.urlsafe_b64encode(hashlib.sha256(archive.read(name)).digest()).rstrip(b"=").decode()
            assert told[name] == f"sha256={code}"
    assert not [name for name in names if "__pycache__" in name]
    for pattern in ("*.py", "*.html.jinja", "*.css"):
        sources = {f"cumulant/{one.relative_to(ROOT / 'src' / 'cumulant')}" for one in (ROOT / "src").rglob(pattern)}
        assert sources
        assert sources <= set(names)


def test_nothing_strays_into_the_wheel(tmp_path):
    """All that lies in the package's folder goes into every image."""
    with zipfile.ZipFile(write_wheel(tmp_path)) as archive:
        sizes = {one.filename: one.file_size for one in archive.infolist()}
    assert not [name for name in sizes if name.endswith((".whl", ".zip", ".gz", ".so", ".db"))]
    assert not {name: size for name, size in sizes.items() if size > 4 * 1024 * 1024}


@pytest.mark.slow
def test_pip_takes_the_wheel_and_the_program_in_it_answers(tmp_path):
    path = write_wheel(tmp_path)
    place = tmp_path / "app"
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", str(place)]
    subprocess.run([*install, str(path)], check=True, capture_output=True)
    code = "import cumulant.serving.__main__ as m; print(m.__file__)"
    done = subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONPATH": str(place)}, capture_output=True, text=True, check=False
    )
    assert done.stdout.startswith(str(place)), done.stderr


def test_the_folder_holds_what_is_served_and_no_more(servable, tmp_path):
    path = write_context(servable, tmp_path / "image", base="registry.example/python:3.11")
    found = sorted(str(one.relative_to(path.parent)) for one in path.parent.rglob("*") if one.is_file())
    wheel = f"cumulant-{__version__}-py3-none-any.whl"
    assert found == ["Dockerfile", wheel, "model/model.onnx", "model/servable.json", "serve.txt", "trim.py"]
    assert (path.parent / "serve.txt").read_bytes() == (ROOT / "requirements" / "serve.txt").read_bytes()
    # again, over itself: nothing of before stays
    (path.parent / "model" / "old.onnx").write_bytes(b"x")
    write_context(servable, path.parent, base="python:3.12-slim")
    assert not (path.parent / "model" / "old.onnx").exists()
    assert "ARG BASE=python:3.12-slim\n" in path.read_text()


def test_the_last_stage_has_no_installer_and_no_root(servable, tmp_path):
    text = write_context(servable, tmp_path / "image", base="python:3.11-slim").read_text()
    last = text[text.index("FROM scratch") :]
    assert "pip" not in last
    assert "RUN" not in last
    assert "USER 10001:10001" in last
    assert "STOPSIGNAL SIGTERM" in last
    assert "EXPOSE 8080" in last
    assert "/v2/health/live" in last
    assert "--insecure" not in re.findall(r"^ENTRYPOINT.*$", last, re.MULTILINE)[0]
    assert text.count("--require-hashes") == 1
    assert "--no-deps" in text


def test_the_options_are_the_servers_and_their_ports_are_exposed(servable, tmp_path):
    options = parse_server_options("--grpc 0.0.0.0:9091 --http '[::]:9090' --workers 2")
    assert options.ports == (9090, 9091)
    text = write_context(servable, tmp_path / "image", base="b", options=options).read_text()
    assert "EXPOSE 9090 9091\n" in text
    assert "http://127.0.0.1:9090/v2/health/live" in text
    entry = json.loads(re.findall(r"^ENTRYPOINT (.*)$", text, re.MULTILINE)[0])
    assert entry[:5] == ["python3", "-P", "-m", "cumulant.serving", "/model"]
    assert entry[-6:] == ["--grpc", "0.0.0.0:9091", "--http", "[::]:9090", "--workers", "2"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("--wrokers 2", 'unrecognized arguments: --wrokers 2; did you mean "--workers"?'),
        ("--workers two", "invalid int value"),
        ("'--name", "No closing quotation"),
        ("/other", "unrecognized arguments: /other"),
        ("--http 127.0.0.1:9000", "cannot be reached from outside the container"),
        ("--log log", "--log log cannot be mounted"),
        ("--labels /", "--labels / cannot be mounted"),
    ],
)
def test_other_words_are_no_options_of_the_server(text, said):
    with pytest.raises(UsageError, match=re.escape(said)):
        parse_server_options(text)


def test_the_labels_tell_the_content_and_files_have_one_date(servable, tmp_path):
    path = write_context(servable, tmp_path / "image", base="b")
    content = (servable / "servable.json").read_bytes()
    assert f'cumulant.servable.sha256="{hashlib.sha256(content).hexdigest()}"' in path.read_text()
    assert {one.stat().st_mtime for one in (path.parent / "model").rglob("*")} == {trimming.WHEN}


def test_what_no_server_loads_is_removed_and_the_rest_stays(tmp_path):
    names = (
        "bin/f2py",
        "numpy/tests/test_x.py",
        "numpy/core.py",
        "numpy/core.pyi",
        "pyarrow/libarrow.so.26",
        "pyarrow/libarrow_s3.so.26",
        "pyarrow/libarrow_python.so",
        "pyarrow/libarrow_python.so.26",
        "pyarrow/libarrow_python.so.26.0.1",
        "onnxruntime/capi/libonnxruntime.so.1.2",
    )
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    trimming.prune(tmp_path)
    found = {one.relative_to(tmp_path).as_posix() for one in tmp_path.rglob("*") if one.is_file()}
    assert found == {"numpy/core.py", "pyarrow/libarrow.so.26", "pyarrow/libarrow_python.so.26"}


@pytest.mark.skipif(sys.platform != "linux", reason="ELF is of Linux")
def test_a_library_that_was_cut_is_smaller_and_loads(tmp_path):
    import httptools.parser.parser as origin

    path = tmp_path / Path(origin.__file__).name
    path.write_bytes(Path(origin.__file__).read_bytes())
    trimming.cut(path)
    assert path.stat().st_size < Path(origin.__file__).stat().st_size
    code = (
        "import importlib.util as u, httptools.parser\n"
        f"spec = u.spec_from_file_location('httptools.parser.parser', {str(path)!r})\n"
        "module = u.module_from_spec(spec)\nspec.loader.exec_module(module)\nprint(module.HttpRequestParser.__name__)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == "HttpRequestParser\n", done.stderr
    text = tmp_path / "text.so"
    text.write_bytes(b"GROUP ( libc.so.6 )" * 9)
    trimming.cut(text)
    assert text.stat().st_size == 19 * 9


def test_a_file_comes_with_the_links_on_its_way(tmp_path):
    real = tmp_path / "base" / "lib"
    real.mkdir(parents=True)
    (real / "libx.so.1.2").write_text("x")
    (real / "libx.so.1").symlink_to("libx.so.1.2")
    root = tmp_path / "root"
    trimming.place(real / "libx.so.1", root)
    trimming.place(real / "missing", root)
    moved = root / real.resolve().relative_to("/")
    assert sorted(one.name for one in moved.iterdir()) == ["libx.so.1", "libx.so.1.2"]
    assert (moved / "libx.so.1").readlink() == Path("libx.so.1.2")


def test_a_label_cannot_end_its_quotes_nor_start_an_instruction():
    text = dockerfile(
        GraphServable(name="late", version='1" $HOME \\\nRUN x', inputs=(), outputs=()), base="b", wheel="w.whl"
    )
    assert 'cumulant.model.version="1\\" \\$HOME \\\\ RUN x"' in text
    assert not [line for line in text.splitlines() if line.startswith("RUN x")]


@pytest.mark.parametrize("end", ["\n", "\r", "\u2028"])
def test_a_name_cannot_start_an_instruction(end):
    text = dockerfile(GraphServable(name=f"late{end}RUN x", inputs=(), outputs=()), base="b", wheel="w.whl")
    assert text.startswith("# late RUN x: ")
    assert not [line for line in text.splitlines() if line.startswith("RUN x")]


@pytest.mark.parametrize("name", ["--privileged", "a b", "", "a\nRUN x", "$HOME", "x" * 300])
def test_a_name_that_could_be_something_else_is_refused(name):
    with pytest.raises(UsageError, match="cannot be the base image"):
        check_reference(name, "base image")


def test_a_folder_of_something_else_is_left_alone(servable, tmp_path):
    (tmp_path / "thesis.txt").write_text("x")
    with pytest.raises(UsageError, match="no folder of an image"):
        write_context(servable, tmp_path, base="python:3.11-slim")
    assert [one.name for one in tmp_path.iterdir()] == ["thesis.txt"]


def tool(folder, name, script):
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def test_the_first_tool_that_is_installed_builds(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageError, match="buildah, podman or docker is not installed"):
        find_tool(None)
    tool(tmp_path, "docker", "echo sha256:1")
    tool(tmp_path, "podman", "exit 0")
    assert find_tool(None) == "podman"
    assert find_tool("docker") == "docker"
    with pytest.raises(UsageError, match="buildah is not installed"):
        find_tool("buildah")
    with pytest.raises(UsageError, match="no tool that builds"):
        find_tool("kaniko")
    assert build_image(tmp_path, "late:1", tool="docker") == "sha256:1"


def test_what_the_tool_said_is_told(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    tool(tmp_path, "docker", "echo no space left >&2; exit 7")
    with pytest.raises(TerminalError, match=r"docker ended with code 7\nno space left"):
        build_image(tmp_path, "late:1", tool="docker")


#: a model that looks up stored features
WINDOWED = FeaturePlan(
    "trips",
    PredictAt("at", 0),
    {"trips": Source("trips", ("card", "at"), "at", (Field("card", "str"), Field("at", "time"), Field("x", "float")))},
    (FeatureSpec("x_1d", "float", window=Window("trips", ("card",), "mean", Column("x"), 86_400_000_000)),),
    (Field("card", "str"), Field("at", "time")),
)


USER = f"--user {os.getuid()}:{os.getgid()}"
MINE = f"--userns keep-id {USER}" if os.getuid() else USER


@pytest.mark.parametrize(
    ("tool", "options", "command", "needs"),
    [
        ("buildah", "--insecure", "podman run --read-only -p 8080:8080 late:1", []),
        (
            "docker",
            "",
            "docker run --read-only --tmpfs /tmp -e CUMULANT_TOKEN -p 8080:8080 late:1",
            ["CUMULANT_TOKEN="],
        ),
        (
            "podman",
            "--http 0.0.0.0:9000 --grpc 0.0.0.0:9001 --token-file /run/secrets/t --log /a/data --labels /b/data",
            (
                f"podman run --read-only -p 9000:9000 -p 9001:9001 {MINE} --volume ./log:/a/data "
                "--volume ./labels:/b/data --volume ./token-file:/run/secrets/t late:1"
            ),
            ["./log here", "./labels here", "./token-file here"],
        ),
    ],
)
def test_the_command_that_runs_an_image_fits_its_options(tool, options, command, needs):
    run = build_run_command(
        "late:1", GraphServable(name="late", inputs=(), outputs=()), parse_server_options(options), tool=tool
    )
    assert run.command == command
    assert len(run.needs) == len(needs)
    assert all(word in need for word, need in zip(needs, run.needs, strict=True))


def test_the_command_that_runs_an_image_asks_for_the_store_of_its_features():
    described = Servable(name="late", task="binary", inputs=(), plan=WINDOWED)
    run = build_run_command("late:1", described, parse_server_options("--insecure"), tool="docker")
    assert run.command.endswith('late:1 --online "$ONLINE"')
    assert "its URL in ONLINE" in run.needs[0]
    # What stands behind the image's name are options that the server knows.
    assert parse_server_options(" ".join(shlex.split(run.command)[-2:])).online
    given = build_run_command(
        "late:1", described, parse_server_options("--insecure --online valkey://host"), tool="docker"
    )
    assert (given.command.rpartition(" ")[2], given.needs) == ("late:1", ())


def test_the_command_builds_and_says_how_to_run(servable, tmp_path, monkeypatch, capfd):
    from cumulant.cli.app import run

    monkeypatch.chdir(tmp_path)
    (tmp_path / "bin").mkdir()
    tool(tmp_path / "bin", "docker", f'echo "$@" >> {tmp_path}/asked; echo sha256:42')
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/bin:/usr/bin")
    assert run(["package", str(servable), "--image", "late:1", "--tool", "docker", "--json"]) == 0
    found = json.loads(capfd.readouterr().out)
    assert (found["image"], found["image_id"], found["folder"]) == ("late:1", "sha256:42", None)
    assert found["run"].startswith("docker run --read-only")
    assert (tmp_path / "asked").read_text().startswith("build --tag late:1 ")
    assert run(["package", str(servable), "--dockerfile", "image"]) == 0
    assert "docker build image" in capfd.readouterr().out
    assert (tmp_path / "image" / "Dockerfile").is_file()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "nothing says where the servable goes"),
        (("--out", "out", "--base", "x"), "--base and --tool are of an image"),
        (("--image", "--x"), "cannot be the image"),
        (("--image", "x", "--tool", "kaniko"), "no tool that builds"),
        (("--out", "out", "--quantize", "size"), "needs a sample"),
    ],
)
def test_what_cannot_be_asked(servable, tmp_path, monkeypatch, capfd, words, said):
    from cumulant.cli.app import run

    monkeypatch.chdir(tmp_path)
    assert run(["package", str(servable), *words]) == 2
    assert said in capfd.readouterr().err
    assert not (tmp_path / "out").exists()
