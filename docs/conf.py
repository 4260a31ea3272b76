"""Sphinx settings; `make docs` builds the pages with warnings as errors."""

import os
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
os.environ['PYTHONPATH'] = str(ROOT)  # for the notebooks' kernels

from dcls_mm import __version__  # noqa: E402

project = 'dcls_mm'
author = 'The dcls_mm authors'
copyright = '2026, the dcls_mm authors'
release = __version__

extensions = [
    'myst_nb',
    'sphinx.ext.autodoc',
    'sphinx.ext.napoleon',
    'sphinx.ext.viewcode',
]
exclude_patterns = ['_build']
myst_enable_extensions = ['dollarmath', 'deflist']
myst_heading_anchors = 3

# Every cell runs at every build. A failing cell is a warning, and thus an error.
nb_execution_mode = 'force'
nb_execution_timeout = 600
nb_execution_raise_on_error = True
nb_merge_streams = True

autodoc_typehints = 'signature'
autodoc_member_order = 'bysource'
autodoc_default_options = {'members': True, 'show-inheritance': True}
napoleon_google_docstring = True
napoleon_use_ivar = True

html_theme = 'alabaster'
html_theme_options = {
    'description': 'Dilated convolution with learnable spacings for OpenMMLab 2',
    'fixed_sidebar': True,
    'page_width': '1100px',
}


def escape(app, what, name, obj, options, lines):
    """Escape * and |: docstrings have (*kernels, count), |sigma| and no emphasis."""
    parts = '\n'.join(lines).split('``')  # every other one is literal
    parts[::2] = [
        re.sub(r'(?m)(^ *(?:>>>|\.\.\.).*)|([*|])', keep_or_escape, part)
        for part in parts[::2]
    ]
    lines[:] = '``'.join(parts).split('\n')


def keep_or_escape(match):
    return match[1] or f'\\{match[2]}'


def skip_field(app, what, name, obj, skip, options):
    """Skip the fields of a NamedTuple, which the docstring of its class describes."""
    return skip or str(obj.__doc__).startswith('Alias for field number')


def setup(app):
    app.connect('autodoc-skip-member', skip_field)
    # It must run before napoleon, which adds emphasis of its own.
    app.connect('autodoc-process-docstring', escape, priority=100)
