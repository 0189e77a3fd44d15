"""The models' JSON schemas under the names that both documents refer to."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, models_json_schema

from bridge.web.api import envelopes
from bridge.web.http.operations import Operation
from bridge.web.http.parameters import Json
from bridge.web.http.problems import Problem
from bridge.web.http.responses import Shape

Model = type[BaseModel]

SENT: tuple[Model, ...] = (
    Problem,
    envelopes.Event,
    envelopes.TestEvent,
    envelopes.SnapshotEvent,
    envelopes.ResetEvent,
    envelopes.PositionData,
    envelopes.ComeBackData,
    envelopes.StandardBody,
    envelopes.PhalaBody,
)
"""What streams, channels and webhooks carry, beside the answers of the operations."""


def ref(model: Model | str) -> Json:
    return {"$ref": f"#/components/schemas/{model if isinstance(model, str) else model.__name__}"}


class _Untitled(GenerateJsonSchema):
    """Without titles, which only repeat the fields' names."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False


def components(operations: Iterable[Operation]) -> Json:
    """Every schema by its model's name."""
    models = {*SENT}
    for operation in operations:
        contents = [content for answer in operation.answers.values() for content in answer.content.values()]
        models |= {content.schema for content in contents if isinstance(content.schema, type)}
        models |= {operation.body} if operation.body else set()
    given: list[tuple[Model, Literal["validation", "serialization"]]] = [
        (model, "serialization" if issubclass(model, Shape | envelopes.Event) else "validation")
        for model in sorted(models, key=lambda model: model.__name__)
    ]
    _, found = models_json_schema(given, ref_template="#/components/schemas/{model}", schema_generator=_Untitled)
    return {name: _plain(schema) for name, schema in sorted(found["$defs"].items())}


def _plain(schema: Json) -> Json:
    made = {**schema, "description": " ".join(schema.get("description", "").split())}
    del made["title"]
    if made.get("additionalProperties") is False and "required" not in made:
        # Of a body whose fields are all optional: a field that a PATCH leaves out stays as it is, whatever its default.
        made["properties"] = {
            name: {key: value for key, value in field.items() if key != "default"}
            for name, field in made.get("properties", {}).items()
        }
    return made
