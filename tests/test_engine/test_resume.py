"""The last checkpoint that is whole is found, whatever was left behind."""

import os
import re

import pytest
import torch

from dcls_mm.engine.checkpoint import CheckpointError, DamagedCheckpointError
from dcls_mm.engine.resume import check_resumable, find_resumable


def write(path, age=0, **changes):
    """Writes a small checkpoint, ``age`` seconds ago."""
    checkpoint = {
        'meta': {'epoch': 1, 'iter': 4},
        'message_hub': {'log_scalars': {}, 'runtime_info': {}, 'resumed_keys': {}},
        'optimizer': {},
        'state_dict': {'weight': torch.ones(1)},
    }
    path.parent.mkdir(exist_ok=True)
    torch.save({**checkpoint, **changes}, path)
    os.utime(path, (1e9 - age, 1e9 - age))
    return path


def damage(path):
    path.write_bytes(path.read_bytes()[:-50])


def note(folder, path):
    (folder / 'last_checkpoint').write_text(str(path))


def found(folder, *templates):
    path, skipped = find_resumable(str(folder), *templates)
    return path and os.path.basename(path), skipped


def test_nothing_there(tmp_path):
    assert found(tmp_path / 'missing') == (None, [])
    assert found(tmp_path) == (None, [])


def test_numbers_count_and_not_letters(tmp_path):
    for epoch in (2, 9, 10):
        note(tmp_path, write(tmp_path / f'epoch_{epoch}.pth'))
    assert found(tmp_path) == ('epoch_10.pth', [])


def test_files_of_other_kinds_are_left_alone(tmp_path):
    write(tmp_path / 'iter_5.pth')
    for name in (
        'best_mIoU_iter_9.pth',
        'iter_9.pth.tmp',
        'iter_9-1a2b.pth',
        'r50.pth',
    ):
        (tmp_path / name).write_bytes(b'')
    assert found(tmp_path) == ('iter_5.pth', [])


def test_killed_before_the_note_was_written(tmp_path):
    note(tmp_path, write(tmp_path / 'epoch_1.pth', age=9))
    write(tmp_path / 'epoch_2.pth', age=5)
    assert found(tmp_path) == ('epoch_2.pth', [])


@pytest.mark.parametrize('text', ['', '/nowhere/epoch_7.pth'])
def test_a_note_that_does_not_help(tmp_path, text):
    write(tmp_path / 'epoch_1.pth')
    (tmp_path / 'last_checkpoint').write_text(text)
    assert found(tmp_path) == ('epoch_1.pth', [])


def test_a_folder_that_was_moved(tmp_path):
    write(tmp_path / 'epoch_1.pth', age=5)
    write(tmp_path / 'epoch_2.pth', age=9)
    note(tmp_path, '/before/epoch_2.pth')
    assert found(tmp_path) == ('epoch_2.pth', [])


def test_what_an_earlier_training_left_in_the_folder(tmp_path):
    write(tmp_path / 'epoch_12.pth', age=9)
    note(tmp_path, write(tmp_path / 'epoch_3.pth', age=5))
    assert found(tmp_path) == ('epoch_3.pth', [])


def test_checkpoints_in_the_hooks_out_dir(tmp_path):
    note(tmp_path, write(tmp_path / 'elsewhere' / 'epoch_3.pth'))
    assert found(tmp_path) == ('epoch_3.pth', [])


def test_a_name_template(tmp_path):
    write(tmp_path / 'model(7).pth')
    assert found(tmp_path) == (None, [])
    assert found(tmp_path, ['model({}).pth']) == ('model(7).pth', [])


def test_damaged_files_are_passed_over_and_named(tmp_path):
    write(tmp_path / 'epoch_1.pth')
    damage(write(tmp_path / 'epoch_2.pth'))
    note(tmp_path, write(tmp_path / 'epoch_3.pth'))
    (tmp_path / 'epoch_3.pth').write_bytes(b'')
    name, skipped = found(tmp_path)
    assert name == 'epoch_1.pth'
    assert [re.search(r'epoch_\d', reason)[0] for reason in skipped] == [
        'epoch_3',
        'epoch_2',
    ]


def test_only_damaged_files(tmp_path):
    damage(write(tmp_path / 'epoch_1.pth'))
    name, skipped = found(tmp_path)
    assert name is None
    assert 'is damaged' in skipped[0]


def test_whole_files_that_can_not_be_resumed_from_are_not_overwritten(tmp_path):
    torch.save({'state_dict': {}}, tmp_path / 'epoch_2.pth')
    damage(write(tmp_path / 'epoch_1.pth'))
    message = 'epoch_2.pth holds no meta, message_hub, optimizer'
    with pytest.raises(CheckpointError, match=message):
        found(tmp_path)


def test_a_checkpoint_that_is_named(tmp_path):
    check_resumable(str(write(tmp_path / 'best.pth')))
    torch.save({'state_dict': {}}, tmp_path / 'weights.pth')
    with pytest.raises(CheckpointError, match=r'load_from=.*weights\.pth'):
        check_resumable(str(tmp_path / 'weights.pth'))
    torch.save(torch.zeros(1), tmp_path / 'tensor.pth')
    with pytest.raises(CheckpointError, match='holds no meta'):
        check_resumable(str(tmp_path / 'tensor.pth'))
    damage(tmp_path / 'best.pth')
    with pytest.raises(DamagedCheckpointError):
        check_resumable(str(tmp_path / 'best.pth'))
