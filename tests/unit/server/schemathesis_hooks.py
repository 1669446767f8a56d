"""What schemathesis does with each response besides its own checks: it counts it, and searches it for hidden texts.

The variable `HIDDEN_TEXTS` names a file of texts by what they are; counts by status are written to that of `COUNTS`.
"""

import atexit
import json
import os
from collections import Counter
from pathlib import Path

import schemathesis

HIDDEN = json.loads(Path(os.environ["HIDDEN_TEXTS"]).read_text())
statuses = Counter()


@schemathesis.hook
def before_call(context, case, kwargs):
    """No token of a list that was read before is revoked: requests go on by them."""
    token = case.path_parameters.get("token")
    if isinstance(token, str) and set(token) <= set("0123456789abcdef"):
        case.path_parameters["token"] = os.environ["SPARE_TOKEN"]


@schemathesis.hook
def after_call(context, case, response):
    statuses[response.status_code] += 1


@schemathesis.check
def no_hidden_text(ctx, response, case):
    answered = response.content.decode("utf-8", "replace") + str(dict(response.headers))
    body = response.request.body or b""
    sent = str(response.request.url) + (body if isinstance(body, str) else body.decode("utf-8", "replace"))
    shown = [name for name, text in HIDDEN.items() if text in answered and text not in sent]
    assert not shown, f"the response shows {', '.join(shown)}"


@atexit.register
def write_counts():
    Path(os.environ["COUNTS"]).write_text(json.dumps(statuses))
