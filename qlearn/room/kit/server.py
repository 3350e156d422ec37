"""`qlearn kit serve`: a kit for a room's laptops, read-only."""

import asyncio
from pathlib import Path

from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application, RequestHandler, StaticFileHandler

from qlearn.room.kit.build import INSTALL, START, check, list_targets
from qlearn.room.phone.session import LOOPBACK, QRCode, find_lan_address

MARKS = {INSTALL: ('KIT = ""', 'KIT = "{}"'), START: ("http://ADDRESS/", "{}")}


def serve(folder: Path, lan: bool, address: str | None, port: int) -> None:
    """Serve a kit until Ctrl-C.

    Parameters
    ----------
    folder
        The kit, of which every file is read first.
    lan
        Whether to listen on this machine's address on the network; else only this machine can.
    address
        The address to listen on, where ``lan`` takes the wrong one.
    port
        TCP port; 0 takes a free one.

    Raises
    ------
    ValueError
        If the kit is not finished, or a file of it is damaged.
    RuntimeError
        If this machine has no address on a network.
    OSError
        If the address cannot be listened on.
    """
    address = address or (find_lan_address() if lan else LOOPBACK)
    print("Reading every file of the kit first.", flush=True)
    if faults := check(folder):
        raise ValueError("\n".join(faults))
    try:
        sockets = bind_sockets(port, address)
    except OSError as error:
        raise OSError(
            f"The kit cannot be served on {address}, port {port} ({error.strerror or error}): "
            "choose another port or address."
        ) from error
    url = f"http://{address}:{sockets[0].getsockname()[1]}/"
    print(QRCode(url))
    print(f"The kit: {url}")
    python = max(file.stem.rpartition("-")[2] for file in list_targets(folder))
    print(f"Set up from it: curl {url}{INSTALL} | python{python} -")
    print("Ctrl-C stops.", flush=True)
    try:
        asyncio.run(_serve(folder, url, sockets))
    except KeyboardInterrupt:
        print("\nStopped.")


async def _serve(folder: Path, url: str, sockets: list) -> None:
    routes = [
        (f"/({START}|{INSTALL}|)", _Page, {"folder": folder, "url": url}),
        ("/(.*)", StaticFileHandler, {"path": str(folder), "default_filename": "index.html"}),
    ]
    # Without a log, which would hold addresses.
    server = HTTPServer(Application(routes, log_function=lambda handler: None))
    server.add_sockets(sockets)
    await asyncio.Event().wait()


class _Page(RequestHandler):
    """Gives the start page and the set-up with the address that they are served at."""

    def initialize(self, folder: Path, url: str) -> None:
        self._folder, self._url = folder, url

    def get(self, name: str) -> None:
        name = name or START
        mark, filled = MARKS[name]
        text = (self._folder / name).read_text(encoding="utf-8")
        kind = "text/html" if name == START else "text/x-python"
        self.set_header("Content-Type", f"{kind}; charset=utf-8")
        self.finish(text.replace(mark, filled.format(self._url)))
