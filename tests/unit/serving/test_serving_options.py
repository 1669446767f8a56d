"""A setting of a server is declared once: its options, their words and the server's settings follow from that."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cumulant.serving.__main__ import _settings, parse_options
from cumulant.serving.options import ServerOptions, declared, options, overridden, words
from cumulant.serving.settings import Settings
from cumulant.serving.spec import FallbackSpec, LogSpec, ServingSpec

TIMES, SIZES = st.sampled_from(["40ms", "1h30m", "7d"]), st.sampled_from(["1kB", "64MiB"])
SECTIONS = st.builds(
    ServingSpec,
    queue=TIMES,
    drain=TIMES,
    cache_budget=TIMES,
    body_limit=SIZES,
    labels_size=SIZES,
    workers=st.integers(1, 9),
    cache=st.sampled_from(["auto", "on", "off"]),
    shared_cache=st.sampled_from([None, "valkey://127.0.0.1:1/0"]),
    clock_skew=st.none() | TIMES,
    scored=st.sampled_from(["durable", "background", "off"]),
    invalid=st.sampled_from(["warn", "refuse"]),
    hosts=st.lists(st.sampled_from(["a.example", "*"]), max_size=2),
    access_log=st.booleans(),
    log=st.builds(LogSpec, keep=TIMES, write=st.sampled_from(["durable", "background"])),
    fallback=st.builds(FallbackSpec, cached=st.booleans(), constant=st.none() | st.just({"prediction": False})),
)


def settings(line):
    return _settings(parse_options(["m", *line]))


def test_a_server_without_options_has_the_settings_of_an_empty_section():
    assert msgspec.structs.replace(settings([]), passed=None, traces=None) == Settings(folders=("m",))
    assert msgspec.structs.replace(settings(words(declared(ServingSpec()))), passed=None, traces=None) == Settings(
        folders=("m",)
    )


@given(SECTIONS)
def test_words_say_what_the_section_says(spec):
    values = overridden(declared(spec), {})
    found = parse_options(["m", *words(values)])
    for one in options():
        if one.key in values and values[one.key] not in ((), None):
            assert getattr(found, one.key) == (list(values[one.key]) if one.kind == "several" else values[one.key])
    parsed = settings(words(values))
    assert (parsed.workers, parsed.scored, parsed.invalid) == (spec.workers, spec.scored, spec.invalid)
    assert parsed.fallback.cached == spec.fallback.cached
    assert (parsed.sharing is not None) == (spec.shared_cache is not None and spec.cache != "off")


def test_every_setting_of_the_section_but_those_of_the_build_is_an_option():
    sections = {one.section for one in options() if one.section}
    left_out = {"cache", "shared_cache", "fallback", "reasons", "log", "slo"}
    assert {f"serving.{name}" for name in set(ServingSpec.__struct_fields__) - left_out} <= sections
    assert {"serving.log.keep", "serving.log.write", "serving.fallback"} <= sections
    assert len({one.name for one in options()}) == len(options())


def test_a_new_setting_is_an_option_by_its_declaration_alone():
    numbers = {one.key for one in options() if one.text in ("duration", "size")}
    assert {"queue", "drain", "cache_budget", "body_limit", "labels_size", "log_keep", "sequence_bytes"} <= numbers
    assert set(ServerOptions.__struct_fields__) >= set(ServingSpec.__struct_fields__)


def test_what_is_given_replaces_what_is_declared():
    values = declared(ServingSpec(queue="9ms", shared_cache="valkey://a:1/0", hosts=["a.example"]))
    found = overridden(values, {"queue": "1s", "drain": None, "access_log": False, "cache": ["on"], "allow_host": ()})
    assert (found["queue"], found["drain"], found["access_log"]) == ("1s", "10s", False)
    assert (found["cache"], found["allow_host"]) == (("on", "valkey://a:1/0"), ("a.example",))
    assert overridden(values, {"cache": ["off"]})["cache"] == ("off",)


def test_a_value_of_no_option_is_refused():
    with pytest.raises(KeyError):
        words({"log_kep": "90d"})
