"""The examples in docstrings run as shown."""

import doctest
import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MODULES = [
    '.'.join(path.relative_to(ROOT).with_suffix('').parts)
    for path in sorted(ROOT.glob('dcls_mm/**/*.py'))
    if '>>> ' in path.read_text(encoding='utf-8')
]


@pytest.mark.parametrize('name', MODULES)
def test_examples(name):
    module = importlib.import_module(name)
    failed, run = doctest.testmod(module, optionflags=doctest.REPORT_NDIFF)
    assert run and not failed
