"""A web app with background jobs in a store, as Starlette and uvicorn run it; see `test_webapp`.

`POST /uploads/7` is answered with 202 when the upload is as safe as the store; the job writes "7"
into the file of results.
"""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

import nsqlite

jobs = nsqlite.App()

TWICE = nsqlite.Retry(max_attempts=2, delay=0.01)


@jobs.handler("uploads", "resize", concurrency=4, retry=TWICE, dead_letter="uploads.dead")
async def resize(message: nsqlite.Message[dict[str, Any]]) -> None:
    """Do some work, and write down that it is done; whose number ends in 9 cannot be done."""
    number = message.body["number"]
    if number % 10 == 9:
        raise ValueError(f"{number} is no picture")
    await asyncio.sleep(0)
    write_down(number)


def write_down(number: int) -> None:
    """Add a number to the results."""
    with Path(os.environ["RESULTS"]).open("a", encoding="ascii") as results:
        results.write(f"{number}\n")


@contextlib.asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    """Open the broker and run the jobs while the app is up."""
    store = nsqlite.SQLite(os.environ["STORE"], codec="json", wait=10)
    async with nsqlite.Broker(store=store) as broker, jobs.running(broker):
        broker.topic("uploads.dead").channel("letters")
        app.state.uploads = broker.topic("uploads")
        yield


async def upload(request: Request) -> JSONResponse:
    """Take an upload."""
    number = request.path_params["number"]
    identity = await nsqlite.aio.put(request.app.state.uploads, {"number": number})
    return JSONResponse({"id": identity}, status_code=202)


async def wait(request: Request) -> JSONResponse:
    """Answer when there is nothing left to do."""
    await nsqlite.aio.join(request.app.state.uploads)
    return JSONResponse({})


app = Starlette(
    lifespan=lifespan,
    routes=[
        Route("/uploads/{number:int}", upload, methods=["POST"]),
        Route("/wait", wait),
    ],
)
