"""Labels of a project whose source declares number formats and known times."""

from __future__ import annotations

import pytest

from cumulant.flows.outcomes.label_schema import schema_of
from cumulant.project.file.loading import load

SOURCE = "{path: a.csv, rules: {price: {number_format: '1.234,5'}}}"


@pytest.mark.parametrize(
    ("sources", "named", "formats"),
    [
        (f"{{shop: {SOURCE}}}", "", {"price": "1.234,5"}),
        (f"{{shop: {SOURCE}, rates: {{path: b.csv}}}}", ", source: shop", {"price": "1.234,5"}),
        (f"{{shop: {SOURCE}, rates: {{path: b.csv}}}}", ", source: rates", {}),
    ],
)
def test_labels_are_read_in_the_format_of_their_source(sources, named, formats, tmp_path):
    (tmp_path / "cumulant.yaml").write_text(
        f"version: 1\nmodel: {{name: m}}\ndata: {sources}\ntraining: {{target: price{named}}}\n"
    )
    assert schema_of(load(tmp_path)).formats == formats


@pytest.mark.parametrize(
    ("target", "known_time", "column"),
    [
        ("back", "{decided: [back]}", "decided"),
        ("back", "{decided: back}", "decided"),
        ("back", "{7d: [back]}", None),
        ("back", "{decided: [other]}", None),
        ("late > early", "{decided: [late, early]}", "decided"),
        ("late > early", "{decided: [late], 7d: [early]}", None),
    ],
)
def test_the_known_time_of_the_target_is_that_of_labels(target, known_time, column, tmp_path):
    source = f"{{path: a.csv, event_time: {{column: at, zone: Europe/Berlin}}, known_time: {known_time}}}"
    (tmp_path / "cumulant.yaml").write_text(
        f"version: 1\nmodel: {{name: m}}\ndata: {{shop: {source}}}\ntraining: {{target: '{target}'}}\n"
    )
    known = schema_of(load(tmp_path)).known
    assert (known and (known.name, known.zone)) == (column and (column, "Europe/Berlin"))
