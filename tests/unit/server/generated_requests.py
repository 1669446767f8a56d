"""Requests that schemathesis generates from the API's document, and what became of them."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import httpx

from cumulant.core.ids import short
from cumulant.flows.identities.records import secret_hash

#: in a response they show how a server is built
INTERNAL = {"a traceback": "Traceback (most recent call last)", "a path of the installation": "site-packages"}
HOOKS = Path(__file__).parent / "schemathesis_hooks.py"
#: which names there are, which no schema says; and that requests without credentials are refused, for all at once
EXCLUDED = "positive_data_acceptance,ignored_auth"


@dataclass(frozen=True)
class Outcome:
    """Requests by status, and the report of schemathesis where a response is not as it has to be."""

    statuses: dict[int, int]
    faults: str


def with_own_credentials(document):
    """Without parameters of headers, of which unknown ones need not be refused, and without generated credentials."""
    del document["components"]["securitySchemes"], document["security"]
    for methods in document["paths"].values():
        for operation in methods.values():
            operation["parameters"] = [each for each in operation.get("parameters", ()) if each["in"] != "header"]
    return document


def _starting_jobs(document):
    operations = [operation for methods in document["paths"].values() for operation in methods.values()]
    return [operation["operationId"] for operation in operations if "202" in operation["responses"]]


def send_requests(folder, url, project, token, *, spare, hidden, values, long=True, options=()):
    """Send requests with a token. `spare`: another token, which alone they may revoke; `hidden`: texts that no response may have, by what they are;
    `values`: names that exist, by the parameter of a path; `long`: with operations that start jobs.
    """
    folder.mkdir()
    credentials = f"Bearer {token}"
    document = httpx.get(f"{url}/v1/openapi.json", headers={"authorization": credentials}).json()
    (folder / "openapi.json").write_text(json.dumps(with_own_credentials(document)))
    (folder / "hidden.json").write_text(json.dumps(hidden | INTERNAL))
    config = [f"[dictionaries.{name}]\nvalues = {json.dumps(known)}" for name, known in values.items()]
    config += ["[parameters]", f'"path.project" = "{project}"']
    config += [f'"path.{name}" = {{ dictionary = "{name}", probability = 0.6 }}' for name in values]
    (folder / "schemathesis.toml").write_text("\n".join(config))
    command = [sys.executable, "-m", "schemathesis.cli", "--config-file", str(folder / "schemathesis.toml"), "run"]
    command += [str(folder / "openapi.json"), "--url", url, "--no-color"]
    command += ["--phases", "examples,coverage,fuzzing", "--exclude-checks", EXCLUDED, "--request-timeout", "120"]
    command += ["--header", f"authorization: {credentials}", "--exclude-path-regex", "stream$"]
    command += ["--continue-on-failure", *options]
    for name in [] if long else _starting_jobs(document):
        command += ["--exclude-operation-id", name]
    environment = os.environ | {
        "SCHEMATHESIS_HOOKS": str(HOOKS),
        "HIDDEN_TEXTS": str(folder / "hidden.json"),
        "SPARE_TOKEN": short(secret_hash(spare)),
        "COUNTS": str(folder / "counts.json"),
    }
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=3_600, check=False, env=environment, cwd=folder
    )
    counts = json.loads((folder / "counts.json").read_text())
    faults = "" if done.returncode == 0 else done.stdout + done.stderr
    return Outcome({int(status): count for status, count in sorted(counts.items())}, faults)
