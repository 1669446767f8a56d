"""Contract files of the Open Data Contract Standard: out, in, and merged with a project's own rules."""

from __future__ import annotations

import msgspec
import pytest
from ruamel.yaml import YAML

from cumulant.core.errors import DataError
from cumulant.data.proposal.contract import merge_contract
from cumulant.data.proposal.odcs import from_odcs, to_odcs
from cumulant.data.spec import SourceSpec
from cumulant.project.data_section import source_policy

ORDERS = """
apiVersion: v3.1.0
kind: DataContract
id: 53581432-6c55-4ba2-a65f-72344a91553a
version: 1.0.0
status: active
schema:
  - name: orders
    physicalType: table
    properties:
      - {name: order_id, logicalType: string, primaryKey: true, primaryKeyPosition: 2, required: true}
      - {name: shop, logicalType: integer, primaryKey: true, primaryKeyPosition: 1}
      - name: email
        logicalType: string
        classification: pii
        quality: [{metric: nullValues, mustBeLessThan: 5, unit: percent}]
      - name: amount
        logicalType: number
        logicalTypeOptions: {minimum: 0, maximum: 1000, multipleOf: 0.01}
      - name: unit
        logicalType: string
        quality:
          - metric: invalidValues
            arguments: {validValues: [pounds, kg]}
            mustBeLessThan: 5
            unit: rows
            severity: warning
      - name: status
        logicalType: string
        quality: [{rule: validValues, validValues: [open, 'NO', on], mustBe: 0}]
      - name: iban
        logicalType: string
        unique: true
        logicalTypeOptions: {pattern: '^[A-Z]{2}', maxLength: 4}
        quality: [{type: sql, query: SELECT 1, mustBe: 1}]
      - {name: placed, logicalType: timestamp}
      - {name: day, logicalType: date}
      - {name: lines, logicalType: array}
    quality:
      - {metric: rowCount, mustBeBetween: [1, 100]}
slaProperties:
  - {property: latency, value: 4, unit: d, element: orders.placed}
"""


def test_a_contract_of_the_standard_is_read():
    found = from_odcs(ORDERS)
    rules = msgspec.to_builtins(found.rules)
    assert found.name == "orders"
    assert found.key == ("shop", "order_id")
    assert found.personal == ("email",)
    assert (found.table.min_rows, found.table.max_rows, found.table.fresh) == (1, 100, "4d")
    assert (rules["order_id"]["nulls"], rules["email"]["nulls"]) == (0, 0.05)
    assert (rules["amount"]["type"], rules["amount"]["min"], rules["amount"]["max"]) == ("float", 0, 1000)
    assert rules["unit"]["in"] == ["pounds", "kg"]
    assert {name: rule["severity"] for name, rule in rules.items() if rule["severity"]} == {"unit": "warn"}
    assert rules["status"]["in"] == ["open", "NO", "on"], "YAML 1.2: NO and on are text"
    assert (rules["iban"]["unique"], rules["iban"]["pattern"]) == (True, "^[A-Z]{2}")
    assert [field.dtype for field in found.fields][-2:] == ["time", "date"]
    assert [note.split(":")[0] for note in found.notes] == ["amount", "unit", "iban", "lines"]


def spec(**values) -> SourceSpec:
    return msgspec.convert({"path": "trips.csv"} | values, SourceSpec)


DECLARED = {
    "key": ["id", "at"],
    "event_time": {"column": "at", "zone": "Europe/Paris"},
    "known_time": {"7d": ["label"]},
    "rules": {
        "km": {"type": "float", "min": 0, "max": 100, "nulls": "50%"},
        "city": {"type": "str", "in": ["A", "B"], "pattern": "^[AB]$", "description": "where"},
        "label": {"type": "int", "unique": True, "severity": "warn"},
    },
    "table": {"min_rows": 1, "max_rows": 10, "fresh": "36h", "where": ["km >= label"]},
    "personal": ["city"],
}


def test_a_declaration_goes_out_and_comes_back(place):
    place.write("trips.csv", "id,at,km,city,label\n1,2024-01-09T00:00:00,5,A,1\n2,2024-01-09T00:00:00,7,B,2\n")
    found = place.ingest(**DECLARED)
    text = to_odcs(source_policy(spec(**DECLARED)), found)
    document = YAML(typ="safe").load(text)
    assert {"apiVersion", "kind", "id", "version", "status", "schema"} <= document.keys()
    back = merge_contract(spec(), from_odcs(text, table="trips"))
    for column, rule in spec(**DECLARED).rules.items():
        read = back.rules[column]
        assert (read.type, read.min, read.max, read.in_, read.pattern, read.unique, read.description) == (
            rule.type,
            rule.min,
            rule.max,
            rule.in_,
            rule.pattern,
            rule.unique,
            rule.description,
        )
        assert read.severity == rule.severity
    assert back.rules["km"].nulls == 0.5
    assert (back.keys, back.time, back.known_time, back.personal) == (
        ("id", "at"),
        spec(**DECLARED).time,
        {"7d": ["label"]},
        ["city"],
    )
    assert back.table == msgspec.structs.replace(spec(**DECLARED).table, fresh="1.5d")
    place.write("trips.odcs.yaml", text)
    again = place.ingest(contract="trips.odcs.yaml")
    assert place.rows(again) == place.rows(found)


def test_own_rules_go_before_those_of_the_file(place):
    place.write("orders.odcs.yaml", ORDERS)
    place.write(
        "trips.csv",
        "shop,order_id,email,amount,unit,status,iban,placed,day\n1,a,x,5000,kg,on,DE,2024-01-09T00:00:00Z,2024-01-09\n",
    )
    more = {"contract": "orders.odcs.yaml", "event_time": "placed"}
    assert "amount:max" in place.refused(**more).breaches[0]
    found = place.ingest(**more, rules={"amount": {"max": 10_000}})
    assert found.rows_passed == 1
    assert {check.rule for check in found.checks} >= {
        "amount:min",
        "amount:max",
        "unit:in",
        "iban:unique",
        "table:fresh",
    }
    assert found.fields[2].personal


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a: [", r"not valid YAML \(line"),
        ("a: 1", "no Open Data Contract Standard"),
        ("- 1", "no Open Data Contract Standard"),
        ("apiVersion: v2.2.2\nkind: DataContract\n", "version 3"),
        (ORDERS.replace("name: orders", "name: a") + "", None),
        (ORDERS.replace("schema:", "schema:\n  - {name: a}\n  - {name: b}\nother:"), "no schema object"),
    ],
)
def test_files_that_are_no_contract(text, told):
    if told is None:
        assert from_odcs(text, table="orders").name == "a", "the only table is meant whatever its name"
        return
    with pytest.raises(DataError, match=told) as caught:
        from_odcs(text, table="orders")
    assert caught.value.hint


def test_a_contract_file_that_is_missing(place):
    place.write("trips.csv", "a\n1\n")
    with pytest.raises(DataError, match="no contract file"):
        place.ingest(contract="nowhere.yaml")
