"""The kernels as Triton's compiler sees them: what it makes of them, without a GPU."""

from pathlib import Path

import pytest
from own_process import run_with_triton

FILES = sorted((Path(__file__).parent / 'compiled').glob('test_*.py'))


@pytest.mark.parametrize('version', ['3.6.0', '3.9.0'])
@pytest.mark.parametrize('path', FILES, ids=lambda path: path.stem)
def test_compiled(path, version, request):
    run_with_triton(path, version, '0', request)
