"""A deck for each lesson, from its own cells: `make slides` writes it to build/slides.

A slide has a heading or a question to predict, with tables and blocks of text, or what a cell
printed and drew; the prose between them, and the teacher's page, are speaker notes (press S).
Outputs are those of `make site`.
"""

import re
import shutil
import sys
from itertools import pairwise
from pathlib import Path

import nbformat
from cells import FOLDED, prepare  # beside this file
from jupyter_cache import get_cache
from nbconvert import SlidesExporter
from platformdirs import user_cache_path
from traitlets.config import Config

HERE = Path(__file__).parent
COURSE = HERE.parents[1]
LIBRARIES = COURSE / "build" / "npm" / "node_modules"
LESSONS = sorted(HERE.parent.glob("[0-9]*.ipynb"))
SHOWN_LINES = 8  # of code; a longer cell shows only what it printed and drew
ANSWER = re.compile(r"<details>.*?</details>", re.DOTALL)
SHOWN = re.compile(
    r"^\#+[ ][^\n]*"  # a heading
    r"|^```.*?^```$"  # a block of text or code
    r"|^\|[^\n]*(?:\n\|[^\n]*)*"  # a table
    r"|\*+Predict.*?(?=\n\n|\Z)",
    re.DOTALL | re.MULTILINE,
)
LIST = re.compile(r"^(?:[-*]|\d+\.) .*?(?=\n\n|\Z)", re.DOTALL | re.MULTILINE)


def mark(notebook, page):
    """Say of each cell which slide it begins; put prose and the teacher's page into notes."""
    cells = []
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            for section in split(cell.source):
                slides = [slide(text, kind(text)) for text in shown(section)]
                cells += [*slides[:1], slide(page or section, "notes"), *slides[1:]]
                page = ""
            continue
        folded = FOLDED in cell.metadata.get("tags", [])
        folded = folded or cell.source.count("\n") >= SHOWN_LINES
        if cell.outputs or not folded:
            tags = [FOLDED] if folded else []
            cell.metadata = {"slideshow": {"slide_type": "subslide"}, "tags": tags}
            cells.append(cell)
    notebook.cells = cells


def split(source):
    """Split a cell's text before each of its headings."""
    found = {match.start() for match in SHOWN.finditer(source) if match[0].startswith("#")}
    return [source[start:end] for start, end in pairwise(sorted({0, *found, len(source)}))]


def shown(section):
    """Return the slides of a section of text, none or one or one for each table and block."""
    if re.match(r"#+ Sources", section):
        return []
    text = ANSWER.sub("", section)
    found = [match[0].strip() for match in SHOWN.finditer(text)]
    if re.match(r"#+ (\d+ )?Summary", section):
        found += LIST.findall(text)
    slides, filled = [], False
    for part in found:
        large = part.startswith(("|", "```"))
        if not slides or filled and large:
            slides.append(part)
        else:
            slides[-1] += f"\n\n{part}"
        filled = filled or large
    return slides


def kind(text):
    """Return the kind of a slide: the large headings begin a column of slides."""
    return "slide" if text.startswith(("# ", "## ")) else "subslide"


def slide(text, kind):
    """Return a cell that is a slide, or notes to one."""
    return nbformat.v4.new_markdown_cell(text, metadata={"slideshow": {"slide_type": kind}})


def write(lesson, folder):
    """Write the deck of a lesson."""
    notebook = nbformat.reads(prepare(lesson.read_text(encoding="utf-8")), as_version=4)
    cache = get_cache(str(user_cache_path("qlearn", appauthor=False) / "site"))
    try:
        _, notebook = cache.merge_match_into_notebook(notebook)
    except KeyError:
        print(f"The slides of {lesson.name} have no outputs: run `make site` first.")
    page = HERE.parent / "teach" / "lessons" / f"{lesson.stem}.md"
    mark(notebook, page.read_text(encoding="utf-8"))
    config = Config()
    config.TagRemovePreprocessor.enabled = True
    config.TagRemovePreprocessor.remove_input_tags = {FOLDED}
    # A figure to play with is shown as it begins: its sliders need a kernel.
    config.NbConvertBase.display_data_priority = [
        "text/html", "image/svg+xml", "image/png", "text/markdown", "text/plain",
    ]  # fmt: skip
    exporter = SlidesExporter(
        config=config,
        template_name="slides",
        extra_template_basedirs=[str(HERE)],
        exclude_anchor_links=True,
        exclude_input_prompt=True,
        exclude_output_prompt=True,
        reveal_url_prefix="reveal.js",
        reveal_theme="white",  # its fonts are beside it
    )
    text, _ = exporter.from_notebook_node(notebook, {"metadata": {"name": lesson.stem}})
    (folder / f"{lesson.stem}.html").write_text(text, encoding="utf-8")


def main(folder):
    """Write every deck, and what they load, into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for part in ("dist", "plugin"):
        place = folder / "reveal.js" / part
        shutil.copytree(LIBRARIES / "reveal.js" / part, place, dirs_exist_ok=True)
    (folder / "mathjax").mkdir(exist_ok=True)
    shutil.copy(LIBRARIES / "mathjax" / "es5" / "tex-svg.js", folder / "mathjax")
    for lesson in LESSONS:
        write(lesson, folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
