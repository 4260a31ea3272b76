"""On an unfit machine, the check says what is missing and how to get it."""

import re
from types import SimpleNamespace

import pytest
from environment import PYTHON, SetupError, preflight

NAME = re.escape(preflight.NAME)


def full_disk(monkeypatch, tmp_path):
    usage = SimpleNamespace(free=preflight.GIB // 2)
    monkeypatch.setattr(preflight.shutil, 'disk_usage', lambda path: usage)


UNFIT = {
    'another system': (
        lambda m, tmp: m.setattr(preflight.sys, 'platform', 'darwin'),
        r"for Linux, this is darwin.*pip install -e '.\[all\]'",
    ),
    'another Python': (
        lambda m, tmp: m.setattr(preflight.sys, 'version_info', (3, 14, 0)),
        rf'Python [\d.]+ is needed.*Python 3\.14.*make PYTHON={NAME}',
    ),
    'no ensurepip': (
        lambda m, tmp: m.setattr(preflight.importlib.util, 'find_spec', lambda n: None),
        f'apt install {NAME}-venv',
    ),
    'no headers': (
        lambda m, tmp: m.setattr(preflight.sysconfig, 'get_path', lambda n: str(tmp)),
        f'Python.h.*apt install {NAME}-dev',
    ),
    'no compiler': (
        lambda m, tmp: (m.delenv('CXX', raising=False), m.setenv('PATH', str(tmp))),
        r"compiler 'c\+\+' does not run.*apt install g\+\+",
    ),
    'broken compiler': (
        lambda m, tmp: m.setenv('CXX', 'false -O2'),
        "compiler 'false -O2' does not run",
    ),
    'full disk': (full_disk, r'3\.0 GiB of free disk.*0\.5 GiB are free'),
}


@pytest.fixture
def fit_machine(monkeypatch, tmp_path):
    """Simulate a machine that passes every check."""
    (tmp_path / 'fit').mkdir()
    (tmp_path / 'fit' / 'Python.h').touch()
    needs = (tmp_path / 'one', 2 * preflight.GIB), (tmp_path / 'two', preflight.GIB)
    monkeypatch.setattr(preflight, 'NEEDS', needs)
    monkeypatch.setattr(preflight.sys, 'platform', 'linux')
    monkeypatch.setattr(preflight.sys, 'version_info', (*PYTHON, 7))
    monkeypatch.setattr(preflight.importlib.util, 'find_spec', lambda name: name)
    fit = str(tmp_path / 'fit')
    monkeypatch.setattr(preflight.sysconfig, 'get_path', lambda name: fit)
    monkeypatch.setenv('CXX', 'true')
    usage = SimpleNamespace(free=4 * preflight.GIB)
    monkeypatch.setattr(preflight.shutil, 'disk_usage', lambda path: usage)


def test_a_fit_machine_passes(fit_machine):
    preflight.check_machine()


@pytest.mark.parametrize('name', UNFIT)
def test_an_unfit_machine_is_told_why(name, fit_machine, monkeypatch, tmp_path):
    spoil, message = UNFIT[name]
    spoil(monkeypatch, tmp_path)
    with pytest.raises(SetupError, match=message) as error:
        preflight.check_machine()
    assert '\n' not in str(error.value)


def test_all_that_is_unfit_is_told_at_once(fit_machine, monkeypatch, tmp_path):
    monkeypatch.setenv('CXX', 'false')
    full_disk(monkeypatch, tmp_path)
    with pytest.raises(SetupError, match='compiler.*\n.*disk'):
        preflight.check_machine()
