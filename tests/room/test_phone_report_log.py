"""Reports: what is taken, what is refused, and that nothing taken is lost."""

import copy
import json

import pytest

from qlearn.room.phone.report_log import Reports, parse, rank


def body(report):
    return json.dumps(report).encode()


def change(report, path, value):
    """A copy of the report with the field at a dotted path set, or removed for ``...``."""
    report = copy.deepcopy(report)
    *parents, last = path.split(".")
    inner = report
    for name in parents:
        inner = inner[name]
    if value is ...:
        del inner[last]
    else:
        inner[last] = value
    return report


def test_a_right_report_is_taken_as_it_is(make_report):
    assert parse(body(make_report())) == make_report()


RUN = "models.small_cnn.int8"
WRONG = [
    ("id", "../../etc/passwd", "id"),
    ("id", "A" * 32, "id"),
    ("id", "0" * 31 + "\n", "id"),
    ("phone", 1, "phone"),
    ("page", True, "page"),
    ("nickname", "x" * 25, "nickname"),
    ("nickname", "two\nlines", "nickname"),
    ("nickname", "\u202eright to left", "nickname"),
    ("nickname", None, "nickname"),
    ("nickname", ..., "nickname is missing"),
    ("extra", 1, "unknown field"),
    ("models", {}, "models"),
    ("models", [], "models"),
    ("models.other", {}, "models"),
    ("models", {"other": {}}, "does not know"),
    ("models.small_cnn.int8", ..., "int8 is missing"),
    ("models.small_cnn.int4", {}, "unknown field"),
    (RUN, 1, "not an object"),
    (f"{RUN}.median_ms", float("nan"), "median_ms"),
    (f"{RUN}.median_ms", float("inf"), "median_ms"),
    (f"{RUN}.median_ms", -1, "median_ms"),
    (f"{RUN}.median_ms", "1", "median_ms"),
    (f"{RUN}.median_ms", 10**400, "median_ms"),
    (f"{RUN}.q1_ms", 5, "quartiles"),
    (f"{RUN}.top1", 1.5, "top1"),
    (f"{RUN}.sqnr_db", [], "sqnr_db"),
    (f"{RUN}.sqnr_db", float("nan"), "sqnr_db"),  # null would say: equal to the host's
    (f"{RUN}.rounds", 0, "rounds"),
    (f"{RUN}.calls", 1.5, "calls"),
    (f"{RUN}.more", 1, "unknown field"),
    ("threads", 0, "threads"),
    ("isolated", 1, "isolated"),
    ("user_agent", "x" * 401, "user_agent"),
    ("memory_gb", -1, "memory_gb"),
    ("cores", 1.5, "cores"),
    ("screen", [360], "screen"),
    ("screen", [360, "740"], "screen"),
]


@pytest.mark.parametrize(("path", "value", "said"), WRONG, ids=lambda v: str(v)[:30])
def test_a_wrong_field_is_refused_with_a_sentence_that_names_it(make_report, path, value, said):
    wrong = change(make_report(), path, value)
    if path == "models.other":
        wrong["models"]["third"] = {}
    with pytest.raises(ValueError, match=said) as refusal:
        parse(body(wrong))
    assert str(refusal.value).endswith(".")


@pytest.mark.parametrize(
    "data", [b"", b"{", b"\xff\xfe", b"[" * 60000, b"9" * 60000, b"null", b"[]", b'"text"']
)
def test_what_is_no_object_is_refused(data):
    with pytest.raises(ValueError, match="not JSON|not an object"):
        parse(data)


def test_a_report_sent_twice_is_kept_once(make_report, tmp_path):
    reports = Reports(tmp_path / "new" / "reports.jsonl")
    assert reports.add(make_report()) is True
    assert reports.add(make_report()) is False
    assert len(reports.path.read_text().splitlines()) == 1
    (kept,) = reports.all()
    assert {key: kept[key] for key in make_report()} == make_report()
    assert set(kept) - set(make_report()) == {"received"}


def test_reports_are_there_again_after_a_restart(make_report, tmp_path):
    path = tmp_path / "reports.jsonl"
    for number in range(3):
        Reports(path).add(make_report(number))
    again = Reports(path)
    assert [report["id"] for report in again.all()] == [f"{n:032x}" for n in range(3)]
    assert again.add(make_report(1)) is False


def test_a_line_that_a_crash_cut_short_costs_no_other_report(make_report, tmp_path, capsys):
    path = tmp_path / "reports.jsonl"
    Reports(path).add(make_report(1))
    whole = path.read_bytes()
    path.write_bytes(whole + b"[]\n" + whole[: len(whole) // 2])
    whole = path.read_bytes()
    after = Reports(path)
    notices = capsys.readouterr().out
    assert all(f"line {number} of {path} is no report" in notices for number in (2, 3))
    after.add(make_report(2))
    after.add(make_report(3))
    assert [r["id"][-1] for r in Reports(path).all()] == ["1", "2", "3"]
    assert path.read_bytes().startswith(whole)


def test_a_failed_write_leaves_the_file_as_it_was(make_report, tmp_path, monkeypatch):
    reports = Reports(tmp_path / "reports.jsonl")
    reports.add(make_report(1))
    before = reports.path.read_bytes()

    def fail(descriptor):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("qlearn.room.messages.os.fsync", fail)
        with pytest.raises(OSError, match="No space"):
            reports.add(make_report(2))
    assert reports.path.read_bytes() == before and len(reports.all()) == 1
    assert reports.add(make_report(2)) is True


def test_rank_counts_a_phone_once_and_lets_equals_share(make_report, tmp_path):
    reports = Reports(tmp_path / "reports.jsonl")
    for number, int8_ms in enumerate((1.0, 0.5, 1.0, 4.0)):
        reports.add(make_report(number, int8_ms))
    # The slowest phone tries again and becomes the fastest.
    reports.add({**make_report(9, 0.1), "phone": make_report(3)["phone"]})
    latest = reports.latest()
    places = [rank(latest, f"{number:032x}") for number in (9, 1, 0, 2)]
    assert [place["speed"] for place in places] == [1, 2, 3, 3]
    assert [place["speedup"] for place in places] == [1, 2, 3, 3]
    assert {place["phones"] for place in places} == {4}
    assert rank(latest, f"{3:032x}") is None  # replaced
