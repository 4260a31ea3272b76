"""Finds the checkpoint from which an interrupted training goes on."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Optional

from .checkpoint import (
    CheckpointError,
    DamagedCheckpointError,
    check_training,
    read_checkpoint,
)

# What mmengine calls the checkpoints of a training.
TEMPLATES = ('epoch_{}.pth', 'iter_{}.pth')


def check_resumable(filename: str) -> None:
    """Reads a checkpoint, and checks that it holds what resuming needs.

    Args:
        filename: A path, or a URL that mmengine knows.

    Raises:
        CheckpointError: it can't be read, holds weights alone, or parts that are
            not as mmengine writes them.
    """
    check_training(read_checkpoint(filename), filename)


def find_resumable(
    work_dir: str, templates: Sequence[str] = TEMPLATES
) -> tuple[Optional[str], list[str]]:
    """Finds the last checkpoint of a training that is whole.

    mmengine goes by the file ``last_checkpoint`` alone, which a killed
    training may leave empty, or naming a checkpoint that was cut off.

    Args:
        work_dir: The work directory of the training.
        templates: The file names to look for, with ``{}`` for the epoch or
            iteration, as ``filename_tmpl`` of ``CheckpointHook``.

    Returns:
        The path, or None where there is nothing to go on from; and what there
        is to say about the files that were passed over.

    Raises:
        CheckpointError: there are whole checkpoints, but training can't go on
            from any of them. Starting anew might overwrite them.
    """
    skipped = []
    refused = False
    for path in _candidates(work_dir, templates):
        try:
            check_resumable(str(path))
        except CheckpointError as error:
            skipped.append(str(error))
            refused = refused or not isinstance(error, DamagedCheckpointError)
        else:
            return str(path), skipped
    if refused:
        raise CheckpointError(
            f'no checkpoint in {work_dir} to resume from: {"; ".join(skipped)}'
        )
    return None, skipped


def _candidates(work_dir: str, templates: Sequence[str]) -> list[Path]:
    """The checkpoints of a training, the last one first.

    Files that are further on than the one that ``last_checkpoint`` names, but
    older, were left by an earlier training in the same folder: they come last.
    """
    note = Path(work_dir, 'last_checkpoint')
    named = note.read_text().strip() if note.is_file() else ''
    folders = {Path(work_dir).resolve()}
    if named:  # elsewhere, if the hook has an out_dir
        folders.add(Path(named).resolve().parent)
    patterns = [re.escape(name).replace(r'\{\}', r'(\d+)') for name in templates]
    steps = {
        path: int(match[1])
        for folder in folders
        if folder.is_dir()
        for path in folder.iterdir()
        for pattern in patterns
        if (match := re.fullmatch(pattern, path.name))
    }
    age = {path: path.stat().st_mtime_ns for path in steps}
    last = next((path for path in steps if path.name == Path(named).name), None)

    def order(path: Path):
        leftover = last and steps[path] > steps[last] and age[path] < age[last]
        return not leftover, steps[path], age[path]

    return sorted(steps, key=order, reverse=True)
