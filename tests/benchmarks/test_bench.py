import multiprocessing
import os
import re
from dataclasses import replace

import bench
import browser
import engines
import forking
import measurements
import pandas as pd
import pytest
import torch
import workers
from bench import Step, run
from engines import EAGER, ENGINES, Engine, own_fp32
from expectations import expectations_section
from report import FLOAT, STATIC, Report
from workers import Worker

from qlearn import data, export, schemes
from qlearn.calibration import sqnr


def rows(report: str, heading: str) -> list[list[str]]:
    """Return the cells of the table under a heading, without its header."""
    section = re.split(r"^## ", report, flags=re.MULTILINE)
    text = next(part for part in section if part.startswith(heading))
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


@pytest.fixture(scope="module", autouse=True)
def forked_workers():
    """Engines load in forks of a process that has imported them; one test starts one as users do.

    `make bench` forks nothing: its times count.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(workers, "CONTEXT", forking.context)
        yield


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    output = tmp_path_factory.mktemp("bench") / "new folder" / "results.md"
    bench.write_report(output, quick=True)
    return output.read_text(encoding="utf-8")


@pytest.mark.long
def test_each_technique_has_a_row(report):
    found = {(row[0], row[1]): row for row in rows(report, "Each technique")}
    assert {row[0] for row in found} == {"MLP", "DepthwiseCNN"}
    assert {("DepthwiseCNN", form) for form in (FLOAT, STATIC)} <= set(found)
    assert float(found["MLP", "dynamic int8"][3]) > 3.5  # times smaller
    assert found["MLP", FLOAT][3] == "1.00"


@pytest.mark.long
def test_each_engine_has_a_row_or_a_reason(report):
    found = {row[0]: row[1:] for row in rows(report, "SmallCNN, 28×28")}
    assert set(found) == set(bench.QUICK.engines)
    assert found[EAGER][3].startswith("1.00") and found[EAGER][4].startswith("1.00")
    openvino = found.pop("OpenVINO int8")
    assert "not installed" in openvino[0] or float(openvino[-2]) > 10
    assert all(float(row[-2]) > 10 for row in found.values())  # SQNR: all run the same model
    assert all(float(row[-1]) > 80 for row in found.values())  # top-1
    assert float(found["ONNX Runtime int8"][0]) < float(found[EAGER][0]) / 3
    assert 0.2 < float(found["ExecuTorch int8"][1]) < 0.4  # against its own fp32, which is there
    assert found["ONNX Runtime int8"][1] == "–" == found["ONNX Runtime int8"][3]  # its own is not


@pytest.mark.long
def test_the_browser_has_a_row_for_each_precision(report, chromium):
    found = {row[0]: row[1:] for row in rows(report, "SmallCNN in the browser")}
    assert set(found) == {"fp32", "int8"}
    assert found["fp32"][1] == "1.000" and found["fp32"][3] == "1.00"
    assert float(found["int8"][1]) < 0.5
    assert all(float(row[-2]) > 20 and float(row[-1]) > 80 for row in found.values())


@pytest.mark.long
def test_each_expectation_has_a_verdict(report):
    verdicts = [row[-1] for row in rows(report, "What should hold")]
    assert len(verdicts) == 8
    assert verdicts[:7] == ["–"] * 7  # ResNet-18 and MobileNetV2 are not in the quick trial
    assert verdicts[7] in ("holds", "**does not hold**")
    assert "Not finished" not in report


def test_a_small_trial_has_a_row_for_each_technique_and_engine(monkeypatch, tmp_path):
    """What `report` has of two models, all formats and a browser."""

    def refuse(*_):
        raise ValueError("left out")

    monkeypatch.setattr(export, "executorch", refuse)
    monkeypatch.setattr(bench, "missing", lambda: "left out.")
    names = (EAGER, "ExecuTorch int8", "ONNX Runtime int8")
    small = replace(bench.QUICK, models=("mlp",), engines=names)
    monkeypatch.setattr(bench, "QUICK", small)
    bench.write_report(tmp_path / "new folder" / "results.md", quick=True)
    text = (tmp_path / "new folder" / "results.md").read_text(encoding="utf-8")
    found = {(row[0], row[1]): row for row in rows(text, "Each technique")}
    assert found["MLP", FLOAT][3] == "1.00" and float(found["MLP", "dynamic int8"][3]) > 3.5
    found = {row[0]: row[1:] for row in rows(text, "SmallCNN, 28×28")}
    assert set(found) == set(names) and "left out" in found["ExecuTorch int8"][0]
    assert float(found["ONNX Runtime int8"][0]) < float(found[EAGER][0]) / 3
    assert float(found["ONNX Runtime int8"][-2]) > 10  # SQNR
    assert len(rows(text, "What should hold")) == 8
    assert "Not measured: left out." in text and "Not finished" not in text
    for word in ("CPU", "cores", "instructions", "torch 2.", "onnxruntime", "date"):
        assert word in text


def test_a_measurement_that_fails_costs_no_other(tmp_path, capsys):
    output = tmp_path / "results.md"
    seen = []

    def broken() -> str:
        seen.append(output.read_text())
        raise RuntimeError("no such engine\nand more")

    steps = [
        Step("Speed", "MLP", lambda: "| one row |"),
        Step("Speed", "ResNet-18", broken),
        Step("Size", "It", lambda: "small"),
    ]
    assert run(steps, Report("# Title", ["Speed", "Size"], output)) == 1
    (before,) = seen
    assert "| one row |" in before and before.count("Not finished") == 2
    after = output.read_text()
    assert "| one row |" in after and "small" in after and "Not finished" not in after
    assert "ResNet-18 could not be measured: RuntimeError: no such engine\n" in after
    assert "no such engine" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["results.md"]


def test_a_report_with_a_failure_ends_with_an_error(monkeypatch, tmp_path):
    def fail(*_):
        raise RuntimeError("broken")

    monkeypatch.setattr(bench, "_steps", lambda settings: [Step("Speed", "It", fail)])
    with pytest.raises(SystemExit, match="could not be measured"):
        bench.write_report(tmp_path / "results.md")
    assert "It could not be measured: RuntimeError: broken" in (tmp_path / "results.md").read_text()


def test_without_its_programs_the_browser_is_left_out(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "Chromium" in browser.missing()
    monkeypatch.setenv("QLEARN_HOME", str(tmp_path))  # where onnxruntime-web is not
    monkeypatch.setattr(browser, "_chromium", lambda: "chromium")
    assert "npm is missing" in browser.missing()


def table_of_engines(speedup: float, share: float) -> pd.DataFrame:
    """Return eager fp32 and an ExecuTorch that is faster and smaller in int8."""
    columns = [f"{base}{end}" for base in ("best", "eager", "own") for end in ("", "_low", "_high")]
    names = [EAGER, "ExecuTorch fp32", "ExecuTorch int8"]
    table = pd.DataFrame({"precision": ["fp32", "fp32", "int8"], "own_size": [1, 1, share],
                          "latency_ms": [speedup, speedup, 1.0]}, index=names)  # fmt: skip
    table[columns] = [[1.0] * 9, [1.0] * 9, [speedup] * 9]
    return table


@pytest.mark.parametrize(
    ("instructions", "speedup", "verdict"),
    [(True, 5.0, "holds"), (True, 1.5, "**does not hold**"), (False, 1.5, "not expected here")],
)
def test_speed_is_judged_only_where_it_can_be_expected(monkeypatch, instructions, speedup, verdict):
    monkeypatch.setattr("torch.cpu.get_capabilities", lambda: {"avx512_vnni": instructions})
    page = pd.DataFrame({"own": [1.0, speedup]}, index=["fp32", "int8"])
    tables = {
        name: pd.DataFrame(
            {"size_ratio": 3.95, "accuracy_change": change, "standard_error": 0.001},
            index=["static int8, per channel"],
        )
        for name, change in (("resnet18", 0.0), ("mlp", -0.004))
    }
    shares = {"resnet18": 0.25, "mobilenet_v2": 0.27}
    engines = {name: table_of_engines(speedup, share) for name, share in shares.items()}
    text = "## All\n" + expectations_section(tables, engines, page)
    found = [row[-1] for row in rows(text, "All")]
    assert found[0] == "holds"
    assert all(cell.startswith(verdict) for cell in found[1:5])
    assert found[5:] == ["holds"] + ["**does not hold**"] * 2
    assert "ExecuTorch 0.270" in text


def test_expectations_of_nothing_say_so():
    text = "## All\n" + expectations_section({}, {}, None)
    assert {tuple(row[1:]) for row in rows(text, "All")} == {("not measured", "–")}


def test_an_engines_own_fp32():
    assert own_fp32("ONNX Runtime int8") == "ONNX Runtime fp32"
    assert own_fp32(EAGER) == EAGER and own_fp32("PyTorch eager int8") == EAGER


def test_a_format_that_cannot_be_written_is_left_out(monkeypatch, tmp_path):
    def refuse(*_):
        raise ValueError("this operator is not known")

    monkeypatch.setattr(export, "onnx", refuse)
    monkeypatch.setattr(export, "executorch", lambda *_: None)
    example = torch.zeros(1, 4)
    failures = engines.export_all(torch.nn.Linear(4, 2), [example], [example], tmp_path)
    reason = "ValueError: this operator is not known"
    assert failures == dict.fromkeys(["fp32.onnx", "int8.onnx"], reason)


def test_mobilenet_is_the_same_every_time_and_trained():
    images = torch.rand(4, 3, 64, 64)
    model = measurements.mobilenet_v2(steps=2)
    outputs = model(images).detach()
    assert not model.training
    assert torch.equal(outputs, measurements.mobilenet_v2(steps=2)(images))
    assert not torch.equal(outputs, measurements.mobilenet_v2(steps=1)(images))


@pytest.mark.long
def test_mobilenet_computes_in_int8_what_it_computes_in_float():
    """With random weights it was 0.7 dB."""
    train, test = data.loaders(data.digits(channels=3), batch_size=16)
    calibration, images = (
        torch.nn.functional.interpolate(next(iter(loader))[0], size=224, mode="bilinear")
        for loader in (train, test)
    )
    model = measurements.mobilenet_v2()
    int8 = schemes.static_fx(model, [calibration])
    with torch.no_grad():
        assert sqnr(model(images), int8(images)) > 15


def die(folder, threads):
    """An engine that loads, runs once for the comparison, and ends its process when timed."""
    calls = []

    def runner(inputs):
        calls.append(inputs)
        if len(calls) > 1:
            os._exit(3)
        return inputs

    return runner, 1.0


def test_an_engine_that_dies_while_timed_is_left_out(monkeypatch, tmp_path):
    torch.save(torch.nn.Identity(), tmp_path / "model.pt")
    torch.save({"examples": [torch.ones(1, 2)], "calibration": []}, tmp_path / "inputs.pt")
    monkeypatch.setitem(ENGINES, "dying int8", Engine("int8", die))
    # The worker must know the engine of this test.
    monkeypatch.setattr(workers, "CONTEXT", multiprocessing.get_context("fork"))
    table, skipped = workers.measure(tmp_path, [EAGER, "dying int8"], 1, rounds=2, seconds=0.01)
    assert list(table.index) == [EAGER]
    assert skipped == {"dying int8": "its process died while it was timed"}


def test_worker_that_cannot_load_gives_its_reason(monkeypatch, tmp_path):
    monkeypatch.setattr(workers, "CONTEXT", multiprocessing.get_context("spawn"))
    worker = Worker("ONNX Runtime fp32", tmp_path, threads=1)
    worker.wait()
    assert "inputs.pt" in worker.skipped
    worker.stop()
