"""A deck for each lesson, from its own cells: `make slides` writes it to build/slides.

A slide has a heading or a question to predict, or what a cell printed and drew; the prose between
them, and the teacher's page, are speaker notes (press S). Outputs are those of `make site`.
"""

import re
import shutil
import sys
from pathlib import Path

import nbformat
from jupyter_cache import get_cache
from nbconvert import SlidesExporter
from platformdirs import user_cache_path
from traitlets.config import Config

HERE = Path(__file__).parent
COURSE = HERE.parents[1]
LIBRARIES = COURSE / "build" / "npm" / "node_modules"
LESSONS = sorted(HERE.parent.glob("[0-9]*.ipynb"))
SHOWN_LINES = 8  # of code; a longer cell shows only what it printed and drew
QUESTION = re.compile(r"(\*+Predict.*?)(?:\n\n|\Z)", re.DOTALL)


def mark(notebook, page):
    """Say of each cell which slide it begins; put prose and the teacher's page into notes."""
    cells = []
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            title = re.match(r"#+ .*", cell.source)
            shown = [title[0]] if title else []
            shown += [question.strip() for question in QUESTION.findall(cell.source)]
            if shown:
                top = title is not None and title[0].startswith(("# ", "## "))
                cells.append(slide("\n\n".join(shown), "slide" if top else "subslide"))
            cells.append(slide(page or cell.source, "notes"))
            page = ""
        elif cell.outputs or cell.source.count("\n") < SHOWN_LINES:
            long = cell.source.count("\n") >= SHOWN_LINES
            cell.metadata = {"slideshow": {"slide_type": "subslide"}, "tags": ["long"] * long}
            cells.append(cell)
    notebook.cells = cells


def slide(text, kind):
    """Return a cell that is a slide, or notes to one."""
    return nbformat.v4.new_markdown_cell(text, metadata={"slideshow": {"slide_type": kind}})


def write(lesson, folder):
    """Write the deck of a lesson."""
    notebook = nbformat.read(lesson, as_version=4)
    cache = get_cache(str(user_cache_path("qlearn", appauthor=False) / "site"))
    try:
        _, notebook = cache.merge_match_into_notebook(notebook)
    except KeyError:
        print(f"{lesson.name} has not been executed for the site: its slides have no outputs.")
    page = HERE.parent / "teach" / "lessons" / f"{lesson.stem}.md"
    mark(notebook, page.read_text(encoding="utf-8"))
    config = Config()
    config.TagRemovePreprocessor.enabled = True
    config.TagRemovePreprocessor.remove_input_tags = {"long"}
    # A figure to play with is shown as it begins: its sliders need a kernel.
    config.NbConvertBase.display_data_priority = ["text/html", "text/markdown", "text/plain"]
    exporter = SlidesExporter(
        config=config,
        template_name="slides",
        extra_template_basedirs=[str(HERE)],
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
