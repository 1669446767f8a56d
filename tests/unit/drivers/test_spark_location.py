"""URLs of Spark's Connect protocol."""

from __future__ import annotations

from pathlib import Path

import pytest

from cumulant.core.errors import UsageError
from cumulant.drivers.spark.location import parse_spark_url


def test_a_url_names_the_server_and_the_folder_of_both_sides():
    plain = parse_spark_url("sc://spark.acme.com?staging=/mnt/shared")
    assert (plain.host, plain.port, plain.encrypted, plain.staging) == (
        "spark.acme.com",
        15002,
        False,
        Path("/mnt/shared"),
    )
    assert plain.connection(None) == "sc://spark.acme.com:15002/"
    encrypted = parse_spark_url("scs://adb.acme.com:443?staging=/mnt/shared&token=DATABRICKS")
    assert encrypted.token == "DATABRICKS"
    assert encrypted.connection("abc") == "sc://adb.acme.com:443/;use_ssl=true;token=abc"


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("sc://?staging=/mnt", "names no host"),
        ("sc://a;token=x?staging=/mnt", "names no host"),
        ("sc://a:99999?staging=/mnt", "no port"),
        ("sc://a", "folder"),
        ("sc://a?staging=shared", "folder"),
        ("sc://a?staging=/mnt&user=b", 'no option "user"'),
        ("sc://a?staging=/mnt&token=X", "encrypted connections only"),
    ],
)
def test_an_invalid_url_is_refused(url, says):
    with pytest.raises(UsageError, match=says):
        parse_spark_url(url)
