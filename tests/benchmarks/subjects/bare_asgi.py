"""(e) Bare ASGI: the key, the body, pydantic, an answer. No framework, no routing, no database.

It is the limit of what Python can do here under uvicorn.
"""

import secrets

import orjson
from starlette.types import Receive, Scope, Send

from sam.callback.service.schemas import CallbackPayload
from tests.benchmarks.subjects.common import serve, setting

_KEY = setting("CALLBACK_API_KEY").encode()


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    given = next((value for name, value in scope["headers"] if name == b"x-api-key"), b"")
    body = b""
    is_complete = False
    while not is_complete:
        message = await receive()
        body += message.get("body", b"")
        is_complete = not message.get("more_body", False)
    if secrets.compare_digest(given, _KEY):
        status = 200
        payload = CallbackPayload.model_validate_json(body)
        answer = orjson.dumps({"status": "ok", "deploymentId": payload.deploymentId})
    else:
        status, answer = 401, b"{}"
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(answer)).encode()),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": answer})


if __name__ == "__main__":
    serve(app)
