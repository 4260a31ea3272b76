"""The kernels in Triton's interpreter, in a process of their own.

TRITON_INTERPRET has to be set before the kernels are decorated. The files in
``interpreted/`` are collected only there.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from dcls_mm.functional import triton_kernels

HERE = Path(__file__).parent
FILES = sorted((HERE / 'interpreted').glob('test_*.py'))


@pytest.mark.skipif(triton_kernels.missing() is not None, reason='triton is missing')
@pytest.mark.parametrize('path', FILES, ids=lambda path: path.stem)
def test_interpreted(path):
    result = subprocess.run(
        [sys.executable, '-m', 'pytest', '-q', '-p', 'no:cacheprovider', path],
        env={**os.environ, 'TRITON_INTERPRET': '1', 'PYTEST_ADDOPTS': ''},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stdout + result.stderr
