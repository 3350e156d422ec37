"""The phone lab's web server: a fixed table of files, and one door for reports."""

import json
import secrets
import socket
import socketserver
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from qlearn.phone.reports import Reports, parse, standing

MAX_UPLOAD = 64 * 1024  # bytes of a report; a real one has about 1,500
MAX_CONNECTIONS = 256  # a browser opens up to six
PATIENCE = 20.0  # seconds that a client may stay silent, or take to send a report
_SECURITY = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; worker-src 'self' blob:; "
        "connect-src 'self'; style-src 'self'; img-src data:; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'none'"
    ),
    # These three give the page threads, where the browser trusts its address.
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Robots-Tag": "noindex",
}
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".json": "application/json",
    ".wasm": "application/wasm",
}


@dataclass(frozen=True)
class Resource:
    """Something to serve: a file or bytes, its content type, and whether it is gzipped."""

    content: Path | bytes
    name: str
    gzipped: bool = False

    @property
    def content_type(self) -> str:
        """The content type that the name stands for."""
        return _TYPES.get(Path(self.name).suffix, "application/octet-stream")


class Server(ThreadingHTTPServer):
    """Serves ``/TOKEN/NAME`` for each name of a table, and takes ``POST /TOKEN/reports``.

    Parameters
    ----------
    address
        Host and port to listen on; port 0 takes a free one.
    resources
        Name in the URL → what to serve.
    reports
        Where reports go.
    arrived
        Called with each new report, after it is kept.

    Raises
    ------
    OSError
        If the address cannot be had.
    """

    daemon_threads = True
    request_queue_size = 128  # a whole room presses its button at once

    def __init__(
        self,
        address: tuple[str, int],
        resources: Mapping[str, Resource],
        reports: Reports,
        arrived: Callable[[dict[str, Any]], None],
    ) -> None:
        self.token = secrets.token_urlsafe(16)
        self.resources = resources
        self.reports = reports
        self.arrived = arrived
        self._connections: set[socket.socket] = set()
        self._lock = threading.Lock()
        super().__init__(address, _Handler)

    def server_bind(self) -> None:
        """Take the address, without asking the name service for its name, which may take long."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address[:2]

    def process_request(self, request: socket.socket, client_address: Any) -> None:
        """Start a thread for a connection, unless there are too many."""
        with self._lock:
            full = len(self._connections) >= MAX_CONNECTIONS
            if not full:
                self._connections.add(request)
        if full:
            self.shutdown_request(request)
        else:
            super().process_request(request, client_address)

    def shutdown_request(self, request: socket.socket) -> None:
        """Close a connection."""
        with self._lock:
            self._connections.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: socket.socket, client_address: Any) -> None:
        """Stay silent about a client that went away; show everything else."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)

    def stop(self) -> None:
        """Stop listening and hang up; a report that is being written is written to its end."""
        self.shutdown()
        self.server_close()
        with self._lock:
            for connection in self._connections:
                try:
                    connection.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass  # it has just hung up itself


class _Handler(BaseHTTPRequestHandler):
    """One connection."""

    server: Server
    protocol_version = "HTTP/1.1"
    server_version = "qlearn"
    sys_version = ""
    timeout = PATIENCE
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        """Send a file of the table, or a report's standing."""
        name = self._name()
        if name is None:
            self.send_error(404)
        elif name.startswith("standing/"):
            place = standing(self.server.reports.latest(), name.removeprefix("standing/"))
            self._send_json(200, place) if place else self.send_error(404)
        elif (resource := self.server.resources.get(name)) is None:
            self.send_error(404)
        else:
            self._send_resource(resource)

    def do_POST(self) -> None:
        """Take a report."""
        if self._name() != "reports":
            self._refuse(404, "There is nothing here: use the link that was given out.")
            return
        length = self.headers.get("Content-Length", "")
        if not (length.isascii() and length.isdigit()):
            self._refuse(411, "The report does not say how long it is.")
        elif len(length) > 9 or int(length) > MAX_UPLOAD:
            self._refuse(413, f"The report is too large: at most {MAX_UPLOAD} bytes are taken.")
        elif (body := self._read(int(length))) is None:
            self._refuse(408, "The report did not arrive in time.")
        else:
            self._keep(body)

    def _keep(self, body: bytes) -> None:
        try:
            report = parse(body)
        except ValueError as error:
            self._send_json(400, {"error": str(error)})
            return
        try:
            new = self.server.reports.add(report)
        except OSError as error:
            reason = error.strerror or error
            self._send_json(503, {"error": f"The report could not be kept ({reason})."})
            return
        place = standing(self.server.reports.latest(), report["id"])
        self._send_json(201 if new else 200, place or {})
        if new:
            self.server.arrived(report)

    def _name(self) -> str | None:
        """Return what follows ``/TOKEN/`` in the URL, or None if the token is another."""
        token, slash, name = self.path.partition("?")[0].removeprefix("/").partition("/")
        right = secrets.compare_digest(token.encode(), self.server.token.encode())
        return name if right and slash else None

    def _read(self, length: int) -> bytes | None:
        """Return the request's body, or None if it is not there in time."""
        body, end = b"", time.monotonic() + PATIENCE
        while len(body) < length:
            if time.monotonic() > end:
                return None
            try:
                part = self.rfile.read1(length - len(body))
            except TimeoutError:
                return None
            if not part:
                raise ConnectionError("the client went away")
            body += part
        return body

    def _refuse(self, status: int, reason: str) -> None:
        """Answer before the request has been read, and hang up without reading much of it.

        A connection that is closed while data arrives is reset, and then the client may never see
        the answer: so what is on its way is thrown away, for at most a second.
        """
        self.close_connection = True
        self._send_json(status, {"error": reason})
        end = time.monotonic() + 1
        try:
            self.connection.shutdown(socket.SHUT_WR)
            self.connection.settimeout(1)
            while self.connection.recv(65536) and time.monotonic() < end:
                pass
        except OSError:
            pass  # nobody is there to be told

    def _send_resource(self, resource: Resource) -> None:
        content = resource.content
        size = len(content) if isinstance(content, bytes) else content.stat().st_size
        # Another lab has another token, so nothing under this address ever changes.
        more = {"Cache-Control": "private, max-age=86400"}
        if resource.gzipped:
            more["Content-Encoding"] = "gzip"
        self._head(200, resource.content_type, size, more)
        if isinstance(content, bytes):
            self.wfile.write(content)
        else:
            with content.open("rb") as file:
                self.connection.sendfile(file)

    def _send_json(self, status: int, value: dict[str, Any]) -> None:
        body = json.dumps(value).encode()
        self._head(status, "application/json", len(body), {})
        self.wfile.write(body)

    def _head(self, status: int, content_type: str, size: int, more: dict[str, str]) -> None:
        self.send_response(status)
        headers = {"Content-Type": content_type, "Content-Length": str(size), **_SECURITY, **more}
        headers.setdefault("Cache-Control", "no-store")
        if self.close_connection:
            headers["Connection"] = "close"
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Send a plain page with one sentence."""
        self.close_connection = True
        sentence = (
            "There is nothing here. Use the whole link that was given out, or scan its code again."
            if code == 404
            else f"The server does not answer such a request ({code})."
        )
        page = (
            '<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" '
            f'content="width=device-width"><title>qlearn</title><p>{sentence}</p></html>'
        ).encode()
        self._head(code, _TYPES[".html"], len(page), {})
        self.wfile.write(page)

    def log_message(self, *arguments: Any) -> None:
        """Write no log: it would hold addresses."""
