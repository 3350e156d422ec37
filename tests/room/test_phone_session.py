"""The phone lab around its server: the engine's files, the notebook's board, the command."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import urllib.request

import numpy as np
import pytest
from typer.testing import CliRunner

from qlearn import phone
from qlearn.cli import app
from qlearn.room.phone import results, runtime, session
from qlearn.room.phone.model_files import write_bundles
from qlearn.room.phone.report_log import Reports
from qlearn.room.phone.session import LOOPBACK, PhoneLab

ANDROID = "Mozilla/5.0 (Linux; Android 14; K) AppleWebKit/537.36 Chrome/131.0.0.0 Mobile Safari"


@pytest.fixture
def lab(tmp_path):
    with PhoneLab(LOOPBACK, 0, {}, Reports(tmp_path / "reports.jsonl")) as running:
        yield running


def test_the_lock_pins_one_version_by_hash_and_names_no_registry():
    text = (runtime.HERE / "package-lock.json").read_text(encoding="utf-8")
    packages = json.loads(text)["packages"]
    assert packages["node_modules/onnxruntime-web"]["version"] == runtime.VERSION
    assert packages[""]["dependencies"] == {"onnxruntime-web": runtime.VERSION}
    assert all("integrity" in package for name, package in packages.items() if name)
    assert "://" not in text and "resolved" not in text


def test_without_npm_a_sentence_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setenv("QLEARN_HOME", str(tmp_path))
    monkeypatch.setattr(runtime.shutil, "which", lambda name: None)
    with pytest.raises(RuntimeError, match="install Node.js, or give a folder"):
        runtime.fetch_runtime()


def test_when_npm_fails_a_sentence_says_why(tmp_path, monkeypatch):
    monkeypatch.setenv("QLEARN_HOME", str(tmp_path))
    npm = tmp_path / "npm"
    npm.write_text("#!/bin/sh\necho 'npm error code ENOTFOUND' >&2\nexit 1\n")
    npm.chmod(0o755)
    monkeypatch.setattr(runtime.shutil, "which", lambda name: str(npm))
    with pytest.raises(RuntimeError, match="ENOTFOUND.*connect to the network"):
        runtime.fetch_runtime()


def test_a_folder_without_the_files_or_with_others_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("QLEARN_HOME", str(tmp_path / "home"))
    with pytest.raises(FileNotFoundError, match="lacks ort.wasm.min.js"):
        runtime.fetch_runtime(tmp_path)
    for name in runtime.SHA256:
        (tmp_path / name).write_text("of another version")
    with pytest.raises(ValueError, match=f"not the file of onnxruntime-web {runtime.VERSION}"):
        runtime.fetch_runtime(tmp_path)
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize("names", [[], ["resnet19"], ["small_cnn", "small_cnn"]])
def test_an_unknown_model_is_refused_with_the_names_to_choose_from(names):
    with pytest.raises(ValueError, match="choose from small_cnn, resnet18"):
        write_bundles(names)


def test_a_machine_without_a_network_is_told_so(monkeypatch):
    class Unconnected:
        def __init__(self, *arguments): ...
        def __enter__(self):
            return self

        def __exit__(self, *arguments): ...
        def connect(self, address):
            raise OSError(101, "Network is unreachable")

    monkeypatch.setattr(session.socket, "socket", Unconnected)
    with pytest.raises(RuntimeError, match="no address on a network"):
        session.find_lan_address()


def test_only_this_machine_is_let_in_unless_asked_for(monkeypatch):
    monkeypatch.setattr(session, "fetch_runtime", lambda folder: None)
    monkeypatch.setattr(session, "write_bundles", lambda names: {})
    monkeypatch.setattr(session, "Reports", lambda path: None)
    monkeypatch.setattr(session, "find_lan_address", lambda: "127.0.0.9")
    monkeypatch.setattr(session, "list_resources", lambda *arguments: {})
    urls = []
    for arguments in ({}, {"lan": True}, {"address": "127.0.0.8", "lan": True}):
        with phone.serve(**arguments) as lab:
            urls.append(re.match(r"http://([\d.]+):\d+/", lab.url)[1])
    assert urls == ["127.0.0.1", "127.0.0.9", "127.0.0.8"]


def test_a_port_in_use_is_refused_in_a_sentence(lab, tmp_path):
    port = int(lab.url.split(":")[2].split("/")[0])
    with pytest.raises(OSError, match=f"port {port} .*: choose another port"):
        PhoneLab(LOOPBACK, port, {}, Reports(tmp_path / "other.jsonl"))


def test_the_notebook_shows_link_and_code_as_long_as_the_lab_runs(lab):
    shown = lab._repr_html_()
    assert f'aria-label="QR code of {lab.url}"' in shown and f'href="{lab.url}"' in shown
    assert "this machine only" in shown
    lab.stop()
    assert "has stopped" in lab._repr_html_() and lab.url not in lab._repr_html_()


def test_the_code_in_the_terminal_is_made_of_blocks(lab):
    lines = str(lab.qr).splitlines()
    assert len(lines) > 10 and set("".join(lines)) <= set("█▀▄ ")


@pytest.mark.parametrize(
    ("agent", "name"),
    [
        (ANDROID, "Chrome 131 on Android"),
        (f"{ANDROID} SamsungBrowser/27.0", "Samsung Internet 27 on Android"),
        (f"{ANDROID} EdgA/131.0", "Edge 131 on Android"),
        ("Mozilla/5.0 (Android 14; Mobile; rv:133.0) Gecko/133.0 Firefox/133.0",
         "Firefox 133 on Android"),
        ("Mozilla/5.0 (iPhone; CPU iPhone OS 18_1 like Mac OS X) AppleWebKit/605.1.15 "
         "Version/18.1 Mobile/15E148 Safari/604.1", "Safari 18 on iOS"),
        ("", "another browser"),
    ],
)  # fmt: skip
def test_a_browser_is_named_in_short(agent, name):
    assert results.name_browser(agent) == name


def test_the_table_has_a_row_for_each_phone_and_model(lab, make_report):
    one, two = make_report(1), make_report(2, int8_ms=0.5, nickname="", memory_gb=8)
    two["models"]["resnet18"] = two["models"]["small_cnn"]
    for report in (one, two):
        lab._reports.add(report)
    table = lab.reports()
    assert list(table["phone"]) == ["phone of 1", "phone 2", "phone 2"]
    assert list(table["model"]) == ["small_cnn", "small_cnn", "resnet18"]
    assert list(table["speedup"]) == [2, 4, 4]
    assert list(table["int8_sqnr_db"]) == [np.inf] * 3
    assert table["memory_gb"].isna().tolist() == [True, False, False]
    assert list(table["browser"]) == ["Chrome 131 on Android"] * 3
    figure = results.figure(table)
    assert [axis.get_title(loc="left") for axis in figure.axes] == ["Small CNN", "ResNet-18"]
    # The fastest in int8 is on top.
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == [
        "phone 2", "phone of 1",
    ]  # fmt: skip


def test_no_report_yet_is_an_empty_table(lab):
    table = lab.reports()
    assert table.empty and {"phone", "model", "speedup"} <= set(table)
    assert "No phone has reported yet" in results.render(table)


def test_the_board_is_drawn_anew_when_a_report_arrives(lab, make_report, monkeypatch):
    shown, news = [], threading.Event()

    class Handle:
        def update(self, html):
            shown.append(html.data)
            news.set()

    def display(html, display_id):
        shown.append(html.data)
        return Handle()

    monkeypatch.setattr(results, "display", display)
    lab.watch()
    report = make_report(1, nickname="<b>Ada</b> $x$ $")
    lab._reports.add(report)
    lab._notify(report)
    assert news.wait(60)
    assert "No phone has reported yet" in shown[0]
    assert "&lt;b&gt;Ada&lt;/b&gt;" in shown[1] and "<b>Ada" not in shown[1]
    alt = re.search(r'alt="([^"]*)"', shown[1])[1]
    assert "Phones: 1." in alt and "median speedup 2.00" in alt


def test_a_listener_that_fails_reaches_neither_phone_nor_other_listeners(lab, make_report, caplog):
    def fail(report):
        raise ValueError("no speed\nin the report")

    arrived = []
    lab.on_report(fail)
    lab.on_report(arrived.append)
    body = json.dumps(make_report()).encode()
    with urllib.request.urlopen(f"{lab.url}reports", body, timeout=30) as answer:
        assert answer.status == 201 and json.load(answer)["speed"] == 1
    assert arrived == [make_report()]
    (record,) = caplog.records
    assert "A listener of the phone lab failed" in record.message and "speed" in record.message
    assert "\n" not in record.message and record.exc_info is None


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--models", "small_cnn,other"], "choose from"),
        (["--runtime", "/nowhere"], "lacks ort.wasm.min.js"),
    ],
)
def test_the_command_says_what_is_wrong_in_a_sentence(tmp_path, monkeypatch, words, said):
    if "--runtime" not in words:
        monkeypatch.setattr(session, "fetch_runtime", str)
    result = CliRunner().invoke(app, ["phone", *words, "--reports", str(tmp_path / "r.jsonl")])
    assert result.exit_code == 1 and said in result.output
    assert "Traceback" not in result.output


@pytest.mark.skipif(os.name != "posix", reason="Ctrl-C is sent as a signal")
def test_ctrl_c_stops_the_lab_and_keeps_the_reports(make_report, tmp_path):
    code = f"""
import pathlib
from qlearn.room.phone.report_log import Reports
from qlearn.room.phone.session import PhoneLab
from qlearn.room.phone.terminal import serve_until_interrupted
reports = Reports(pathlib.Path({str(tmp_path / "r.jsonl")!r}))
serve_until_interrupted(PhoneLab("127.0.0.1", 0, {{}}, reports))
"""
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    for line in process.stdout:
        if line.startswith("http://"):
            url = line.strip()
        if "Ctrl-C stops" in line:
            break
    body = json.dumps(make_report(1)).encode()
    urllib.request.urlopen(f"{url}reports", body, timeout=30).close()
    said = process.stdout.readline()
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=60)
    assert "phone of 1 (Chrome 131 on Android): Small CNN fp32 2 ms, int8 1 ms" in said
    assert "New reports: 1, in all: 1" in output and process.returncode == 0
    assert "Traceback" not in errors
    assert len((tmp_path / "r.jsonl").read_text().splitlines()) == 1
