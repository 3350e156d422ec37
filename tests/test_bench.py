import re

import numpy as np
import pandas as pd
import pytest

from qlearn import bench
from qlearn.bench.engines import EAGER
from qlearn.bench.report import FLOAT, PTQ4, QAT4, expectations_section, recovery
from qlearn.bench.workers import Worker


def rows(report: str, heading: str) -> list[list[str]]:
    """Return the cells of the table under a heading, without its header."""
    section = re.split(r"^## ", report, flags=re.MULTILINE)
    text = next(part for part in section if part.startswith(heading))
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    output = tmp_path_factory.mktemp("bench") / "new folder" / "results.md"
    bench.main(output, quick=True)
    return output.read_text(encoding="utf-8")


def test_each_technique_has_a_row(report):
    found = {(row[0], row[1]): row for row in rows(report, "Each technique")}
    assert {row[0] for row in found} == {"MLP", "DepthwiseCNN"}
    assert {("DepthwiseCNN", form) for form in (FLOAT, PTQ4, QAT4)} <= set(found)
    assert float(found["MLP", "dynamic int8"][3]) > 3.5  # times smaller
    assert found["MLP", FLOAT][3] == "1.00"


def test_each_engine_has_a_row_or_a_reason(report):
    found = {row[0]: row[1:] for row in rows(report, "SmallCNN")}
    assert set(found) == set(bench.QUICK.engines)
    assert found[EAGER][2].startswith("1.00")
    openvino = found.pop("OpenVINO int8")
    assert "not installed" in openvino[0] or float(openvino[-1]) > 10
    assert all(float(row[-1]) > 10 for row in found.values())  # SQNR: all run the same model
    assert float(found["ONNX Runtime int8"][0]) < float(found[EAGER][0]) / 3


def test_each_expectation_has_a_verdict(report):
    verdicts = [row[-1] for row in rows(report, "What should hold")]
    assert len(verdicts) == 5
    assert verdicts[:3] == ["–"] * 3  # ResNet-18 is not in the quick trial
    for verdict in verdicts[3:]:
        assert verdict in ("holds", "**does not hold**") or verdict.startswith("undecided")


def test_machine_is_described(report):
    for word in ("CPU", "cores", "instructions", "torch 2.", "onnxruntime", "date"):
        assert word in report


def runs(lost: int, won: int, samples: int = 400) -> list[pd.DataFrame]:
    """Return a float model that is always right, PTQ wrong ``lost`` times, QAT ``won`` fewer."""
    order = np.arange(samples)
    return [pd.DataFrame({FLOAT: True, PTQ4: order >= lost, QAT4: order >= lost - won})] * 2


def test_recovery_is_the_share_won_back():
    found = recovery(runs(lost=100, won=90))
    assert found["lost"] == pytest.approx(0.25)
    assert found["share"] == pytest.approx(0.9)
    assert 0.8 < found["low"] < 0.9 < found["high"] < 1
    # The mean of 400 draws with probability 1/4.
    assert found["standard_error"] == pytest.approx((0.25 * 0.75 / 400) ** 0.5, rel=0.1)


def test_recovery_of_next_to_nothing_is_undecided():
    assert np.isnan(recovery(runs(lost=1, won=1))["low"])
    assert np.isnan(recovery(runs(lost=0, won=0))["share"])


@pytest.mark.parametrize(
    ("instructions", "speedup", "verdict"),
    [(True, 5.0, "holds"), (True, 2.0, "**does not hold**"), (False, 2.0, "not expected here")],
)
def test_speed_is_judged_only_where_it_can_be_expected(monkeypatch, instructions, speedup, verdict):
    monkeypatch.setattr("torch.cpu.get_capabilities", lambda: {"avx512_vnni": instructions})
    columns = [f"{base}{end}" for base in ("best", "eager") for end in ("", "_low", "_high")]
    engines = pd.DataFrame(
        {"precision": ["fp32", "int8"], "latency_ms": [speedup, 1.0]}, index=[EAGER, "fast"]
    )
    engines[columns] = [[1.0] * 6, [speedup] * 6]
    tables = {
        name: pd.DataFrame(
            {"size_ratio": 3.95, "accuracy_change": change, "standard_error": 0.001},
            index=["static int8, per channel"],
        )
        for name, change in (("resnet18", 0.0), ("mlp", -0.004))
    }
    text = "## All\n" + expectations_section(tables, engines, runs(100, 70))
    found = [row[-1] for row in rows(text, "All")]
    assert found[0] == "holds"
    assert all(cell.startswith(verdict) for cell in found[1:3])
    assert found[3:] == ["**does not hold**"] * 2


def test_worker_that_cannot_load_gives_its_reason(tmp_path):
    worker = Worker("ONNX Runtime fp32", tmp_path, threads=1)
    worker.wait()
    assert "inputs.pt" in worker.skipped
    worker.stop()
