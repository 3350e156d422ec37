"""What learners write as text: bounded, and with nothing in it that a page would act on.

Feedback pages and formgrader turn it into HTML, the latter in the instructor's own session.
"""

import re
from collections.abc import Collection
from typing import Any

from qlearn.grading.outputs import PICTURES, is_base64, text

# mistune takes seconds for 100 kB of what it was not made for, and the square of it for more.
CELL_KB, TOTAL_KB = 50, 100
PICTURES_MB = 10  # of base64, in one notebook
ATTACHED = (*PICTURES, "image/gif", "image/webp")  # SVG can hold a script
# Where a tag begins, a command of MathJax that makes a link, and the target of a link or picture;
# with an invisible joiner within they look the same and are none. An entity may be a backslash.
ACTIVE = re.compile(r"<(?=[A-Za-z/!?])|\\(?=href\b)|&(?=#0*92\b|#[xX]0*5[cC]\b|bsol;)")
# A picture that is written into a text, which is not shown, must not use up the room of the words.
INLINED = re.compile(r"data:image/[\w.+-]{1,20};base64,[A-Za-z0-9+/=]+")
TARGET = re.compile(r"\](?=[(:])")
JOINED = "\\g<0>\u2060"
CUT = f"\n\n(The rest is not shown: a text may have {CELL_KB} kB, and all together {TOTAL_KB} kB.)"
LITERAL = (
    "\n\n(Links are shown as they were written: one of them is unsafe, or names a picture that is "
    f"not kept. Pictures are kept as PNG, JPEG, GIF or WebP, {PICTURES_MB} MB of them in all.)"
)


class Texts:
    """The texts and pictures of one notebook, which may be so large and no larger."""

    def __init__(self) -> None:
        self._room = TOTAL_KB * 1000
        self._picture_room = PICTURES_MB * 10**6

    def pictures(self, attachments: Any) -> dict[str, dict[str, str]]:
        """Return what may be kept of a cell's attachments: by name, base64 by media type.

        Parameters
        ----------
        attachments
            Whatever the learner's notebook has there.
        """
        kept: dict[str, dict[str, str]] = {}
        for name, data in attachments.items() if isinstance(attachments, dict) else ():
            data = data if isinstance(data, dict) else {}
            found = {kind: data[kind] for kind in ATTACHED if is_base64(data.get(kind))}
            size = sum(map(len, found.values()))
            if found and size <= self._picture_room:
                self._picture_room -= size
                kept[text(name)] = found
        return kept

    def harmless(self, source: str, attachments: Collection[str]) -> str:
        """Return a text that looks the same, as far as it can be shown.

        Parameters
        ----------
        source
            Markdown of a learner.
        attachments
            Names of the pictures that it may show.
        """
        most = min(self._room, CELL_KB * 1000)
        self._room -= min(most, len(source))
        shown = ACTIVE.sub(JOINED, source[:most])
        if not _can_be_shown(shown, attachments):
            shown = TARGET.sub(JOINED, shown) + LITERAL
        return shown if len(source) <= most else shown + CUT


def _can_be_shown(text: str, attachments: Collection[str]) -> bool:
    """Say whether nbconvert's own reader of Markdown finds no link that must not be one."""
    from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath

    class Checking(IPythonRenderer):
        def sanitize_url(self, url: str) -> str:
            found = super().sanitize_url(url)
            if found != url:
                raise ValueError(url)
            return found

        def image(self, text: str, url: str, title: str | None = None) -> str:
            if not url.startswith("attachment:"):  # it would be fetched by whoever looks
                raise ValueError(url)
            return super().image(text, url, title)

    pictures = {name: {"image/png": ""} for name in attachments}
    renderer = Checking(escape=False, allow_harmful_protocols=False, attachments=pictures)
    try:
        MarkdownWithMath(renderer=renderer).render(text)
    except Exception:  # whatever a text can make it raise, it would raise when it is shown
        return False
    return True
