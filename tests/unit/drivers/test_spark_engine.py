"""What the client of Spark checks itself."""

from __future__ import annotations

import pytest

from cumulant.core.errors import MissingPartError
from cumulant.drivers.spark.engine import check_version


@pytest.mark.parametrize("version", ["4.0.1", "3.5.7", "3.10.0-SNAPSHOT"])
def test_a_server_before_4_1_is_refused_before_rows_are_handed_over(version: str):
    with pytest.raises(MissingPartError, match=rf"version {version}, and 4\.1 or later"):
        check_version(version)


@pytest.mark.parametrize("version", ["4.1.0", "4.10.2", "5.0.0-preview1", "client 17"])
def test_newer_servers_and_versions_of_others_are_tried(version: str):
    check_version(version)
