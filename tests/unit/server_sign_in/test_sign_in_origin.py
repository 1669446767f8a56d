"""The principal of a request says from where it acts and in which trace, for the record of what it did."""

from __future__ import annotations

import pytest

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


def test_the_principal_has_the_address_and_the_trace_of_its_request(serve):
    server = serve()
    headers = {**server.token(), "traceparent": f"00-{TRACE}-00f067aa0ba902b7-01"}
    answer = server.browser(client="192.0.2.7").get("/v1", headers=headers).json()
    assert (answer["source"], answer["trace"]) == ("192.0.2.7", TRACE)
    answer = server.signed_in().get("/").json()
    assert (answer["source"], answer["trace"]) == ("127.0.0.1", "")


@pytest.mark.parametrize(
    "header",
    [
        "",
        "x",
        f"ff-{TRACE}-00f067aa0ba902b7-01",
        f"00-{'0' * 32}-00f067aa0ba902b7-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE.upper()}-00f067aa0ba902b7-01",
        f"00-{TRACE}-00f067aa0ba902b7",
        "'\"><script>",
    ],
)
def test_what_is_no_trace_is_not_recorded(serve, header):
    server = serve()
    answer = server.browser().get("/v1", headers={**server.token(), "traceparent": header}).json()
    assert answer["trace"] == ""
