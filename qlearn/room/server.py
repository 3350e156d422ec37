"""A web server for a room: a fixed table of files, and addresses that take what learners send."""

import asyncio
import io
import secrets
import threading
from collections.abc import Callable
from dataclasses import dataclass
from mimetypes import MimeTypes
from pathlib import Path
from typing import Any

from tornado.escape import json_encode
from tornado.httpserver import HTTPServer
from tornado.iostream import IOStream, StreamClosedError
from tornado.netutil import bind_sockets
from tornado.web import Application, HTTPError, RequestHandler, stream_request_body

MAX_UPLOAD = 64 * 1024  # bytes of a request; a phone's report has about 1,500
MAX_CONNECTIONS = 256  # a browser opens up to six
CHUNK = 64 * 1024  # bytes of a file that are sent at once
CLIENT_TIMEOUT = 20.0  # seconds that a client may stay silent, or take to send a request
LINGER = 1.0  # seconds for which the rest of a request that is too large is thrown away
_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; worker-src 'self' blob:; "
        "connect-src 'self'; style-src 'self'; img-src 'self' data:; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'none'"
    ),
    # These three give the page threads, where the browser trusts its address.
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "Server": "qlearn",
    "X-Content-Type-Options": "nosniff",
    "X-Robots-Tag": "noindex",
}
_REFUSALS = {
    404: "There is nothing here. Use the whole link that was given out, or scan its code again.",
    408: "The request did not arrive in time.",
    411: "The request does not say how long it is.",
    413: f"The request is too large: at most {MAX_UPLOAD} bytes are taken.",
    500: "The server has made a mistake: tell the teacher.",
}
# What tornado itself answers to bytes that are not HTTP, and what is sent in its place.
_BARE = b"HTTP/1.1 400 Bad Request\r\n\r\n"
_NOT_HTTP = b"This is not a request in HTTP: open the link in a browser.\n"
_EXPLAINED = b"\r\n".join([
    _BARE.strip(),
    b"Content-Type: text/plain; charset=utf-8",
    b"Content-Length: %d" % len(_NOT_HTTP),
    b"Connection: close",
    b"",
    _NOT_HTTP,
])  # fmt: skip
_TYPES = MimeTypes()  # Python's own table: this machine's may name .js otherwise


@dataclass
class Site:
    """What a server has under ``/TOKEN/``.

    Attributes
    ----------
    resources
        Name → content or file, for GET; the name "" is the page. A ``.gz`` file is sent as it is,
        for the browser to decompress.
    takers
        Name → function from the body of a POST to the answer's status and content.
    answers
        Folder → function from the rest of the name to the content for GET; None: nothing is there.
    """

    resources: dict[str, bytes | Path]
    takers: dict[str, Callable[[bytes], tuple[int, dict[str, Any]]]]
    answers: dict[str, Callable[[str], dict[str, Any] | None]]

    def prefixed(self, prefix: str) -> "Site":
        """Return the same site under longer names."""
        tables = (self.resources, self.takers, self.answers)
        return Site(*({prefix + name: value for name, value in one.items()} for one in tables))

    def __or__(self, other: "Site") -> "Site":
        """Return a site that has what both have."""
        return Site(
            self.resources | other.resources,
            self.takers | other.takers,
            self.answers | other.answers,
        )


class Server:
    """Serves a site in a thread and an event loop of its own, until ``stop``.

    Port 0 takes a free one. The token is random, unless one is given: that of a run before.
    """

    def __init__(self, address: str, port: int, site: Site, token: str | None = None) -> None:
        self.token = token or secrets.token_urlsafe(16)
        self.site = site
        self._sockets = bind_sockets(port, address)
        self.port = self._sockets[0].getsockname()[1]
        self._started, self.stopped = threading.Event(), threading.Event()
        threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True).start()
        self._started.wait()

    async def _serve(self) -> None:
        """Serve until ``stop``; asyncio.run then waits for what is being written."""
        self._loop, self._stopping = asyncio.get_running_loop(), asyncio.Event()
        http = _CappedServer(
            # Without a log, which would hold addresses.
            Application([(".*", _Handler, {"server": self})], log_function=lambda handler: None),
            idle_connection_timeout=CLIENT_TIMEOUT,
            body_timeout=CLIENT_TIMEOUT,
            max_body_size=MAX_UPLOAD,
        )
        http.add_sockets(self._sockets)
        self._started.set()
        await self._stopping.wait()
        http.stop()
        await http.close_all_connections()
        self.stopped.set()

    def stop(self) -> None:
        """Stop listening and hang up; calling it twice does no harm."""
        if not self.stopped.is_set():
            self._loop.call_soon_threadsafe(self._stopping.set)
            self.stopped.wait()


class _CappedServer(HTTPServer):
    """Hangs up at once where there are too many connections; explains a malformed request."""

    connections = 0

    def handle_stream(self, stream: IOStream, address: tuple) -> None:
        if self.connections >= MAX_CONNECTIONS:
            stream.close()
            return
        self.connections += 1
        write = stream.write
        # A request that cannot be read reaches no handler, and tornado has no hook for its answer.
        stream.write = lambda data: write(_EXPLAINED if data == _BARE else data)
        super().handle_stream(stream, address)

    def on_close(self, server_conn: object) -> None:
        self.connections -= 1
        super().on_close(server_conn)


@stream_request_body  # so that a request is refused before its body has been read
class _Handler(RequestHandler):
    """Answers one request."""

    SUPPORTED_METHODS = ("GET", "POST")

    def initialize(self, server: Server) -> None:
        self._server = server
        self._body: bytearray | None = bytearray()  # None: too large, and thrown away

    def set_default_headers(self) -> None:
        for name, value in _HEADERS.items():
            self.set_header(name, value)

    def prepare(self) -> None:
        if self.request.method != "POST":
            return
        length = self.request.headers.get("Content-Length", "")
        if not (length.isascii() and length.isdigit()):
            raise HTTPError(411)
        if len(length) > 9 or int(length) > MAX_UPLOAD:
            self._refuse_unread()
        else:
            loop = asyncio.get_running_loop()
            self._alarm = loop.call_later(CLIENT_TIMEOUT, self.send_error, 408)

    def _refuse_unread(self) -> None:
        """Answer before the body is read, and throw away what is on its way, for a while.

        A connection that is closed while data arrives is reset, and the answer may be lost.
        """
        self._body = None
        self.request.connection.set_max_body_size(2**63)
        self.request.connection.set_body_timeout(LINGER)
        answer = json_encode({"error": _REFUSALS[413]})
        self.set_status(413)
        self.set_header("Content-Length", len(answer))
        self.set_header("Connection", "close")
        self.write(answer)
        self.flush()

    def data_received(self, chunk: bytes) -> None:
        if self._body is not None:
            self._body += chunk

    async def get(self) -> None:
        name, site = self._name(), self._server.site
        folder, _, rest = name.rpartition("/")
        if name in site.resources:
            await self._send(name, site.resources[name])
        elif folder in site.answers and (answer := site.answers[folder](rest)) is not None:
            self.finish(answer)
        else:
            raise HTTPError(404)

    async def post(self) -> None:
        if self._body is None:
            return
        self._alarm.cancel()
        taker = self._server.site.takers.get(self._name())
        if taker is None:
            raise HTTPError(404)
        # In another thread: the disk may be slow.
        status, answer = await asyncio.to_thread(taker, bytes(self._body))
        self.set_status(status)
        self.finish(answer)

    def _name(self) -> str:
        """Return what follows ``/TOKEN/`` in the URL; with another token, nothing is here."""
        token, slash, name = self.request.path.removeprefix("/").partition("/")
        right = secrets.compare_digest(token.encode(), self._server.token.encode())
        if not (right and slash):
            raise HTTPError(404)
        return name

    async def _send(self, name: str, content: bytes | Path) -> None:
        """Send a file chunk by chunk; hang up on a client that does not take a chunk in time."""
        file = f"{name}index.html" if name == "" or name.endswith("/") else name
        kind = _TYPES.guess_type(file)[0] or "application/octet-stream"
        self.set_header("Content-Type", kind + "; charset=utf-8" * kind.startswith("text/"))
        # Another lab has another token, so nothing under this address ever changes.
        self.set_header("Cache-Control", "private, max-age=86400")
        if isinstance(content, Path) and content.suffix == ".gz":
            self.set_header("Content-Encoding", "gzip")
        with io.BytesIO(content) if isinstance(content, bytes) else content.open("rb") as file:
            self.set_header("Content-Length", file.seek(0, io.SEEK_END))
            file.seek(0)
            try:
                while chunk := file.read(CHUNK):
                    self.write(chunk)
                    async with asyncio.timeout(CLIENT_TIMEOUT):
                        await self.flush()
            except (StreamClosedError, TimeoutError):
                self.request.connection.close()

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Answer with one sentence: as JSON for what is sent, else as a page."""
        other = f"The server does not answer such a request ({status_code})."
        refusal = _REFUSALS.get(status_code, other)
        page = (
            '<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" '
            f'content="width=device-width"><title>qlearn</title><p>{refusal}</p></html>'
        )
        self.finish({"error": refusal} if self.request.method == "POST" else page)
