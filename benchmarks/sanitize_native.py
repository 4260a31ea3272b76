"""Build csrc/ with the address and undefined behaviour sanitizers, and run its tests.

Arguments are passed on to pytest. GCC or clang must have the sanitizers' libraries;
the tests take several minutes.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from dcls_mm.functional.native_code.building import VARIABLE, build, compiler

ROOT = Path(__file__).resolve().parents[1]
FLAGS = (
    '-O1',
    '-g',
    '-fno-omit-frame-pointer',
    '-fsanitize=address,undefined',
    '-fno-sanitize-recover=all',
)
# Python keeps memory until it ends, and the sanitizer must come before it.
OPTIONS = 'detect_leaks=0:verify_asan_link_order=0'


def main() -> int:
    libraries = [
        subprocess.check_output(
            [*compiler(), f'-print-file-name=lib{name}.so'], text=True
        ).strip()
        for name in ('asan', 'ubsan', 'stdc++')
    ]
    with tempfile.TemporaryDirectory() as folder:
        library = build(Path(folder) / 'libdcls_direct.so', FLAGS)
        environment = {
            **os.environ,
            VARIABLE: os.fspath(library),
            'LD_PRELOAD': ' '.join(libraries),
            'ASAN_OPTIONS': OPTIONS,
            'UBSAN_OPTIONS': 'print_stacktrace=1',
        }
        tests = ROOT / 'tests' / 'test_functional' / 'test_direct.py'
        command = [sys.executable, '-m', 'pytest', '-q', tests, *sys.argv[1:]]
        return subprocess.run(command, env=environment, cwd=ROOT).returncode


if __name__ == '__main__':
    sys.exit(main())
