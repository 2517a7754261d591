"""`/refresh` as a bare ASGI app with PyJWT: no framework, no http.cookies, so the least that uvicorn can carry."""

from __future__ import annotations

import json
import os
import time
from typing import Any

import jwt

ACCESS, REFRESH = os.environ["ACCESS_TOKEN_SECRET"], os.environ["REFRESH_TOKEN_SECRET"]


def cookie(header: str, name: str) -> str:
    """Return the cookie `name` in `header`, "" if it is not there."""
    for pair in header.split(";"):
        key, _, value = pair.partition("=")
        if key.strip() == name:
            return value
    return ""


def refresh(cookie_header: str) -> tuple[int, dict[str, str]]:
    """Return the status and the answer to a request with `cookie_header`."""
    try:
        claims = jwt.decode(cookie(cookie_header, "jwt"), REFRESH, algorithms=["HS256"])
    except jwt.InvalidTokenError:
        return 406, {"message": "Unauthorized"}
    now = int(time.time())
    fresh = {"username": claims["username"], "iat": now, "exp": now + 600}
    return 200, {"accessToken": jwt.encode(fresh, ACCESS, algorithm="HS256")}


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Answer POST /refresh; everything else is 404."""
    status, answer = 404, {"message": "Not found"}
    if scope["type"] != "http":
        return
    if scope["path"] == "/refresh" and scope["method"] == "POST":
        status, answer = refresh(dict(scope["headers"]).get(b"cookie", b"").decode("latin-1"))
    body = json.dumps(answer).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
