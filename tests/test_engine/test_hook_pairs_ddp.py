"""Pairs of hooks in two processes, against a hand-written loop in one."""

import json
from pathlib import Path

import pytest
import torch
from features import FeaturesToy, tensors, train_by_hand
from processes import free_port, run_two_ranks

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
    run_two_ranks(folder, [HERE / 'two_processes.py'], free_port(), folder, *PAIRS)
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
