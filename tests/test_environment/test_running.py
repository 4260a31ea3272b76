"""Child processes: their output, their end, and the locks that they hold."""

import fcntl
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from environment import SetupError, running


def test_a_failed_command_shows_its_last_lines(tmp_path):
    log = tmp_path / 'log'
    command = ['sh', '-c', 'seq 100; echo no network >&2; exit 3']
    last_lines = '(?s)pip failed.*\n100\nno network\n'
    with pytest.raises(SetupError, match=last_lines) as error:
        running.run_logged('pip', command, log)
    assert str(log) in str(error.value)
    assert running.AGAIN in str(error.value)
    assert '\n50\n' not in str(error.value)
    assert log.read_text().startswith('1\n2\n')


def test_children_see_no_modules_from_elsewhere(monkeypatch, tmp_path):
    monkeypatch.setenv('PYTHONPATH', '/elsewhere')
    running.run_logged('env', ['env'], tmp_path / 'log')
    variables = (tmp_path / 'log').read_text()
    assert '/elsewhere' not in variables
    assert f'PATH={running.VENV}/bin:' in variables


def test_an_interruption_ends_the_command_and_its_children(tmp_path):
    def interrupt_once_it_runs(text, elapsed):
        if text.count('\n'):
            raise KeyboardInterrupt
        return text

    command = ['sh', '-c', 'sleep 60 & echo $$; echo $!; wait']
    with pytest.raises(KeyboardInterrupt):
        running.run_logged('sleep', command, tmp_path / 'log', interrupt_once_it_runs)
    pids = (tmp_path / 'log').read_text().split()
    deadline = time.monotonic() + 10
    while any(map(is_alive, pids)) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert len(pids) == 2
    assert not any(map(is_alive, pids))


def is_alive(pid):
    """Return whether a process runs; a zombie does not."""
    try:
        state = Path('/proc', pid, 'stat').read_text().rpartition(')')[2].split()[0]
    except FileNotFoundError:
        return False
    return state not in 'ZX'


def test_a_lock_is_held_by_the_children_too(tmp_path):
    other = os.open(tmp_path, os.O_RDONLY)

    def is_locked():
        try:
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        fcntl.flock(other, fcntl.LOCK_UN)
        return False

    with running.locked(tmp_path):
        assert is_locked()
        child = subprocess.Popen(['sleep', '60'], close_fds=False)
    try:
        assert is_locked()
    finally:
        child.kill()
        child.wait()
    assert not is_locked()
    os.close(other)


@pytest.mark.parametrize('terminal', [True, False])
def test_progress_is_one_line_on_a_terminal_and_rare_elsewhere(
    terminal, monkeypatch, capsys
):
    monkeypatch.delenv('CI', raising=False)
    monkeypatch.setattr(sys.stdout, 'isatty', lambda: terminal)
    now = [0]
    monkeypatch.setattr(running.time, 'monotonic', lambda: now[0])
    line = running.ProgressLine()
    for now[0] in range(0, 70):
        line.show('at work')
    shown = capsys.readouterr().out
    if terminal:
        assert shown.count('\r') == 70
        assert '\n' not in shown
    else:
        assert shown == '      0:30  at work\n      1:00  at work\n'
