"""Where an environment may store: its declared regions against `residency`."""

from __future__ import annotations

from urllib.parse import parse_qsl

from cumulant.project.file.document import Problem, YamlEntry
from cumulant.project.file.spec import EnvironmentSpec, StepsSpec
from cumulant.project.file.text_values import masked

#: the keys whose URL may declare a region
_DECLARING = ("store", "log", "audit")
#: the keys of what else stores, on servers that declare none
_OTHERS = ("journal", "online", "tracking_uri")
_EMBEDDED = ("sqlite", "file", "mlflow+sqlite")
#: the scheme whose client uses the region of its URL, so that the service refuses a wrong one, and those whose does not
_REGIONAL, _WITHOUT_REGIONS = "s3", ("gs", "az")


def residency_problems(spec: EnvironmentSpec, chosen: YamlEntry) -> list[Problem]:
    """The declared regions outside of `residency`, and those that no client uses, each with its line."""
    problems = [
        _at(chosen, key, f"{key}: {_scheme(url)}:// has no option region: its client uses none; leave it out")
        for key in _DECLARING
        if _scheme(url := getattr(spec, key)) in _WITHOUT_REGIONS and _region(url)
    ]
    if not spec.residency:
        return problems
    allowed = ", ".join(spec.residency)
    if not is_allowed(spec.region, spec.residency):
        text = f'region "{spec.region}" is outside of residency ({allowed}): nothing may be stored there'
        problems.append(_at(chosen, "region", text))
    for key in _DECLARING:
        region = _declared(getattr(spec, key))
        if region is not None and not is_allowed(region, spec.residency):
            text = f'{key} is in region "{region}", outside of residency ({allowed}): nothing may be stored there'
            problems.append(_at(chosen, key, text))
    return problems


def step_problems(steps: StepsSpec, allowed: list[str], project: YamlEntry) -> list[Problem]:
    """Regions of `resources.steps` outside of `allowed`, each with its line; an empty list allows all."""
    problems = []
    for step in steps.__struct_fields__:
        region = getattr(steps, step).region
        if region is not None and not is_allowed(region, allowed):
            entry = project
            for key in ("resources", "steps", step, "region"):
                entry = entry.get(key) or entry
            text = f'step {step} is for region "{region}", outside of residency ({", ".join(allowed)})'
            problems.append((entry.place.file, entry.place.line, text))
    return problems


def unchecked_places(spec: EnvironmentSpec) -> list[str]:
    """Keys of an environment with `residency` whose place is not known, each with its URL."""
    if not spec.residency:
        return []
    urls = {key: getattr(spec, key) for key in (*_DECLARING, *_OTHERS)}
    return [
        f"{key} ({masked(url)})"
        for key, url in urls.items()
        if url and _scheme(url) not in _EMBEDDED and _declared(url) is None
    ]


def _declared(url: str | None) -> str | None:
    return _region(url) if _scheme(url) == _REGIONAL else None


def declared_region(spec: EnvironmentSpec) -> str:
    """The region of the stored tables: that of the URL of `store`, else the environment's."""
    return _declared(spec.store) or spec.region


def _scheme(url: str | None) -> str:
    return (url or "").partition(":")[0].lower()


def _region(url: str | None) -> str | None:
    """As the driver reads it: the last of several, and an empty one is none."""
    options = dict(parse_qsl((url or "").partition("?")[2], keep_blank_values=True))
    return options.get("region") or None


def is_allowed(region: str, allowed: list[str]) -> bool:
    """Whether a region is one of `allowed` or a part of one; an empty list allows all."""
    return not allowed or any(region == name or region.startswith(f"{name}-") for name in allowed)


def _at(chosen: YamlEntry, key: str, text: str) -> Problem:
    entry = chosen.get(key) or chosen.get("residency") or chosen
    return entry.place.file, entry.place.line, text
