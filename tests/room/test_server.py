"""The server: who gets an answer, what is refused, and that nobody can hold up the others."""

import contextlib
import gzip
import http.client
import json
import re
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from qlearn.room import messages
from qlearn.room import server as module
from qlearn.room.phone.report_log import Reports
from qlearn.room.server import MAX_UPLOAD

CLOSE = "Host: x\r\nConnection: close\r\n"


def raw(site, data):
    """Send bytes as they are; return all that comes back until the server hangs up."""
    with socket.create_connection(("127.0.0.1", site.port), timeout=60) as connection:
        connection.sendall(data)
        parts = []
        while part := connection.recv(65536):
            parts.append(part)
        return b"".join(parts)


def test_the_page_comes_with_the_headers_that_keep_it_safe(site):
    answer = site.request("")
    assert answer.status == 200 and answer.body == b"the page"
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
    assert "unsafe-inline" not in answer.headers["Content-Security-Policy"]
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Referrer-Policy"] == "no-referrer"
    assert answer.headers["Cross-Origin-Opener-Policy"] == "same-origin"
    assert answer.headers["Cross-Origin-Embedder-Policy"] == "require-corp"


def test_a_file_comes_whole_and_may_be_kept_by_the_browser(site, tmp_path):
    content = bytes(range(256)) * 1000  # more than is sent at once
    (tmp_path / "engine.wasm.gz").write_bytes(gzip.compress(content))
    (tmp_path / "int8.onnx").write_bytes(content)
    site.server.site.resources["ort/engine.wasm"] = tmp_path / "engine.wasm.gz"
    site.server.site.resources["models/int8.onnx"] = tmp_path / "int8.onnx"
    engine, model = site.request("ort/engine.wasm"), site.request("models/int8.onnx")
    assert gzip.decompress(engine.body) == model.body == content
    assert engine.headers["Content-Encoding"] == "gzip" and not model.headers["Content-Encoding"]
    assert engine.headers["Content-Type"] == "application/wasm"
    assert model.headers["Content-Type"] == "application/octet-stream"
    for answer in (engine, model):
        assert answer.headers["Content-Length"] == str(len(answer.body))
        assert answer.headers["Cache-Control"] == "private, max-age=86400"
    assert site.request("missing").headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize("token", ["", "wrong", "ü%20", "a" * 5000])
def test_a_wrong_token_gets_a_plain_sentence_and_nothing_else(site, token):
    path = f"/{token}/".encode().decode("latin-1")
    answer = raw(site, f"GET {path} HTTP/1.1\r\n{CLOSE}\r\n".encode("latin-1")).decode()
    assert answer.startswith("HTTP/1.1 404")
    assert "Use the whole link" in answer and "the page" not in answer


def test_a_token_is_not_guessed_from_another_lab(site):
    other = module.Server("127.0.0.1", 0, module.Site({}, {}, {}))
    other.stop()
    assert other.token != site.server.token and len(other.token) >= 20
    assert site.request(f"/{other.token}/").status == 404


@pytest.mark.parametrize(
    "path",
    [
        "../pyproject.toml",
        "..%2f..%2fetc%2fpasswd",
        "%2e%2e/%2e%2e/etc/passwd",
        "models/../../../etc/passwd",
        "/etc/passwd",
        "//etc/passwd",
        "..\\..\\windows",
        "rank/../../etc/passwd",
        "reports",
        "reports.jsonl",
        "\0",
    ],
)
def test_only_names_of_the_table_are_served(site, path):
    line = f"GET /{site.server.token}/{path} HTTP/1.1\r\n{CLOSE}\r\n"
    answer = raw(site, line.encode()).decode()
    assert answer.split("\r\n")[0].split()[1] in ("400", "404"), answer
    assert "root:" not in answer and "the page" not in answer


@pytest.mark.parametrize("method", ["PUT", "DELETE", "OPTIONS", "HEAD", "TRACE"])
def test_other_methods_are_refused(site, method):
    line = f"{method} /{site.server.token}/ HTTP/1.1\r\n{CLOSE}\r\n"
    assert raw(site, line.encode()).startswith(b"HTTP/1.1 405")


def test_a_report_arrives_once_and_gets_its_place(site, make_report):
    first, second = site.post(make_report(1)), site.post(make_report(1))
    assert (first.status, second.status) == (201, 200)
    assert json.loads(first.body) == json.loads(second.body)
    assert json.loads(first.body) == {
        "model": "Small CNN", "phones": 1, "speed": 1, "speedup": 1,
    }  # fmt: skip
    assert len(site.arrived) == 1 and len(site.reports.all()) == 1
    site.post(make_report(2, int8_ms=0.5))
    place = json.loads(site.request(f"rank/{1:032x}").body)
    assert place["phones"] == 2 and place["speed"] == 2
    assert site.request(f"rank/{3:032x}").status == 404


def test_nothing_about_the_sender_is_kept_but_what_the_page_says(site, make_report):
    site.post(make_report())
    kept = site.reports.path.read_text()
    assert "127.0.0.1" not in kept
    assert set(json.loads(kept)) == {*make_report(), "received"}


def test_a_malformed_report_is_refused_with_a_sentence(site, make_report):
    answer = site.post({**make_report(), "threads": "many"})
    assert answer.status == 400
    assert json.loads(answer.body) == {
        "error": "The field threads in the report has a value that is not allowed."
    }
    assert not site.reports.all() and not site.arrived


def test_a_report_with_a_wrong_token_is_not_taken(site, make_report):
    answer = site.request("/wrong/reports", json.dumps(make_report()).encode())
    assert answer.status == 404 and not site.reports.all()


def test_a_report_too_large_is_refused_unread(site):
    head = f"POST /{site.server.token}/reports HTTP/1.1\r\nHost: x\r\nContent-Length: {10**8}\r\n"
    # The rest of the 100 MB never comes: whoever waited for it would have nothing to answer.
    answer = raw(site, head.encode() + b"\r\n" + b"x" * 300_000)
    assert answer.startswith(b"HTTP/1.1 413") and b"The request is too large" in answer


def test_the_largest_size_is_still_read(site):
    assert site.request("reports", b"x" * MAX_UPLOAD).status == 400
    assert site.request("reports", b"x" * (MAX_UPLOAD + 1)).status == 413


@pytest.mark.parametrize("length", ["", "Content-Length: -1\r\n", "Content-Length: 1e3\r\n"])
def test_a_report_without_a_length_is_refused(site, length):
    head = f"POST /{site.server.token}/reports HTTP/1.1\r\n{CLOSE}{length}\r\n"
    assert raw(site, head.encode()).startswith(b"HTTP/1.1 411")


def test_a_report_that_never_ends_is_given_up(site, monkeypatch):
    monkeypatch.setattr(module, "CLIENT_TIMEOUT", 0.2)
    head = f"POST /{site.server.token}/reports HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{{"
    assert raw(site, head.encode()).startswith(b"HTTP/1.1 408")
    assert not site.reports.all()


def test_a_client_that_does_not_read_loses_its_place_to_the_next(site, monkeypatch):
    monkeypatch.setattr(module, "CLIENT_TIMEOUT", 0.2)
    monkeypatch.setattr(module, "MAX_CONNECTIONS", 1)
    site.server.site.resources["large"] = b"x" * 50_000_000  # more than the system's buffers take
    with socket.create_connection(("127.0.0.1", site.port), timeout=60) as connection:
        connection.sendall(f"GET /{site.server.token}/large HTTP/1.1\r\n{CLOSE}\r\n".encode())
        assert connection.recv(1)
        deadline, status = time.monotonic() + 60, None
        while status is None and time.monotonic() < deadline:
            with contextlib.suppress(OSError):  # refused as long as the first one is connected
                status = site.request("").status
    assert status == 200


@pytest.mark.parametrize(
    "request_",
    [
        b"nonsense\r\n\r\n",
        b"GET / HTTP/9\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a, b\r\n\r\n",
        b"GET / HTTP/1.1\r\nno colon\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    ],
)
def test_a_bad_request_gets_a_sentence_and_no_traceback(site, caplog, request_):
    head, _, body = raw(site, request_).decode().partition("\r\n\r\n")
    assert head.startswith("HTTP/1.1 4")
    assert re.search(r"This is not a request in HTTP: .+\.|The request does not .+\.", body), body
    site.server.stop()
    assert not [record for record in caplog.records if record.exc_info]


def test_stalled_clients_do_not_hold_up_the_others(site, make_report):
    stalled = [socket.create_connection(("127.0.0.1", site.port)) for _ in range(50)]
    try:
        for number, connection in enumerate(stalled):
            connection.sendall(b"GET /" if number % 2 else b"")
        assert site.post(make_report()).status == 201
    finally:
        for connection in stalled:
            connection.close()


def test_there_is_a_cap_on_connections(site, monkeypatch):
    monkeypatch.setattr(module, "MAX_CONNECTIONS", 3)
    held = [socket.create_connection(("127.0.0.1", site.port)) for _ in range(3)]
    for connection in held:  # each is known to be served before the next one comes
        connection.sendall(f"GET /{site.server.token}/ HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        assert connection.recv(100).startswith(b"HTTP/1.1 200")
    with socket.create_connection(("127.0.0.1", site.port), timeout=60) as fourth:
        assert fourth.recv(100) == b""
    for connection in held:
        connection.close()


def test_two_hundred_reports_at_once_are_all_kept(site, make_report):
    def send(number):
        return site.post(make_report(number)).status

    with ThreadPoolExecutor(50) as pool:
        # Each twice, as after a lost answer.
        statuses = list(pool.map(send, [*range(200), *range(200)]))
    assert statuses.count(201) == 200 and statuses.count(200) == 200
    ids = {json.loads(line)["id"] for line in site.reports.path.read_text().splitlines()}
    assert ids == {f"{number:032x}" for number in range(200)}
    assert len(site.arrived) == 200
    assert len(Reports(site.reports.path).all()) == 200


def test_stopping_hangs_up_on_those_who_are_still_connected(site):
    with socket.create_connection(("127.0.0.1", site.port), timeout=60) as connection:
        connection.sendall(f"GET /{site.server.token}/ HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        assert connection.recv(4096).startswith(b"HTTP/1.1 200")
        site.server.stop()
        while connection.recv(4096):
            pass
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.1", site.port), timeout=1)


def test_stopping_lets_a_report_be_written_to_its_end(site, make_report, monkeypatch, caplog):
    writing, written = threading.Event(), threading.Event()
    append = messages.append

    def append_slowly(path, line):
        writing.set()
        assert site.server.stopped.wait(60)
        append(path, line)
        written.set()

    monkeypatch.setattr(messages, "append", append_slowly)
    with ThreadPoolExecutor(1) as pool:
        sending = pool.submit(site.post, make_report())
        assert writing.wait(60)
        site.server.stop()
        with pytest.raises((OSError, http.client.HTTPException)):
            sending.result(60)
    assert written.wait(60)
    assert len(site.reports.path.read_text().splitlines()) == 1
    assert not caplog.records


def test_a_listener_may_stop_the_server(site, make_report):
    stopped = threading.Event()

    def stop(report):
        site.server.stop()
        stopped.set()

    site.lab.on_report(stop)
    with pytest.raises((OSError, http.client.HTTPException)):
        site.post(make_report())
    assert stopped.wait(60)
