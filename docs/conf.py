"""Settings of Sphinx. `make docs` builds the site from the Markdown pages of the repository.

The source folder is the whole repository, so pages may link to the READMEs of experiments, to code and to results.
Sphinx runs as ``python -m sphinx`` at the top of the repository, because the pages of the reference come from the code.
"""

from __future__ import annotations

from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

import thinktime
from docs import generated

project = "thinktime"
release = thinktime.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
root_doc = "docs/index"
include_patterns = [
    "docs/**.md",
    "experiments/README.md",
    "experiments/*/README.md",
    "deploy/README.md",
    "examples/README.md",
    "tests/corpus/README.md",
    "training/LOG.md",
    "*.md",
]
html_theme = "furo"
html_title = "thinktime"
html_show_copyright = False
smartquotes = False  # "--" in a sentence is an option
myst_heading_anchors = 4
myst_links_external_new_tab = False
suppress_warnings = ["misc.highlighting_failure"]  # an example may have "…" where the reader has something of their own
default_role = "py:obj"  # docstrings write `Search` for a reference
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
python_use_unqualified_type_names = True
autodoc_preserve_defaults = True


class Generated(SphinxDirective):  # type: ignore[misc]  # Sphinx is no dependency of the type check
    """The Markdown that a function of `docs.generated` writes."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """The parsed text."""
        text = getattr(generated, self.arguments[0])()
        parsed: list[nodes.Node] = self.parse_text_to_nodes(text, allow_section_headings=True)
        return parsed


def first_page(app: Sphinx, error: Exception | None) -> None:
    """The first page of the server leads to the first page of the site."""
    if error is None:
        (Path(app.outdir) / "index.html").write_text('<meta http-equiv="refresh" content="0; url=docs/index.html">\n')


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.add_directive("generated", Generated)
    app.connect("build-finished", first_page)
