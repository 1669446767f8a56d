"""The log in an object store, against real servers that speak S3: SeaweedFS and moto's."""

import pytest
from test_live_objectstore import KEY, SECRET, endpoint, secrets, url

from cumulant.core.errors import EngineUnavailableError, StorageError
from cumulant.drivers.objectstore.log import BucketLog
from cumulant.testing.conformance.gaps import Gap
from cumulant.testing.conformance.log import LogAddress, LogConformance
from cumulant.testing.secrets import MemorySecrets
from cumulant.testing.servers.programs import paired_ports

pytestmark = pytest.mark.live
__all__ = ["endpoint", "secrets", "url"]  # fixtures


class TestBucketLogOnS3(LogConformance):
    gaps = {"many": Gap(reason="each part is a request: 300 are put", raises=StorageError)}  # noqa: RUF012

    @pytest.fixture
    def log(self, address, secrets, tmp_path):
        return BucketLog(address.url, secrets=secrets, cache=tmp_path / "cache")

    @pytest.fixture
    def address(self, url, endpoint, monkeypatch, tmp_path):
        for name, value in {
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_ENDPOINT_URL": endpoint,
            "AWS_REGION": "us-east-1",
            "HOME": str(tmp_path / "home"),
        }.items():
            monkeypatch.setenv(name, value)
        return LogAddress("cumulant.drivers.objectstore.log:BucketLog", f"{url}/log")


def test_nobody_answers(tmp_path):
    (port,) = paired_ports(1)
    values = {"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_REGION": "us-east-1"}
    values["AWS_ENDPOINT_URL"] = f"http://127.0.0.1:{port}"
    log = BucketLog("s3://bucket/log", secrets=MemorySecrets(values), cache=tmp_path)
    with pytest.raises(EngineUnavailableError):
        log.days()
