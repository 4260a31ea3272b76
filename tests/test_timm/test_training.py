"""Training by the parts of timm's train.py, with small versions of the networks."""

import argparse
import copy

import pytest
import torch

from dcls_mm.backbones.timm_networks.position_training import STEPS

pytestmark = pytest.mark.timm

SMALL = dict(
    depths=(1, 1, 2, 1), dims=(8, 12, 16, 20), num_classes=4, ls_init_value=1.0
)
LR = 1e-2


@pytest.fixture
def create():
    import timm

    import dcls_mm.timm_models  # noqa: F401

    def make(seed=0, name='convnext_dcls_tiny_gauss', **options):
        torch.manual_seed(seed)
        # In float64, as Adam turns the rounding of small gradients into whole steps.
        return timm.create_model(name, **{**SMALL, **options}).double()

    return make


def batches(count, seed=1):
    generator = torch.Generator().manual_seed(seed)
    for _ in range(count):
        yield (
            torch.randn(4, 3, 32, 32, generator=generator, dtype=torch.float64),
            torch.randint(0, 4, (4,), generator=generator),
        )


def train(model, optimizer, steps=3, seed=1, scaler=None, ema=None, accumulate=1):
    model.train()
    for number, (images, labels) in enumerate(batches(steps * accumulate, seed), 1):
        loss = torch.nn.functional.cross_entropy(model(images), labels) / accumulate
        steps_now = number % accumulate == 0
        if scaler is not None:
            parameters = model.parameters()
            scaler(
                *(loss, optimizer),
                clip_grad=1.0,
                parameters=parameters,
                need_update=steps_now,
            )
        else:
            loss.backward()
            if steps_now:
                optimizer.step()
        if steps_now:
            optimizer.zero_grad()
            if ema is not None:
                ema.update(model, step=number)
    return model


def optimizer_for(model, opt='adamw'):
    from timm.optim import create_optimizer_v2

    return create_optimizer_v2(model, opt=opt, lr=LR, weight_decay=0.05)


def with_rate(model, rate, opt='adamw'):
    """Return timm's optimizer for a model without our hooks, positions in a group."""
    from timm.optim import create_optimizer_v2

    del model.no_weight_decay, model.position_training
    named = list(model.named_parameters())
    placed = [p for key, p in named if key.endswith(('.P', '.SIG'))]
    plain = [p for key, p in named if p.ndim <= 1 or key.endswith('.bias')]
    known = {id(p) for p in (*placed, *plain)}
    groups = [
        dict(params=placed, lr=rate * LR, weight_decay=0.0),
        dict(params=plain, weight_decay=0.0),
        dict(params=[p for _, p in named if id(p) not in known], weight_decay=0.05),
    ]
    return create_optimizer_v2(groups, opt=opt, lr=LR)


def assert_same(one, other, tolerance=1e-9):
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    for value, expected in pairs:
        torch.testing.assert_close(value, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize('opt', ['adamw', 'lamb', 'lion', 'sgd', 'nadamw', 'radam'])
def test_positions_learn_as_in_a_group_of_their_own(opt, create):
    ours, expected = create(), create()
    start = copy.deepcopy(ours.state_dict())
    train(ours, optimizer_for(ours, opt))
    train(expected, with_rate(expected, 5, opt))
    assert_same(ours, expected)
    key = 'stages.2.blocks.0.conv_dw.P'
    assert not torch.equal(ours.state_dict()[key], start[key])


def test_positions_are_in_no_group_with_decay(create):
    model = create()
    placed = {id(p) for k, p in model.named_parameters() if k.endswith(('.P', '.SIG'))}
    assert len(placed) == 8
    decayed = [g for g in optimizer_for(model).param_groups if g['weight_decay']]
    assert not placed & {id(p) for g in decayed for p in g['params']}


def test_options_come_through_model_kwargs(create):
    """train.py parses `--model-kwargs position_rate=2 repulsion_after=1` to these."""
    from timm.utils import ParseKwargs

    parser = argparse.ArgumentParser()
    parser.add_argument('--model-kwargs', nargs='*', default={}, action=ParseKwargs)
    given = ['--model-kwargs', 'position_rate=2', 'repulsion_after=1']
    model = create(**parser.parse_args(given).model_kwargs)
    assert model.position_training.rate == 2
    assert model.position_training.repulsion_after == 1


def test_scaling_clipping_and_accumulation_change_nothing(create):
    from timm.utils import NativeScaler

    ours, expected = create(repulsion_after=2), create(repulsion_after=2)
    scaler = NativeScaler(device='cpu')
    optimizer = optimizer_for(ours)
    train(ours, optimizer, scaler=scaler, accumulate=2)
    assert optimizer.param_groups[0][STEPS] == 3
    optimizer = optimizer_for(expected)
    for number, (images, labels) in enumerate(batches(6), 1):
        expected.train()
        loss = torch.nn.functional.cross_entropy(expected(images), labels) / 2
        loss.backward()
        if number % 2 == 0:
            torch.nn.utils.clip_grad_norm_(expected.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
    assert_same(ours, expected)


def test_average_of_the_weights_follows_the_positions(create):
    from timm.utils import ModelEmaV3

    model = create()
    ema = ModelEmaV3(model, decay=0.5)
    start = copy.deepcopy(model.state_dict())
    train(model, optimizer_for(model), steps=1, ema=ema)
    key = 'stages.2.blocks.1.conv_dw.P'
    # timm's first update copies; the second averages, once for each shared parameter.
    torch.testing.assert_close(ema.module.state_dict()[key], model.state_dict()[key])
    first = model.state_dict()[key].clone()
    assert not torch.equal(first, start[key])
    ema.update(model, step=10)
    train(model, optimizer_for(model), steps=1, seed=2)
    ema.update(model, step=10)
    average = (first + model.state_dict()[key]) / 2
    torch.testing.assert_close(ema.module.state_dict()[key], average)


def test_saved_training_resumes_where_it_was(create, tmp_path):
    from timm.models import resume_checkpoint
    from timm.utils import CheckpointSaver, ModelEmaV3

    options = dict(repulsion_after=3)
    args = argparse.Namespace(model='convnext_dcls_tiny_gauss')
    whole = create(**options)
    optimizer = optimizer_for(whole)
    train(whole, optimizer, steps=2)
    ema = ModelEmaV3(whole)
    saver = CheckpointSaver(
        *(whole, optimizer, args, ema), checkpoint_dir=tmp_path, max_history=2
    )
    saver.save_checkpoint(0, metric=1.0)
    path = str(tmp_path / 'last.pth.tar')
    resumed = create(seed=9, **options)
    again = optimizer_for(resumed)
    assert resume_checkpoint(resumed, path, again) == 1
    assert again.param_groups[0][STEPS] == 2
    train(whole, optimizer, steps=3, seed=2)
    train(resumed, again, steps=3, seed=2)
    assert_same(resumed, whole)
    assert again.param_groups[0][STEPS] == 5
    # And validate.py's loader reads it, averages first.
    loaded = create(seed=8, checkpoint_path=path, **options)
    assert_same(loaded, ema.module, tolerance=1e-6)  # loaded in float32


def test_compiled_model_trains_alike(create):
    ours, expected = create(), create()
    compiled = torch.compile(ours, backend='eager')
    train(compiled, optimizer_for(ours))
    train(expected, with_rate(expected, 5))
    assert_same(ours, expected)


def test_task_of_todays_train_py(create, tmp_path):
    """It wraps the model, keeps the average, and saves the parts of a checkpoint."""
    from timm.task import ClassificationTask

    model, expected = create(), create()
    task = ClassificationTask(model, device=torch.device('cpu'))
    task.setup_ema(decay=0.5)
    optimizer = optimizer_for(model)
    for step, (images, labels) in enumerate(batches(2), 1):
        task.train()(images, labels)['loss'].backward()
        optimizer.step()
        optimizer.zero_grad()
        task.update_ema(step=step)
    other = with_rate(expected, 5)
    for images, labels in batches(2):
        task_loss = task.criterion(expected.train()(images), labels)
        task_loss.backward()
        other.step()
        other.zero_grad()
    assert_same(model, expected)
    state = {**task.get_checkpoint_state(), **task.get_checkpoint_state(ema=True)}
    torch.save(state, tmp_path / 'last.pth.tar')
    loaded = create(seed=8, checkpoint_path=str(tmp_path / 'last.pth.tar'))
    assert_same(loaded, task.get_eval_model(ema=True).module, tolerance=1e-6)


def test_model_as_todays_validate_py_makes_it(create, tmp_path):
    import timm
    from timm.data import resolve_data_config
    from timm.models import load_checkpoint, resolve_model_input_args

    trained = create(num_classes=5)
    torch.save({'state_dict_ema': trained.state_dict()}, tmp_path / 'published.pth.tar')
    options = dict(pretrained=False, num_classes=5, global_pool=None, scriptable=False)
    small = {key: SMALL[key] for key in ('depths', 'dims')}
    model = timm.create_model(
        **resolve_model_input_args('convnext_dcls_tiny_gauss', {}, **options, **small)
    )
    load_checkpoint(model, str(tmp_path / 'published.pth.tar'), use_ema=True)
    assert_same(model.double(), trained, tolerance=1e-6)
    data = resolve_data_config(model=model, use_test_size=True)
    assert data['input_size'] == (3, 224, 224)
    assert data['crop_pct'] == 0.875
