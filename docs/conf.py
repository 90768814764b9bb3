"""The docs as a site: `make docs` builds it with Sphinx."""

import re

project = "fmnist"
extensions = ["myst_nb"]
html_theme = "furo"  # fonts, styles and search are in the site: it needs no network, nor a server
html_title = "fmnist"
html_static_path = ["site.css"]
html_css_files = ["site.css"]
html_show_sphinx = False
html_show_copyright = False
smartquotes = False  # which would change "..." and quotes of commands
html_copy_source = False

myst_enable_extensions: list[str] = []  # the pages are plain Markdown, as a code host shows them
myst_heading_anchors = 3
nb_execution_mode = "off"
nb_execution_timeout = 900
nb_execution_raise_on_error = True


def add_navigation(_app, page, source):
    """Add the table of contents that Sphinx needs to the index, from its own headings and links."""
    if page == "index":
        for heading, links in re.findall(r"^## (.*)\n\n((?:- .*\n)+)", source[0], re.MULTILINE):
            pages = "\n".join(re.findall(r"\]\((\w+)\.", links))
            source[0] += f"\n```{{toctree}}\n:hidden:\n:caption: {heading}\n\n{pages}\n```\n"


def setup(app):
    app.connect("source-read", add_navigation)
