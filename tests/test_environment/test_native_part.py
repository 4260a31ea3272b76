"""When `make env` compiles, and what it says; a script stands for the compiler."""

import os

import pytest
from environment import native_part


@pytest.fixture
def building(monkeypatch, tmp_path):
    """Have the library in an empty folder, and a compiler that writes one word."""
    compiler = tmp_path / 'compiler'
    compiler.write_text(
        '#!/bin/sh\n'
        'while [ $# -gt 1 ]; do shift; done\n'
        '[ "$1" = --version ] || echo compiled > "$1"\n'
    )
    compiler.chmod(0o755)
    monkeypatch.setenv('CXX', os.fspath(compiler))
    monkeypatch.setenv('DCLS_MM_NATIVE_LIBRARY', os.fspath(tmp_path / 'library.so'))
    return native_part.load_building()


def test_it_is_built_once(building, capsys):
    native_part.build()
    assert building.library_path().read_text() == 'compiled\n'
    assert capsys.readouterr().out.startswith('compiling csrc/')
    native_part.build()
    assert capsys.readouterr().out == ''


@pytest.mark.parametrize('compiler', ['no-such-compiler', 'false'])
def test_without_a_working_compiler_it_says_so_and_goes_on(
    compiler, building, monkeypatch, capsys
):
    monkeypatch.setenv('CXX', compiler)
    native_part.build()
    assert not building.library_path().exists()
    assert capsys.readouterr().out.count('without its compiled part') == 1
