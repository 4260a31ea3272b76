"""The options of a test run, each tested in a separate run."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import SLOW

TESTS = Path(__file__).parent

NEEDY = """
import pytest

def test_in_a_test():
    pytest.importorskip('no_such_package')

def test_in_a_fixture(needy):
    pass

@pytest.fixture
def needy():
    pytest.importorskip('no_such_package', reason='no reason hides it')
"""


@pytest.fixture
def outcome(tmp_path):
    """Run tests under a copy of conftest.py; return exit status and last line."""
    shutil.copy(TESTS / 'conftest.py', tmp_path)
    (tmp_path / 'pytest.ini').touch()
    (tmp_path / 'test_needy.py').write_text(NEEDY)
    whole = "import pytest\npytest.importorskip('no_such_package')\n"
    (tmp_path / 'test_needy_file.py').write_text(whole)

    def run(*options):
        done = subprocess.run(
            [sys.executable, '-m', 'pytest', '-q', *options],
            cwd=tmp_path,
            env={**os.environ, 'PYTEST_ADDOPTS': ''},
            capture_output=True,
            text=True,
        )
        return done.returncode, done.stdout.strip().rpartition('\n')[2]

    return run


def test_a_missing_package_skips(outcome):
    status, line = outcome()
    assert status == 0 and line.startswith('3 skipped')


def test_a_missing_oracle_fails_where_it_is_required(outcome):
    status, line = outcome('--require-oracles', '--continue-on-collection-errors')
    assert status == 1 and line.startswith('1 failed, 2 errors')


def test_what_is_slow_is_there():
    files = {path.name: path.read_text() for path in TESTS.rglob('test_*.py')}
    tests = set(re.findall(r'^def (test_\w+)', '\n'.join(files.values()), re.MULTILINE))
    assert files.keys() | tests >= SLOW
