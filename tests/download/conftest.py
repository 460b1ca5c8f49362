from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

Answer = Callable[["Request"], None]


class Request(BaseHTTPRequestHandler):
    """One request, as an answer sees it: path, headers, and the server's file."""

    server: Server

    def do_HEAD(self) -> None:
        self.reply(200, {"Content-Length": len(self.content)})

    def do_GET(self) -> None:
        self.server.asked.append((self.path, self.headers["Range"], self.headers["If-Range"]))
        answers = self.server.answers
        (answers.pop(0) if len(answers) > 1 else answers[0])(self)

    @property
    def content(self) -> bytes:
        return self.server.files.get(self.path, b"")

    @property
    def start(self) -> int:
        """Where the range that was asked for begins; 0 without one, or if the file has changed."""
        if self.headers["If-Range"] not in (None, self.server.etag):
            return 0
        return int((self.headers["Range"] or "bytes=0-")[6:-1])

    def reply(self, status: int, headers: dict | None = None, body: bytes = b"") -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, str(value))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


def ranges(request: Request, cut: int | None = None) -> None:
    """As a good server does; `cut`: it closes the connection after so many bytes."""
    whole, start = request.content, request.start
    headers = {"ETag": request.server.etag, "Content-Length": len(whole) - start}
    if request.path not in request.server.files:
        request.reply(404)
    elif start >= len(whole) > 0:
        request.reply(416, {"Content-Range": f"bytes */{len(whole)}"})
    elif start:
        headers["Content-Range"] = f"bytes {start}-{len(whole) - 1}/{len(whole)}"
        request.reply(206, headers, whole[start:][:cut])
    else:
        request.reply(200, headers, whole[:cut])


def broken(after: int) -> Answer:
    return lambda request: ranges(request, after)


def whole(request: Request, cut: int | None = None) -> None:
    """As a server that knows of no ranges."""
    content = request.content
    request.reply(200, {"Content-Length": len(content)}, content[:cut])


def status(code: int, **headers: object) -> Answer:
    return lambda request: request.reply(
        code, {name.replace("_", "-"): value for name, value in headers.items()}
    )


class Server(ThreadingHTTPServer):
    """Serves `files` in the way that the next of `answers` says; the last is kept."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Request)
        self.files: dict[str, bytes] = {}
        self.answers: list[Answer] = [ranges]
        self.asked: list[tuple[str, str | None, str | None]] = []
        self.etag = '"first"'

    def url(self, path: str = "") -> str:
        return f"http://127.0.0.1:{self.server_port}{path}"

    # the answers that tests put together
    ranges = staticmethod(ranges)
    broken = staticmethod(broken)
    whole = staticmethod(whole)
    status = staticmethod(status)


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        yield running
        running.shutdown()
        thread.join()
