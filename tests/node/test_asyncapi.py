"""The AsyncAPI document against the schema that the AsyncAPI Initiative publishes (npm: @asyncapi/specs)."""

from __future__ import annotations

import json

import jsonschema_rs

from bridge.web.app import operations
from bridge.web.documents.asyncapi import asyncapi
from tests.node.runtime import HERE

SCHEMA = HERE / "node_modules/@asyncapi/specs/schemas/3.0.0.json"


def test_the_document_is_valid() -> None:
    validator = jsonschema_rs.Draft7Validator(json.loads(SCHEMA.read_text()))
    assert [str(error) for error in validator.iter_errors(asyncapi("bridge", operations()))] == []
    broken = {**asyncapi("bridge", operations()), "operations": {"x": {"action": "sends"}}}
    assert not validator.is_valid(broken)
