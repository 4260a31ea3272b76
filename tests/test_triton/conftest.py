"""Runs test files in a process of their own, with one of Triton's versions."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(sys.prefix) / 'triton'


@pytest.fixture
def run_with_triton(request, tmp_path_factory):
    """Run a test file with a version of Triton; TRITON_INTERPRET is '1' or '0'.

    It has to be set before kernels are decorated, so the files are collected only in
    such a process. What Triton compiles is kept for the versions' other files.
    """

    def run(path: Path, version: str, interpret: str) -> None:
        folder = FOLDER / version
        if not folder.is_dir():
            strict = request.config.getoption('--require-oracles')
            missing = pytest.fail if strict else pytest.skip
            missing(f'needs triton {version} in {folder}, where `make env` puts it')
        source = Path(__file__).resolve().parents[2]
        result = subprocess.run(
            [sys.executable, '-m', 'pytest', '-q', '-p', 'no:cacheprovider', path],
            env={
                **os.environ,
                'PYTEST_ADDOPTS': '',
                'PYTHONPATH': os.pathsep.join(map(str, (source, folder))),
                'TRITON_CACHE_DIR': str(tmp_path_factory.getbasetemp() / 'triton'),
                'TRITON_INTERPRET': interpret,
            },
            capture_output=True,
            text=True,
        )
        assert result.returncode == 0, result.stdout + result.stderr

    return run
