"""Every pair of training features, against a loop written by hand."""

import itertools

import numpy as np
import pytest
import torch
from features import (
    HOOKS,
    LIMIT,
    SETTINGS,
    averaged_models,
    tensors,
    train,
    train_by_hand,
)

# Hooks come in both orders and twice, except two that anneal, which are refused.
PAIRS = [
    *itertools.permutations(HOOKS, 2),
    *((name, name) for name in HOOKS if name != 'annealing'),
    *itertools.product(HOOKS, SETTINGS),
    *itertools.combinations(SETTINGS, 2),
]


@pytest.fixture
def quick(monkeypatch):
    """Skip what takes long and is tested elsewhere."""
    monkeypatch.setattr('mmengine.runner.runner.collect_env', dict)
    for name in ('draw_positions', 'draw_movement', 'draw_kernels'):
        monkeypatch.setattr(
            f'dcls_mm.visualization.{name}',
            lambda *_: np.zeros((2, 2, 3), np.uint8),
        )


@pytest.mark.parametrize('features', PAIRS, ids='+'.join)
def test_a_pair_of_features(features, tmp_path, quick):
    runner, expected = train(features, tmp_path)
    averages = train_by_hand(features, expected)
    trained = tensors(runner.model)
    for name, value in tensors(expected).items():
        torch.testing.assert_close(trained[name], value, msg=f'{name} differs')
    found = averaged_models(runner, features)
    assert found.keys() == averages.keys()
    for kind, average in averages.items():
        actual = tensors(found[kind])
        for name, value in average.items():
            if value.is_floating_point():
                torch.testing.assert_close(actual[name], value, msg=f'{kind}: {name}')
    if 'clamp' in features:
        places = [value for name, value in trained.items() if name.endswith('.P')]
        assert all(value.abs().max() <= LIMIT for value in places)
    if 'pictures' in features:
        assert list(tmp_path.rglob('dcls_positions_*.png'))
    assert not runner.model._forward_hooks
