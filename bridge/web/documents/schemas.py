"""The models' JSON schemas under the names that both documents refer to."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any, Literal

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, models_json_schema

from bridge.web.api import answers, envelopes
from bridge.web.api import webhook_models as given

Json = dict[str, Any]

NO_SHAPES = {"BaseModel", "RootModel", "Shape"}

REQUESTS: Mapping[str, type[BaseModel]] = {
    "EndpointRegistration": given.Registration,
    "EndpointChange": given.Change,
    "SecretRotation": given.Rotation,
    "RecoveryPeriod": given.Period,
    "EmptyBody": given.Nothing,
}

SAID: Mapping[str, Json] = {
    "url": {"description": "Where to deliver: public, unless `BRIDGE_WEBHOOK_ALLOW` has it", "format": "uri"},
    "description": {"description": "Your own words"},
    "cvms": {"description": "CVM references; empty: all"},
    "from": {"description": "Statuses before; empty: all"},
    "to": {"description": "Statuses after; empty: all"},
    "types": {"description": "Event types; empty: all"},
    "format": {"description": "What the body looks like"},
    "headers": {"description": "Sent besides; at most 100, 16384 characters altogether"},
    "secret": {"description": "`whsec_` and the base64 of 24 to 64 bytes; without one the bridge makes it"},
    "enabled": {"description": "Whether it is delivered to"},
    "since": {"description": "From this time on. RFC 3339", "format": "date-time"},
    "until": {"description": "Up to this time; without it, up to now. RFC 3339", "format": "date-time"},
}
"""What a caller is told of the fields it gives: the models check them and say no more."""

EXAMPLES: Mapping[str, Json] = {
    "EndpointRegistration": {"url": "https://example.com/cvm", "to": ["running", "error"]},
    "EndpointChange": {"enabled": False},
    "SecretRotation": {},
    "RecoveryPeriod": {"since": "2026-11-24T16:00:00Z"},
    "EmptyBody": {},
}


def ref(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}"}


class _Untitled(GenerateJsonSchema):
    """A title that only repeats a field's name says nothing."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False


@cache
def components() -> Json:
    """Every schema by name, made once; whoever changes one changes a copy."""
    return {**_said(), **_asked()}


def _said() -> Json:
    found = {**vars(envelopes), **vars(answers)}.items()
    # Pydantic leaves its own `RootModel[…]` among a module's names.
    shapes = {name: each for name, each in found if name.isidentifier() and name[0] != "_" and _is_model(each)}
    return _made({name: shapes[name] for name in shapes.keys() - NO_SHAPES}, "serialization")


def _is_model(each: object) -> bool:
    return isinstance(each, type) and issubclass(each, BaseModel)


def _asked() -> Json:
    made = {name: _described(schema) for name, schema in _made(REQUESTS, "validation").items()}
    for name, example in EXAMPLES.items():
        made[name]["examples"] = [example]
    # A field that a PATCH leaves out stays as it is.
    for field in made["EndpointChange"]["properties"].values():
        field.pop("default", None)
    return made


def _described(schema: Json) -> Json:
    fields = schema.get("properties", {})
    return {**schema, "properties": {name: {**field, **SAID[name]} for name, field in fields.items()}}


def _made(models: Mapping[str, type[BaseModel]], mode: Literal["validation", "serialization"]) -> Json:
    template = "#/components/schemas/{model}"
    _, found = models_json_schema(
        [(model, mode) for model in models.values()], ref_template=template, schema_generator=_Untitled
    )
    names = {model.__name__: name for name, model in models.items()}
    made = {names[name]: schema for name, schema in sorted(found["$defs"].items())}
    for schema in made.values():
        schema.pop("title", None)
        schema["description"] = " ".join(schema.get("description", "").split())
    return made
