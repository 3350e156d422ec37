"""A notebook as the site executes it: the cache of outputs finds it in this form alone."""

import json
import re

FOLDED = "hide-input"  # the site's tag, and a deck's, for a cell that shows only its output


def prepare(text):
    """Fold in a notebook what JupyterLab folds, and lead links in raw HTML to pages."""
    notebook = json.loads(text)
    for cell in notebook["cells"]:
        if cell["metadata"].get("jupyter", {}).get("source_hidden"):
            cell["metadata"].setdefault("tags", []).append(FOLDED)
    return lead_to_pages(json.dumps(notebook))


def lead_to_pages(text):
    """Lead links in raw HTML from notebooks to their pages."""
    return re.sub(r'(href=\\?"[\w/.]+)\.ipynb', r"\1.html", text)
