"""What the visualization hook for positions logs, by mmengine's backends."""

import json

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.model import BaseModel
from mmengine.registry import MODELS
from mmengine.runner import Runner
from toy import toy_config

from dcls_mm.analysis import collect_elements
from dcls_mm.checks.errors import ConfigError
from dcls_mm.engine.hooks import PositionsVisualizationHook
from dcls_mm.layers import DCLSConv1d, DCLSConv2d
from dcls_mm.visualization import displacement, draw_movement, draw_positions

PICTURES = {'dcls_positions', 'dcls_movement', 'dcls_kernels'}


@MODELS.register_module(force=True)
class PlanarToy(BaseModel):
    """Two depthwise layers of one or two axes that share their positions."""

    def __init__(self, axes=2):
        super().__init__()
        kind = {1: DCLSConv1d, 2: DCLSConv2d}[axes]
        self.axes = axes
        self.first, self.second = (
            kind(2, 2, groups=2, padding=2, kernel_count=3, dilated_kernel_size=5)
            for _ in range(2)
        )
        self.second.share_positions(self.first)

    def forward(self, x, y, mode='tensor'):
        size = {1: (4,), 2: (2, 2)}[self.axes]
        x = torch.stack(list(x)).view(-1, 1, *size).expand(-1, 2, *size)
        error = self.second(self.first(x)).flatten(1).mean(1)
        return {'loss': (error - torch.stack(list(y)).squeeze(1)).square().mean()}


def make_runner(folder, hook=None, backend='LocalVisBackend', max_epochs=2, **changes):
    hook = {'type': 'PositionsVisualizationHook', 'columns': 1, **(hook or {})}
    config = toy_config(
        work_dir=str(folder),
        train_cfg=changes.pop(
            'train_cfg', {'by_epoch': True, 'max_epochs': max_epochs}
        ),
        optim_wrapper={
            'optimizer': {'type': 'SGD', 'lr': 5.0},
            'constructor': 'DCLSOptimizerConstructor',
        },
        param_scheduler=None,
        custom_hooks=[hook, {'type': 'ClampPositionsHook'}],
        visualizer={'type': 'Visualizer', 'vis_backends': [{'type': backend}]},
        **{
            f'{stage}_{part}': None
            for stage in ('val', 'test')
            for part in ('dataloader', 'cfg', 'evaluator')
        },
        **{'model': {'type': 'PlanarToy'}, **changes},
    )
    # Runners share the visualizer of a name.
    config['visualizer']['name'] = config['experiment_name']
    return Runner.from_cfg(Config(config))


def logged(folder):
    """Return the pictures by name and step, and the numbers by step."""
    images = {
        tuple(path.stem.rsplit('_', 1)): cv2.imread(str(path))[..., ::-1]
        for path in folder.glob('*/vis_data/vis_image/*.png')
    }
    numbers = {}
    for path in sorted(folder.glob('*/vis_data/scalars.json')):
        for record in map(json.loads, path.read_text().splitlines()):
            if 'dcls/displacement/first' in record:
                numbers[record['step']] = record['dcls/displacement/first']
    return images, numbers


@pytest.fixture
def undrawn(monkeypatch):
    """Draw tiny placeholders, to save time."""
    for name in ('positions', 'movement', 'kernels'):
        monkeypatch.setattr(
            f'dcls_mm.visualization.draw_{name}',
            lambda *args: np.zeros((2, 2, 3), np.uint8),
        )


def test_pictures_and_distance_from_the_start(tmp_path):
    runner = make_runner(tmp_path, {'interval': 2})
    start = collect_elements(runner.model)
    runner.train()
    end = collect_elements(runner.model)
    images, numbers = logged(tmp_path)
    assert set(images) == {(name, '2') for name in PICTURES}
    expected = draw_positions(end), draw_movement([start, end], [0, 2], columns=1)
    np.testing.assert_array_equal(images['dcls_positions', '2'], expected[0])
    np.testing.assert_array_equal(images['dcls_movement', '2'], expected[1])
    assert list(numbers) == [2]
    (moved,) = displacement([start, end], [0, 2]).values()
    assert numbers[2] == pytest.approx(moved[-1][1]) and numbers[2] > 0.01


@pytest.mark.parametrize(
    'hook, steps',
    [
        ({'interval': 2}, {'2'}),
        ({'interval': 3, 'by_epoch': False}, {'3', '6'}),
    ],
)
def test_intervals(tmp_path, undrawn, hook, steps):
    make_runner(tmp_path, hook).train()
    images, _ = logged(tmp_path)
    assert {step for _, step in images} == steps


def test_resumed_training_goes_on_from_its_start(tmp_path, undrawn):
    runner = make_runner(tmp_path, max_epochs=1)
    start = collect_elements(runner.model)
    runner.train()
    runner = make_runner(tmp_path, resume=True, load_from=f'{tmp_path}/epoch_1.pth')
    runner.train()
    _, numbers = logged(tmp_path)
    (moved,) = displacement([start, collect_elements(runner.model)], [0, 2]).values()
    assert numbers[2] == pytest.approx(moved[-1][1])


def test_a_resumed_training_by_iterations_goes_on_from_its_start(tmp_path, undrawn):
    """Such a training has only one epoch, the first."""
    loop = {'by_epoch': False, 'max_iters': 2}
    hooks = {'checkpoint': {'type': 'CheckpointHook', 'by_epoch': False}}
    runner = make_runner(tmp_path, train_cfg=loop, default_hooks=hooks)
    start = collect_elements(runner.model)
    runner.train()
    more = {'train_cfg': {**loop, 'max_iters': 4}, 'default_hooks': hooks}
    path = f'{tmp_path}/iter_2.pth'
    runner = make_runner(tmp_path, **more, resume=True, load_from=path)
    runner.train()
    _, numbers = logged(tmp_path)
    (moved,) = displacement([start, collect_elements(runner.model)], [0, 1]).values()
    assert numbers[1] == pytest.approx(moved[-1][1])


def test_layers_of_one_axis_have_numbers_only(tmp_path):
    make_runner(tmp_path, max_epochs=1, model={'type': 'PlanarToy', 'axes': 1}).train()
    images, numbers = logged(tmp_path)
    assert not images and list(numbers) == [1]


def test_tensorboard(tmp_path):
    pytest.importorskip('tensorboard')
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    runner = make_runner(tmp_path, {'interval': 2}, 'TensorboardVisBackend')
    runner.train()
    (events,) = tmp_path.glob('*/vis_data/events.out.tfevents*')
    found = EventAccumulator(str(events)).Reload()
    assert set(found.Tags()['images']) == PICTURES
    image = found.Images('dcls_positions')[0]
    drawn = cv2.imdecode(np.frombuffer(image.encoded_image_string, np.uint8), 1)
    assert image.step == 2
    np.testing.assert_array_equal(
        drawn[..., ::-1], draw_positions(collect_elements(runner.model))
    )
    assert [e.step for e in found.Scalars('dcls/displacement/first')] == [2]


def test_only_the_main_process_draws(tmp_path, monkeypatch):
    monkeypatch.setattr(
        'dcls_mm.engine.hooks.positions_visualization_hook.is_main_process', bool
    )
    make_runner(tmp_path, max_epochs=1).train()
    assert logged(tmp_path) == ({}, {})


def test_training_outlives_infinite_positions(tmp_path):
    runner = make_runner(tmp_path, max_epochs=1)
    hook = next(h for h in runner.hooks if isinstance(h, PositionsVisualizationHook))
    hook.before_train(runner)
    runner.model.first.P.data.fill_(torch.nan)
    warnings = []
    runner.logger.warning = warnings.append
    hook.after_train_epoch(runner)
    assert 'draws nothing: first has positions that are NaN' in warnings[0]
    assert logged(tmp_path)[0] == {}


@pytest.mark.parametrize('name', ['interval', 'columns'])
def test_wrong_arguments(name):
    with pytest.raises(ValueError, match=f'PositionsVisualizationHook.{name}'):
        PositionsVisualizationHook(**{name: 0})


def test_model_without_layers(tmp_path):
    runner = make_runner(tmp_path, model={'type': 'ToyModel'})
    with pytest.raises(ConfigError, match='PositionsVisualizationHook needs a model'):
        PositionsVisualizationHook().before_train(runner)
