"""The kernels in Triton's interpreter: what their Python says, against references."""

from pathlib import Path

import pytest

FILES = sorted((Path(__file__).parent / 'interpreted').glob('test_*.py'))


@pytest.mark.parametrize('path', FILES, ids=lambda path: path.stem)
def test_interpreted(path, run_with_triton):
    run_with_triton(path, '3.9.0', interpret='1')
