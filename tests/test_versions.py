"""The version checks, in made-up environments."""

import subprocess
import sys
import warnings
from importlib import metadata

import pytest
from packaging.requirements import Requirement

from dcls_mm import _versions

MODULES = {
    'torch': 'torch',
    'mmengine': 'mmengine',
    'onedl-mmengine': 'mmengine',
    'mmcv': 'mmcv',
    'mmcv-lite': 'mmcv',
    'onedl-mmcv': 'mmcv',
    'setuptools': 'pkg_resources',
}
STOCK = {
    'torch': '2.13.0+cpu',
    'mmengine': '0.10.7',
    'mmcv': '2.1.0',
    'mmdet': '3.3.0',
    'mmsegmentation': '1.2.2',
    'setuptools': '79.0.1',
}
FORKS = {
    'torch': '2.13.0',
    'onedl-mmengine': '0.10.12',
    'onedl-mmcv': '2.3.6',
    'onedl-mmdetection': '3.5.1',
    'onedl-mmsegmentation': '1.4.2',
}


@pytest.fixture
def check(monkeypatch):
    """Return a function that checks given distributions and returns the warnings."""

    def run(installed):
        def version(name):
            if name not in installed:
                raise metadata.PackageNotFoundError(name)
            return installed[name]

        modules = {MODULES.get(name) for name in installed}
        monkeypatch.setattr(_versions.metadata, 'version', version)
        monkeypatch.setattr(
            _versions, 'find_spec', lambda n: n if n in modules else None
        )
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter('always')
            _versions.check()
        return [str(warning.message) for warning in caught]

    return run


@pytest.mark.parametrize('installed', [STOCK, FORKS], ids=['stock', 'forks'])
def test_the_known_sets_pass_in_silence(installed, check):
    assert check(installed) == []


def test_without_detectors_and_segmentors_all_is_well(check):
    names = 'torch', 'mmengine', 'mmcv', 'setuptools'
    assert check({name: STOCK[name] for name in names}) == []


@pytest.mark.parametrize('version', ['2.1.0rc1', '2.1.0', '2.1.99'])
def test_the_ends_of_a_range_pass(version, check):
    assert check({**STOCK, 'mmcv': version}) == []


@pytest.mark.parametrize(
    ('name', 'version', 'wanted'),
    [
        ('torch', '2.5.1+cu121', '>=2.6,<3'),
        ('mmengine', '0.9.1', '>=0.10.3,<1'),
        ('mmcv', '1.7.2', '>=2.1,<2.2'),
        ('mmcv', '2.2.0', '>=2.1,<2.2'),
        ('mmcv', '2.2.0rc1', '>=2.1,<2.2'),
        ('mmdet', '2.28.2', '>=3.3,<4'),
        ('mmsegmentation', '0.30.0', '>=1.2.2,<2'),
        ('onedl-mmcv', '2.4.0', '>=2.3.6,<2.4'),
    ],
)
def test_an_unfit_version_is_an_error(name, version, wanted, check):
    installed = FORKS if name.startswith('onedl') else STOCK
    with pytest.raises(ImportError) as error:
        check({**installed, name: version})
    text = str(error.value)
    assert f'{name} {version} is installed' in text
    assert f"pip install '{name}{wanted}'" in text


@pytest.mark.parametrize('missing', [['mmengine'], ['mmcv'], ['mmengine', 'mmcv']])
def test_a_missing_package_is_one_warning(missing, check):
    (text,) = check({k: v for k, v in STOCK.items() if k not in missing})
    assert text.startswith(f'{" and ".join(missing)} not found')
    assert 'pip install' in text


def test_a_module_of_unknown_origin_is_not_missing(check, monkeypatch):
    """A source checkout on PYTHONPATH, for example, has no metadata."""
    monkeypatch.setitem(MODULES, 'a checkout', 'mmcv')
    installed = {k: v for k, v in STOCK.items() if k != 'mmcv'}
    assert check({**installed, 'a checkout': '1'}) == []


def test_a_fork_beside_the_stock_package_is_one_warning(check):
    (text,) = check({**STOCK, 'onedl-mmcv': '2.3.6'})
    assert 'mmcv and onedl-mmcv are both installed' in text


def test_mmengine_without_pkg_resources_is_one_warning(check):
    (text,) = check({k: v for k, v in STOCK.items() if k != 'setuptools'})
    assert "pip install 'setuptools<82'" in text


def test_the_check_imports_none_of_the_packages():
    code = (
        'import importlib.util, sys\n'
        f'spec = importlib.util.spec_from_file_location("c", {_versions.__file__!r})\n'
        'module = importlib.util.module_from_spec(spec)\n'
        'spec.loader.exec_module(module)\n'
        'module.check()\n'
        'print([name for name in module.SUPPORTED if name in sys.modules])\n'
    )
    run = subprocess.run(
        [sys.executable, '-c', code], capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == '[]'


def test_the_extras_of_the_distribution_have_the_same_ranges():
    try:
        requirements = map(Requirement, metadata.requires('dcls_mm'))
    except metadata.PackageNotFoundError:
        pytest.skip('dcls_mm is not installed here')
    found = {r.name: r.specifier for r in requirements if r.name in _stock_ranges()}
    assert found.keys() == _stock_ranges().keys()
    for name, (low, below) in _stock_ranges().items():
        assert found[name].contains(low), name
        assert not found[name].contains(below), name


def _stock_ranges():
    stock = ('mmengine', 'mmcv', 'mmdet', 'mmsegmentation')
    ranges = {k: v for table in _versions.SUPPORTED.values() for k, v in table.items()}
    return {name: ranges[name] for name in stock}
