"""The least that an ASGI application can be: one path, the same bytes for everybody, on the server that ours runs on.

Run as ``python -m benchmarks.bare SIZE ETAG``, it prints its port and serves until it is ended. It knows no tokens and
seals nothing: what it does per request, every Python service on this server does.
"""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable, MutableMapping
from types import TracebackType
from typing import Final

HOST: Final = "127.0.0.1"

Message = MutableMapping[str, object]


class BareProcess:
    """That application in a child process; as a context manager it is started and stopped."""

    def __init__(self, size: int, etag: str) -> None:
        self._command = [sys.executable, "-m", "benchmarks.bare", str(size), etag]
        self._child: subprocess.Popen[str] | None = None
        self.port = 0

    def __enter__(self) -> BareProcess:
        self._child = subprocess.Popen(self._command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
        assert self._child.stdout is not None
        self.port = int(self._child.stdout.readline())
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._child is not None:
            self._child.terminate()
            self._child.communicate()


def application(size: int, etag: str) -> Callable[..., Awaitable[None]]:
    """Return an application whose answer has ``size`` bytes, or is a 304 to whoever holds ``etag``."""
    body = bytes(size)
    tag = etag.encode()
    headers = [
        (b"content-type", b"application/octet-stream"),
        (b"content-length", str(size).encode()),
        (b"etag", tag),
    ]

    async def answer(
        scope: Message, receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Awaitable[None]]
    ) -> None:
        given = scope["headers"]
        assert isinstance(given, list)
        if (b"if-none-match", tag) in given:
            await send({"type": "http.response.start", "status": 304, "headers": headers[2:]})
            await send({"type": "http.response.body", "body": b""})
        else:
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": body})

    return answer


async def _serve(size: int, etag: str) -> None:
    import uvicorn  # noqa: PLC0415 - whoever starts the child needs no server

    listener = socket.create_server((HOST, 0), backlog=512)
    print(listener.getsockname()[1], flush=True)
    config = uvicorn.Config(
        application(size, etag), lifespan="off", access_log=False, log_level="warning", server_header=False
    )
    await uvicorn.Server(config).serve(sockets=[listener])


if __name__ == "__main__":
    if sys.platform != "win32":
        import uvloop

        uvloop.install()
    asyncio.run(_serve(int(sys.argv[1]), sys.argv[2]))
