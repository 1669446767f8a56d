"""What no single value shows: rules between sections of a resolved project."""

from __future__ import annotations

import difflib
from collections.abc import Iterator

from cumulant.alerting.policy import BUILT_IN as BUILT_IN_RULES
from cumulant.core.errors import CumulantError, UsageError, did_you_mean
from cumulant.core.units import duration, rate
from cumulant.project.data_section import source_policy
from cumulant.project.file.access_rules import binding_faults
from cumulant.project.file.document import Place, Problem, YamlEntry
from cumulant.project.file.objectives import objectives
from cumulant.project.file.spec import ProjectSpec
from cumulant.project.file.text_values import secrets_in
from cumulant.project.release_section import release_policy_errors
from cumulant.training.spec import BUILT_IN


def section_problems(spec: ProjectSpec, project: YamlEntry) -> list[Problem]:
    """Every broken rule, with the line that broke it."""
    return [(place.file, place.line, text) for place, text in _broken(spec, project)]


def secrets_problems(entry: YamlEntry | None) -> list[Problem]:
    """What an environment may not write for its secrets."""
    if entry is None or not isinstance(entry.value, str) or not secrets_in(entry.value):
        return []
    place = entry.place
    return [(place.file, place.line, "where secrets are found cannot itself be a secret; write the URL as it is")]


def _broken(spec: ProjectSpec, project: YamlEntry) -> Iterator[tuple[Place, str]]:
    if spec.model.risk == "high" and spec.release.approval == "none":
        place = _place(project, "release", "approval") or _place(project, "model", "risk") or project.place
        example = "release: {approval: {before: canary, by: [GROUP]}}"
        yield place, f"model.risk is high, so release.approval may not be none; write {example}"
    source = None if spec.training is None else spec.training.source
    if source is not None and source not in spec.data:
        near = did_you_mean(source, spec.data)
        known = f"sources: {', '.join(spec.data) or 'none'}"
        place = _place(project, "training", "source") or project.place
        yield place, f'training.source names "{source}", which is not under data; {near or known}'
    yield from _sources(spec, project)
    yield from _formats(spec, project)
    yield from _trainers(spec, project)
    yield from _release(spec, project)
    yield from _alerts(spec, project)
    yield from _spans(spec, project)
    yield from _monitoring(spec, project)
    for path, text in binding_faults(spec.access):
        yield _place(project, *path) or project.place, text
    yield from _objectives(spec, project)


def _objectives(spec: ProjectSpec, project: YamlEntry) -> Iterator[tuple[Place, str]]:
    try:
        objectives(spec.serving.slo)
    except UsageError as error:
        place = _place(project, *(error.subject or "serving.slo").split(".")) or project.place
        yield place, error.full_text


def _sources(spec: ProjectSpec, project: YamlEntry) -> Iterator[tuple[Place, str]]:
    """Limits that cannot be evaluated, or never hold; subjects that are no declared column."""
    for name, declared in spec.data.items():
        if declared.subject is not None and declared.subject not in declared.declared_columns:
            near = did_you_mean(declared.subject, declared.declared_columns)
            place = _place(project, "data", name, "subject") or project.place
            hint = near or f"declare it: personal: [{declared.subject}]"
            yield place, f'data.{name}.subject names "{declared.subject}", which is no declared column; {hint}'
        try:
            source_policy(declared)
        except CumulantError as error:
            path, column = ("data", name), error.subject or ""
            place = _place(project, *path, "rules", column) or _place(project, *path) or project.place
            yield place, f"data.{name}: {error.full_text}"


def _formats(spec: ProjectSpec, project: YamlEntry) -> Iterator[tuple[Place, str]]:
    for source, declared in spec.data.items():
        for column, rule in declared.rules.items():
            if rule.number_format is not None and rule.date_format is not None:
                place = _place(project, "data", source, "rules", column) or project.place
                yield place, f"data.{source}.rules.{column}: a column holds numbers or dates; write one format"
            for key, form, what, types in (
                ("number_format", rule.number_format, "numbers", ("float", "int")),
                ("date_format", rule.date_format, "dates", ("time", "date")),
            ):
                if form is not None and rule.type not in (None, *types):
                    path = ("data", source, "rules", column)
                    place = _place(project, *path, key) or _place(project, *path) or project.place
                    text = f"data.{source}.rules.{column}: a {key} is for {what}, and type is {rule.type}"
                    yield place, f"{text}; write type: {' or '.join(types)}, or leave {key} out"


def _trainers(spec: ProjectSpec, project: YamlEntry) -> Iterator[tuple[Place, str]]:
    for number, name in enumerate(() if spec.training is None else spec.training.trainers):
        if name not in BUILT_IN and ":" not in name:
            near = did_you_mean(name, BUILT_IN)
            known = (
                f"write {', '.join(BUILT_IN)}, sklearn:RandomForestClassifier, or a function of yours: "
                "trainers.py:forest"
            )
            place = _place(project, "training", "trainers", number) or project.place
            yield place, f'training.trainers: there is no trainer "{name}"; {near or known}'


def _release(spec: ProjectSpec, project: YamlEntry) -> Iterator[tuple[Place, str]]:
    """What no release could go by: found when one begins, a version would have been trained for it."""
    for error in release_policy_errors(spec.release):
        path = (error.subject or "release").split(".")
        # A value that the file does not hold is a default: the nearest section above it is shown.
        within = (path[:length] for length in range(len(path), 0, -1))
        place = next(
            (key_place for prefix in within if (key_place := _place(project, *prefix)) is not None), project.place
        )
        yield place, error.full_text


def _alerts(spec: ProjectSpec, project: YamlEntry) -> Iterator[tuple[Place, str]]:
    """Names of rules are free, and one that is nearly a built-in one would be a rule that nothing ever goes by."""
    for name in spec.monitoring.alerts.rules:
        near = difflib.get_close_matches(name, BUILT_IN_RULES, n=1, cutoff=0.85)
        if near and name not in BUILT_IN_RULES:
            place = _place(project, "monitoring", "alerts", "rules", name) or project.place
            yield (
                place,
                f'monitoring.alerts.rules: "{name}" is nearly "{near[0]}"; write that, or another name for yours',
            )


def _spans(spec: ProjectSpec, project: YamlEntry) -> Iterator[tuple[Place, str]]:
    """Spans and a budget of 0, which are well written and mean nothing."""
    terms, retrain = spec.monitoring.retrain, ("monitoring", "retrain")
    spans = {
        ("training", "half_life"): None if spec.training is None else spec.training.half_life,
        (*retrain, "every"): terms.every,
        (*retrain, "history", "window"): terms.history.window,
        (*retrain, "history", "half_life"): terms.history.half_life,
    }
    for path, text in spans.items():
        if text is not None and not duration(text):
            place = _place(project, *path) or project.place
            yield place, f"{'.'.join(path)} may not be 0; leave it out, or write 30d"
    if not rate(terms.at_most).number:
        place = _place(project, *retrain, "at_most") or project.place
        yield place, "monitoring.retrain.at_most may not be 0; write `when: never` to train only by hand"


def _monitoring(spec: ProjectSpec, project: YamlEntry) -> Iterator[tuple[Place, str]]:
    """Windows of no length, and a queue that no case would ever come into."""
    for section, text in (
        ("drift", spec.monitoring.drift.window),
        ("performance", spec.monitoring.performance.window),
    ):
        if not duration(text):
            place = _place(project, "monitoring", section, "window") or project.place
            yield place, f"monitoring.{section}.window may not be 0; leave it out, or write 1d"
    review = spec.monitoring.review
    if review is not None and rate(review.budget).number < 1:
        place = _place(project, "monitoring", "review", "budget") or project.place
        text = f"monitoring.review.budget: {review.budget} is less than one case"
        yield place, f"{text}; take a longer period: 1/week, 1/month"


def _place(project: YamlEntry, *path: str | int) -> Place | None:
    entry = project.at(path)
    return None if entry is None else entry.place
