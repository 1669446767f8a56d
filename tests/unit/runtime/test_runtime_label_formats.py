"""Labels of a project whose target has a number format."""

from __future__ import annotations

import pytest

from cumulant.project import load
from cumulant.runtime.labels import schema_of

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
