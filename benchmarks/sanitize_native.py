"""Build csrc/ with the address and undefined behaviour sanitizers, and run its tests.

It needs GCC with the sanitizers' libraries, and takes about a minute on two free cores.
Arguments are for pytest, in place of the choice of tests: `-q` runs all of them.
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
    '-g1',
    '-fno-omit-frame-pointer',
    '-fsanitize=address,undefined',
    '-fno-sanitize-recover=all',
    # What the address sanitizer sees as well, and calls in place of inlined checks:
    # the unrolled loops would take minutes and gigabytes to compile.
    '-fno-sanitize=null,alignment,object-size,pointer-overflow',
    '--param=asan-instrumentation-with-call-threshold=0',
)
# Python keeps memory until it ends, and the sanitizer must come before it.
OPTIONS = 'detect_leaks=0:verify_asan_link_order=0'
# Images that are part of others go through the same loops as whole ones.
CHOICE = '-k', 'not part'


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
        chosen = sys.argv[1:] or CHOICE
        # -s: an error ends the process, and what pytest has captured is lost.
        command = [sys.executable, '-m', 'pytest', '-qs', tests, *chosen]
        return subprocess.run(command, env=environment, cwd=ROOT).returncode


if __name__ == '__main__':
    sys.exit(main())
