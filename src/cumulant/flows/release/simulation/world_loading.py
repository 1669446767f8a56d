"""Loading of worlds from a file or by name, with all faults reported; their policy and JSON Schema."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import inspect

from cumulant.core.errors import NotFoundError, UsageError, did_you_mean
from cumulant.core.units import duration
from cumulant.flows.release.simulation.world import ReleaseWorld
from cumulant.project.file.checking import Checker
from cumulant.project.file.document import Place, entry_of
from cumulant.project.release_section import release_policy
from cumulant.release.spec import ReleaseSpec
from cumulant.release.steps import ReleaseStep

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cumulant.release.policy import ReleasePolicy

#: where the worlds that ship with the package lie
_WORLDS = files("cumulant.datasets") / "worlds"
_SUFFIX = ".json"
#: a file of a world is a page; this bounds one that was made to exhaust memory
_MOST = 1_000_000
DEFAULT = "sound"


def bundled_worlds() -> tuple[str, ...]:
    """Names of the worlds that ship with the package."""
    return tuple(sorted(file.name.removesuffix(_SUFFIX) for file in _WORLDS.iterdir() if file.name.endswith(_SUFFIX)))


def read_world(name: str) -> ReleaseWorld:
    """The world of a file, else the one with that name that ships with the package.

    Raises:
        NotFoundError: there is neither.
        UsageError: it is no world; every fault is named.
    """
    path = Path(name)
    if path.is_file():
        if path.stat().st_size > _MOST:
            raise UsageError(f"{name} is larger than {_MOST:,} bytes", subject=name, hint="name the file of a world")
        return parse_world(path.read_bytes(), name)
    if name in bundled_worlds():
        return parse_world((_WORLDS / f"{name}{_SUFFIX}").read_bytes(), name)
    near = did_you_mean(name, bundled_worlds())
    raise NotFoundError(
        f"{name} is neither a file nor a world that ships with Cumulant",
        subject=name,
        hint=near or f"name a JSON file, or one of {', '.join(bundled_worlds())}",
    )


def parse_world(text: bytes, shown: str) -> ReleaseWorld:
    """A world from JSON. `shown` names it in errors.

    Raises:
        UsageError: it is not JSON, or has unknown keys, wrong types or values out of their bounds.
    """
    try:
        value = msgspec.json.decode(text)
    except msgspec.DecodeError as error:
        raise UsageError(
            f"{shown} is not JSON: {error}", subject=shown, hint="check it with `python -m json.tool FILE`"
        ) from None
    entry = entry_of(value, Place(shown, None))
    if not isinstance(value, dict):
        raise UsageError(f"{shown} holds no JSON object", subject=shown, hint='write {"expect": "sound"}')
    checker = Checker({})
    value = checker.check(entry, inspect.type_info(ReleaseWorld))
    policy = entry.get("policy")
    if policy is not None:
        value["policy"] = checker.check(policy, inspect.type_info(ReleaseSpec), ("policy",), partial=True)
    _refuse(shown, [text for _, _, text in checker.problems])
    world = msgspec.convert(value, ReleaseWorld)
    _refuse(shown, _faults(world))
    return world


def policy_of(world: ReleaseWorld, base: ReleaseSpec) -> ReleasePolicy:
    """The policy of the section `release` with the world's keys over it; it has the stages that the world names.

    Raises:
        UsageError: it cannot be followed.
    """
    merged = _merged(msgspec.to_builtins(base), world.policy)
    try:
        spec = msgspec.convert(merged, ReleaseSpec)
    except msgspec.ValidationError as error:
        raise UsageError(
            f"the policy of the world does not fit the section release: {error}",
            subject="policy",
            hint="write it as under release: in cumulant.yaml",
        ) from None
    if not duration(spec.look):
        raise UsageError("release.look is 0, so that no look ever ends", subject="release.look", hint="write 10s")
    policy = release_policy(spec)
    for path, stage in _named_stages(world):
        if stage is not None:
            first_step(policy.steps, stage, path)
    return policy


def first_step(every: Sequence[ReleaseStep], stage: str, path: str = "stage") -> int:
    """Position of the first step that a stage's name or a step's label stands for.

    Raises:
        UsageError: no step has that name.
    """
    places = [place for place, step in enumerate(every) if stage in (step.label, step.stage)]
    if not places:
        names = list(dict.fromkeys([*(step.label for step in every), *(step.stage for step in every)]))
        raise UsageError(
            f'{path}: the release has no stage "{stage}"',
            subject=path,
            hint=did_you_mean(stage, names) or f"its stages: {', '.join(names)}",
        )
    return places[0]


def schema_text() -> str:
    """The JSON Schema of a world."""
    from cumulant.project.file.schema import complete, structs_below

    ref = "#/$defs/"
    (root, policy), definitions = msgspec.json.schema_components(
        (ReleaseWorld, ReleaseSpec), ref_template=ref + "{name}"
    )
    for kind in (ReleaseWorld, ReleaseSpec):
        complete(definitions, structs_below(inspect.type_info(kind)))
    own = definitions.pop(root["$ref"].removeprefix(ref))
    own["properties"]["policy"] = {**policy, "description": own["properties"]["policy"]["description"]}
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "A world of simulated releases"}
    text = msgspec.json.encode({**head, **own, "$defs": dict(sorted(definitions.items()))})
    return msgspec.json.format(text, indent=1).decode() + "\n"


def _refuse(shown: str, faults: Sequence[str]) -> None:
    if not faults:
        return
    text = faults[0] if len(faults) == 1 else "; ".join(faults)
    raise UsageError(
        f"{shown}: {text}",
        subject=shown,
        hint="docs/reference/release-world.schema.json describes every key",
    )


def _faults(world: ReleaseWorld) -> list[str]:
    faults = []
    shares = sum(key.share for key in world.keys.heavy) if world.keys is not None else 0.0
    if shares >= 1:
        faults.append(f"keys.heavy: their shares add up to {shares:g}; leave some of the traffic to the other keys")
    if world.traffic.profile is not None and not any(world.traffic.profile):
        faults.append("traffic.profile: all factors are 0, so that no request comes; write one above 0")
    return faults


def _named_stages(world: ReleaseWorld) -> list[tuple[str, str | None]]:
    outages = [(f"outages.{place}.stage", outage.stage) for place, outage in enumerate(world.outages)]
    return [
        ("errors.from_stage", world.errors.from_stage),
        ("split.from_stage", world.split.from_stage),
        *outages,
    ]


def _merged(below: Any, above: Any) -> Any:
    if not isinstance(below, dict) or not isinstance(above, dict):
        return above
    return {**below, **{key: _merged(below.get(key), value) for key, value in above.items()}}
