"""The cases that every client runs."""

import json
from pathlib import Path
from typing import Any

import pytest
from _pytest.mark.structures import MarkDecorator

from redis_rl import (
    Decision,
    FieldError,
    IdentityError,
    KeyPartError,
    Limit,
    Trust,
    fields,
    identify,
    key_part,
    limit_key,
    problem,
)

VECTORS = json.loads((Path(__file__).parents[2] / "vectors.json").read_text(encoding="utf-8"))


def rows(group: str) -> MarkDecorator:
    return pytest.mark.parametrize("row", VECTORS[group], ids=lambda row: row["case"])


def test_there_are_enough_cases() -> None:
    assert sum(len(VECTORS[group]) for group in ("identity", "fields", "problem", "keys")) >= 60


@rows("identity")
def test_identity(row: Any) -> None:
    given = row["input"]
    try:
        trust = given["trust"] or {}
        options = {name: given[name] for name in ("header", "prefix4", "prefix6") if name in given}
        setup = Trust(count=trust.get("count", 0), cidrs=tuple(trust.get("cidrs", ())), **options)
        found = {"key": identify(given["remote"], [tuple(pair) for pair in given["headers"]], setup)}
    except IdentityError as error:
        found = {"error": error.code}
    assert found == row["output"]


def limits(given: Any) -> list[Limit]:
    return [
        Limit(
            one["name"],
            Decision.from_reply(one["reply"]),
            one.get("quota"),
            one.get("window"),
            one.get("unit", "requests"),
        )
        for one in given["limits"]
    ]


@rows("fields")
def test_fields(row: Any) -> None:
    given = row["input"]
    try:
        found: Any = {"fields": [list(pair) for pair in fields(limits(given), given["form"], given.get("now"))]}
    except FieldError as error:
        found = {"error": error.code}
    assert found == row["output"]


@rows("problem")
def test_problem(row: Any) -> None:
    body = problem(limits(row["input"]), row["input"]["kind"])
    assert body == row["output"]["body"]
    assert body["status"] == row["output"]["status"]


@rows("keys")
def test_keys(row: Any) -> None:
    given = row["input"]
    try:
        if "who" in given:
            found = {"key": limit_key(**given)}
        else:
            found = {"key": key_part(given.pop("kind"), given.pop("value"), **given)}
    except KeyPartError as error:
        found = {"error": error.code}
    assert found == row["output"]


def test_an_escaped_quote_ends_no_quoted_text() -> None:
    headers = [("Forwarded", 'for=203.0.113.9;host="a\\",b", for=10.0.0.2')]
    assert identify("10.0.0.1", headers, Trust(count=2, header="forwarded")) == "ip:203.0.113.9"
