"""The kernels in Triton's interpreter: what their Python says, against references."""

from pathlib import Path

import pytest
from own_process import run_with_triton

FILES = sorted((Path(__file__).parent / 'interpreted').glob('test_*.py'))


@pytest.mark.parametrize('path', FILES, ids=lambda path: path.stem)
def test_interpreted(path, request):
    run_with_triton(path, '3.9.0', '1', request)
