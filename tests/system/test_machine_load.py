"""Whether a machine was too busy to time on, by figures that are made up: no test needs a load."""

import pickle

import numpy as np
import pandas as pd
import psutil
import pytest
import torch

import qlearn
from qlearn import benchmarking
from qlearn.system import machine_load
from qlearn.system.machine_load import Load, LoadMeter, NotedTable, note_on

CALM = {"fp32": np.linspace(1.0, 1.5, 20), "int8": np.linspace(2.0, 2.1, 20)}
UNEVEN = CALM | {"int8": np.geomspace(1, 100, 20)}


@pytest.mark.parametrize(
    ("load", "threads", "busy"),
    [
        (Load(2, 0.04, 1), 2, False),
        (Load(2, 0.3, 1), 2, False),  # an editor, a browser
        (Load(2, 1.0, 1), 1, False),  # the other core is free
        (Load(2, 1.4, 1), 1, True),
        (Load(2, 1.0, 1), 2, True),
        (Load(64, 40.0, 1), 8, False),  # a server with cores to spare
        (Load(64, 60.0, 1), 8, True),
        (Load(2, 2.0, 0.1), 2, False),  # too short to tell
    ],
)
def test_busy_is_a_clear_lack_of_cores(load, threads, busy):
    assert load.lacks_room_for(threads) == busy
    note = note_on(load, threads, CALM)
    assert bool(note) == busy
    if busy:
        assert f"used {load.others:.1f} of {load.cores} cores beside the {threads} thread" in note


def test_uneven_rounds_are_named_though_no_load_is_seen():
    note = note_on(Load(2, 0.0, 1), 1, UNEVEN)
    assert "the quartiles of the rounds of 'int8' are" in note and "cores" not in note
    assert "latency_ms is longer" in note and "interval" in note and "close other" in note


class FakeMachine:
    """Two cores of which another process uses 1.5 while this one uses 0.5."""

    def __init__(self, monkeypatch, others=1.5):
        self.loads = iter([[0.0, 0.0], [100.0, 100 * (others - 0.5)]])
        self.own = iter([10.0, 12.0])
        self.clock = iter([100.0, 104.0])
        monkeypatch.setattr(psutil, "cpu_percent", lambda percpu: next(self.loads))
        monkeypatch.setattr(machine_load, "usable_cores", lambda: [0, 1])
        monkeypatch.setattr(machine_load, "_own_seconds", lambda: next(self.own))
        monkeypatch.setattr(machine_load.time, "perf_counter", lambda: next(self.clock))


def test_others_are_what_is_used_less_what_this_process_uses(monkeypatch):
    FakeMachine(monkeypatch)
    assert LoadMeter().read() == Load(2, pytest.approx(1.5), 4.0)


def test_cores_that_this_process_may_not_use_do_not_count(monkeypatch):
    monkeypatch.setattr(psutil, "cpu_percent", lambda percpu: [0.0, 100.0, 50.0, 0.0])
    monkeypatch.setattr(machine_load, "usable_cores", lambda: [0, 2])
    assert machine_load._core_loads() == [0.0, 0.5]


def compare(monkeypatch, times, others=0.0):
    """`compare` of two functions, with made-up times and a made-up load by others."""
    load = Load(2, others, 1.0)
    monkeypatch.setattr(benchmarking.LoadMeter, "read", lambda self: load)
    monkeypatch.setattr(benchmarking, "interleaved_times", lambda timers, seconds: times)
    models = {"fp32": torch.nn.Identity().eval(), "int8": torch.nn.Identity().eval()}
    test = [(torch.eye(4), torch.arange(4))]
    return qlearn.compare(models, torch.rand(1), test, threads=2)


def test_a_calm_machine_gets_no_note(monkeypatch):
    table = compare(monkeypatch, CALM)
    assert table.attrs["note"] == "" and "Note" not in repr(table) + table._repr_html_()
    assert table.attrs["threads"] == 2
    assert table.attrs["engine"] == torch.backends.quantized.engine


DERIVED = {
    "rounded": lambda table: table.round(3),
    "transposed": lambda table: table.T.round(4),
    "columns": lambda table: table[["latency_ms", "speedup"]],
    "rows": lambda table: table.loc[["int8"]],
    "slice": lambda table: table[1:],
    "dropped": lambda table: table.drop(columns="q1_ms"),
    "assigned": lambda table: table.assign(batch=1).reset_index(),
    "copied": lambda table: table.copy(),
    "pickled": lambda table: pickle.loads(pickle.dumps(table)),
    "twice": lambda table: pd.concat([table, table]),
}


@pytest.mark.parametrize("derive", DERIVED.values(), ids=DERIVED)
def test_the_note_stands_under_the_table_and_what_is_derived_from_it(monkeypatch, derive):
    for table in (compare(monkeypatch, CALM, others=1.9), compare(monkeypatch, UNEVEN)):
        derived = derive(table)
        note = table.attrs["note"]
        assert note.startswith("Note: the machine was busy")
        assert repr(derived).endswith("\n" + note)
        assert derived._repr_html_().endswith(f"<p>{note.replace(chr(39), '&#x27;')}</p>")


def test_what_pandas_does_with_a_table_is_not_changed_by_a_note(monkeypatch):
    table = compare(monkeypatch, CALM, others=1.9)
    plain = pd.DataFrame(table)
    assert type(plain) is pd.DataFrame
    assert table.to_json(orient="split") == plain.to_json(orient="split")
    pd.testing.assert_frame_equal(pd.DataFrame(table.copy()), plain)
    other = compare(monkeypatch, CALM)  # with another note
    assert len(pd.concat([table, other])) == 4
    joined = table.join(pd.DataFrame({"more": [1, 2]}, index=["fp32", "int8"]))
    assert joined["more"].tolist() == [1, 2] and isinstance(joined, NotedTable)
    assert table.loc["int8"].attrs["threads"] == 2, "a row knows what it was measured with"
