"""The documentation site: `make docs` builds it offline, without warnings, into build/docs.

What is special here lives in docs/extensions/: pages that show bench/results, downloads of the tutorials, pictures.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import sys
from importlib.metadata import version as version_of
from pathlib import Path

DOCS = Path(__file__).parent
ROOT = DOCS.parent
sys.path.insert(0, str(DOCS))
# The kernels that execute the pages draw in this style, and compute with as many threads as they are given.
os.environ["MATPLOTLIBRC"] = str(DOCS / "static" / "matplotlibrc")
os.environ.setdefault("OMP_NUM_THREADS", "1")
# A profile of their own: nobody's settings change a page, and a kernel that starts says nothing.
PROFILE = ROOT / "build" / "docs-ipython"
os.environ["IPYTHONDIR"] = str(PROFILE)
(PROFILE / "profile_default").mkdir(parents=True, exist_ok=True)
(PROFILE / "profile_default" / "ipython_kernel_config.py").write_text("c.Application.log_level = 'ERROR'\n")
# What executes the pages says of each that it does.
logging.getLogger("traitlets").setLevel(logging.WARNING)


def library_hash() -> str:
    """What the executed pages depend on beside their own code: the sources of the library, and its binaries."""
    digest = hashlib.sha256()
    for folder in ("python", "vfrnn_kernels"):
        for path in sorted((ROOT / folder).rglob("*")):
            if path.suffix in (".py", ".so"):
                digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


project = "VF-RNN"
author = "the VF-RNN authors"
copyright = author
release = version = version_of("vfrnn-kernels")

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.mathjax",
    "sphinx_design",
    "sphinx_copybutton",
    "extensions.downloads",
    "extensions.mathjax_files",
    "extensions.results",
    "extensions.docstrings",
]
exclude_patterns = ["extensions", "static", "generated"]
nitpicky = True
# What PyTorch, NumPy and Python document is not looked up: the build needs no network.
nitpick_ignore_regex = [
    ("py:obj", ".*"),  # a single backtick in a docstring: a link where there is a target, code elsewhere
    ("py:class", r"(?!vfrnn).*|(vfrnn_kernels\.declaration|vfrnn\.layers)\..*"),
    ("py:exc", ".*"),
]
default_role = "py:obj"
highlight_language = "none"
suppress_warnings = ["config.cache"]

myst_enable_extensions = ["amsmath", "attrs_block", "attrs_inline", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
myst_links_external_new_tab = True

# A page is executed again when its code or the library changed; `make docs` prints the error of a cell that fails.
nb_execution_mode = "cache"
CACHES = ROOT / "build" / "docs-cache"
nb_execution_cache_path = str(CACHES / library_hash())
for old in CACHES.iterdir() if CACHES.exists() else ():
    if old != Path(nb_execution_cache_path):
        shutil.rmtree(old) if old.is_dir() else old.unlink()
nb_execution_timeout = 120
nb_execution_in_temp = True
nb_execution_raise_on_error = True
nb_merge_streams = True
nb_code_prompt_show = "Show the code of this picture"
nb_code_prompt_hide = "Hide the code of this picture"
nb_mime_priority_overrides = [("html", "image/png", 0)]

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_type_aliases = {
    "Activation": "vfrnn_kernels.activations.Activation",
    "Init": "vfrnn.init.Init",
    "Target": "vfrnn.convert.Target",
}
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 88
napoleon_numpy_docstring = False
napoleon_use_rtype = False
add_module_names = False

html_theme = "furo"
html_title = "VF-RNN"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_search_scorer = str(DOCS / "static" / "scorer.js")
html_show_sourcelink = False
html_copy_source = False
html_theme_options = {
    "sidebar_hide_name": False,
    "light_css_variables": {"color-brand-primary": "#0b5f8a", "color-brand-content": "#0b5f8a"},
    "dark_css_variables": {"color-brand-primary": "#56b4e9", "color-brand-content": "#56b4e9"},
}
mathjax_path = "mathjax/tex-chtml.js"
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True
copybutton_exclude = ".linenos, .gp, .go"
