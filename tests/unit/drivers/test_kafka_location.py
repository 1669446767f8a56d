"""What the URL of Kafka's brokers says, and what it is refused for."""

import pytest

from cumulant.core.errors import UsageError
from cumulant.drivers.kafka.location import parse_kafka_url
from cumulant.testing.secrets import MemorySecrets


def test_brokers_and_a_plain_connection():
    address = parse_kafka_url("kafka://a.test,b.test:9094,[::1]:9095/")
    assert address.client_settings(None) == {
        "bootstrap.servers": "a.test:9092,b.test:9094,[::1]:9095",
        "security.protocol": "PLAINTEXT",
    }


def test_a_user_and_an_encrypted_connection(tmp_path):
    (tmp_path / "ca.pem").touch()
    address = parse_kafka_url(f"kafkas://a%40b@k.test?password=PW&ca={tmp_path}/ca.pem&mechanism=PLAIN")
    assert address.client_settings(MemorySecrets({"PW": "x"})) == {
        "bootstrap.servers": "k.test:9092",
        "security.protocol": "SASL_SSL",
        "ssl.ca.location": f"{tmp_path}/ca.pem",
        "sasl.mechanism": "PLAIN",
        "sasl.username": "a@b",
        "sasl.password": "x",
    }
    with pytest.raises(UsageError, match="no store of secrets"):
        address.client_settings(None)
    (tmp_path / "ca.pem").write_text("-----BEGIN CERTIFICATE-----\n")
    assert address.java_settings(MemorySecrets({"PW": 'a"b\\c'})) == {
        "bootstrap.servers": "k.test:9092",
        "security.protocol": "SASL_SSL",
        "ssl.truststore.type": "PEM",
        "ssl.truststore.certificates": "-----BEGIN CERTIFICATE-----",
        "sasl.mechanism": "PLAIN",
        "sasl.jaas.config": "org.apache.kafka.common.security.plain.PlainLoginModule required"
        r' username="a@b" password="a\"b\\c";',
    }


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("kafka://", "no address"),
        ("kafka://host:port", "no address"),
        ("kafka://host:70000", "no address"),
        ("kafka://a,,b", "no address"),
        ("kafka://a b", "no address"),
        ("kafka://h:\N{FULLWIDTH DIGIT ONE}2", "no address"),
        ("kafka://[:::::]:80", "no address"),
        ("kafka://-:1", "no address"),
        ("kafka://.:1", "no address"),
        ("kafka://h/x", "no address"),
        ("kafka://u:secret@host", "holds a password"),
        ("kafka://u@host", "needs a password"),
        ("kafka://host?password=PW", "needs a password"),
        ("kafka://u@host?password=${secret:PW}", "name of a secret"),
        ("kafka://u@host?password=PW&mechanism=PLAIN", "as it is"),
        ("kafka://u@host?password=PW&mechanism=MD5", "no mechanism"),
        ("kafka://host?ca=x", 'option "ca"'),
        ("kafkas://host?ca=/nowhere/ca.pem", "does not exist"),
    ],
)
def test_what_is_refused(url, said):
    with pytest.raises(UsageError, match=said) as error:
        parse_kafka_url(url)
    assert "u:secret" not in error.value.full_text
