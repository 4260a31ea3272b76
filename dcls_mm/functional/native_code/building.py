"""The build of csrc/ into a shared library in the user's cache.

The library's folder is named by a hash of the sources and flags, so that a changed
source is never served by an old build. It also records the compiler, and a changed
compiler builds again. A wheel has no sources and may have the library.

setup.py and `make env` load this file alone: it imports the standard library only.
"""

import functools
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

SOURCES = Path(__file__).resolve().parents[3] / 'csrc'
CACHE = Path(os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache') / 'dcls_mm'

# Another library to load, such as one built with a sanitizer.
VARIABLE = 'DCLS_MM_NATIVE_LIBRARY'

NAME = 'libdcls_direct.so'
PACKAGED = Path(__file__).resolve().with_name(NAME)

FLAGS = (
    '-std=c++17',
    '-O3',
    '-fPIC',
    '-fvisibility=hidden',
    '-Wall',
    '-Wextra',
    '-Wno-psabi',
)

# kernels.cpp is compiled for each instruction set, with half of its registers.
X86_FLAGS = {
    'plain': (),
    'avx2': ('-mavx2', '-mfma'),
    'avx512': ('-mavx512f', '-mavx512bw', '-mavx512dq', '-mavx512vl', '-mfma'),
}
LANES_AND_ROWS = {'plain': (4, 8), 'avx2': (8, 8), 'avx512': (16, 16)}
X86_MACHINES = ('x86_64', 'AMD64')


class BuildError(Exception):
    """A reason why the library can't be built; the message says what to do."""


def instruction_sets() -> dict[str, tuple[str, ...]]:
    """Return the instruction sets of this platform, each with its flags."""
    return X86_FLAGS if platform.machine() in X86_MACHINES else {'plain': ()}


@functools.cache
def library_path() -> Path:
    """Return where the library is, or will be when it is built.

    The one that ``DCLS_MM_NATIVE_LIBRARY`` names, or else the one of the wheel, or else
    the one in the cache.
    """
    named = os.environ.get(VARIABLE)
    if named:
        return Path(named)
    if PACKAGED.is_file():
        return PACKAGED
    return CACHE / f'direct-{sys.platform}-{platform.machine()}-{_digest()}' / NAME


def _digest() -> str:
    """Return a digest of sources and flags."""
    digest = hashlib.sha256(repr((FLAGS, instruction_sets(), LANES_AND_ROWS)).encode())
    for source in sorted(SOURCES.glob('*.*')):
        digest.update(source.name.encode() + b'\0' + source.read_bytes() + b'\0')
    return digest.hexdigest()[:16]


def advice() -> str:
    """Return what to do where the library is missing."""
    if _has_sources():
        return 'run `python -m dcls_mm.functional.native_code` to build it'
    return (
        'this installation has no sources to build it from: install dcls_mm from its '
        'source release or a checkout, where there is a C++ compiler'
    )


def _has_sources() -> bool:
    return (SOURCES / 'direct.cpp').is_file()


def compiler() -> list[str]:
    """Return the command of the C++ compiler: ``CXX``, or one that is installed.

    Raises:
        BuildError: there is none.
    """
    named = shlex.split(os.environ.get('CXX', ''))
    for command in [named] if named else [['g++'], ['clang++'], ['c++']]:
        if shutil.which(command[0]):
            return command
    raise BuildError(
        f'there is no C++ compiler {named[0]!r}, which CXX names: name another'
        if named
        else 'no C++ compiler was found: install g++ or clang++, or name one in CXX'
    )


def build(target: Path | None = None, more_flags: tuple[str, ...] = ()) -> Path:
    """Build the library, unless this compiler already has, and return its path.

    Args:
        target: the library to write; None for the one in the cache.
        more_flags: for compiler and linker, after the usual ones.

    Raises:
        BuildError: there are no sources or no compiler, or it reports errors.
    """
    if not _has_sources():
        raise BuildError(f'csrc/ is not beside the package; {advice()}')
    command = compiler()
    path = target or library_path()
    if is_built(path, more_flags):
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        built = _compile(command, more_flags, Path(folder))
        os.replace(built, path)
    _record(path).write_text(_described(command, more_flags))
    return path


def is_built(path: Path, more_flags: tuple[str, ...] = ()) -> bool:
    """Return whether this compiler has built the library at ``path``.

    Raises:
        BuildError: there is no compiler.
    """
    record, described = _record(path), _described(compiler(), more_flags)
    return path.is_file() and record.is_file() and record.read_text() == described


def _record(path: Path) -> Path:
    return path.with_name('compiler.txt')


def _described(command: list[str], more_flags: tuple[str, ...]) -> str:
    """Return what a library is made by and from, which is recorded beside it."""
    version = subprocess.run(
        [*command, '--version'],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    return '\n'.join([_digest(), *command, *more_flags, version.stdout])


def _compile(command: list[str], more_flags: tuple[str, ...], folder: Path) -> Path:
    """Compile all sources at once, and link them; return the library's path."""
    jobs: list[tuple[str, str, tuple[str, ...]]] = [
        ('direct', 'direct.cpp', ()),
        ('taps', 'taps.cpp', ()),
    ]
    for name, flags in instruction_sets().items():
        lanes, rows = LANES_AND_ROWS[name]
        defined = (f'-DNAME="{name}"', f'-DKERNELS={name}_kernels')
        sizes = (f'-DLANES={lanes}', f'-DROWS={rows}')
        jobs.append((name, 'kernels.cpp', (*flags, *defined, *sizes)))
    # The plain one first: of a function that several files have, the linker takes the
    # first, which every processor must be able to run.
    jobs.sort(key=lambda job: job[0] != 'plain')
    running, objects = [], []
    for name, source, flags in jobs:
        objects.append(os.fspath(folder / f'{name}.o'))
        arguments = [*FLAGS, *more_flags, *flags, '-c', os.fspath(SOURCES / source)]
        running.append(_start([*command, *arguments, '-o', objects[-1]]))
    _finish(*running)
    library = folder / 'library.so'
    flags = ['-shared', *more_flags, *objects, '-o', os.fspath(library)]
    _finish(_start([*command, *flags]))
    return library


def _start(command: list[str]) -> subprocess.Popen:
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def _finish(*processes: subprocess.Popen) -> None:
    # All end before the first error is raised: they write to the same folder.
    outputs = [process.communicate()[0] for process in processes]
    for process, output in zip(processes, outputs):
        if process.returncode:
            raise BuildError(f'{shlex.join(process.args)} failed:\n{output}')  # type: ignore[arg-type]
