"""Child processes behind a progress line, and locks on folders."""

import contextlib
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import time

from . import AGAIN, VENV, VENV_PYTHON, SetupError

PIP_LOG = VENV / 'setup.log'


def clock(seconds):
    return f'{int(seconds) // 60}:{int(seconds) % 60:02d}'


class ProgressLine:
    """A line that a terminal rewrites in place; elsewhere it is printed every 30 s."""

    def __init__(self):
        self.start = time.monotonic()
        self.periods = 0
        self.in_place = sys.stdout.isatty() and not os.environ.get('CI')

    def elapsed(self):
        return time.monotonic() - self.start

    def show(self, text):
        periods = self.elapsed() // 30
        line = f'      {clock(self.elapsed())}  {text}'
        line = line[: shutil.get_terminal_size().columns - 1]
        if self.in_place:
            print(f'\r{line}\x1b[K', end='', flush=True)
        elif periods > self.periods:
            self.periods = periods
            print(line, flush=True)

    def clear(self):
        if self.in_place:
            print('\r\x1b[K', end='', flush=True)


def tail(path, size=2**18):
    with open(path, 'rb') as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - size))
        return file.read().decode(errors='replace').strip()


def last_line(text, elapsed=0):
    return text.rpartition('\n')[2].strip()


def environment(**extra):
    """Return the variables for child processes: .venv first, no foreign modules."""
    path = os.pathsep.join([str(VENV / 'bin'), os.environ.get('PATH', os.defpath)])
    variables = {**os.environ, 'PATH': path, **extra}
    return {k: v for k, v in variables.items() if k not in ('PYTHONPATH', 'PYTHONHOME')}


def run_logged(what, command, log, progress=last_line, **options):
    """Run a command with its output in `log` and its progress on the screen.

    The child inherits the locks (see `locked`) and writes to a file, not to a pipe. If
    this process is killed, the child therefore finishes its work, and the next set-up
    waits for it. An ordinary interruption ends the child too.
    """
    line = ProgressLine()
    with open(log, 'wb') as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            close_fds=False,
            **{'env': environment(), **options},
        )
    try:
        while process.poll() is None:
            line.show(progress(tail(log), line.elapsed()))
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=1)
    finally:
        line.clear()
        if process.poll() is None:
            stop(process)
    if process.returncode:
        last_lines = '\n'.join(tail(log).splitlines()[-15:])
        raise SetupError(
            f'{what} failed. The last lines of its output (all of it: {log}):\n'
            f'{last_lines}\nIf a download failed, check the network. {AGAIN}'
        )


def stop(process):
    """End a child and its children, with time to remove their partial files."""
    for number, patience in ((signal.SIGINT, 10), (signal.SIGKILL, None)):
        with contextlib.suppress(ProcessLookupError, subprocess.TimeoutExpired):
            os.killpg(process.pid, number)
            process.wait(patience)


def pip(what, *arguments):
    command = [VENV_PYTHON, '-m', 'pip', '--disable-pip-version-check', '--no-input']
    run_logged(what, [*command, *arguments], PIP_LOG)


@contextlib.contextmanager
def locked(folder):
    """Hold the lock on a folder until this process and its children are done."""
    handle = os.open(folder, os.O_RDONLY)
    os.set_inheritable(handle, True)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f'waiting for another set-up in {folder}', flush=True)
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
