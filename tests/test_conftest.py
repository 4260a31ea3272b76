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

NATIVE = """
import pytest
from dcls_mm.functional import native_code

MISSING = native_code.missing()

@pytest.mark.skipif(MISSING is not None, reason=str(MISSING))
def test_marked():
    pass

def test_that_skips_itself():
    pytest.skip(MISSING)

def test_skipped_for_another_reason():
    pytest.skip('no GPU')
"""


@pytest.fixture
def outcome(tmp_path):
    """Run tests under a copy of conftest.py; return exit status and last line."""
    shutil.copy(TESTS / 'conftest.py', tmp_path)
    (tmp_path / 'pytest.ini').touch()
    (tmp_path / 'test_needy.py').write_text(NEEDY)
    whole = "import pytest\npytest.importorskip('no_such_package')\n"
    (tmp_path / 'test_needy_file.py').write_text(whole)

    def run(*options, **variables):
        done = subprocess.run(
            [sys.executable, '-m', 'pytest', '-q', '-p', 'no:warnings', *options],
            cwd=tmp_path,
            env={**os.environ, 'PYTEST_ADDOPTS': '', **variables},
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


def test_the_compiled_part_may_be_missing_unless_it_is_required(outcome, tmp_path):
    (tmp_path / 'test_native.py').write_text(NATIVE)
    gone = {'DCLS_MM_NATIVE_LIBRARY': str(tmp_path / 'gone.so')}
    status, line = outcome('test_native.py', **gone)
    assert status == 0 and line.startswith('3 skipped')
    status, line = outcome('test_native.py', '--require-oracles', **gone)
    assert status == 1 and line.startswith('1 failed, 1 skipped, 1 error')


def test_what_is_slow_is_there():
    files = {path.name: path.read_text() for path in TESTS.rglob('test_*.py')}
    tests = set(re.findall(r'^def (test_\w+)', '\n'.join(files.values()), re.MULTILINE))
    assert files.keys() | tests >= SLOW


WITH_TIMM = """
import pytest

pytestmark = pytest.mark.timm

def test_that_needs_the_stack():
    pass
"""


@pytest.mark.parametrize(
    ('stack', 'options', 'ends'),
    [
        ('stock', (), '1 skipped'),
        ('stock', ('--require-oracles',), '1 skipped'),
        ('timm', (), '1 skipped'),
        ('timm', ('--require-oracles',), '1 error'),
    ],
)
def test_tests_of_the_stack_timm(stack, options, ends, outcome, tmp_path):
    (tmp_path / 'test_timm.py').write_text(WITH_TIMM)
    lacking = "TIMM_PACKAGES = ('no_such_package',)"
    conftest = tmp_path / 'conftest.py'
    text = re.sub(r'TIMM_PACKAGES = .*', lacking, conftest.read_text())
    conftest.write_text(text)
    assert ends in str(outcome('test_timm.py', *options, STACK=stack))
