"""Hooks that write checkpoints, and that check the ones that are read."""

import contextlib
import os
import re
from collections import OrderedDict
from pathlib import Path
from typing import Union

from mmengine.dist import is_main_process
from mmengine.fileio import LocalBackend, register_backend
from mmengine.hooks import CheckpointHook, Hook
from mmengine.model import BaseTTAModel, is_model_wrapper
from torch import nn

from .checkpoint import CheckpointError, weights_of

_UNFINISHED = '.tmp'


class AtomicLocalBackend(LocalBackend):
    """mmengine's local files, but a new file is there whole or not at all."""

    def put(self, obj: bytes, filepath: Union[str, Path]) -> None:
        """Writes beside ``filepath``, to the disk, and takes its place then."""
        unfinished = f'{filepath}{_UNFINISHED}'
        os.makedirs(os.path.dirname(unfinished) or '.', exist_ok=True)
        try:
            with open(unfinished, 'wb') as file:
                file.write(obj)
                file.flush()
                os.fsync(file.fileno())
            os.replace(unfinished, filepath)
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.remove(unfinished)


register_backend('atomic', AtomicLocalBackend, force=True)


class AtomicCheckpointHook(CheckpointHook):
    """mmengine's ``CheckpointHook``, safe against being killed at any moment.

    mmengine overwrites a checkpoint in place, and removes the outdated one
    (``max_keep_ckpts``, ``save_best``) before it writes its successor: killed
    in between, it leaves a file that is cut off, or none. Here a file takes
    the place of another only once it is complete, and the outdated one goes
    last. The arguments are those of ``CheckpointHook``; a ``backend_args``
    that is given stays in force.
    """

    def before_train(self, runner) -> None:
        """See ``CheckpointHook``."""
        folder = str(self.out_dir or runner.work_dir)
        if self.backend_args is None and '://' not in folder:
            self.backend_args = {'backend': 'atomic'}
        super().before_train(runner)
        self._remove = self.file_backend.remove
        self._outdated = []
        self.file_backend.remove = self._outdated.append
        if isinstance(self.file_backend, AtomicLocalBackend) and is_main_process():
            for unfinished in Path(self.out_dir).glob(f'*.pth{_UNFINISHED}'):
                unfinished.unlink()

    def _save_checkpoint_with_step(self, runner, step, meta) -> None:
        super()._save_checkpoint_with_step(runner, step, meta)
        self._remove_outdated()

    def _save_best_checkpoint(self, runner, metrics) -> None:
        super()._save_best_checkpoint(runner, metrics)
        self._remove_outdated()

    def _remove_outdated(self) -> None:
        for path in self._outdated:
            self._remove(path)
        self._outdated.clear()


class CheckpointMatchHook(Hook):
    """Stops if a loaded checkpoint lacks a parameter or buffer of the model.

    mmengine only logs this, and goes on with random weights. Keys that the
    model does not have are left to mmengine's warning.

    Args:
        filename: What the error calls the checkpoint.
    """

    priority = 'LOWEST'

    def __init__(self, filename: str) -> None:
        self.filename = filename

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        """See ``load_matching``."""
        load_matching(runner.model, checkpoint, self.filename)


def load_matching(model: nn.Module, checkpoint: dict, filename: str) -> None:
    """Loads a checkpoint that has every parameter and buffer of the model.

    Comparing keys would not do: a model may rename those of older versions.

    Args:
        model: Also one that is wrapped for training or testing.
        checkpoint: As read from a file, or a state_dict.
        filename: What the error calls the checkpoint.

    Raises:
        CheckpointError: keys are missing, or values have another shape.
    """
    while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
        model = model.module
    given = weights_of(checkpoint, filename)
    state_dict = OrderedDict(
        (re.sub(r'^module\.', '', key), value) for key, value in given.items()
    )
    state_dict._metadata = getattr(given, '_metadata', OrderedDict())
    expected = list(model.state_dict())
    misfits = []
    try:
        missing, _ = model.load_state_dict(state_dict, strict=False)
    except RuntimeError as error:  # about shapes only, a line for each
        missing = [key for key in expected if key not in state_dict]
        misfits = [_shorten(line) for line in str(error).splitlines()[1:]]
    # mmengine does not miss these either: files of torch < 0.4.1 lack them.
    missing = [key for key in missing if not key.endswith('num_batches_tracked')]
    found = [
        f'{len(values)} of {len(expected)} values {what} ({_first(values)})'
        for what, values in (('are missing', missing), ("don't fit", misfits))
        if values
    ]
    if found:
        raise CheckpointError(
            f'checkpoint {filename} belongs to another model than the '
            f'config describes: {" and ".join(found)}; it holds {len(state_dict)} '
            f'values ({_first(list(state_dict))})'
        )


def _shorten(line: str) -> str:
    """A line of torch's error about shapes, in brief."""
    key = re.search(r'mismatch for (\S+):', line)
    shapes = re.findall(r'torch\.Size\((.*?)\)', line)
    if key and len(shapes) == 2:
        return f'{key[1]} {shapes[0]} instead of {shapes[1]}'
    return line.strip()


def _first(names: list[str], count: int = 3) -> str:
    """The first few of many names."""
    return ', '.join(names[:count]) + (', ...' if len(names) > count else '')
