"""Time of a decision of `cedar://` with 1,000 policies: `python bench/access.py [POLICIES]`.

CPU time of the thread and wall time, in microseconds. `kept`: the principals were seen before, so that their policies
are parsed; `new`: each decision is of another principal. In each decision at least one policy applies, but for the last
line, where all 1,000 concern the request and none applies.
"""

import random
import sys
import tempfile
import time
from pathlib import Path

from cumulant.drivers.cedar.access import CedarAccess
from cumulant.ports.access import Principal, Resource, RoleBinding

POLICIES = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000
DECISIONS, KNOWN, PROJECTS = 2_000, 150, 50


def request(number):
    """A principal of five groups, and the project of the first one."""
    groups = [random.Random(number * 5 + place).randrange(POLICIES) for place in range(5)]
    labels = {"project": f"p{groups[0] % PROJECTS}", "environment": "prod"}
    resource = Resource(kind="model", name="shop", region="eu-1", labels=labels)
    return Principal(f"user:{number}", tuple(f"g{group}" for group in groups)), resource


def bindings(**limits):
    return CedarAccess(
        bindings=[
            RoleBinding(id=f"b{n}", role="viewer", **{key: of(n) for key, of in limits.items()})
            for n in range(POLICIES)
        ]
    )


def of_groups():
    return bindings(groups=lambda n: (f"g{n}",), regions=lambda _: ("eu",))


def of_groups_in_projects():
    return bindings(groups=lambda n: (f"g{n}",), projects=lambda n: (f"p{n % PROJECTS}",))


def of_everybody_in_projects():
    return bindings(users=lambda _: ("*",), projects=lambda n: (f"p{n}",))


def of_everybody_elsewhere():
    return bindings(users=lambda _: ("*",), regions=lambda n: (f"r{n}",))


def files():
    place = Path(tempfile.mkdtemp())
    lines = [
        f'permit(principal in Group::"g{n}", action in Action::"viewer", resource)\n'
        'when { resource.environment == "prod" && resource.region like "eu*" };'
        for n in range(POLICIES)
    ]
    (place / "team.cedar").write_text("\n".join(lines))
    return CedarAccess(f"cedar://{place}")


def measure(title, make, *, people=DECISIONS, allowed=True):
    begun = time.thread_time()
    access = make()
    made = time.thread_time() - begun
    cpu, wall = [], []
    for number in range(DECISIONS if allowed else 200):
        who, what = request(number % people)
        cpu_before, before = time.thread_time(), time.perf_counter()
        decision = access.check(who, "model.show", what)
        wall.append(time.perf_counter() - before)
        cpu.append(time.thread_time() - cpu_before)
        assert decision.allowed == allowed
    skipped = people if people < len(cpu) else 0  # the first round fills what is kept
    figures = [each for times in (cpu[skipped:], wall[skipped:]) for each in quantiles(times)]
    print(f"| {title} | {made * 1e3:,.0f} | " + " | ".join(f"{value * 1e6:,.0f}" for value in figures) + " |")


def quantiles(times):
    ordered = sorted(times)
    return ordered[len(ordered) // 2], ordered[len(ordered) * 99 // 100]


print(f"{POLICIES:,} policies; loading in ms of CPU, decisions in µs")
print("| policies | loading | CPU p50 | CPU p99 | wall p50 | wall p99 |\n|---|---|---|---|---|---|")
measure("bindings of a group each, kept", of_groups, people=KNOWN)
measure("the same, new", of_groups)
measure("with projects, kept", of_groups_in_projects, people=KNOWN)
measure("bindings of everybody, a project each, kept", of_everybody_in_projects, people=KNOWN)
measure("files, a group each, kept", files, people=KNOWN)
measure("the same, new", files)
measure("bindings of everybody, a region each", of_everybody_elsewhere, people=KNOWN, allowed=False)
