"""Wrong options of the commands in tools/."""

from . import command, wrong

ROWS = [
    wrong(
        lambda: command('tools/test.py', 'absent.py', 'absent.pth'),
        SystemExit,
        'error: checkpoint absent.pth does not exist',
    ),
    wrong(
        lambda: command('tools/test.py', 'absent.py', 'a.pth', '--cfg-options', 'foo'),
        SystemExit,
        "expected KEY=VALUE, got 'foo'",
    ),
]
