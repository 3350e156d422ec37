"""Sphinx's settings for the course as a site: `make site` writes it to build/site."""

import json
import os
import re
import sys
from pathlib import Path

from platformdirs import user_cache_path

import qlearn

project = "qlearn"
author = "the authors of qlearn"
copyright = "MIT"  # noqa: A001  Sphinx's own name
extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.mathjax",
]
root_doc = "index"
exclude_patterns = ["site/node_modules"]
os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])

# Executed once for each content; exercises are read as they are released.
nb_execution_mode = os.environ.get("QLEARN_SITE_EXECUTION", "cache")
nb_execution_cache_path = str(user_cache_path("qlearn", appauthor=False) / "site")
nb_execution_excludepatterns = ["exercises/*/*"]
nb_execution_timeout = 1800
nb_execution_raise_on_error = True
nb_merge_streams = True
# A figure to play with is shown as it begins: its sliders need a kernel.
nb_mime_priority_overrides = [("html", "application/vnd.jupyter.widget-view+json", None)]
nb_ipywidgets_js = {}
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 4
suppress_warnings = ["myst.header", "mystnb.unknown_mime_type"]

html_theme = "sphinx_book_theme"
html_title = "qlearn"
html_static_path = ["../../build/npm/node_modules/mathjax/es5/tex-svg.js", "site.css", "site.js"]
html_css_files = ["site.css"]
html_js_files = ["site.js"]
html_context = {"default_mode": "auto"}
html_copy_source = True
html_theme_options = {
    "show_toc_level": 2,
    "use_download_button": True,
}
mathjax_path = "tex-svg.js"

napoleon_google_docstring = False
autodoc_typehints = "none"  # the docstrings say shapes and units, too


def _fill(app, docname, source):
    """Add the public functions to the reference, fold cells, lead links in raw HTML to pages."""
    if docname == "api":
        names = [name for name in qlearn.__all__ if callable(getattr(qlearn, name))]
        source[0] += "".join(
            f"\n```{{eval-rst}}\n.. auto{_kind(name)}:: qlearn.{name}\n```\n" for name in names
        )
    if source[0].startswith("{"):
        source[0] = _fold(source[0])
    source[0] = re.sub(r'(href=\\?"[\w/.]+)\.ipynb', r"\1.html", source[0])


def _fold(text):
    """Fold in a notebook what JupyterLab folds: cells that only draw."""
    notebook = json.loads(text)
    for cell in notebook["cells"]:
        if cell["metadata"].get("jupyter", {}).get("source_hidden"):
            cell["metadata"].setdefault("tags", []).append("hide-input")
    return json.dumps(notebook)


def _kind(name):
    return "class" if isinstance(getattr(qlearn, name), type) else "function"


def setup(app):
    """Register what fills the pages."""
    app.connect("source-read", _fill)
