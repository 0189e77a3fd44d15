"""Whether something is as the documents say, and no field more."""

from __future__ import annotations

import copy
import re
from functools import cache
from typing import Any

import jsonschema_rs

from bridge.web.app import operations
from bridge.web.documents.openapi import openapi

Json = dict[str, Any]


@cache
def document() -> Json:
    """With every schema of ours closed: the published one lets answers have more fields, for those to come."""
    closed = copy.deepcopy(openapi("bridge", operations()))
    for schema in closed["components"]["schemas"].values():
        if schema.get("properties"):
            schema.setdefault("additionalProperties", False)
    return closed


def check(schema: Json, value: object) -> None:
    """Raises jsonschema_rs.ValidationError; a `$ref` of the schema leads into the document."""
    whole = {**schema, "components": document()["components"]}
    jsonschema_rs.Draft202012Validator(whole, validate_formats=True).validate(value)


def check_named(name: str, value: object) -> None:
    check({"$ref": f"#/components/schemas/{name}"}, value)


def operation(method: str, path: str) -> tuple[str, Json]:
    """The path as it is written in the document, and the operation of this concrete one."""
    found = [template for template in document()["paths"] if re.fullmatch(re.sub(r"{[^}]+}", "[^/]+", template), path)]
    exact = sorted(found, key=lambda template: template.count("{"))
    assert exact, f"{path} is not in the document"
    made: Json = document()["paths"][exact[0]][method.lower()]
    return exact[0], made


def check_answer(method: str, path: str, status: int, content_type: str, body: object) -> None:
    """That the document promises this status, content type and body of the route. `body`: parsed, where it is JSON."""
    _, promised = operation(method, path)
    answers = promised["responses"]
    answer = answers[str(status)] if str(status) in answers else answers["default"]
    if "$ref" in answer:
        answer = document()["components"]["responses"]["Problem"]
    if "content" not in answer:
        assert not content_type
        return
    media_type = content_type.partition(";")[0]
    assert media_type in answer["content"], f"{method} {path} {status}: {media_type} is not among the answers"
    check(answer["content"][media_type]["schema"], body)
