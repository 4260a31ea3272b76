"""Processes that tests start in pairs, talk to, kill or make fail."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]


def free_port() -> str:
    """Return a port of this machine that nothing listens to."""
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        return str(probe.getsockname()[1])


def run_two_ranks(
    folder: Path, program: list[Any], *arguments: Any, **variables: str
) -> list[str]:
    """Run two processes of one training at a time, and return what they print.

    Args:
        folder: for their output.
        program: arguments of Python, such as a script's path; the rank follows.
        arguments: what follows the rank.
        variables: of the environment.
    """
    environment = {**os.environ, 'OMP_NUM_THREADS': '1', 'CUDA_VISIBLE_DEVICES': '-1'}
    environment['PYTHONPATH'] = os.pathsep.join(map(str, (ROOT, ROOT / 'tests')))
    said = [folder / f'output_of_rank_{rank}.txt' for rank in (0, 1)]
    with contextlib.ExitStack() as stack:
        processes = []
        for rank, path in enumerate(said):
            output = stack.enter_context(path.open('w'))
            own = {'RANK': str(rank), 'LOCAL_RANK': str(rank)}
            process = subprocess.Popen(
                [sys.executable, *program, str(rank), *map(str, arguments)],
                env={**environment, **own, **variables},
                stdout=output,
                stderr=output,
            )
            stack.callback(process.kill)
            processes.append(process)
        for process, path in zip(processes, said):
            assert not process.wait(timeout=300), path.read_text()
    return [path.read_text() for path in said]


class Child:
    """A process that called a function and now waits to be killed."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        reader, writer = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            status = 1
            try:
                kept = function(*arguments)
                os.write(writer, b'ready')
                signal.pause()
                del kept
                status = 0
            except BaseException as error:
                sys.stderr.write(f'{error!r}\n')
            finally:
                os._exit(status)
        os.close(writer)
        self.is_ready = os.read(reader, 5) == b'ready'
        os.close(reader)

    def kill(self) -> None:
        """End the process as the kernel does when memory runs out."""
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
            self.pid = 0


@contextlib.contextmanager
def child(function: Callable[..., Any], *arguments: Any) -> Iterator[Child]:
    """Run a process that calls a function and keeps its result alive."""
    process = Child(function, *arguments)
    try:
        assert process.is_ready
        yield process
    finally:
        process.kill()
