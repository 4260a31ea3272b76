"""How the compiled part is built and found; nothing here compiles all of it."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from dcls_mm.functional import native_code
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


@pytest.fixture
def told_never():
    native_code.tell_missing.cache_clear()
    yield
    native_code.tell_missing.cache_clear()


def test_that_it_is_missing_is_said_once(told_never, monkeypatch, caplog):
    monkeypatch.setattr(native_code, 'missing', lambda: 'the compiled part is gone')
    native_code.tell_missing()
    native_code.tell_missing()
    (record,) = caplog.records
    assert record.levelname == 'WARNING'
    assert record.getMessage().startswith('the compiled part is gone. Until then ')
    assert "formulation='construct'" in record.getMessage()


def test_a_layer_says_it_and_computes_the_same(tmp_path):
    code = (
        'import torch; from dcls_mm import DCLSConv2d;'
        'torch.manual_seed(0);'
        'make = lambda **how: DCLSConv2d(32, 32, 9, groups=32, padding=4,'
        " dilated_kernel_size=17, interpolation='bilinear', **how);"
        'layer, x = make(), torch.randn(1, 32, 40, 40);'
        'y = layer(x); layer(x);'
        "layer.formulation = 'construct';"
        'assert torch.equal(layer(x), y);'
        'print(y.shape)'
    )
    missing = os.fspath(tmp_path / 'none.so')
    result = run(code, DCLS_MM_NATIVE_LIBRARY=missing)
    assert result.stdout == 'torch.Size([1, 32, 40, 40])\n', result.stderr
    assert result.stderr.count('the compiled part of dcls_mm is not built') == 1
    silent = run(
        code.replace('make()', "make(formulation='construct')"),
        DCLS_MM_NATIVE_LIBRARY=missing,
    )
    assert silent.stdout == result.stdout and not silent.stderr


def test_without_a_compiler_the_build_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv('PATH', os.fspath(tmp_path))
    monkeypatch.delenv('CXX', raising=False)
    with pytest.raises(building.BuildError, match='install g'):
        building.build(tmp_path / 'library.so')
    monkeypatch.setenv('CXX', 'no-such-compiler')
    with pytest.raises(
        building.BuildError, match="'no-such-compiler', which CXX names"
    ):
        building.build(tmp_path / 'library.so')


def test_errors_of_the_compiler_are_shown(tmp_path, monkeypatch):
    compiler = tmp_path / 'my compiler'
    compiler.write_text('#!/bin/sh\necho "error: $*"\nexit 1\n')
    compiler.chmod(0o755)
    monkeypatch.setenv('CXX', f"'{compiler}'")
    with pytest.raises(building.BuildError, match='error: .*kernels.cpp'):
        building.build(tmp_path / 'library.so')
    assert not (tmp_path / 'library.so').exists()


def test_a_build_is_kept_until_compiler_or_sources_change(tmp_path, monkeypatch):
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
    assert building.is_built(library)
    (tmp_path / 'direct.cpp').write_text('// changed')
    monkeypatch.setattr(building, 'SOURCES', tmp_path)
    assert not building.is_built(library)


def test_without_sources_the_build_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr(building, 'SOURCES', tmp_path)
    with pytest.raises(building.BuildError, match='from its source release or a check'):
        building.build(tmp_path / 'library.so')


def test_the_library_of_a_wheel_comes_before_the_cache(tmp_path, monkeypatch):
    monkeypatch.delenv('DCLS_MM_NATIVE_LIBRARY', raising=False)
    packaged = tmp_path / building.NAME
    monkeypatch.setattr(building, 'PACKAGED', packaged)
    find = building.library_path.__wrapped__
    assert find().is_relative_to(building.CACHE)
    packaged.touch()
    assert find() == packaged
    monkeypatch.setenv('DCLS_MM_NATIVE_LIBRARY', '/named')
    assert os.fspath(find()) == '/named'


def test_the_path_follows_the_sources(tmp_path, monkeypatch):
    monkeypatch.delenv('DCLS_MM_NATIVE_LIBRARY', raising=False)
    find = building.library_path.__wrapped__
    before = find()
    (tmp_path / 'direct.cpp').write_text('// changed')
    monkeypatch.setattr(building, 'SOURCES', tmp_path)
    assert find() != before


def test_it_uses_the_vectors_that_the_processor_has():
    """A compiler whose runtime can't tell what that is would cost most of the speed."""
    if native_code.missing() is not None:
        pytest.skip(native_code.missing())
    cpuinfo = Path('/proc/cpuinfo')
    if platform.machine() != 'x86_64' or not cpuinfo.exists():
        pytest.skip('it is unknown what the processor has')
    flags = set(cpuinfo.read_text().split())
    narrow = 'avx2' if 'avx2' in flags else 'plain'
    expected = 'avx512' if 'avx512vl' in flags else narrow
    assert native_code.instructions() == expected
