"""The endpoint that agents call home to (agent/protocol.py)."""

from __future__ import annotations

from typing import Any

import msgspec
from starlette.responses import Response

from noriba.agent.protocol import SyncRequest
from noriba.models.errors import BadRequest
from noriba.rest.call import Call
from noriba.rest.router import SELF, Routes

routes = Routes()
_decode = msgspec.msgpack.Decoder(SyncRequest).decode
_encode = msgspec.msgpack.Encoder().encode


@routes.post("/agent/v1/nodes/{node}/sync", access=SELF)
async def sync(call: Call) -> Any:
    """Take a report, answer what changed."""
    _authenticate(call)
    try:
        report = _decode(await call.body())
    except msgspec.DecodeError as error:
        raise BadRequest(f"The report is not valid: {error}", code="InvalidReport") from error
    response = await call.services.control.sync.sync(call.params["node"], report)
    return Response(_encode(response), media_type="application/msgpack")


@routes.get("/agent/v1/nodes/{node}/tasks/{task}", access=SELF)
async def task(call: Call) -> Any:
    """A task again, with fresh addresses."""
    _authenticate(call)
    spec = await call.services.control.sync.task(call.params["node"], call.params["task"])
    return Response(_encode(spec), media_type="application/msgpack")


def _authenticate(call: Call) -> None:
    token = call.request.headers.get("authorization", "").partition(" ")[2]
    call.services.control.sync.authenticate(call.params["node"], token)
