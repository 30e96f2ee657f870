"""How Sphinx builds the site. ``scripts/docs`` lays the sources out and calls it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

ROOT = next(
    folder for folder in Path(__file__).resolve().parents if (folder / "hpo_bench").is_dir()
)
sys.path.insert(0, str(ROOT))
sys.path.insert(0, str(ROOT / "scripts" / "docs"))

import docstrings  # noqa: E402
import matplotlib.figure  # noqa: E402
from sphinx_gallery.scrapers import figure_rst  # noqa: E402

import hpo_bench  # noqa: E402

if TYPE_CHECKING:
    from sphinx.application import Sphinx

project = "hpo-bench"
author = "the authors of hpo-bench"
project_copyright = "the authors of hpo-bench"
release = version = hpo_bench.__version__

extensions = [
    "myst_parser",
    "sphinx_design",
    "sphinx_gallery.gen_gallery",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
]
exclude_patterns = ["gallery", "files"]

html_theme = "furo"
html_title = "hpo-bench"
html_static_path = ["theme"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sourcelink = False

myst_enable_extensions = ["colon_fence", "html_image"]
myst_heading_anchors = 4
suppress_warnings = [
    "myst.header",  # a page may begin its sections at any level
    "config.cache",  # the scraper of figures is a function
]

autodoc_typehints = "signature"
autodoc_member_order = "bysource"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_attr_annotations = True
# `name` in a docstring is a name of the package, which has a page, or is shown as it is.
default_role = "any_or_code"
nitpicky = True
nitpick_ignore_regex = [
    # Types of others, which no page of this site documents.
    (r"py:.*", r"(torch|pandas|numpy|matplotlib|collections|typing|pathlib|os)\b.*"),
    (r"py:.*", r"(Any|Callable|Figure|Iterable|Mapping|Module|PathLike|Path|Sequence|Tensor)"),
    (r"py:.*", r"(pd|nn)\..*"),
    # Names of the package's inside, which is not public.
    (r"py:.*", r"hpo_bench\.(core|store|running|models|settings|analysis|experiments|system)\b.*"),
    (
        r"py:.*",
        r"(Costs|Estimator|Folder|Hyperparameters|Loss|Optimiser|Run|Step|State|Values?)",
    ),
    (r"py:.*", r"(tuple\[.*|ClassVar.*|Literal.*)"),
]


def figures(block: Any, block_vars: dict[str, Any], gallery_conf: dict[str, Any]) -> str:
    """Scrape the figures that an example holds, each once: `hpo_bench.plot` returns one that
    pyplot does not know.
    """
    made = []
    for value in list(block_vars["example_globals"].values()):
        if isinstance(value, matplotlib.figure.Figure) and not hasattr(value, "is_scraped"):
            path = next(block_vars["image_path_iterator"])
            value.savefig(path, dpi=160, bbox_inches="tight", facecolor="white")
            value.is_scraped = True  # type: ignore[attr-defined]
            made.append(path)
    return figure_rst(made, gallery_conf["src_dir"]) if made else ""


sphinx_gallery_conf = {
    "examples_dirs": "gallery",
    "gallery_dirs": "examples",
    "filename_pattern": r"/plot_\w+\.py",
    "ignore_pattern": r"(^|/)(?!plot_)\w+\.py",  # what examples write
    "within_subsection_order": "FileNameSortKey",
    "image_scrapers": (figures,),
    "ignore_repr_types": r"matplotlib|<class '(list|int)'>",
    "abort_on_example_error": False,
    "only_warn_on_example_error": False,
    "download_all_examples": False,
    "show_memory": False,
    "min_reported_time": 0,
    "remove_config_comments": True,
    "plot_gallery": "True",
    "write_computation_times": False,
}


def with_blocks(
    app: Sphinx, what: str, name: str, found: object, options: object, lines: list[str]
) -> None:
    """Mark what docstrings set in as programs and formulas, before napoleon reads them."""
    lines[:] = docstrings.in_restructured_text(lines)


def name_or_code(
    role: str, raw: str, text: str, line: int, inliner: Any, options: Any = None, content: Any = ()
) -> tuple[list[Any], list[Any]]:
    """A link to the documented thing of that name; code where there is none."""
    from docutils import nodes
    from sphinx.addnodes import pending_xref

    shown = nodes.literal(text, text.rpartition(".")[2] if text.startswith("hpo_bench.") else text)
    link = pending_xref("", shown, reftype="obj", refdomain="py", reftarget=text, refexplicit=True)
    link["py:module"] = "hpo_bench"
    link["is_soft"] = True
    return [link], []


def soft(app: Sphinx, env: Any, node: Any, shown: Any) -> Any:
    """What `name_or_code` shows where there is nothing to lead to."""
    return shown if node.get("is_soft") else None


def setup(app: Sphinx) -> None:
    """Connect what is defined here."""
    from docutils.parsers.rst import roles

    roles.register_local_role("any_or_code", name_or_code)
    app.connect("missing-reference", soft)
    app.connect("autodoc-process-docstring", with_blocks, priority=400)
