"""The page of both documents: every operation, channel, event, problem and schema under a heading of its own."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import quote

from bridge.web.pages.markup import ADDRESS, Html, inline, join, prose, tag
from bridge.web.pages.shown_schemas import code, fields, kind, row, table

Json = Mapping[str, Any]

HEADER = '-H "Authorization: Bearer $BRIDGE_TOKEN"'


def reference(openapi: Json, asyncapi: Json) -> dict[str, str]:
    """The markup of the page's `nav` and `body`."""
    sections = [
        *(_group(openapi, each) for each in openapi["tags"]),
        _channels(asyncapi),
        _events(asyncapi),
        _problems(openapi),
        _schemas(openapi),
    ]
    return {
        "intro": prose(openapi["info"]["description"]),
        "access": _access(openapi),
        "nav": join(*(nav for nav, _ in sections)),
        "body": join(*(body for _, body in sections)),
    }


def _slug(text: str) -> str:
    return "".join(letter if letter.isalnum() else "-" for letter in text.lower())


def heading(level: int, name: str, *children: str) -> Html:
    """A heading that can be linked to."""
    mark = tag("a", "#", href=f"#{name}", class_="anchor", aria_label="Link to this")
    return tag(f"h{level}", *children, Html(" "), mark, id=name)


def _section(name: str, title: str, description: str, entries: Iterable[tuple[str, Html, Html]]) -> tuple[Html, Html]:
    """Its part of the list of contents, and itself; an entry is (name, what the list shows, markup)."""
    listed = list(entries)
    links = [tag("li", tag("a", shown, href=f"#{each}")) for each, shown, _ in listed]
    nav = tag("li", tag("a", title, href=f"#{name}"), tag("ul", *links))
    return nav, tag("section", heading(2, name, title), prose(description), *(body for _, _, body in listed))


# Access


def _access(openapi: Json) -> Html:
    ways = openapi["components"]["securitySchemes"].values()
    shown = {"http": "Authorization: Bearer …", "header": "X-API-Key: …", "query": "?access_token=…"}
    rows = [
        tag(
            "tr", tag("th", code(shown[way.get("in", way["type"])]), scope="row"), tag("td", inline(way["description"]))
        )
        for way in ways
    ]
    return tag("div", tag("table", tag("tbody", *rows)), class_="scroll", tabindex="0")


# Operations


def _group(openapi: Json, about: Json) -> tuple[Html, Html]:
    entries = [
        (operation["operationId"], _short(method, path), _operation(openapi, method, path, operation))
        for path, methods in openapi["paths"].items()
        for method, operation in methods.items()
        if about["name"] in operation["tags"]
    ]
    return _section(_slug(about["name"]), about["name"], about["description"], entries)


def _short(method: str, path: str) -> Html:
    return join(tag("span", method.upper(), class_=f"method {method}"), Html(" "), tag("span", path, class_="path"))


def _operation(openapi: Json, method: str, path: str, operation: Json) -> Html:
    return tag(
        "article",
        heading(3, operation["operationId"], _short(method, path)),
        tag("p", operation["summary"], class_="summary"),
        prose(operation.get("description", "")),
        _who(operation["security"]),
        _parameters(openapi, operation),
        _body(openapi, operation),
        _curl(openapi, method, path, operation),
        _answers(operation),
    )


def _who(security: list[Json]) -> Html:
    names = {name for each in security for name in each}
    words = "No token needed"
    if names:
        words = "A token, or a stream token" if "streamToken" in names else "A token"
    return tag("p", words, class_="who")


def _resolved(openapi: Json, part: Json) -> Json:
    """A parameter, followed to where it stands."""
    if "$ref" not in part:
        return part
    found: Json = openapi["components"]["parameters"][part["$ref"].rpartition("/")[2]]
    return found


def _parameters(openapi: Json, operation: Json) -> Html:
    found = [_resolved(openapi, part) for part in operation.get("parameters", ())]
    if not found:
        return Html("")
    rows = [
        row(
            join(code(each["name"]), Html(" "), tag("span", f"in {each['in']}", class_="where")),
            each["schema"],
            inline(each["description"]),
            optional=not each.get("required", False),
        )
        for each in found
    ]
    return join(tag("h4", "Parameters"), table("Parameter", rows))


def _body(openapi: Json, operation: Json) -> Html:
    body = operation.get("requestBody")
    if body is None:
        return Html("")
    schema = body["content"]["application/json"]["schema"]
    own = openapi["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    title = "Body" if body["required"] else "Body, optional"
    return join(tag("h4", title), tag("p", "JSON: ", kind(schema), ". ", inline(own["description"])), fields(own))


def _answers(operation: Json) -> Html:
    rows = [
        tag("tr", tag("th", code(status), scope="row"), tag("td", _answer(answer)))
        for status, answer in operation["responses"].items()
        if status != "default"
    ]
    return join(
        tag("h4", "Answers"), tag("div", tag("table", tag("tbody", *rows)), class_="scroll answers", tabindex="0")
    )


def _answer(answer: Json) -> Html:
    parts = [tag("p", inline(answer["description"]))]
    for media_type, content in answer.get("content", {}).items():
        of = join(": ", kind(content["schema"])) if "$ref" in content["schema"] else Html("")
        parts.append(tag("p", code(media_type), of, _problem_links(content), class_="content"))
        if media_type == "text/event-stream":
            parts += [_sample(each) for each in _samples(content)]
    return join(*parts)


def _problem_links(content: Json) -> Html:
    slugs = content.get("examples", {}) if content["schema"].get("$ref", "").endswith("/Problem") else {}
    return join(*(join(" ", tag("a", slug, href=f"#problem-{slug}", class_="slug")) for slug in slugs))


def _samples(content: Json) -> list[Json]:
    if "example" in content:
        return [{"summary": "For example", "value": content["example"]}]
    return list(content["examples"].values())


def _sample(sample: Json) -> Html:
    return tag("details", tag("summary", inline(sample["summary"])), pre(sample["value"]))


# Examples


def pre(text: str) -> Html:
    return tag("pre", tag("code", text), tabindex="0")


def _pretty(value: object) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False)


def _curl(openapi: Json, method: str, path: str, operation: Json) -> Html:
    """A command line that can be pasted."""
    for part in (_resolved(openapi, part) for part in operation.get("parameters", ())):
        if part["in"] == "path":
            path = path.replace(f"{{{part['name']}}}", quote(part["example"]))
    ok = next(iter(operation["responses"].values()))
    streams = "text/event-stream" in ok.get("content", {})
    words = ["curl", *(["-N"] if streams else []), *([] if method == "get" else ["-X", method.upper()])]
    lines = [" ".join([*words, f"{ADDRESS}{path}"]), *([HEADER] if operation["security"] else [])]
    if (body := operation.get("requestBody")) and operation["security"]:
        lines += _json_lines(openapi, body)
    return join(tag("h4", "Example"), pre(" \\\n  ".join(lines)))


def _json_lines(openapi: Json, body: Json) -> list[str]:
    schema = openapi["components"]["schemas"][body["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2]]
    example = schema["examples"][0]
    if not example and not body["required"]:
        return []
    return ["-H 'Content-Type: application/json'", f"-d {shlex.quote(json.dumps(example))}"]


# Channels and messages


def _channels(asyncapi: Json) -> tuple[Html, Html]:
    entries = [
        (f"channel-{name}", code(_address(channel)), _channel(asyncapi, name, channel))
        for name, channel in asyncapi["channels"].items()
    ]
    return _section("channels", "Channels", asyncapi["info"]["description"], entries)


def _address(channel: Json) -> str:
    """With its braces: the namespace has them, and is a parameter with one value."""
    address = channel["address"] or "your URL"
    for name, parameter in channel.get("parameters", {}).items():
        address = address.replace(f"{{{name}}}", parameter.get("default", f"<{name}>"))
    return str(address)


def _channel(asyncapi: Json, name: str, channel: Json) -> Html:
    messages = [asyncapi["components"]["messages"][each] for each in channel["messages"]]
    links = [tag("a", code(each["name"]), href=f"#event-{_slug(each['name'])}") for each in messages]
    example = [pre(_subscribed(_address(channel)))] if name == "redisEvents" else []
    return tag(
        "article",
        heading(3, f"channel-{name}", code(_address(channel))),
        prose(channel["description"]),
        *example,
        tag("p", "Messages: ", *(join(each, " ") for each in links), class_="messages"),
    )


def _subscribed(address: str) -> str:
    return f"redis-cli -u $REDIS_URL SUBSCRIBE {shlex.quote(address)}"


def _events(asyncapi: Json) -> tuple[Html, Html]:
    entries = [
        (f"event-{_slug(message['name'])}", code(message["name"]), _message(message))
        for message in asyncapi["components"]["messages"].values()
    ]
    intro = "By the `event:` line of a stream; bodies of webhooks by their `format`."
    return _section("messages", "Messages", intro, entries)


def _message(message: Json) -> Html:
    examples = [pre(_pretty(each["payload"])) for each in message.get("examples", ())]
    headers = [tag("h4", "Headers"), fields(message["headers"])] if "headers" in message else []
    return tag(
        "article",
        heading(3, f"event-{_slug(message['name'])}", code(message["name"])),
        tag("p", inline(message["summary"]), class_="summary"),
        tag("p", "Content: ", kind(message["payload"]), class_="content"),
        *headers,
        *examples,
    )


# Problems and schemas


def _problems(openapi: Json) -> tuple[Html, Html]:
    entries = [
        (f"problem-{slug}", code(slug), _problem(slug, example))
        for slug, example in openapi["components"]["examples"].items()
    ]
    return _section("problems", "Problems", "`type` is stable; `title` and `detail` are for people.", entries)


def _problem(slug: str, example: Json) -> Html:
    value = example["value"]
    status = tag("span", str(value["status"]), class_="status")
    return tag(
        "article",
        heading(3, f"problem-{slug}", code(slug)),
        tag("p", status, Html(" "), inline(example["summary"]), class_="summary"),
        pre(_pretty(value)),
    )


def _schemas(openapi: Json) -> tuple[Html, Html]:
    entries = [
        (f"schema-{name}", code(name), _schema(name, schema))
        for name, schema in sorted(openapi["components"]["schemas"].items())
    ]
    return _section("schemas", "Schemas", "Answers may come to have more fields than these.", entries)


def _schema(name: str, schema: Json) -> Html:
    choice = tag("p", kind(schema), class_="content") if "anyOf" in schema else Html("")
    return tag(
        "article", heading(3, f"schema-{name}", code(name)), prose(schema["description"]), choice, fields(schema)
    )
