"""Rules that a project declares for its data hold for the requests of the model that was trained from them."""

import json
import urllib.error
import urllib.request

import e2e_shop
import pytest
from e2e_support import run
from test_e2e_labels import order

from cumulant.flows.serving.serve import prepare_service, run_server
from cumulant.project.file.loading import load
from cumulant.testing.gateways import wait_for


def post(url, path, body):
    request = urllib.request.Request(url + path, json.dumps(body).encode(), {"content-type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=30) as found:
            return found.status, json.loads(found.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


@pytest.mark.slow
def test_declared_rules_hold_for_requests_and_a_change_of_them_makes_another_servable(tmp_path):
    text = e2e_shop.PROJECT.replace("trials: 3", "trials: 1")
    folder = e2e_shop.make(tmp_path / "shop", rows=1500, project=text)
    run(folder, "train", codes=(0, 1))
    bad = order(1) | {"amount": -5.0}
    with load(folder) as project:
        service = prepare_service(project, project.name, principal=project.principal())
        with run_server(service) as server:
            path = f"/v1/models/{project.name}/predict"
            assert "warnings" not in post(server.url, path, order(2))[1]
            status, answer = post(server.url, path, bad)
            assert (status, answer["warnings"]) == (200, ["amount breaks the data contract: it must be at least 0"])
            status, answer = post(server.url, path, order(3) | {"kind": "tent"})
            assert (status, answer["warnings"][0].split()[0]) == (200, "kind")
            status, answer = post(server.url, path, {name: order(4)[name] for name in order(4) if name != "amount"})
            assert (status, answer["warnings"]) == (200, ["amount is missing, which it was in no row of training"])
    logged = wait_for(
        lambda: next((one for one in run(folder, "predictions", "list") if one["invalid"] == "amount:min"), None)
    )
    assert logged["request"]["amount"] == -5.0

    rules = "amount: {min: 0}\n      kind: {in: [coat, hat, shoe, sock]}"
    (folder / "cumulant.yaml").write_text(text.replace("amount: {min: 0}", rules) + "serving: {invalid: refuse}\n")
    run(folder, "train", codes=(0, 1))
    with load(folder) as project:
        service = prepare_service(project, project.name, principal=project.principal())
        assert service.model.version == "2"
        with run_server(service) as server:
            assert post(server.url, path, order(2))[0] == 200
            status, answer = post(server.url, path, [order(2), order(3) | {"kind": "tent"}])
            assert status == 422
            assert answer["error"].startswith("row 2: field \"kind\" must be one of coat, hat, shoe, sock, got 'tent'")
            assert post(server.url, path, bad)[0] == 422
