"""How the compiled part is built and found; nothing here compiles all of it."""

import os
import subprocess
import sys

import pytest

from dcls_mm.functional.native_code import building


def run(code, **variables):
    return subprocess.run(
        [sys.executable, '-c', code],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
    )


def test_without_the_library_it_says_what_to_do(tmp_path):
    code = (
        'import dcls_mm.functional.operators.direct;'
        'from dcls_mm.functional.native_code import missing; print(missing())'
    )
    result = run(code, DCLS_MM_NATIVE_LIBRARY=os.fspath(tmp_path / 'none.so'))
    assert 'is not built; run `python -m' in result.stdout
    broken = tmp_path / 'broken.so'
    broken.write_bytes(b'no library')
    result = run(code, DCLS_MM_NATIVE_LIBRARY=os.fspath(broken))
    assert 'does not load' in result.stdout


def test_without_a_compiler_the_build_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv('PATH', os.fspath(tmp_path))
    monkeypatch.delenv('CXX', raising=False)
    with pytest.raises(building.BuildError, match='install g'):
        building.build(tmp_path / 'library.so')
    monkeypatch.setenv('CXX', 'no-such-compiler')
    with pytest.raises(building.BuildError, match='CXX'):
        building.build(tmp_path / 'library.so')


def test_errors_of_the_compiler_are_shown(tmp_path, monkeypatch):
    compiler = tmp_path / 'my compiler'
    compiler.write_text('#!/bin/sh\necho "error: $*"\nexit 1\n')
    compiler.chmod(0o755)
    monkeypatch.setenv('CXX', f"'{compiler}'")
    with pytest.raises(building.BuildError, match='error: .*kernels.cpp'):
        building.build(tmp_path / 'library.so')
    assert not (tmp_path / 'library.so').exists()


def test_a_build_is_kept_until_the_compiler_changes(tmp_path, monkeypatch):
    compiler = tmp_path / 'compiler'
    library = tmp_path / 'library.so'

    def install(version):
        compiler.write_text(
            f'#!/bin/sh\necho {version}\n'
            'while [ $# -gt 1 ]; do shift; done\n'
            f'[ "$1" = --version ] || echo {version} > "$1"\n'
        )
        compiler.chmod(0o755)

    monkeypatch.setenv('CXX', os.fspath(compiler))
    install('one')
    assert building.build(library) == library
    assert library.read_text() == 'one\n'
    library.write_text('kept')
    building.build(library)
    assert library.read_text() == 'kept'
    install('two')
    building.build(library)
    assert library.read_text() == 'two\n'


def test_the_path_follows_the_sources(tmp_path, monkeypatch):
    monkeypatch.delenv('DCLS_MM_NATIVE_LIBRARY', raising=False)
    find = building.library_path.__wrapped__
    before = find()
    (tmp_path / 'direct.cpp').write_text('// changed')
    monkeypatch.setattr(building, 'SOURCES', tmp_path)
    assert find() != before
