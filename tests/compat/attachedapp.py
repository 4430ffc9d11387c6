"""A web app of several processes, which put into the store of `nsqlite run webapp:jobs`."""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

import nsqlite


@contextlib.asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    """Be attached while the app is up."""
    with nsqlite.attach(os.environ["STORE"], codec="json") as attached:
        app.state.uploads = attached.topic("uploads")
        yield


async def upload(request: Request) -> JSONResponse:
    """Take an upload; say that it is not taken where the owner cannot be asked."""
    number = request.path_params["number"]
    try:
        identity = await asyncio.to_thread(request.app.state.uploads.put, {"number": number})
    except nsqlite.NoOwner:
        return JSONResponse({}, status_code=503)
    return JSONResponse({"id": identity, "process": os.getpid()}, status_code=202)


app = Starlette(
    lifespan=lifespan, routes=[Route("/uploads/{number:int}", upload, methods=["POST"])]
)
