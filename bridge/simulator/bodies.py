"""The bodies that upstream answers with: errors, list, details, batch, SSE data."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from bridge.phala_queries import UnprocessableError, located
from bridge.simulator.world import Cvm, timestamp

M = TypeVar("M", bound=BaseModel)

#: From these versions (`X-Phala-Version`; dates compare as text) on, lists and details have the newer shape, otherwise
#: the older one, as in the models of the published Python SDK.
NEWER_LISTS, NEWER_DETAILS = "2026-01-21", "2026-05-22"

IN_MOTION = frozenset({"provisioning", "starting", "stopping", "restarting"})

_LINE_END = re.compile(rb"\r\n|\r|\n")


class RefusalError(Exception):
    """upstream refuses the request"""

    def __init__(self, status: int, body: Mapping[str, Any]) -> None:
        super().__init__(status)
        self.status = status
        self.body = body


def not_one(ref: str, cvms: list[Cvm]) -> RefusalError:
    """For a reference that finds nothing, a name that CVMs share, or an app with several instances."""
    status, code, message = 404, "ERR-03-001", "CVM not found"
    suggestion = "Check the identifier, and that it is in this workspace"
    if cvms:
        by_name = any(cvm.name == ref for cvm in cvms)
        status, code = 409, "ERR-03-002" if by_name else "ERR-03-010"
        message = f"{len(cvms)} CVMs match the {'name' if by_name else 'identifier'}"
        suggestion = "Use the vm_uuid or the cvm_id of one of them"
    details = [{"field": "cvm_id", "value": ref, "message": message}]
    body = {"error_code": code, "message": message, "details": details}
    return RefusalError(status, body | {"suggestions": [suggestion], "links": []})


def read(body: bytes, model: type[M]) -> M:
    """The body of a request. Raises UnprocessableError, and UnicodeDecodeError, which FastAPI makes a 400."""
    if not body:
        raise UnprocessableError([{"type": "missing", "loc": ["body"], "msg": "Field required", "input": None}])
    try:
        return model.model_validate(json.loads(body), from_attributes=True)
    except json.JSONDecodeError as error:
        where = {"type": "json_invalid", "loc": ["body", error.pos], "msg": "JSON decode error", "input": {}}
        raise UnprocessableError([where | {"ctx": {"error": error.msg}}]) from error
    except ValidationError as error:
        raise UnprocessableError(located(error, ("body",))) from error


TOO_MANY = {"detail": "Too many concurrent SSE connections: at most 5 per user"}

#: The bodies of faults that have none.
DEFAULT_BODIES: dict[int, dict[str, Any]] = {
    **{status: {"detail": HTTPStatus(status).phrase} for status in (403, 404, 429, 500, 502, 503)},
    401: {"detail": "Invalid API key"},
    409: {"detail": "Another operation is in progress"},
    422: {"detail": [{"type": "value_error", "loc": ["query"], "msg": "Value error", "input": None}]},
}


def frame(event: str, data: bytes, line_end: bytes) -> bytes:
    """One SSE event. Data that contains line ends, as a test's raw state may, becomes several `data` lines."""
    lines = [b"event: " + event.encode(), *(b"data: " + line for line in _LINE_END.split(data))]
    return b"".join(line + line_end for line in [*lines, b""])


#: The fields of a CVM that tell of operations.
OPERATION_FIELDS = frozenset({"in_progress", "progress", "operation_type", "operation_started_at", "correlation_id"})


def without_operations(body: Mapping[str, Any]) -> dict[str, Any]:
    """As of an upstream that tells nothing of them."""
    return {name: value for name, value in body.items() if name not in OPERATION_FIELDS}


def in_progress(cvm: Cvm) -> bool:
    """Whether the batch route, lists and details tell of an operation."""
    return cvm.operation is not None or cvm.status in IN_MOTION


def batch_status(cvm: Cvm, now: float, words: Mapping[str, str]) -> dict[str, Any]:
    """`CvmStatus`. `words` replaces statuses, because upstream's two routes may call them differently."""
    state = cvm.state(now)
    moving, known = in_progress(cvm), cvm.operation or {}
    progress = {key: state.get(key) for key in ("boot_progress", "boot_error", "shutdown_progress")}
    head = {"vm_uuid": cvm.vm_uuid, "status": words.get(cvm.status, cvm.status)}
    operation = {"operation_type": known.get("type") or (cvm.status if moving else None)}
    operation |= {"operation_started_at": known.get("started_at"), "correlation_id": known.get("correlation_id")}
    return head | {"uptime": state.get("uptime"), "in_progress": moving} | progress | {"events": []} | operation


def listed_uuid(cvm: Cvm) -> str | None:
    """Null in lists while the CVM is provisioned."""
    return None if cvm.status == "provisioning" else cvm.vm_uuid


def older_item(cvm: Cvm, now: float) -> dict[str, Any]:
    """`HostedCvm`."""
    state = cvm.state(now)
    hosted: dict[str, Any] = {"id": cvm.vm_uuid, "name": cvm.name, "status": cvm.status}
    hosted |= {"uptime": state.get("uptime", ""), "app_url": None, "app_id": cvm.app_id}
    hosted |= {"instance_id": cvm.instance_id, "configuration": None, "image_version": None, "events": []}
    hosted |= {key: state.get(key) for key in ("exited_at", "boot_progress", "boot_error", "shutdown_progress")}
    item = {"hosted": hosted, "name": cvm.name, "managed_user": None, "node": None, "listed": False}
    item |= {"status": cvm.status, "in_progress": in_progress(cvm), "kms_info": None}
    return item | {"vcpu": 1, "memory": 2048, "disk_size": 20, "public_urls": []}


def newer_item(cvm: Cvm) -> dict[str, Any]:
    """`CVMInfo`."""
    ids = {"id": cvm.cvm_id, "name": cvm.name, "app_id": cvm.app_id, "vm_uuid": listed_uuid(cvm)}
    resource = {"instance_type": "tdx.small", "vcpu": 1, "memory_in_gb": 2.0, "disk_in_gb": 20, "gpus": 0}
    moving = in_progress(cvm)
    progress = {"target": None, "started_at": None, "correlation_id": None} if moving else None
    status = {"status": cvm.status, "in_progress": moving, "progress": progress}
    gateway = {"base_domain": None, "cname": None}
    rest: dict[str, Any] = {"resource": resource, "node_info": None, "os": None, "gateway": gateway}
    rest |= {"created_at": timestamp(cvm.created_at), "deleted_at": None}
    rest |= {"services": [], "endpoints": None, "listed": False}
    return ids | {"instance_id": cvm.instance_id} | status | rest


def older_details(cvm: Cvm) -> dict[str, Any]:
    """`CvmBasicInfo`."""
    ids = {"id": cvm.number + 1, "name": cvm.name, "app_id": cvm.app_id, "vm_uuid": listed_uuid(cvm)}
    status = {"instance_id": cvm.instance_id, "status": cvm.status, "in_progress": in_progress(cvm)}
    return ids | status | {"vcpu": 1, "memory": 2048, "disk_size": 20, "listed": False}


def newer_details(cvm: Cvm) -> dict[str, Any]:
    """`CVMInfoDetail`."""
    return newer_item(cvm) | {"compose_file": None}
