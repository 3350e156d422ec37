"""One Chromium for the tests of a file, and pages of which no complaint is lost."""

import pytest


@pytest.fixture(scope="module")
def browser(chromium):
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        flags = ["--no-sandbox", "--allow-file-access-from-files"]
        running = playwright.chromium.launch(executable_path=chromium, args=flags)
        yield running
        running.close()


class Pages:
    """Pages of a test, each with a context of its own, and what went wrong in any of them."""

    def __init__(self, browser):
        self._browser, self._contexts, self.complaints = browser, [], []

    def new(self, own=("",), **options):
        """An empty page, which may ask for addresses that begin with one of `own`."""
        context = self._browser.new_context(**options)
        self._contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("console", lambda said: said.type == "error" and self.complaints.append(said.text))
        page.on(
            "request", lambda asked: asked.url.startswith(own) or self.complaints.append(asked.url)
        )
        return page

    def close(self):
        for context in self._contexts:
            context.close()


@pytest.fixture
def pages(browser):
    """Whatever a page complains about, or asks of others, fails the test."""
    opened = Pages(browser)
    yield opened
    opened.close()
    assert not opened.complaints
