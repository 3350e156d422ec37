"""Recorded tables: each names its machine, and holds what its lesson reads."""

import pytest

from qlearn.sweeps.recorded import recorded

SWEEP = {"scheme", "size_mb", "speedup", "speedup_low", "accuracy_change", "standard_error"}
COLUMNS = {
    "camera": SWEEP,
    "reader": SWEEP,
    "compiled": {"model", "form", "latency_ms", "speedup", "sqnr_db"},
    "few_bits": {"seed", "order", "bits", "scales", "method", "accuracy"},
}


@pytest.mark.parametrize("name", COLUMNS)
def test_a_table_names_its_machine_and_has_its_columns(name):
    table = recorded(name)
    assert "torch 2.15" in table.attrs["machine"] and len(table) > 3
    assert set(table.columns) >= COLUMNS[name]


def test_an_unknown_table_is_refused_with_those_that_there_are():
    with pytest.raises(ValueError, match="no recorded table 'toaster'; there are:.*few_bits"):
        recorded("toaster")
