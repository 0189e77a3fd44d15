"""The page of both documents: every operation, channel, event, problem and schema under a heading of its own."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Iterator, Mapping
from urllib.parse import quote

from bridge.web.pages.markup import ADDRESS, Html, Json, code, fields, inline, join, kind, prose, row, table, tag

HEADER = '-H "Authorization: Bearer $BRIDGE_TOKEN"'


def reference(openapi: Json, asyncapi: Json) -> dict[str, str]:
    """The markup of the page's `nav` and `body`."""
    groups = [_group(openapi, each) for each in openapi["tags"]]
    sections = [*groups, _channels(asyncapi), _events(asyncapi), _problems(openapi), _schemas(openapi)]
    return {
        "intro": prose(openapi["info"]["description"]),
        "access": _access(openapi),
        "nav": join(*(nav for nav, _ in sections)),
        "body": join(*(body for _, body in sections)),
    }


def _slug(text: str) -> str:
    return "".join(letter if letter.isalnum() else "-" for letter in text.lower())


Entry = tuple[str, Html, Iterable[Html]]
"""The name to link to, the title in markup, and what stands below it."""


def _section(name: str, title: str, description: str, entries: Iterable[Entry]) -> tuple[Html, Html]:
    """Its part of the list of contents, and itself."""
    listed = list(entries)
    links = [tag("li", tag("a", shown, href=f"#{each}")) for each, shown, _ in listed]
    nav = tag("li", tag("a", title, href=f"#{name}"), tag("ul", *links))
    articles = [tag("article", _heading(3, each, shown), *parts) for each, shown, parts in listed]
    return nav, tag("section", _heading(2, name, title), prose(description), *articles)


def _heading(level: int, name: str, title: str) -> Html:
    """A heading that can be linked to."""
    mark = tag("a", "#", href=f"#{name}", class_="anchor", aria_label="Link to this")
    return tag(f"h{level}", title, Html(" "), mark, id=name)


def _followed(document: Json, part: Json) -> Json:
    """The component that a reference leads to; anything else as it is."""
    if "$ref" not in part:
        return part
    *_, kind, name = part["$ref"].split("/")
    found: Json = document["components"][kind][name]
    return found


def _listing(rows: Mapping[str, Html], class_: str = "scroll") -> Html:
    """A table of two columns, the first one in code."""
    lines = [tag("tr", tag("th", code(name), scope="row"), tag("td", words)) for name, words in rows.items()]
    return tag("div", tag("table", tag("tbody", *lines)), class_=class_, tabindex="0")


# Access


def _access(openapi: Json) -> Html:
    ways = openapi["components"]["securitySchemes"].values()
    shown = {"http": "Authorization: Bearer …", "header": "X-API-Key: …", "query": "?access_token=…"}
    return _listing({shown[way.get("in", way["type"])]: inline(way["description"]) for way in ways})


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


def _operation(openapi: Json, method: str, path: str, operation: Json) -> Iterator[Html]:
    parameters = [_followed(openapi, part) for part in operation.get("parameters", ())]
    yield tag("p", operation["summary"], class_="summary")
    yield prose(operation.get("description", ""))
    names = {name for each in operation["security"] for name in each}
    token = "A token, or a stream token" if "streamToken" in names else "A token"
    yield tag("p", token if names else "No token needed", class_="who")
    if parameters:
        yield join(tag("h4", "Parameters"), table("Parameter", map(_parameter, parameters)))
    if body := operation.get("requestBody"):
        schema = body["content"]["application/json"]["schema"]
        own = _followed(openapi, schema)
        yield tag("h4", "Body" if body["required"] else "Body, optional")
        yield join(tag("p", "JSON: ", kind(schema), ". ", inline(own["description"])), fields(own))
    yield join(tag("h4", "Example"), pre(" \\\n  ".join(_curl(openapi, method, path, operation, parameters))))
    answers = {status: join(*_answer(each)) for status, each in operation["responses"].items() if status != "default"}
    yield join(tag("h4", "Answers"), _listing(answers, "scroll answers"))


def _parameter(parameter: Json) -> Html:
    name = join(code(parameter["name"]), Html(" "), tag("span", f"in {parameter['in']}", class_="where"))
    meaning = inline(parameter["description"])
    return row(name, parameter["schema"], meaning, optional=not parameter.get("required", False))


def _answer(answer: Json) -> Iterator[Html]:
    yield tag("p", inline(answer["description"]))
    for media_type, content in answer.get("content", {}).items():
        of = join(": ", kind(content["schema"])) if "$ref" in content["schema"] else Html("")
        yield tag("p", code(media_type), of, _problem_links(content), class_="content")
        if media_type == "text/event-stream":
            alone = {"summary": "For example", "value": content.get("example")}
            for each in content.get("examples", {"": alone}).values():
                yield tag("details", tag("summary", inline(each["summary"])), pre(each["value"]))


def _problem_links(content: Json) -> Html:
    slugs = content.get("examples", {}) if content["schema"].get("$ref", "").endswith("/Problem") else {}
    return join(*(join(" ", tag("a", slug, href=f"#problem-{slug}", class_="slug")) for slug in slugs))


# Examples


def pre(text: str) -> Html:
    return tag("pre", tag("code", text), tabindex="0")


def _curl(openapi: Json, method: str, path: str, operation: Json, parameters: Iterable[Json]) -> Iterator[str]:
    """The lines of a command that can be pasted."""
    for part in parameters:
        if part["in"] == "path":
            path = path.replace(f"{{{part['name']}}}", quote(part["example"]))
    ok = next(iter(operation["responses"].values()))
    streams = "text/event-stream" in ok.get("content", {})
    verb = "" if method == "get" else f" -X {method.upper()}"
    yield f"curl{' -N' if streams else ''}{verb} {ADDRESS}{path}"
    if operation["security"]:
        yield HEADER
        if body := operation.get("requestBody"):
            example = _followed(openapi, body["content"]["application/json"]["schema"])["examples"][0]
            if example or body["required"]:
                yield "-H 'Content-Type: application/json'"
                yield f"-d {shlex.quote(json.dumps(example))}"


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


def _channel(asyncapi: Json, name: str, channel: Json) -> Iterator[Html]:
    names = {key: _followed(asyncapi, each)["name"] for key, each in channel["messages"].items()}
    links = [join(tag("a", code(name), href=f"#event-{_slug(key)}"), " ") for key, name in names.items()]
    yield prose(channel["description"])
    if name == "redisEvents":
        yield pre(f"redis-cli -u $REDIS_URL SUBSCRIBE {shlex.quote(_address(channel))}")
    yield tag("p", "Messages: ", *links, class_="messages")


def _events(asyncapi: Json) -> tuple[Html, Html]:
    # By their keys: an event and a format of webhooks may have the same name.
    messages = asyncapi["components"]["messages"].items()
    entries = [(f"event-{_slug(key)}", code(each["name"]), _message(each)) for key, each in messages]
    intro = "By the `event:` line of a stream; bodies of webhooks by their `format`."
    return _section("messages", "Messages", intro, entries)


def _message(message: Json) -> Iterator[Html]:
    yield tag("p", inline(message["summary"]), class_="summary")
    yield tag("p", "Content: ", kind(message["payload"]), class_="content")
    if "headers" in message:
        yield join(tag("h4", "Headers"), fields(message["headers"]))
    for example in message.get("examples", ()):
        yield pre(json.dumps(example["payload"], indent=2, ensure_ascii=False))


# Problems and schemas


def _problems(openapi: Json) -> tuple[Html, Html]:
    examples = openapi["components"]["examples"].items()
    entries = [(f"problem-{slug}", code(slug), _problem(example)) for slug, example in examples]
    return _section("problems", "Problems", "`type` is stable; `title` and `detail` are for people.", entries)


def _problem(example: Json) -> Iterator[Html]:
    status = tag("span", str(example["value"]["status"]), class_="status")
    yield tag("p", status, Html(" "), inline(example["summary"]), class_="summary")
    yield pre(json.dumps(example["value"], indent=2, ensure_ascii=False))


def _schemas(openapi: Json) -> tuple[Html, Html]:
    schemas = sorted(openapi["components"]["schemas"].items())
    entries = [(f"schema-{name}", code(name), _schema(schema)) for name, schema in schemas]
    return _section("schemas", "Schemas", "Answers may come to have more fields than these.", entries)


def _schema(schema: Json) -> Iterator[Html]:
    yield prose(schema["description"])
    if "anyOf" in schema:
        yield tag("p", kind(schema), class_="content")
    yield fields(schema)
