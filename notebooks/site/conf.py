"""Sphinx's settings for the course as a site: `make site` writes it to build/site."""

import os
import sys
from pathlib import Path

from platformdirs import user_cache_path

import qlearn

sys.path.insert(0, str(Path(__file__).parent))
from cells import lead_to_pages, prepare  # noqa: E402  a file beside this one

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
    """Add the public functions to the reference; bring notebooks into the form of the site."""
    if docname == "api":
        names = [name for name in qlearn.__all__ if callable(getattr(qlearn, name))]
        source[0] += "".join(
            f"\n```{{eval-rst}}\n.. auto{_kind(name)}:: qlearn.{name}\n```\n" for name in names
        )
    notebook = source[0].startswith("{")
    source[0] = prepare(source[0]) if notebook else lead_to_pages(source[0])


def _kind(name):
    return "class" if isinstance(getattr(qlearn, name), type) else "function"


def setup(app):
    """Register what fills the pages."""
    app.connect("source-read", _fill)
