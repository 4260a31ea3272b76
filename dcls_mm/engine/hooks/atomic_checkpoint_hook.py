"""Checkpoints that are written whole or not at all."""

import os
from pathlib import Path

from mmengine.dist import is_main_process
from mmengine.fileio import LocalBackend, register_backend
from mmengine.hooks import CheckpointHook
from mmengine.logging import print_log

from ..._files import remove_unfinished, write_whole
from ...checkpoint import CheckpointError
from ...checkpoint.resumable import LAST, checkpoint_folder
from ...checks.errors import ConfigError
from ..folder_lock import FolderLock


class AtomicLocalBackend(LocalBackend):
    """mmengine's local files, but written whole or not at all."""

    def put(self, obj: bytes, filepath: str | Path) -> None:
        """Write a file; see ``write_whole``.

        Raises:
            CheckpointError: it can't be written; an existing file is unchanged.
        """
        try:
            write_whole(filepath, obj)
        except OSError as error:
            raise CheckpointError(
                f'{filepath} could not be written ({error.strerror or error}); '
                'earlier checkpoints are whole: free some space or fix the '
                'permissions, and continue with --resume'
            ) from error


register_backend('atomic', AtomicLocalBackend, force=True)


class AtomicCheckpointHook(CheckpointHook):
    """mmengine's ``CheckpointHook``, but safe if the training is killed at any moment.

    mmengine overwrites a checkpoint and the note ``last_checkpoint`` in place, and
    removes the outdated checkpoint (``max_keep_ckpts``, ``save_best``) before it writes
    its successor. Killed in between, or on a full disk, it leaves a truncated file or
    none. Here a file replaces another only once it is complete, and the outdated one is
    removed last. The arguments are those of ``CheckpointHook``, except the deprecated
    ``file_client_args``; a given ``backend_args`` is respected.

    A second training that would write to the same folder is refused; see
    ``FolderLock``.
    """

    _lock: FolderLock | None = None

    def before_train(self, runner) -> None:
        """Lock the folder, and prepare as ``CheckpointHook`` does.

        Raises:
            ConfigError: another training writes to the folder, or mmengine's deprecated
                ``file_client_args`` is given.
        """
        if self.file_client_args is not None:
            raise ConfigError(
                f'{type(self).__name__}.file_client_args must be left out, got '
                f'{self.file_client_args!r}: use backend_args instead'
            )
        folder = checkpoint_folder(runner.work_dir, self.out_dir)
        if '://' not in folder:
            self.backend_args = self.backend_args or {'backend': 'atomic'}
            if is_main_process():
                self._lock = FolderLock(folder).acquire()
                if self._lock.warning:
                    runner.logger.warning(self._lock.warning)
                for written in {folder, runner.work_dir}:
                    remove_unfinished(written)
        forget_foreign_files(runner.message_hub.runtime_info, folder)
        super().before_train(runner)
        self._outdated = []
        self._remove, self._rmtree = self.file_backend.remove, self.file_backend.rmtree
        self.file_backend.remove = self.file_backend.rmtree = self._outdated.append

    def after_run(self, runner) -> None:
        """Let others write to the folder."""
        if self._lock is not None:
            self._lock.release()

    def _save_checkpoint_with_step(self, runner, step, meta) -> None:
        """Do what mmengine's does, but in a safe order, and write the note whole."""
        outdated = []
        # Called twice for a step whose weights are the best.
        if self.max_keep_ckpts > 0 and step not in list(self.keep_ckpt_ids)[-1:]:
            if len(self.keep_ckpt_ids) == self.max_keep_ckpts:
                outdated.append(self._path(self.keep_ckpt_ids.popleft()))
            self.keep_ckpt_ids.append(step)
            runner.message_hub.update_info('keep_ckpt_ids', list(self.keep_ckpt_ids))
        self.last_ckpt = self._path(step)
        runner.message_hub.update_info('last_ckpt', self.last_ckpt)
        runner.save_checkpoint(
            self.out_dir,
            self.filename_tmpl.format(step),
            save_optimizer=self.save_optimizer,
            save_param_scheduler=self.save_param_scheduler,
            meta=meta,
            by_epoch=self.by_epoch,
            backend_args=self.backend_args,
            **self.args,
        )
        if is_main_process():
            note = os.path.join(runner.work_dir, LAST)
            AtomicLocalBackend().put(self.last_ckpt.encode(), note)
            self._outdated += outdated
            self._remove_outdated()

    def _path(self, step) -> str:
        return self.file_backend.join_path(
            self.out_dir, self.filename_tmpl.format(step)
        )

    def _save_best_checkpoint(self, runner, metrics) -> None:
        super()._save_best_checkpoint(runner, metrics)
        self._remove_outdated()

    def _remove_outdated(self) -> None:
        for path in self._outdated:
            if self.file_backend.isdir(path):  # as DeepSpeed writes them
                self._rmtree(path)
            elif self.file_backend.isfile(path):
                self._remove(path)
        self._outdated.clear()


def forget_foreign_files(runtime_info: dict, folder: str) -> None:
    """Keep a resumed training from removing files of others.

    mmengine's ``CheckpointHook`` removes the best checkpoint so far once there is a
    better one, and those beyond ``max_keep_ckpts``. A checkpoint says which: files of
    the training from which the folder was copied or, if it was forged, any files and
    folders.

    Args:
        runtime_info: the info of mmengine's message hub; changed in place.
        folder: the folder of the training's checkpoints.
    """
    for key in [key for key in runtime_info if str(key).startswith('best_ckpt')]:
        path = runtime_info[key]
        if type(path) is not str or not _is_best_of(folder, path):
            print_log(
                f'leaves {path!r:.200}, which is not a best_* in {folder}', 'current'
            )
            del runtime_info[key]
    if 'keep_ckpt_ids' in runtime_info:  # used as parts of file names
        kept = runtime_info['keep_ckpt_ids']
        kept = kept if isinstance(kept, (list, tuple)) else []
        runtime_info['keep_ckpt_ids'] = [step for step in kept if type(step) is int]


def _is_best_of(folder: str, path: str) -> bool:
    """Return whether a path can be mmengine's best checkpoint in a folder."""
    owner, name = os.path.split(path)
    return name.startswith('best_') and os.path.realpath(owner) == os.path.realpath(
        folder
    )
