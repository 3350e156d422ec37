"""The phone lab: a page on the network, and what phones report back."""

import datetime
import html
import io
import json
import logging
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import segno

from qlearn.room.phone.model_files import MODELS, PRECISIONS, write_bundles
from qlearn.room.phone.report_log import Reports, parse, rank
from qlearn.room.phone.results import Board, table
from qlearn.room.phone.runtime import SHA256, VERSION, fetch_runtime
from qlearn.room.server import Server, Site
from qlearn.system.cache import home
from qlearn.system.errors import explain

_LOG = logging.getLogger(__name__)
LOOPBACK = "127.0.0.1"
ROUNDS = 15  # in each of which each precision is timed once
PAGE = Path(__file__).parent / "page"


def serve(
    models: Sequence[str] = tuple(MODELS),
    lan: bool = False,
    address: str | None = None,
    port: int = 0,
    runtime_folder: str | Path | None = None,
    reports: str | Path | None = None,
    rounds: int = ROUNDS,
) -> "PhoneLab":
    """Start the phone lab: a page on which a phone's own browser times fp32 against int8.

    Parameters
    ----------
    models
        Keys of ``qlearn.phone.MODELS``, in the order in which phones run them.
    lan
        Whether to listen on this machine's address on the network, so that phones can reach the
        page; else only this machine can, or a phone on a USB cable (``adb reverse``).
    address
        The address to listen on, where this machine has several and ``lan`` takes the wrong one.
    port
        TCP port; 0 takes a free one.
    runtime_folder
        A folder with the files of onnxruntime-web, for a room without network; by default npm
        fetches them once into the cache.
    reports
        The file that reports are added to (JSON lines); by default one a day in the cache.
    rounds
        In each round a phone times each precision of a model once.

    Returns
    -------
    PhoneLab
        Already serving; ``stop()`` or a ``with`` statement ends it.

    Raises
    ------
    ValueError
        If a model is unknown, or the files of onnxruntime-web are of another version.
    RuntimeError
        If npm or an address on the network is missing.
    OSError
        If the address cannot be listened on, or a file is missing.
    """
    if address is None:
        address = find_lan_address() if lan else LOOPBACK
    if reports is None:
        reports = home() / "phone" / f"reports-{datetime.date.today().isoformat()}.jsonl"
    log = Reports(Path(reports))
    engine = fetch_runtime(runtime_folder)
    return PhoneLab(address, port, list_resources(write_bundles(models), engine, rounds), log)


def find_lan_address() -> str:
    """Return this machine's IPv4 address on the network that its default route leads to."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            # Nothing is sent: connecting a UDP socket only chooses the route. The address is one
            # of those that are reserved for documentation (RFC 5737).
            probe.connect(("192.0.2.1", 9))
            address = probe.getsockname()[0]
        except OSError:
            address = "127.0.0.1"
    if address.startswith("127.") or address == "0.0.0.0":
        raise RuntimeError(
            "This machine has no address on a network: connect it to the phones' network, or name "
            "its address (--address)."
        )
    return address


def list_resources(folders: dict[str, Path], engine: Path, rounds: int) -> dict[str, bytes | Path]:
    """Return everything that the page may load, by its name in the URL."""
    entries = [json.loads((f / "model.json").read_text("utf-8")) for f in folders.values()]
    manifest = {"rounds": rounds, "runtime": VERSION, "models": entries}
    resources = {"": PAGE / "index.html", "manifest.json": json.dumps(manifest).encode()}
    resources |= {name: PAGE / name for name in ("phone.css", "phone.js", "measure.js", "chart.js")}
    resources |= {f"ort/{name}": engine / f"{name}.gz" for name in SHA256}
    for name, folder in folders.items():
        resources[f"models/{name}/inputs.bin"] = folder / "inputs.bin.gz"
        for precision in PRECISIONS:
            resources[f"models/{name}/{precision}.onnx"] = folder / f"{precision}.onnx"
    return resources


def lab_site(
    resources: dict[str, bytes | Path], reports: Reports, notify: Callable[[dict[str, Any]], None]
) -> Site:
    """Return the lab for a server; ``notify`` gets each new report, once it is kept."""

    def take(body: bytes) -> tuple[int, dict[str, Any]]:
        try:
            report = parse(body)
            new = reports.add(report)
        except ValueError as error:
            return 400, {"error": str(error)}
        except OSError as error:
            return 503, {"error": f"The report could not be kept ({error.strerror or error})."}
        if new:
            notify(report)
        return 201 if new else 200, rank(reports.latest(), report["id"]) or {}

    return Site(resources, {"reports": take}, {"rank": lambda id_: rank(reports.latest(), id_)})


class PhoneLab:
    """A running phone lab; made by ``serve``.

    Attributes
    ----------
    url : str
        The link for phones. Whoever has it can use the lab, and nobody else.
    access : str
        The address and port, and who can reach them, in a sentence.
    """

    def __init__(
        self, address: str, port: int, resources: dict[str, bytes | Path], reports: Reports
    ) -> None:
        self._reports = reports
        self._listeners: list[Callable[[dict[str, Any]], None]] = []
        try:
            site = lab_site(resources, reports, self._notify)
            self._server = Server(address, port, site)
        except OSError as error:
            reason = error.strerror or error
            raise OSError(
                f"The phone lab cannot listen on {address}, port {port} ({reason}): choose "
                "another port or address."
            ) from error
        port = self._server.port
        self.url = f"http://{address}:{port}/{self._server.token}/"
        who = "this machine only" if address.startswith("127.") else "everyone on its network"
        self.access = (
            f"Listening on {address}, TCP port {port}, reachable by {who}; only those who have "
            "the link get an answer."
        )

    def __enter__(self) -> "PhoneLab":
        """Return the lab, which serves already."""
        return self

    def __exit__(self, *error: object) -> None:
        """Stop the lab."""
        self.stop()

    @property
    def file(self) -> Path:
        """The file in which the reports are kept."""
        return self._reports.path

    @property
    def qr(self) -> "QRCode":
        """The link as a QR code, which a notebook shows as a picture."""
        return QRCode(self.url)

    def on_report(self, listener: Callable[[dict[str, Any]], None]) -> None:
        """Have a function called with each new report, in a thread of the server.

        If it raises, that is logged: neither the phone nor other listeners notice.
        """
        self._listeners.append(listener)

    def _notify(self, report: dict[str, Any]) -> None:
        for listener in self._listeners:
            try:
                listener(report)
            except Exception as error:
                _LOG.error("A listener of the phone lab failed on a report: %s", explain(error))

    def raw_reports(self) -> list[dict[str, Any]]:
        """Return every report as it is kept, in the order in which they came."""
        return self._reports.all()

    def reports(self) -> pd.DataFrame:
        """Return the last report of each phone, as ``qlearn.phone.table`` does."""
        return table(self._reports.latest())

    def watch(self) -> None:
        """Show the results in the notebook, and show them anew whenever a report arrives."""
        board = Board(self._reports)
        self.on_report(lambda report: board.refresh())

    def stop(self) -> None:
        """Stop serving; the reports stay in ``file``, and calling it twice does no harm."""
        self._server.stop()

    def _repr_html_(self) -> str:
        where = f"Reports are kept in {html.escape(str(self.file))}."
        if self._server.stopped.is_set():
            return f"<p>The phone lab has stopped. {where}</p>"
        link = f'<a href="{self.url}">{self.url}</a>'
        return f"{self.qr._repr_html_()}<p>{link}<br>{html.escape(self.access)} {where}</p>"


class QRCode:
    """A QR code of a link, for a notebook and for a terminal."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._code = segno.make_qr(url, error="m")

    def _repr_html_(self) -> str:
        # The light modules are painted: on a dark page a scanner would see the code inverted.
        svg = self._code.svg_inline(scale=5, border=4, dark="#000", light="#fff")
        label = f'role="img" aria-label="QR code of {self.url}"'
        return svg.replace("<svg ", f"<svg {label} ", 1)

    def __str__(self) -> str:
        """Return the code in half-block characters, for a terminal."""
        text = io.StringIO()
        self._code.terminal(out=text, border=2, compact=True)
        return text.getvalue()
