"""What a stage has to say: tables, failures and what it left out, written at once."""

import contextlib
import json
import os
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import paths  # noqa: F401
from common import Tables, Timing, progress


class Results(Tables):
    """The tables of a stage, saved after each row, so that a killed one keeps them.

    Args:
        path: the JSON file to write.
        seconds: from now on, after which :meth:`in_time` starts no further case.
    """

    def __init__(self, path: Path, seconds: float):
        super().__init__()
        self._path = path
        self._end = time.monotonic() + seconds
        self.content |= dict(facts={}, failures=[], left_out=[])
        self.save()

    def row(self, cells: Mapping[str, Any]) -> None:
        super().row(cells)
        self.save()

    def fact(self, name: str, value: Any) -> None:
        """Keep something that is no table."""
        self.content['facts'][name] = value
        self.save()

    def fail(self, what: str, why: str) -> None:
        """Keep what went wrong. The script then ends with an error."""
        self.content['failures'].append(dict(what=what, why=why))
        self.save()
        progress(f'failed: {what}\n{why}')

    @contextlib.contextmanager
    def going_on(self, what: str) -> Iterator[None]:
        """Record an error of the block with its traceback, and go on after it."""
        try:
            yield
        except Exception:
            self.fail(what, traceback.format_exc())

    def in_time(self, cases: Iterable) -> Iterator:
        """Yield the cases until the time is up, and note those that are left out."""
        for case in cases:
            if time.monotonic() < self._end:
                progress(f'{case}')
                yield case
            else:
                self.content['left_out'].append(str(case))
                self.save()

    def save(self) -> None:
        write(self._path, self.content)


def prepared(
    results: Results, what: str, builds: Mapping[Any, Callable[[], Callable | None]]
) -> dict[Any, Callable]:
    """Call what builds the functions to time, and return those that could be built.

    One that raises is recorded. One that returns None has no function here.
    """
    functions = {}
    for name, build in builds.items():
        with results.going_on(f'{what}, {name}'):
            function = build()
            if function is not None:
                functions[name] = function
    return functions


def times_faster(
    ours: Iterable[Timing | None], peers: Iterable[Timing | None]
) -> float | str:
    """Compare the fastest of ours with the fastest peer, of those that were timed."""
    fastest = [min((t.median for t in ts if t), default=None) for ts in (ours, peers)]
    return 'none' if None in fastest else fastest[1] / fastest[0]


def cell(timings: Mapping[Any, Timing], name: Any) -> Timing | str:
    return timings.get(name, 'none')


def write(path: Path, content: dict) -> None:
    """Write JSON so that the file is whole at any time."""
    beside = path.with_name(path.name + '.part')
    beside.write_text(json.dumps(content, default=vars, indent=1))
    os.replace(beside, path)
