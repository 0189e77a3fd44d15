"""The routes of a workspace's webhooks."""

from __future__ import annotations

from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response

from bridge.simulator import bodies
from bridge.simulator.bodies import RefusalError
from bridge.simulator.simulator import Simulator
from bridge.simulator.webhooks import NewWebhook, Registered, WebhookSender
from bridge.simulator.world import dumps


@dataclass(frozen=True)
class WorkspaceWebhooks:
    """Handlers of `ApiRoute`. Each user has webhooks of its own."""

    sender: WebhookSender

    async def listed(self, _: Simulator, request: Request, user: str) -> Response:
        return _json([each.shown() for each in self.sender.registered.values() if each.user == user])

    async def create(self, _: Simulator, request: Request, user: str) -> Response:
        body = bodies.read(await request.body(), NewWebhook)
        return _json(self.sender.register(user, body).shown(secret=True), 201)

    async def delete(self, _: Simulator, request: Request, user: str) -> Response:
        del self.sender.registered[self._found(request, user).id]
        return Response(status_code=204)

    async def deliveries(self, _: Simulator, request: Request, user: str) -> Response:
        return _json(list(self._found(request, user).deliveries))

    def _found(self, request: Request, user: str) -> Registered:
        """Raises RefusalError 404."""
        found = self.sender.registered.get(request.path_params["id"])
        if found is None or found.user != user:
            raise RefusalError(404, {"detail": "Webhook not found"})
        return found


def _json(body: object, status: int = 200) -> Response:
    return Response(dumps(body), status, media_type="application/json")
