"""The commands in docs/classification.md do what the published recipe says."""

import math
import re
import shlex
from pathlib import Path

import pytest
import torch

pytestmark = pytest.mark.timm

PAGE = Path(__file__).resolve().parents[2] / 'docs' / 'classification.md'
TEXT = PAGE.read_text(encoding='utf-8')
(COMMAND,) = re.findall(r'^torchrun .*?(?=\n```)', TEXT, flags=re.DOTALL | re.MULTILINE)

# The published training: 300 epochs of ImageNet's 1,281,167 images.
IMAGES = 1281167
EPOCHS = 300
WARMUP = 20
RATE, LAST_RATE = 4e-3, 1e-6


def options():
    words = shlex.split(COMMAND.replace('\\\n', ' '))
    found, name = {}, None
    for word in words:
        if word.startswith('--'):
            name = word.partition('=')[0]
            found[name] = [word.partition('=')[2]] if '=' in word else []
        elif name:
            found[name].append(word)
    return {name: values for name, values in found.items()}


OPTIONS = options()


def number(name):
    return float(OPTIONS[name][0])


def steps_per_epoch():
    """As train.py counts: the last batch of each process is dropped if not full."""
    processes = int(number('--nproc-per-node'))
    batches = math.ceil(IMAGES / processes) // int(number('--batch-size'))
    return math.ceil(batches / number('--grad-accum-steps'))


def test_batch_and_rate_are_the_published():
    parts = ('--nproc-per-node', '--batch-size', '--grad-accum-steps')
    assert math.prod(map(number, parts)) == 4096
    assert number('--lr') == RATE


def test_repulsion_begins_after_epoch_20():
    (given,) = [v for v in OPTIONS['--model-kwargs'] if v.startswith('repulsion_after')]
    assert given == f'repulsion_after={21 * steps_per_epoch()}'


def test_schedule_is_the_published():
    from timm.scheduler import create_scheduler_v2

    steps = steps_per_epoch()
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=number('--lr'))
    scheduler, epochs = create_scheduler_v2(
        optimizer,
        sched=OPTIONS['--sched'][0],
        num_epochs=int(number('--epochs')),
        warmup_epochs=int(number('--warmup-epochs')),
        warmup_prefix='--warmup-prefix' in OPTIONS,
        warmup_lr=number('--warmup-lr'),
        min_lr=number('--min-lr'),
        step_on_epochs='--sched-on-updates' not in OPTIONS,
        updates_per_epoch=steps,
    )
    assert epochs == EPOCHS
    for step in (*range(0, EPOCHS * steps, 997), WARMUP * steps, EPOCHS * steps - 1):
        scheduler.step_update(step)
        if step < WARMUP * steps:
            expected = RATE * step / (WARMUP * steps)
        else:
            passed = (step - WARMUP * steps) / ((EPOCHS - WARMUP) * steps)
            half = 0.5 * (1 + math.cos(math.pi * passed))
            expected = LAST_RATE + half * (RATE - LAST_RATE)
        assert optimizer.param_groups[0]['lr'] == pytest.approx(expected, abs=1e-6)


def test_networks_and_files_of_labels_exist():
    import timm.data

    from dcls_mm.backbones.timm_networks.dcls import NETWORKS

    named = set(re.findall(r'--model (\w+)', TEXT))
    assert named <= set(NETWORKS)
    table = TEXT[: TEXT.index('## Train')]
    for name in NETWORKS:
        first, _, last = name.rpartition('_')
        assert f'`{name}`' in table or (first in table and f'`_{last}`' in table)
    folder = Path(timm.data.__path__[0]) / '_info'
    files = re.findall(r'\$labels/(\w+\.txt)', TEXT)
    assert len(files) == 2
    for file in files:
        assert len((folder / file).read_text().split()) == 200
