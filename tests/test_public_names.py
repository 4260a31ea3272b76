"""docs/api.md lists every public name, and the pages only name what exists."""

import importlib
import inspect
import pkgutil
import re
from importlib.util import find_spec
from pathlib import Path

import pytest

import dcls_mm

ROOT = Path(__file__).resolve().parents[1]
API = (ROOT / 'docs' / 'api.md').read_text(encoding='utf-8')
PAGES = [ROOT / 'README.md', ROOT / 'CONTRIBUTING.md', *sorted(ROOT.glob('docs/*.md'))]
PACKAGES = [
    package
    for module in pkgutil.walk_packages(dcls_mm.__path__, 'dcls_mm.')
    if module.ispkg
    if hasattr(package := importlib.import_module(module.name), '__all__')
]
# Sphinx finds a package's classes and functions itself; other values need naming.
SHOWN = {
    f'{package}.{name}'
    for package in re.findall(r'automodule:: (\S+)', API)
    for name in importlib.import_module(package).__all__
} | set(re.findall(r'py:data:: (\S+)', API))


@pytest.mark.parametrize('package', PACKAGES, ids=lambda package: package.__name__)
def test_the_reference_has_every_name(package):
    assert len(set(package.__all__)) == len(package.__all__)
    for name in package.__all__:
        item = getattr(package, name)
        full = f'{package.__name__}.{name}'
        assert full in SHOWN
        if inspect.isclass(item) or inspect.isfunction(item):
            assert inspect.getdoc(item), f'{full} has no docstring'
        else:
            assert f'py:data:: {full}\n' in API


def test_the_reference_names_what_the_front_has():
    listed = API[: API.index('\n## ')]
    names = re.findall(r'`~(dcls_mm\.\S+)`', listed)
    assert {name.rpartition('.')[2] for name in names} == set(dcls_mm.__all__) - {
        '__version__'
    }
    assert set(names) <= SHOWN


def test_the_reference_shows_public_names_only():
    public = {f'{p.__name__}.{name}' for p in PACKAGES for name in p.__all__}
    assert public == SHOWN


def test_what_a_config_names_is_public():
    pytest.importorskip('mmengine')
    from dcls_mm._registration import REGISTERED

    for packages in REGISTERED.values():
        for package, names in packages.items():
            assert set(names) <= set(package.__all__)


@pytest.mark.parametrize('page', PAGES, ids=lambda page: page.stem)
def test_pages_name_what_is_there(page):
    for name in set(re.findall(r'\bdcls_mm(?:\.\w+)+', page.read_text('utf-8'))):
        if name == 'dcls_mm.timm_models' and find_spec('timm') is None:
            assert find_spec(name)  # importing it needs timm
        else:
            pkgutil.resolve_name(name)
