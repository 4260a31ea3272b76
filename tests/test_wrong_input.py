"""Every row of the tables in tests/wrong_input: a wrong call and its error."""

import importlib
import inspect
import pkgutil

import pytest
import wrong_input

TABLES = [module.name for module in pkgutil.iter_modules(wrong_input.__path__)]


def rows():
    for name in TABLES:
        module = importlib.import_module(f'wrong_input.{name}')
        for number, row in enumerate(module.ROWS):
            line = inspect.unwrap(row.call).__code__.co_firstlineno
            yield pytest.param(row, id=f'{name}-{number}-line{line}')


@pytest.mark.parametrize('row', rows())
def test_the_error_says_what_is_wrong(row, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(row.error) as caught:
        row.call()
    assert caught.type is row.error
    missing = [text for text in row.says if text not in str(caught.value)]
    assert not missing, f'{missing} not in: {caught.value}'
