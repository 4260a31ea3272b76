"""Forked processes that tests talk to, kill or make fail."""

import contextlib
import os
import signal
import sys
from collections.abc import Callable, Iterator
from typing import Any


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
