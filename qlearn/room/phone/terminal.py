"""The phone lab in a terminal: the link and its QR code, a line for each report, Ctrl-C."""

import threading
from typing import Any

from qlearn.room.phone.model_files import MODELS
from qlearn.room.phone.report_log import compute_speedup
from qlearn.room.phone.results import name_browser
from qlearn.room.phone.session import PhoneLab


def summarize(report: dict[str, Any]) -> str:
    """Return a report in one line."""
    parts = []
    for name in filter(report["models"].__contains__, MODELS):
        runs = report["models"][name]
        fp32, int8 = (runs[precision]["median_ms"] for precision in ("fp32", "int8"))
        ratio = f"speedup {compute_speedup(runs):.2f}"
        parts.append(f"{MODELS[name].title} fp32 {fp32:.3g} ms, int8 {int8:.3g} ms, {ratio}")
    who = report["nickname"] or "A phone"
    return f"{who} ({name_browser(report['user_agent'])}): {'; '.join(parts)}"


def serve_until_interrupted(lab: PhoneLab) -> None:
    """Print how to reach a lab, then its reports until Ctrl-C, which stops it."""
    before = len(lab.raw_reports())
    lab.on_report(lambda report: print(summarize(report), flush=True))
    print(lab.qr)
    print(lab.url)
    print(lab.access)
    print(f"Reports are kept in {lab.file} (there already: {before}). Ctrl-C stops.", flush=True)
    try:
        threading.Event().wait()
    except KeyboardInterrupt:
        pass
    lab.stop()
    total = len(lab.raw_reports())
    print(f"\nStopped. New reports: {total - before}, in all: {total}. They are in {lab.file}.")
