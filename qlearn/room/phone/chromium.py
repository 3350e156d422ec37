"""The page in this machine's own Chromium, without a window: for tests and for the benchmark."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from qlearn.room.phone.session import PhoneLab

PAGE_TIMEOUT = 300  # seconds


def run_in_chromium(lab: PhoneLab, executable: str) -> dict[str, Any]:
    """Open the lab's page in headless Chromium, press its button, and return its report.

    Parameters
    ----------
    lab
        A running one; it keeps the report like any other.

    Returns
    -------
    dict
        The report: ``models`` → name → precision → ``median_ms``, ``q1_ms``, ``q3_ms``,
        ``sqnr_db`` (None: equal to the host's), ``top1``, ``rounds``, ``calls``; ``threads``,
        ``isolated``, ``user_agent`` and the rest.

    Raises
    ------
    RuntimeError
        If playwright is missing, or the page ends with a problem: the message says which.
    """
    try:
        from playwright.sync_api import sync_playwright
    except ModuleNotFoundError:
        raise RuntimeError(
            "Playwright is missing, which drives Chromium: uv pip install --editable '.[test]'"
        ) from None
    # In a thread of its own, because a notebook's thread runs an event loop, and then Playwright's
    # plain interface refuses to work.
    with ThreadPoolExecutor(1) as pool:
        identity = pool.submit(_run, sync_playwright, lab.url, executable).result()
    return next(report for report in lab.raw_reports() if report["id"] == identity)


def _run(sync_playwright: Callable, url: str, executable: str) -> str:
    """Run the page to its end and return the id of its report."""
    # As root Chromium only starts without its sandbox; the page is our own.
    flags = ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=flags)
        try:
            page = browser.new_page()
            page.goto(url)
            page.get_by_role("button", name="Start").click()
            end = page.locator("#results[data-report], #problem:not(:empty)")
            end.first.wait_for(state="attached", timeout=PAGE_TIMEOUT * 1000)
            identity = page.locator("#results").get_attribute("data-report")
            if identity is None:
                raise RuntimeError(f"The page says: {page.locator('#problem').inner_text()}")
        finally:
            browser.close()
    return identity
