"""The routes under `/control`, which need no key and are for loopback only. A wrong body is 422.

Tests in the same process can call the same objects directly.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import asdict
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from bridge.phala_queries import located
from bridge.simulator.faults import Fault
from bridge.simulator.simulator import Settings, Simulator
from bridge.simulator.stream_quota import Cut, OpenStream, Tally
from bridge.simulator.webhooks import WebhookSender, WebhookTarget, headers
from bridge.simulator.world import Change, Cvm, dumps

#: Bytes of a control body: enough for tests with huge states, and a limit for mistakes.
MAX_BODY = 64 << 20

M = TypeVar("M", bound=BaseModel)
Answer = tuple[int, Any]
Handler = Callable[[Request], Awaitable[Answer]]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class _Identity(_Body):
    name: str | None = None
    app_id: str | None = None
    instance_id: str | None = None
    owner: str | None = None


class _New(_Identity):
    vm_uuid: str | None = None
    status: str = "running"
    set: dict[str, Any] = {}


class _Patch(_Identity):
    status: str | None = None
    set: dict[str, Any] = {}
    unset: list[str] = []
    push: bool = False


class _Operation(_Body):
    type: str | None = "update"
    started_at: str | None = None
    correlation_id: str | None = None


class _Replicas(_Body):
    replicas: int = Field(ge=0, le=1000)
    status: str = "starting"


class _CutBody(_Body):
    cvm: str | None = None
    how: Cut = "reset"


class _Silence(_Body):
    cvm: str | None = None
    silent: bool = True


class _User(_Body):
    occupied: int = Field(ge=0)


class _Send(_Body):
    url: str
    secret: str
    event: str
    cvm: str
    id: str | None = None
    error: str | None = None
    timestamp: str | None = None
    signature: str | None = None


def control_routes(simulator: Simulator, webhooks: WebhookSender) -> list[Route]:
    """The routes, relative to their mount."""
    control = _Control(simulator, webhooks)
    table: list[tuple[str, str, Handler]] = [
        ("GET", "/settings", control.settings),
        ("PATCH", "/settings", control.change_settings),
        ("GET", "/cvms", control.cvms),
        ("POST", "/cvms", control.create),
        ("GET", "/cvms/{ref}", control.cvm),
        ("PATCH", "/cvms/{ref}", control.change),
        ("DELETE", "/cvms/{ref}", control.delete),
        ("POST", "/cvms/{ref}/restore", control.restore),
        ("PUT DELETE", "/cvms/{ref}/raw", control.raw),
        ("PUT DELETE", "/cvms/{ref}/operation", control.operation),
        ("PUT", "/apps/{ref}/replicas", control.replicas),
        ("GET", "/streams", control.streams),
        ("POST", "/streams/cut", control.cut),
        ("POST", "/streams/silence", control.silence),
        ("POST", "/streams/send", control.send),
        ("PUT", "/users/{user}", control.user),
        ("GET DELETE", "/counters", control.counters),
        ("GET", "/faults", control.faults),
        ("POST", "/faults", control.add_fault),
        ("DELETE", "/faults", control.remove_fault),
        ("DELETE", "/faults/{id:int}", control.remove_fault),
        ("POST", "/webhooks/send", control.send_webhook),
        ("PUT DELETE", "/webhooks", control.webhooks),
    ]
    return [Route(path, _endpoint(simulator, handler), methods=methods.split()) for methods, path, handler in table]


def _endpoint(simulator: Simulator, handler: Handler) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        simulator.advance()
        try:
            status, body = await handler(request)
        except ValidationError as error:
            status, body = 422, {"detail": located(error, ())}
        return Response(dumps(body), status, media_type="application/json")

    return endpoint


async def _bytes(request: Request) -> bytes:
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > MAX_BODY:
            raise HTTPException(413, f"at most {MAX_BODY} bytes")
    return bytes(body)


async def _read(request: Request, model: type[M]) -> M:
    return model.model_validate_json(await _bytes(request) or b"{}")


def _identity(body: _Identity) -> dict[str, Any]:
    """The fields that are given; null is ignored, except that it removes the `owner`."""
    given = body.model_dump(include={"name", "app_id", "instance_id", "owner", "vm_uuid"}, exclude_unset=True)
    return {name: value for name, value in given.items() if value is not None or name == "owner"}


class _Control:
    """The handlers; each returns a status and a value that becomes JSON."""

    def __init__(self, simulator: Simulator, webhooks: WebhookSender) -> None:
        self._simulator = simulator
        self._world = simulator.world
        self._quota = simulator.quota
        self._webhooks = webhooks

    def _cvm(self, ref: str) -> Cvm:
        """The CVM; deleted ones count only if none exists. Raises HTTPException (404, 409)."""
        found = self._world.find(ref) or self._world.find_any(ref)
        if len(found) != 1:
            raise HTTPException(409 if found else 404, f"{len(found)} CVMs match {ref!r}")
        return found[0]

    def _uuid(self, ref: str | None) -> str | None:
        return None if ref is None else self._cvm(ref).vm_uuid

    def _view(self, cvm: Cvm) -> dict[str, Any]:
        ids = {name: getattr(cvm, name) for name in ("vm_uuid", "cvm_id", "app_id", "instance_id", "name", "owner")}
        state = {"status": cvm.status, "deleted": cvm.deleted, "state": cvm.state(self._simulator.now())}
        streams = _cvm_tally(self._quota.cvms.get(cvm.vm_uuid, Tally()))
        return ids | state | {"streams": streams, "requests": self._simulator.counters.cvms[cvm.vm_uuid]}

    def _changed(self, request: Request, change: Change, *, push: bool = False) -> Answer:
        push = push or request.query_params.get("push", "0") not in ("0", "false", "")
        self._simulator.announce([change], push=push)
        return 200, self._view(change.cvm)

    async def settings(self, _: Request) -> Answer:
        return 200, self._simulator.settings.model_dump()

    async def change_settings(self, request: Request) -> Answer:
        changes = await _read(request, Settings)
        self._simulator.apply(self._simulator.settings.model_copy(update=changes.model_dump(exclude_unset=True)))
        return await self.settings(request)

    async def cvms(self, _: Request) -> Answer:
        return 200, {"items": [self._view(cvm) for cvm in self._world.all_cvms]}

    async def cvm(self, request: Request) -> Answer:
        return 200, self._view(self._cvm(request.path_params["ref"]))

    async def create(self, request: Request) -> Answer:
        body = await _read(request, _New)
        cvm = self._world.create(status=body.status, **_identity(body))
        self._world.update(cvm, body.set)
        self._simulator.announce([Change(cvm, None, cvm.status, ran=False)])
        return 201, self._view(cvm)

    async def change(self, request: Request) -> Answer:
        body = await _read(request, _Patch)
        cvm = self._cvm(request.path_params["ref"])
        if identity := _identity(body):
            self._world.identify(cvm, **identity)
        status = {} if body.status is None else {"status": body.status}
        change = self._world.update(cvm, status | body.set, body.unset)
        return self._changed(request, change, push=body.push)

    async def delete(self, request: Request) -> Answer:
        return self._changed(request, self._world.delete(self._cvm(request.path_params["ref"])))

    async def restore(self, request: Request) -> Answer:
        return self._changed(request, self._world.restore(self._cvm(request.path_params["ref"])))

    async def raw(self, request: Request) -> Answer:
        cvm = self._cvm(request.path_params["ref"])
        cvm.raw = await _bytes(request) if request.method == "PUT" else None
        return self._changed(request, Change(cvm, cvm.status, cvm.status, cvm.ran))

    async def operation(self, request: Request) -> Answer:
        """Begins an operation, which the batch route, lists and details tell of, and ends it."""
        cvm = self._cvm(request.path_params["ref"])
        cvm.operation = (await _read(request, _Operation)).model_dump() if request.method == "PUT" else None
        return 200, self._view(cvm)

    async def replicas(self, request: Request) -> Answer:
        """Gives the app of this CVM, or of these, so many replicas."""
        body, ref = await _read(request, _Replicas), request.path_params["ref"]
        apps = {cvm.app_id for cvm in self._world.find(ref) or self._world.find_any(ref)}
        if len(apps) != 1:
            raise HTTPException(409 if apps else 404, f"{len(apps)} apps match {ref!r}")
        self._simulator.announce(self._world.scale(app := apps.pop(), body.replicas, body.status))
        return 200, {"items": [self._view(cvm) for cvm in self._world.cvms if cvm.app_id == app]}

    async def streams(self, _: Request) -> Answer:
        self._quota.notice()
        items = [{name: getattr(stream, name) for name in _STREAM_FIELDS} for stream in self._quota.streams()]
        users = {
            user: asdict(self._quota.users.get(user, Tally())) | {"occupied": self._quota.occupied[user]}
            for user in {*self._quota.users, *self._quota.occupied}
        }
        cvms = {cvm: _cvm_tally(tally) for cvm, tally in self._quota.cvms.items()}
        total = sum(tally.open for tally in self._quota.users.values())
        return 200, {"open": total, "items": items, "users": users, "cvms": cvms}

    def _poke(self, ref: str | None, change: Callable[[OpenStream], object]) -> int:
        """Changes the streams of one CVM or, for None, all, and wakes their tasks; how many there are."""
        streams = self._quota.streams(self._uuid(ref))
        for stream in streams:
            change(stream)
            stream.awake.set()
        return len(streams)

    async def cut(self, request: Request) -> Answer:
        body = await _read(request, _CutBody)
        return 200, {"cut": self._poke(body.cvm, lambda stream: setattr(stream, "cut", body.how))}

    async def silence(self, request: Request) -> Answer:
        body = await _read(request, _Silence)
        return 200, {"streams": self._poke(body.cvm, lambda stream: setattr(stream, "silent", body.silent))}

    async def send(self, request: Request) -> Answer:
        piece = await _bytes(request)
        return 200, {"sent": self._poke(request.query_params.get("cvm"), lambda stream: stream.pieces.append(piece))}

    async def user(self, request: Request) -> Answer:
        body = await _read(request, _User)
        self._quota.occupied[request.path_params["user"]] = body.occupied
        return 200, {"occupied": body.occupied}

    async def counters(self, request: Request) -> Answer:
        if request.method == "DELETE":
            self._simulator.reset_counters()
            return 200, {}
        return 200, self._simulator.counters.as_json()

    async def faults(self, _: Request) -> Answer:
        return 200, {"items": [fault.model_dump() for fault in self._simulator.faults.all()]}

    async def add_fault(self, request: Request) -> Answer:
        fault = await _read(request, Fault)
        fault.cvm = self._uuid(fault.cvm)
        return 201, self._simulator.faults.add(fault).model_dump()

    async def remove_fault(self, request: Request) -> Answer:
        if not self._simulator.faults.remove(request.path_params.get("id")):
            raise HTTPException(404, "no such fault")
        return 200, {}

    async def send_webhook(self, request: Request) -> Answer:
        body = await _read(request, _Send)
        message = self._webhooks.new(self._cvm(body.cvm), body.event, body.error, body.id)
        seconds = self._webhooks.timestamp() if body.timestamp is None else body.timestamp
        fields = headers(message, body.secret, seconds)
        if body.signature is not None:
            fields["X-Webhook-Signature"] = body.signature
        return 200, await self._webhooks.post(body.url, message, fields)

    async def webhooks(self, request: Request) -> Answer:
        self._webhooks.target = await _read(request, WebhookTarget) if request.method == "PUT" else None
        return 200, {}


_STREAM_FIELDS = ("id", "cvm", "user", "target", "interval", "timeout", "counted", "silent")


def _cvm_tally(tally: Tally) -> dict[str, int]:
    """Without `refused`: only users have a limit."""
    return {"open": tally.open, "max": tally.max, "opened": tally.opened}
