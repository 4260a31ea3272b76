"""Config files that give back exactly the values written, and run nothing else.

mmengine's own ``Config.dump`` pastes dictionary keys into the text verbatim. When
mmengine reads a file, it replaces ``{{ fileDirname }}`` and similar, even inside
strings, with text that is then evaluated: a folder named ``x'+f()+'`` calls f. Here
every value is written by ``repr``, and no ``{{`` is left to replace.
"""

import keyword
import math
from pathlib import Path
from pprint import pformat
from types import FunctionType
from typing import Any

from mmengine.utils import get_object_from_string

from ..checks.errors import ConfigError

# What repr writes exactly. Types are compared exactly: a numpy number is a float too.
_PLAIN = (type(None), bool, int, str, bytes)
_LISTS = (list, tuple, set, frozenset)
# Names that mmengine refuses or doesn't read as sections.
_RESERVED = {
    '_base_',
    '_deprecation_',
    'env_variables',
    'filename',
    'pretty_text',
    'text',
}

# Every version of mmengine knows sys, unlike os, as a module of Python. mmengine
# compiles a config under its absolute file name.
_FOLDER = """import sys

__file = sys._getframe().f_code.co_filename
__beside = __import__('os').path.join(__import__('os').path.dirname(__file), '')

"""


class _Code:
    """Code that repr, and so pprint, writes as it is."""

    def __init__(self, code: str):
        self.code = code

    def __repr__(self) -> str:
        return self.code


class Beside(_Code):
    """The absolute name of a file in the config's folder, wherever that folder is.

    Args:
        name: name of the file.
    """

    def __init__(self, name: str):
        super().__init__(f'__beside + {name!r}')


def write_config(path: Path, content: dict[str, Any]) -> None:
    """Write a config file.

    Args:
        path: file to write, ending in .py.
        content: the config: plain Python values, and classes or functions as a 'type',
            which become dotted names. :class:`Beside` values give names of files.

    Raises:
        ConfigError: text can't express a value, or mmengine would not read a key; the
            message names it.
    """
    sections = []
    for key, value in content.items():
        if not _is_variable(key):
            raise ConfigError(f"{key!r} can't be a variable of a config file")
        start = f'{key} = '
        width = max(88 - len(start), 40)
        written = pformat(_literal(value, key), width=width, sort_dicts=False)
        # Lines end only between values, since repr writes no line ends.
        sections.append(start + written.replace('\n', '\n' + ' ' * len(start)) + '\n')
    text = _FOLDER + ''.join(sections)
    # Only strings contain two braces in a row.
    path.write_bytes(text.replace('{{', '{\\x7b').encode())


def _is_variable(key: Any) -> bool:
    return (
        isinstance(key, str)
        and key.isidentifier()
        and not keyword.iskeyword(key)
        and not key.startswith('__')
        and key not in _RESERVED
    )


def _literal(value: Any, key: str) -> Any:
    """Copy plain values so that the copy's repr evaluates to them."""
    if type(value) in _PLAIN or isinstance(value, _Code):
        return value
    if type(value) is float:
        return value if math.isfinite(value) else _Code(f"float('{value}')")
    if type(value) in _LISTS:
        items = [_literal(item, f'{key}.{i}') for i, item in enumerate(value)]
        return type(value)(items)
    if isinstance(value, dict):
        return {
            _literal(name, f'{key}.{name}'): (
                dotted_name(item, f'{key}.{name}')
                if name == 'type' and isinstance(item, (type, FunctionType))
                else _literal(item, f'{key}.{name}')
            )
            for name, item in value.items()
        }
    raise ConfigError(
        f"{key} is {value!r}, a {type(value).__name__}, which a config file can't "
        'express: use plain numbers, strings, lists or dicts (--cfg-options '
        f'{key}=...)'
    )


def dotted_name(item: Any, key: str) -> str:
    """Return the name by which mmengine's registries find a class or function.

    Raises:
        ConfigError: there is none.
    """
    name = f'{item.__module__}.{item.__qualname__}'
    if get_object_from_string(name) is not item:
        raise ConfigError(
            f"{key} is {name}, which can't be imported by that name: define it at the "
            'top level of a module'
        )
    return name
