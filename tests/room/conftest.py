"""A report as the page makes it, and a server of the phone lab without models."""

import json
import urllib.error
import urllib.request
from types import SimpleNamespace

import pytest

from qlearn.room.phone.report_log import Reports
from qlearn.room.phone.session import LOOPBACK, PhoneLab

RUN = {
    "rounds": 3,
    "calls": 20,
    "median_ms": 2.0,
    "q1_ms": 1.9,
    "q3_ms": 2.2,
    "sqnr_db": 120.5,
    "top1": 1.0,
}


@pytest.fixture
def make_report():
    """Make a right report; ``number`` gives its id and phone, ``int8_ms`` its speed."""

    def make(number=1, int8_ms=1.0, **changes):
        int8 = {**RUN, "median_ms": int8_ms, "q1_ms": int8_ms, "q3_ms": int8_ms, "sqnr_db": None}
        return {
            "id": f"{number:032x}",
            "phone": f"{number:032x}",
            "page": 1,
            "nickname": f"phone of {number}",
            "models": {"small_cnn": {"fp32": dict(RUN), "int8": int8}},
            "threads": 1,
            "isolated": False,
            "user_agent": "Mozilla/5.0 (Linux; Android 14) Chrome/131.0.0.0 Mobile Safari/537.36",
            "memory_gb": None,
            "cores": 8,
            "screen": [360, 740],
            **changes,
        }

    return make


@pytest.fixture
def site(tmp_path):
    """A server on loopback with one file, and what a client needs to talk to it."""
    reports, arrived = Reports(tmp_path / "reports.jsonl"), []
    lab = PhoneLab(LOOPBACK, 0, {"": b"the page"}, reports)
    lab.on_report(arrived.append)
    server = lab._server
    base = f"http://127.0.0.1:{server.port}"

    def request(path, body=None, **headers):
        """Status, headers and body of the answer; ``path`` follows the token, or starts at /."""
        url = base + path if path.startswith("/") else f"{base}/{server.token}/{path}"
        asked = urllib.request.Request(url, body, headers)
        try:
            answer = urllib.request.urlopen(asked, timeout=30)
        except urllib.error.HTTPError as error:
            answer = error
        with answer:
            return SimpleNamespace(status=answer.status, headers=answer.headers, body=answer.read())

    def post(report):
        return request("reports", json.dumps(report).encode())

    yield SimpleNamespace(
        lab=lab,
        server=server,
        reports=reports,
        arrived=arrived,
        port=server.port,
        request=request,
        post=post,
    )
    server.stop()
