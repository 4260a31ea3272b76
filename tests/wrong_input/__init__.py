"""Tables of wrong calls and what their errors must say.

Each module has a list ``ROWS``; tests/test_wrong_input.py runs them all.
"""

import contextlib
import io
import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[2]


class Wrong(NamedTuple):
    """A call that must fail.

    Attributes:
        call: called without arguments, in an empty working directory.
        error: the exact exception type; SystemExit for a :func:`command`.
        says: parts of the message, in any order: the argument, option or key, what was
            expected, what came.
    """

    call: Callable[[], Any]
    error: type
    says: tuple[str, ...]


def wrong(call: Callable[[], Any], error: type, *says: str) -> Wrong:
    """Make a row, which must require some text."""
    assert says, 'a row without a sentence'
    return Wrong(call, error, says)


def command(tool: str, *arguments: Any) -> None:
    """Run a script, such as 'tools/test.py', in this process, and raise its exit.

    What argparse prints becomes the message.
    """
    printed = io.StringIO()
    before = sys.argv, list(sys.path)
    sys.argv = [tool, *map(str, arguments)]
    try:
        with contextlib.redirect_stderr(printed):
            runpy.run_path(str(ROOT / tool), run_name='__main__')
    except SystemExit as ended:
        if isinstance(ended.code, str):
            raise
        raise SystemExit(f'status {ended.code}: {printed.getvalue()}') from ended
    finally:
        sys.argv, sys.path[:] = before
