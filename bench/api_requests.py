"""Send generated requests to a real API with a filled journal, as several roles: no fault, and nothing personal shown.

    python bench/api_requests.py --seconds 120 --requests 100000

The roles take turns. A response of 500 and above is a fault, except 501 (a part that is not installed) and those that
say that all slots for jobs are taken (503) or that the disk is full (507). A leak is the text of the seeded personal
values in any response, the salt, or a token's secret; no role is shown personal values as they are.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from collections import Counter
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path

import httpx

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "tests/unit/server"), str(ROOT / "tests/unit/release")]

from api_server import serving  # noqa: E402
from filled_project import SECRET, fill_journal, write_project  # noqa: E402

from cumulant.core.roles import ROLES  # noqa: E402
from cumulant.flows.identities.tokens import create_token  # noqa: E402
from cumulant.ports.access import Principal  # noqa: E402
from cumulant.project.file.loading import load  # noqa: E402
from cumulant.server.jobs import Jobs  # noqa: E402

#: statuses of 500 and above that are answers: a missing part, no slot for a job
ANSWERS = {501, 503, 507}
ACCESS = """access:
  bindings:
{bindings}
environments: {{local: {{access: "cedar://"}}}}
"""
#: names that exist, so that requests get behind the first lookup
NAMES = ("visits", "shop", "1", "latest", "r3", "champion", "@champion", "user:ada", "none", "x" * 300, "é%00", "..")


class CallerOfRole:
    """Middleware: a header names the role, as the principal's group."""

    def __init__(self, app: object) -> None:
        self.app = app

    async def __call__(self, scope: dict, receive: object, send: object) -> None:  # type: ignore[type-arg]
        if scope["type"] == "http":
            role = dict(scope["headers"]).get(b"x-role", b"").decode()
            groups = (role,) if role else ()
            scope.setdefault("state", {})["principal"] = Principal(f"user:{role or 'none'}", groups, via="http")
        await self.app(scope, receive, send)  # type: ignore[operator]


def generated(document: dict, random_: random.Random) -> tuple[str, str, dict[str, object]]:  # type: ignore[type-arg]
    """A request of a random operation: values of its schema, of other types, or broken."""
    path, methods = random_.choice(list(document["paths"].items()))
    method, operation = random_.choice(list(methods.items()))
    options: dict[str, object] = {}
    query = {}
    for parameter in operation.get("parameters", ()):
        if parameter["in"] == "path":
            name = "shop" if parameter["name"] == "project" else random_.choice(NAMES)
            path = path.replace(
                f"{{{parameter['name']}}}", httpx.URL("/").copy_with(path=f"/{name}").raw_path.decode()[1:]
            )
        elif parameter["in"] == "query" and (parameter.get("required") or random_.random() < 0.4):
            query[parameter["name"]] = value(parameter["schema"], document, random_)
    if query:
        options["params"] = query
    if "requestBody" in operation:
        schema = operation["requestBody"]["content"]["application/json"]["schema"]
        content = json.dumps(value(schema, document, random_)).encode()
        if random_.random() < 0.05:
            content = content[: random_.randrange(len(content) + 1)]
        options["content"] = content
        options["headers"] = {"content-type": "application/json"}
    return method.upper(), path, options


def value(schema: dict, document: dict, random_: random.Random, depth: int = 0) -> object:  # type: ignore[type-arg]
    """A value of a schema; one in ten is of any other type."""
    if random_.random() < 0.1 or depth > 4:
        return random_.choice([None, True, -1, 10**30, 1.5, "", "\x00", "a" * 2_000, [], {}, [[]], "2026-01-01"])
    if "$ref" in schema:
        return value(document["components"]["schemas"][schema["$ref"].rpartition("/")[2]], document, random_, depth + 1)
    for several in ("anyOf", "oneOf"):
        if several in schema:
            return value(random_.choice(schema[several]), document, random_, depth + 1)
    if "enum" in schema:
        return random_.choice(schema["enum"])
    match schema.get("type"):
        case "object" if "properties" in schema:
            required = schema.get("required", ())
            return {
                name: value(inner, document, random_, depth + 1)
                for name, inner in schema["properties"].items()
                if name in required or random_.random() < 0.5
            }
        case "object":
            return {random_.choice(NAMES): random_.choice(NAMES) for _ in range(random_.randrange(3))}
        case "array":
            return [value(schema.get("items", {}), document, random_, depth + 1) for _ in range(random_.randrange(3))]
        case "integer":
            return random_.choice([0, 1, 2, 50, 1_000, 1_001, -5, 2**63])
        case "number":
            return random_.choice([0, 0.5, 1e308, -1])
        case "boolean":
            return random_.random() < 0.5
        case _:
            return random_.choice([*NAMES, "1h", "2026-01-01T00:00:00Z", "visits", "<script>", "yes", ""])


def run(seconds: float, most: int, seed: int) -> int:
    """Send requests until either limit; returns the number of faults and leaks."""
    random_, statuses, by_role = random.Random(seed), Counter[int](), Counter[str]()
    faults: Counter[str] = Counter()
    with ExitStack() as stack:
        bound = "\n".join(f"    - {{role: {role}, groups: [{role}]}}" for role in ROLES)
        place = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        project = stack.enter_context(load(write_project(place, "shop", ACCESS.format(bindings=bound)), via="http"))
        admin = Principal("user:root", tuple(ROLES), via="http")
        fill_journal(project, principal=admin)
        token = create_token(project, "seeded", principal=admin, expires=timedelta(days=1)).secret
        seeded = (SECRET, token, project.salt().decode("latin-1"))
        url = stack.enter_context(serving({"shop": project}, jobs=Jobs(most=0), authenticate=CallerOfRole))
        http = stack.enter_context(httpx.Client(base_url=url, timeout=60))
        document = http.get("/v1/openapi.json").json()
        document["paths"] = {path: each for path, each in document["paths"].items() if not path.endswith("/stream")}
        end, sent, begun = time.monotonic() + seconds, 0, time.monotonic()
        while sent < most and time.monotonic() < end:
            role = random_.choice(("", *ROLES))
            method, path, options = generated(document, random_)
            headers = {"x-role": role, **options.pop("headers", {})}  # type: ignore[dict-item]
            answered = http.request(method, path, headers=headers, **options)  # type: ignore[arg-type]
            sent += 1
            statuses[answered.status_code] += 1
            by_role[role or "none"] += 1
            if answered.status_code >= 500 and answered.status_code not in ANSWERS:
                faults[f"{answered.status_code} {method} {path} {options} {answered.text[:200]}"] += 1
            text = answered.text
            faults.update(f"leak {role} {method} {path}" for secret in seeded if secret in text)
        spent = time.monotonic() - begun
    print(
        json.dumps(
            {
                "requests": sent,
                "seconds": round(spent),
                "statuses": dict(sorted(statuses.items())),
                "roles": dict(sorted(by_role.items())),
                "faults": len(faults),
            },
            indent=2,
        )
    )
    for text, count in faults.most_common(20):
        print(count, text)
    return sum(faults.values())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    raise SystemExit(1 if run(given.seconds, given.requests, given.seed) else 0)
