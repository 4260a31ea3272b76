"""Pairs of hooks in two processes, against a hand-written loop in one."""

import contextlib
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from features import FeaturesToy, tensors, train_by_hand

HERE = Path(__file__).resolve().parent
PAIRS = [
    'repulsion+alias',
    'alias+repulsion',
    'clamp+ema',
    'freeze+annealing',
    'repulsion+accumulate',
    'alias+frozen',
    'repulsion+replaced',
    'resume+swa',
]


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """Return the folder with the results of two processes."""
    folder = tmp_path_factory.mktemp('two')
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        port = str(probe.getsockname()[1])
    variables = dict(OMP_NUM_THREADS='1', CUDA_VISIBLE_DEVICES='-1', LOCAL_RANK='0')
    variables['PYTHONPATH'] = os.pathsep.join(map(str, [HERE.parents[1], HERE.parent]))
    command = [sys.executable, str(HERE / 'two_processes.py')]
    with contextlib.ExitStack() as stack:
        said = [stack.enter_context(open(folder / f'{r}.txt', 'w+')) for r in (0, 1)]
        processes = [
            subprocess.Popen(
                [*command, str(rank), port, str(folder), *PAIRS],
                env={**os.environ, **variables},
                stderr=said[rank],
                stdout=said[rank],
            )
            for rank in (0, 1)
        ]
        for process in processes:
            stack.callback(process.kill)
        for rank, process in enumerate(processes):
            assert not process.wait(timeout=300), (folder / f'{rank}.txt').read_text()
    return folder


@pytest.mark.parametrize('pair', PAIRS)
def test_a_pair_of_features_in_two_processes(pair, folder):
    features = pair.split('+')
    first, second = (torch.load(folder / f'{pair}_{rank}.pth') for rank in (0, 1))
    model = FeaturesToy('replaced' in features, 'frozen' in features, norm=False)
    model.load_state_dict(first['start'])
    averages = train_by_hand(features, model, ranks=2)
    for name, value in tensors(model).items():
        torch.testing.assert_close(first['end'][name], value, msg=f'{name} differs')
        assert torch.equal(first['end'][name], second['end'][name]), name
    assert first['averages'].keys() == averages.keys()
    for kind, average in averages.items():
        for name, value in average.items():
            torch.testing.assert_close(first['averages'][kind][name], value, msg=name)


def test_both_processes_end_where_one_has_a_loss_that_is_not_finite(folder):
    said = [json.loads((folder / f'said_{rank}.json').read_text()) for rank in (0, 1)]
    assert said[0].startswith(
        'iteration 2: the loss is not finite (in another process)'
    )
    assert said[1].startswith(
        'iteration 2: the loss is not finite (loss nan, loss_fit nan)'
    )
