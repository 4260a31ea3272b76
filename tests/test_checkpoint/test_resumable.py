"""The last intact checkpoint is found, whatever was left behind."""

import errno
import os
import re

import pytest
import torch

from dcls_mm.checkpoint import CheckpointError, DamagedCheckpointError, resumable
from dcls_mm.checkpoint.resumable import check_resumable, find_resumable


def write(path, age=0, **changes):
    """Write a small checkpoint, dated ``age`` seconds ago."""
    checkpoint = {
        'meta': {'epoch': 1, 'iter': 4},
        'message_hub': {'log_scalars': {}, 'runtime_info': {}, 'resumed_keys': {}},
        'optimizer': {},
        'state_dict': {'weight': torch.ones(1)},
    }
    path.parent.mkdir(parents=True, exist_ok=True)
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


@pytest.mark.parametrize(
    'content',
    [
        b'',
        b'/nowhere/epoch_7.pth',
        bytes(60),
        b'\xff\xfe\x00epoch',
        b'/a' * 10_000,
        b'/dev/zero',
        b'/',
        b'a\nb',
        b'/x/epoch_{.pth',
        b's3://bucket/epoch_9.pth',
    ],
)
def test_a_note_that_does_not_help(tmp_path, content):
    (tmp_path / 'last_checkpoint').write_bytes(content)
    assert found(tmp_path) == (None, [])
    write(tmp_path / 'epoch_1.pth')
    write(tmp_path / 'epoch_2.pth')
    assert found(tmp_path) == ('epoch_2.pth', [])


@pytest.mark.parametrize(
    'make',
    [
        os.mkdir,
        os.mkfifo,
        lambda path: os.symlink('nowhere', path),
        lambda path: os.symlink(path, path),
        lambda path: os.symlink('/dev/zero', path),
    ],
)
def test_a_note_that_is_no_file(tmp_path, make):
    make(tmp_path / 'last_checkpoint')
    assert found(tmp_path) == (None, [])
    write(tmp_path / 'epoch_1.pth')
    assert found(tmp_path) == ('epoch_1.pth', [])


def test_reading_a_note_is_bounded(tmp_path):
    write(tmp_path / 'epoch_1.pth')
    with open(tmp_path / 'last_checkpoint', 'wb') as file:
        file.truncate(1 << 40)  # more than fits in memory
    assert found(tmp_path) == ('epoch_1.pth', [])


def test_the_note_of_a_copied_folder_leads_nowhere_else(tmp_path):
    write(tmp_path / 'copy' / 'epoch_1.pth')
    note(tmp_path / 'copy', write(tmp_path / 'original' / 'epoch_9.pth'))
    path, _ = find_resumable(str(tmp_path / 'copy'))
    assert path == str(tmp_path / 'copy' / 'epoch_1.pth')


@pytest.mark.parametrize(
    'make',
    [
        os.mkfifo,
        lambda path: os.symlink('nowhere', path),
        lambda path: os.symlink(path, path),
        lambda path: os.symlink('/dev/zero', path),
    ],
)
def test_what_is_no_file_is_passed_over(tmp_path, make):
    write(tmp_path / 'epoch_1.pth')
    make(tmp_path / 'epoch_2.pth')
    name, skipped = found(tmp_path)
    assert name == 'epoch_1.pth'
    assert ['epoch_2.pth' in reason for reason in skipped] == [True]


def test_a_link_to_a_checkpoint_is_one(tmp_path):
    write(tmp_path / 'epoch_1.pth')
    (tmp_path / 'epoch_2.pth').symlink_to(write(tmp_path / 'store' / 'x.pth'))
    assert found(tmp_path) == ('epoch_2.pth', [])


def test_one_that_can_not_be_read_is_not_written_over(tmp_path, monkeypatch):
    """It may be intact; continuing from the earlier one would overwrite it."""
    write(tmp_path / 'epoch_1.pth')
    write(tmp_path / 'epoch_2.pth')
    load = resumable.CheckpointLoader.load_checkpoint

    def forbid(filename, *arguments, **options):
        if 'epoch_2' in filename:
            raise PermissionError(errno.EACCES, 'Permission denied')
        return load(filename, *arguments, **options)

    monkeypatch.setattr(resumable.CheckpointLoader, 'load_checkpoint', forbid)
    with pytest.raises(CheckpointError, match=r"2\.pth can't be read \(Permission den"):
        found(tmp_path)


def test_a_folder_that_can_not_be_searched(tmp_path, monkeypatch):
    def forbid(folder):
        raise PermissionError(errno.EACCES, 'Permission denied')

    monkeypatch.setattr(resumable.os, 'scandir', forbid)
    with pytest.raises(CheckpointError, match=r"can't be searched .* \(Permission den"):
        found(tmp_path)


def test_an_out_dir_without_a_note(tmp_path):
    write(tmp_path / 'out' / 'x' / 'epoch_3.pth')
    for work_dir in (tmp_path / 'x', f'{tmp_path}/x/'):
        path, _ = find_resumable(str(work_dir), out_dir=str(tmp_path / 'out'))
        assert path == str(tmp_path / 'out' / 'x' / 'epoch_3.pth')


@pytest.mark.parametrize('out_dir', ['out', '/elsewhere/out'])
def test_an_out_dir_of_before(tmp_path, monkeypatch, out_dir):
    """Training continues from its files, even if the config no longer names it."""
    monkeypatch.chdir(tmp_path)
    folder = f'{out_dir.replace("/elsewhere", str(tmp_path))}/x'
    path = write(tmp_path / 'out' / 'x' / 'epoch_3.pth')
    (tmp_path / 'x').mkdir()
    note(tmp_path / 'x', f'{folder}/epoch_3.pth')
    assert find_resumable('x') == (str(path), [])


@pytest.mark.parametrize('text', ['/a\0b/epoch_1.pth', f'/{"a" * 5000}/epoch_1.pth'])
def test_a_note_that_can_be_no_path(tmp_path, text):
    note(tmp_path, text)
    assert found(tmp_path) == (None, [])


@pytest.mark.parametrize('newer', ['x', 'out/x'])
def test_of_one_epoch_in_two_folders_the_newer_is_taken(tmp_path, newer):
    for folder in ('x', 'out/x'):
        write(tmp_path / folder / 'epoch_2.pth', age=0 if folder == newer else 5)
    path, _ = find_resumable(str(tmp_path / 'x'), out_dir=str(tmp_path / 'out'))
    assert path == str(tmp_path / newer / 'epoch_2.pth')


def test_a_file_of_another_name_is_told_once(tmp_path):
    write(tmp_path / 'best_score_epoch_2.pth')
    with pytest.raises(CheckpointError, match='best_score') as caught:
        found(tmp_path)
    assert str(caught.value).count('is not named like') == 1


def test_an_out_dir_elsewhere(tmp_path, monkeypatch):
    read = []
    monkeypatch.setattr(resumable, 'check_resumable', read.append)
    options = {'out_dir': 's3://bucket/'}
    assert find_resumable(str(tmp_path), **options) == (None, [])
    note(tmp_path, 's3://bucket/x/epoch_3.pth')
    path, _ = find_resumable(str(tmp_path), **options)
    assert [path] == read == ['s3://bucket/x/epoch_3.pth']
    with pytest.raises(
        CheckpointError, match='does not name a checkpoint in s3://bucket/x/epo'
    ):
        find_resumable(str(tmp_path), out_dir='s3://bucket/x/epo')


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


@pytest.mark.parametrize(
    ('template', 'name'),
    [
        ('model({}).pth', 'model(7).pth'),
        ('epoch_{:03d}.pth', 'epoch_007.pth'),
        ('{{x}}_{}.ckpt', '{x}_7.ckpt'),
        ('run/epoch_{}.pth', 'run/epoch_7.pth'),
    ],
)
def test_a_name_template(tmp_path, template, name):
    assert template.format(7) == name
    write(tmp_path / name)
    path, skipped = find_resumable(str(tmp_path), [template])
    assert (path, skipped) == (str(tmp_path / name), [])


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
    damage(write(tmp_path / 'epoch_2.pth'))
    message = 'epoch_2.pth is damaged.*epoch_1.pth is damaged.*--resume FILE'
    with pytest.raises(CheckpointError, match=message):
        found(tmp_path)


def test_whole_files_that_can_not_be_resumed_from_are_not_overwritten(tmp_path):
    torch.save({'state_dict': {'weight': torch.ones(1)}}, tmp_path / 'epoch_2.pth')
    damage(write(tmp_path / 'epoch_1.pth'))
    message = 'epoch_2.pth holds no meta, message_hub, optimizer'
    with pytest.raises(CheckpointError, match=message):
        found(tmp_path)


def test_a_checkpoint_that_is_named(tmp_path):
    check_resumable(str(write(tmp_path / 'best.pth')))
    torch.save({'state_dict': {'weight': torch.ones(1)}}, tmp_path / 'weights.pth')
    with pytest.raises(CheckpointError, match=r'load_from=.*weights\.pth'):
        check_resumable(str(tmp_path / 'weights.pth'))
    torch.save(torch.zeros(1), tmp_path / 'tensor.pth')
    with pytest.raises(CheckpointError, match='holds no weights'):
        check_resumable(str(tmp_path / 'tensor.pth'))
    damage(tmp_path / 'best.pth')
    with pytest.raises(DamagedCheckpointError):
        check_resumable(str(tmp_path / 'best.pth'))


def test_a_flipped_bit_is_damage(tmp_path):
    """The bit is in a weight, for which torch doesn't check the archive's checksum."""
    write(tmp_path / 'epoch_1.pth')
    weight = torch.full((1000,), 0.5)
    path = write(tmp_path / 'epoch_2.pth', state_dict={'weight': weight})
    content = bytearray(path.read_bytes())
    content[content.index(weight.numpy().tobytes()) + 2000] ^= 1
    path.write_bytes(content)
    name, (reason,) = found(tmp_path)
    assert name == 'epoch_1.pth'
    assert 'epoch_2.pth is damaged' in reason
