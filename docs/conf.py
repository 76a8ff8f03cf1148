"""The documentation as a site and as manual pages: `make docs`."""

from __future__ import annotations

import re
from importlib.metadata import version as installed

from docutils import nodes

project = "starttls-gateway"
author = "the starttls-gateway developers"
extensions = ["myst_parser", "sphinx_copybutton"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build"]
nitpicky = True
myst_enable_extensions = ["deflist"]
myst_heading_anchors = 4

RFC = "https://www.rfc-editor.org/rfc/rfc"
REPOSITORY = "https://github.com/starttls-gateway/starttls-gateway/blob/main/"


def setup(app):  # type: ignore[no-untyped-def]
    """Links to files outside this directory lead to the repository."""
    app.connect("source-read", _lead)
    app.connect("doctree-read", _link_rfcs)


def _lead(app, name, text):  # type: ignore[no-untyped-def]
    text[0] = text[0].replace("](../", f"]({REPOSITORY}")
    if app.builder.format == "man":
        # A manual page has no links: [tls](tls.md) becomes docs/tls.md.
        text[0] = re.sub(r"\[[^\]]+\]\(([a-z-]+\.md)[^)]*\)", r"docs/\1", text[0])


def _link_rfcs(app, tree):  # type: ignore[no-untyped-def]
    """RFC 3207 leads to its text; not in titles, code and links."""
    if app.builder.format == "man":
        return
    for text in list(tree.findall(nodes.Text)):
        if isinstance(text.parent, nodes.title | nodes.literal | nodes.literal_block | nodes.reference):
            continue
        parts = re.split(r"(RFC \d+)", text.astext())
        if len(parts) > 1:
            place = text.parent.index(text)
            text.parent[place : place + 1] = [
                nodes.reference("", part, refuri=RFC + part.removeprefix("RFC "), internal=False)
                if number % 2
                else nodes.Text(part)
                for number, part in enumerate(parts)
                if part
            ]


html_theme = "furo"
html_title = f"starttls-gateway {installed('starttls-gateway').partition('.dev')[0]}"
html_copy_source = False
html_show_sphinx = False
html_show_copyright = False
html_static_path: list[str] = []
copybutton_prompt_text = r"\$ |# "
copybutton_prompt_is_regexp = True

man_pages = [
    ("commands", "starttls-gateway", "modern TLS in front of old servers", author, 8),
    ("configuration", "starttls-gateway.ini", "configuration of starttls-gateway", author, 5),
]
man_make_section_directory = True
