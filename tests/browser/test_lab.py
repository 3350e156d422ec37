"""The course as a learner meets it: JupyterLab, as `make lab` starts it, in a real browser."""

import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TOKEN = "a-token-of-the-test"
PATIENCE_MS = 300_000  # for what takes seconds: only a hang takes as long
QUIET = ["--disable-background-networking", "--disable-component-update", "--disable-sync"]


@pytest.fixture(scope="module")
def server(tmp_path_factory, base_models):
    """JupyterLab with a home of its own, so that nobody's settings decide the test."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    home = tmp_path_factory.mktemp("home")
    environment = {
        **os.environ,
        "JUPYTER_TOKEN": TOKEN,
        "JUPYTER_CONFIG_DIR": str(home / "config"),
        "JUPYTER_DATA_DIR": str(home / "data"),
        "JUPYTERLAB_SETTINGS_DIR": str(home / "settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(home / "workspaces"),
    }
    manager = home / "settings" / "@jupyterlab" / "docmanager-extension"
    manager.mkdir(parents=True)
    # The tests open the course's own notebooks, which must stay as they are.
    (manager / "plugin.jupyterlab-settings").write_text('{"autosave": false}')
    command = [sys.executable, "-m", "qlearn", "lab", "--no-browser", "--port", str(port)]
    log = (home / "log").open("w+")
    process = subprocess.Popen(
        command, cwd=home, env=environment, stdout=log, stderr=subprocess.STDOUT
    )
    address = f"http://127.0.0.1:{port}"
    try:
        wait_for(f"{address}/api?token={TOKEN}", process, Path(log.name))
        yield address
    finally:
        process.terminate()
        process.wait(60)


def wait_for(url, process, log):
    for _ in range(PATIENCE_MS // 500):
        assert process.poll() is None, log.read_text()
        try:
            return urllib.request.urlopen(url, timeout=30)
        except OSError:
            time.sleep(0.5)
    raise AssertionError(f"JupyterLab did not start: {log.read_text()}")


@pytest.fixture
def page(chromium):
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium, args=["--no-sandbox", *QUIET]
        )
        yield browser.new_page(viewport={"width": 1280, "height": 900})
        browser.close()


def open_notebook(page, server, path):
    page.goto(f"{server}/lab/tree/{path}.ipynb?token={TOKEN}&reset")
    page.locator(".jp-Notebook .jp-Cell").first.wait_for(timeout=PATIENCE_MS)
    page.locator(".jp-Notebook-ExecutionIndicator[data-status='idle']").wait_for(
        timeout=PATIENCE_MS
    )


def run_all(page):
    # Until the status bar says so, the kernel is not connected, and cells would be run by nobody.
    page.get_by_text("Python 3 (ipykernel) | Idle").wait_for(timeout=PATIENCE_MS)
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
    # A cell that runs shows [*]; when all have a number, all have run. An error ends the run. What
    # stands for a folded cell has no number.
    page.wait_for_function(
        """() => {
            const prompts = [...document.querySelectorAll(
                '.jp-CodeCell .jp-InputPrompt:not(.jp-Placeholder-prompt)')]
                .map(p => p.textContent.trim());
            const failed = document.querySelector(
                ".jp-Notebook [data-mime-type='application/vnd.jupyter.error']");
            return failed || (prompts.length > 3 && prompts.every(p => /^\\[\\d+\\]:?$/.test(p)));
        }""",
        timeout=PATIENCE_MS,
    )


def screenshot(page, name):
    folder = os.environ.get("QLEARN_SCREENSHOTS")
    if folder:
        page.screenshot(path=Path(folder) / f"{name}.png")


def look_at_figures(page, name):
    """For people: the figures as they stand in the page."""
    for number, figure in enumerate(page.locator("figure.qlearn-figure").all()):
        figure.scroll_into_view_if_needed()
        page.wait_for_timeout(500)
        screenshot(page, f"{name}-{number}")


def pictures(page):
    return page.locator(".jp-Notebook figure.qlearn-figure img").evaluate_all(
        "all => all.map(i => ({width: i.naturalWidth, alt: i.alt, "
        "filter: getComputedStyle(i).filter}))"
    )


def assert_ran(page):
    errors = page.locator(".jp-Notebook [data-mime-type='application/vnd.jupyter.error']")
    assert not errors.all_inner_texts()
    images = pictures(page)
    assert images and all(image["width"] > 300 and image["alt"] for image in images)
    # Dialogs and notifications that greet a newcomer are configured away.
    assert page.locator(".jp-Dialog").count() == 0
    assert page.locator(".Toastify__toast").count() == 0
    return images


def test_lesson_00_runs_in_jupyterlab_and_is_seen_in_both_themes(server, page):
    open_notebook(page, server, "notebooks/00_start_here")
    screenshot(page, "opened")
    run_all(page)
    images = assert_ran(page)
    assert all(image["filter"] == "none" for image in images)
    look_at_figures(page, "light")
    page.get_by_role("menuitem", name="Settings", exact=True).click()
    # A submenu has no role.
    page.locator(".lm-Menu-itemLabel", has_text=re.compile("^Theme$")).click()
    page.get_by_role("menuitem", name="JupyterLab Dark", exact=True).click()
    page.locator("body[data-jp-theme-light='false']").wait_for(state="attached")
    assert_dark(page)


def assert_dark(page):
    images = assert_ran(page)
    assert all("invert" in image["filter"] for image in images)
    look_at_figures(page, "dark")
    return images


@pytest.mark.long
def test_a_lesson_of_figures_in_the_dark_theme(server, page):
    answer = page.request.put(
        f"{server}/lab/api/settings/@jupyterlab/apputils-extension:themes",
        headers={"Authorization": f"token {TOKEN}"},
        data={"raw": '{"theme": "JupyterLab Dark"}'},
    )
    assert answer.ok, answer.text()
    open_notebook(page, server, "notebooks/01_numbers_and_scales")
    page.locator("body[data-jp-theme-light='false']").wait_for(state="attached")
    run_all(page)
    assert len(assert_dark(page)) >= 5
    move_a_slider(page)


def move_a_slider(page):
    """A figure to play with is drawn anew when one of its sliders is moved by a key."""
    slider = page.locator(".widget-slider [role=slider]").first
    slider.scroll_into_view_if_needed()
    picture = page.locator(".widget-vbox figure.qlearn-figure img").first
    before = picture.get_attribute("src")
    screenshot(page, "play-before")
    slider.press("ArrowRight")
    page.wait_for_function(
        "before => document.querySelector('.widget-vbox figure.qlearn-figure img').src != before",
        arg=before,
        timeout=PATIENCE_MS,
    )
    screenshot(page, "play-after")


@pytest.fixture
def untouched_release():
    """A copy of a release, because the Validate button saves the notebook."""
    exercise = "ex1_resnet_dynamic"
    copy = ROOT / "classroom" / "test-of-validate"
    shutil.copytree(ROOT / "notebooks" / "exercises" / exercise, copy, dirs_exist_ok=True)
    shutil.rmtree(copy / "answers", ignore_errors=True)
    yield f"classroom/{copy.name}/{exercise}"
    shutil.rmtree(copy)


def test_the_validate_button_names_the_tests_that_fail(server, page, untouched_release):
    open_notebook(page, server, untouched_release)
    page.get_by_role("button", name="Validate", exact=True).click()
    dialog = page.locator(".jp-Dialog-content")
    dialog.filter(has_text="failed").wait_for(timeout=PATIENCE_MS)
    screenshot(page, "validate")
    # An untouched release: nothing was handed in, and the dialog says what to do about it.
    assert "There is no answer" in dialog.inner_text()


def test_formgrader_lists_the_exercises(server, page):
    page.goto(f"{server}/formgrader?token={TOKEN}")
    row = page.get_by_role("row").filter(has_text="ex1_resnet_dynamic")
    row.wait_for(timeout=PATIENCE_MS)
    screenshot(page, "formgrader")
    exercises = [path.name for path in (ROOT / "solutions").iterdir() if path.is_dir()]
    for name in exercises:
        assert page.get_by_role("row").filter(has_text=name).count() == 1
