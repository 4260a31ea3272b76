"""Test files in a process of their own, with one of Triton's versions."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(sys.prefix) / 'tritons'
SOURCE = Path(__file__).resolve().parents[2]


def run_with_triton(path, version, interpret, request):
    """Run a test file with a version of Triton; TRITON_INTERPRET is '1' or '0'.

    It has to be set before kernels are decorated. What Triton compiles is kept for the
    other files of the session.
    """
    folder = FOLDER / version
    if not folder.is_dir():
        strict = request.config.getoption('--require-oracles') and FOLDER.is_dir()
        missing = pytest.fail if strict else pytest.skip
        missing(f'needs triton {version} in {folder}, where `make test` puts it')
    cache = request.getfixturevalue('tmp_path_factory').getbasetemp() / 'triton'
    result = subprocess.run(
        [sys.executable, '-m', 'pytest', '-q', '-p', 'no:cacheprovider', path],
        env={
            **os.environ,
            'PYTEST_ADDOPTS': '',
            'PYTHONPATH': os.pathsep.join(map(str, (SOURCE, folder))),
            'TRITON_CACHE_DIR': str(cache),
            'TRITON_INTERPRET': interpret,
        },
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stdout + result.stderr
