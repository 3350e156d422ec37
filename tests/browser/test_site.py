"""The course as pages: built without running the lessons, and read offline in a real browser."""

import importlib
import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import nbformat
import pytest

ROOT = Path(__file__).parents[2]
SHOWN_MS = 300_000  # it shows within seconds: only a hang takes as long
AXE = ROOT / "build" / "npm" / "node_modules" / "axe-core" / "axe.min.js"
SOME = ["index.html", "01_numbers_and_scales.html", "teach/workshop.html", "api.html",
        "exercises/ex2_lstm_static/ex2_lstm_static.html"]  # fmt: skip


@pytest.fixture(scope="module")
def libraries():
    """What pages load, from npm."""
    if shutil.which("npm") is None and not AXE.exists():
        stop = pytest.fail if os.environ.get("CI") else pytest.skip
        stop("npm is not on this machine")
    if not AXE.exists():
        subprocess.run(["make", "build/npm/.installed"], cwd=ROOT, check=True)


@pytest.fixture(scope="module")
def site(libraries, tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-c", "notebooks/site",
               "notebooks", str(folder)]  # fmt: skip
    environment = {**os.environ, "QLEARN_SITE_EXECUTION": "off"}
    built = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    return folder


@pytest.fixture
def open_page(pages, libraries):
    """Open a page from the disk, without any network."""

    def opened(file, width=1280, scheme="light"):
        # A button that is still fading into the dark theme would be read half-way.
        page = pages.new(
            ("file:", "data:", "blob:"),
            viewport={"width": width, "height": 800},
            color_scheme=scheme,
            reduced_motion="reduce",
            offline=True,
        )
        page.set_default_timeout(SHOWN_MS)
        page.goto(file if isinstance(file, str) else file.as_uri())
        return page

    return opened


class Links(HTMLParser):
    """What a page links to, what can be linked to in it, and pictures without a text."""

    def __init__(self, page):
        super().__init__()
        self.targets, self.ids, self.silent = [], set(), []
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.ids.add(found.get("id"))
        self.targets += [found[key] for key in ("href", "src") if found.get(key)]
        if tag == "img" and not found.get("alt"):
            self.silent.append(found)


def test_every_page_of_the_course_is_there_and_every_link_resolves(site):
    notebooks = ROOT / "notebooks"
    sources = [*notebooks.rglob("*.ipynb"), *notebooks.rglob("*.md")]
    found = (page for page in site.rglob("*.html") if "_static" not in page.parts)
    pages = {page: Links(page) for page in found}
    for source in sources:
        if not {"site", ".ipynb_checkpoints"} & set(source.parts):
            assert site / source.relative_to(notebooks).with_suffix(".html") in pages, source
    broken = []
    for page, links in pages.items():
        assert not links.silent, f"{page.name}: {links.silent}"
        for target in links.targets:
            parts = urlsplit(target)
            if parts.scheme or target.startswith("#") and page.name == "search.html":
                continue
            there = (page.parent / unquote(parts.path)).resolve() if parts.path else page
            anchored = parts.fragment and there in pages
            if not there.exists() or (anchored and parts.fragment not in pages[there].ids):
                broken.append(f"{page.name} → {target}")
    assert not broken, sorted(set(broken))


def test_notebooks_can_be_downloaded(site):
    page = Links(site / "02_dynamic.html")
    (source,) = {target for target in page.targets if target.endswith("02_dynamic.ipynb")}
    downloaded = (site / source).read_text(encoding="utf-8")
    assert downloaded == (ROOT / "notebooks" / "02_dynamic.ipynb").read_text(encoding="utf-8")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", SOME)
def test_a_page_shuts_nobody_out(site, open_page, name, scheme):
    page = open_page(site / name, scheme=scheme)
    page.add_script_tag(path=AXE)
    found = page.evaluate("axe.run({resultTypes: ['violations']})")
    serious = [
        (violation["id"], [node["target"] for node in violation["nodes"]][:3])
        for violation in found["violations"]
        if violation["impact"] in ("serious", "critical")
    ]
    if folder := os.environ.get("QLEARN_SCREENSHOTS"):
        page.screenshot(path=Path(folder) / f"site-{Path(name).stem}-{scheme}.png")
    assert not serious


def test_formulas_are_drawn_and_a_phone_need_not_scroll_sideways(site, open_page):
    page = open_page(site / "01_numbers_and_scales.html", width=360)
    page.locator("mjx-container svg").first.wait_for(state="attached", timeout=SHOWN_MS)
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


def test_search_finds_the_zero_point(site, open_page):
    page = open_page(f"{site.as_uri()}/search.html?q=zero+point")
    page.locator("#search-results li a").first.wait_for(timeout=SHOWN_MS)
    names = page.locator("#search-results li a").all_inner_texts()
    assert any(re.search("Numbers and scales", name) for name in names), names


def test_the_reference_is_made_from_docstrings(site, open_page):
    page = open_page(site / "api.html")
    entry = page.locator("dl.function", has_text="qlearn.compare(").first
    assert "bootstrap interval" in entry.inner_text()


@pytest.fixture
def slides(libraries, tmp_path, monkeypatch):
    """What writes decks, with an empty cache of outputs."""
    monkeypatch.syspath_prepend(ROOT / "notebooks" / "site")
    module = importlib.import_module("slides")
    monkeypatch.setattr(module, "user_cache_path", lambda *a, **k: tmp_path)
    return module


def open_deck(open_page, file):
    page = open_page(file)
    page.wait_for_function("window.Reveal && Reveal.isReady()")
    return page


def slide_with(page, text):
    """The slide with a text, on the screen."""
    page.evaluate(
        """text => {
          const found = Reveal.getSlides().find((slide) => slide.innerText.includes(text));
          const at = Reveal.getIndices(found);
          Reveal.slide(at.h, at.v);
        }""",
        text,
    )
    return page.locator("section.present section.present, section.present:not(.stack)").first


def test_a_deck_has_the_lessons_questions_and_notes_for_its_speaker(
    slides, open_page, tmp_path, monkeypatch, capsys
):
    lessons = [ROOT / "notebooks" / "01_numbers_and_scales.ipynb"]
    monkeypatch.setattr(slides, "LESSONS", lessons)
    slides.main(tmp_path / "decks")
    assert capsys.readouterr().out.endswith(": run `make site` first.\n")
    page = open_deck(open_page, tmp_path / "decks" / "01_numbers_and_scales.html")
    assert page.evaluate("Reveal.getTotalSlides()") > 30
    notes = page.locator("aside.notes").first.text_content()
    assert "all the skill is in choosing the scale" in " ".join(notes.split())
    assert "¶" not in "".join(page.locator("aside.notes").all_text_contents())
    shown = " ".join(page.locator(".slides section section").all_text_contents())
    assert "Predict: how far is the next float32" in shown
    if folder := os.environ.get("QLEARN_SCREENSHOTS"):
        page.evaluate("Reveal.slide(2, 0)")
        page.screenshot(path=Path(folder) / "deck.png")


TINY = [
    nbformat.v4.new_code_cell("drawn = 6 * 7\nprint('drawn', drawn)",
                              metadata={"jupyter": {"source_hidden": True}}),
    nbformat.v4.new_markdown_cell("## The map\n\nProse.\n\n| a | b |\n|---|---|\n| cell | other |\n"
                                  "\n```text\n# block\n```\n\n## Summary\n\n- Size is certain.\n"
                                  "\n## Sources\n\n- A book."),
    nbformat.v4.new_code_cell("print('w' * 100)"),
    nbformat.v4.new_code_cell("import pandas as pd\n\npd.DataFrame({'row': range(40)})"),
]  # fmt: skip


def test_a_deck_shows_what_the_site_has_executed(slides, open_page, tmp_path, monkeypatch, capsys):
    metadata = {"kernelspec": {"name": "python3", "display_name": "Python 3"}}
    lesson = tmp_path / "source" / "00_start_here.ipynb"
    lesson.parent.mkdir()
    nbformat.write(nbformat.v4.new_notebook(cells=TINY, metadata=metadata), lesson)
    command = [sys.executable, "-m", "sphinx", "-b", "dummy", "-q", "-c", "notebooks/site",
               "-D", f"nb_execution_cache_path={tmp_path / 'site'}", "-D", "root_doc=00_start_here",
               str(lesson.parent), str(tmp_path / "built")]  # fmt: skip
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    monkeypatch.setattr(slides, "LESSONS", [lesson])
    slides.main(tmp_path / "decks")
    assert not capsys.readouterr().out
    page = open_deck(open_page, tmp_path / "decks" / "00_start_here.html")
    assert "6 * 7" not in slide_with(page, "drawn 42").inner_text()
    titled = slide_with(page, "cell").inner_text()
    assert "map" in titled.lower() and "other" in titled and "Prose" not in titled
    assert "# block" in slide_with(page, "# block").inner_text()
    assert "Size is certain." in slide_with(page, "certain").inner_text()
    assert not page.locator(".slides h2:not(aside *)", has_text="Sources").count()
    line = slide_with(page, "w" * 100).locator("pre", has_text="w" * 100)
    assert line.bounding_box()["height"] < 40, "a line of 100 characters is broken"
    long = slide_with(page, "39")
    assert long.evaluate("it => it.scrollHeight > it.clientHeight && it.clientHeight <= 600")
    assert long.evaluate("it => getComputedStyle(it).overflowY") == "auto"
