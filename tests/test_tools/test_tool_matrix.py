"""Every tool with every kind of config, data, image and backbone, in all pairs."""

import itertools
from pathlib import Path

import cv2
import pytest
from tool_inputs import BACKBONES, SIDE, write_config, write_data, write_weights
from wrong_input import command

WITH_POSITIONS = ('dcls', 'resnet', 'replaced')
DEPTHWISE = ('dcls', 'dense', 'flex')

SCOPES = ('mmdet', 'mmseg')
STYLES = ('text', 'python')
WRAPPERS = ('none', 'RepeatDataset', 'ConcatDataset')
CHANNELS = (3, 1, 4)


def files(folder):
    return sorted(str(path.relative_to(folder)) for path in Path(folder).rglob('*.*'))


def check_test(case, capsys):
    command('tools/test.py', 'config.py', 'weights.pth', '--work-dir', 'work')


def check_predict(case, capsys):
    command('tools/predict.py', 'config.py', 'weights.pth', 'data/images', '--out', 'o')
    ours = ('preds', 'json') if case['scope'] == 'mmdet' else ('pred', 'png')
    names = [f'{ours[0]}/{name}.{ours[1]}' for name in 'ab']
    assert files('o') == [*names, 'vis/a.png', 'vis/b.png']


VISUALIZE = 'tools/analysis_tools/visualize.py'


def check_predictions(case, capsys):
    command(VISUALIZE, 'predictions', 'config.py', 'weights.pth', '--out', 'o')
    assert files('o') == ['0000_a.png', '0001_b.png']


def check_receptive_field(case, capsys):
    options = ('--out', 'o.png', '--count', 1, '--shape', SIDE, SIDE)
    command(VISUALIZE, 'receptive-field', 'config.py', 'weights.pth', *options)
    assert f'({SIDE}x{SIDE}): 50%' in capsys.readouterr().out


def check_grad_cam(case, capsys):
    options = ('--images', 'data/images', '--out', 'o', '--score-threshold', 0)
    command(VISUALIZE, 'grad-cam', 'config.py', 'weights.pth', *options)
    assert files('o') == ['0000_a.png', '0001_b.png']
    assert capsys.readouterr().out.splitlines()[-1] == 'o: 2 pictures'


def check_kernels(case, capsys):
    command(VISUALIZE, 'kernels', 'config.py', 'weights.pth', '--out', 'o.png')
    assert cv2.imread('o.png').std() > 0


def check_positions(case, capsys):
    command(VISUALIZE, 'positions', 'config.py', 'weights.pth', '--out', 'o.png')
    assert cv2.imread('o.png').std() > 0


def check_report(case, capsys):
    command('tools/analysis_tools/tuning_report.py', 'config.py', 'weights.pth')
    assert 'Advice' in capsys.readouterr().out


def check_flops(case, capsys):
    command('tools/analysis_tools/get_flops.py', 'config.py', '--shape', SIDE)
    expected = f'parameters  {case["parameters"] / 1e6:.1f} M'
    assert expected in capsys.readouterr().out


def check_robustness(case, capsys):
    pytest.importorskip('imagecorruptions')
    options = ('--corruptions', 'brightness', '--severities', 2, '--work-dir', 'work')
    tool = 'tools/analysis_tools/test_robustness.py'
    command(tool, 'config.py', 'weights.pth', *options)
    assert '| brightness |' in capsys.readouterr().out


def check_fold(case, capsys):
    command('tools/deploy/fold.py', 'config.py', 'weights.pth', '--out', 'o')
    assert {'config.py', 'checkpoint.pth'} <= {*files('o')}


TOOLS = {
    'test': check_test,
    'predict': check_predict,
    'predictions': check_predictions,
    'receptive-field': check_receptive_field,
    'grad-cam': check_grad_cam,
    'kernels': check_kernels,
    'positions': check_positions,
    'report': check_report,
    'flops': check_flops,
    'robustness': check_robustness,
    'fold': check_fold,
}


def sentence(case):
    """Return what the tool must say if it doesn't support the case; None if it does."""
    tool, backbone = case['tool'], case['backbone']
    if tool in ('positions', 'report') and backbone not in WITH_POSITIONS:
        return 'no DCLS layers'
    if tool == 'grad-cam' and case['scope'] == 'mmdet':  # all are one-stage
        return 'scores of this detector have no gradients'
    if tool == 'kernels' and backbone not in DEPTHWISE:
        return 'no layer that constructs one'
    if tool == 'robustness' and case['channels'] == 4:
        return 'defined for 1 or 3 channels, but the model takes 4'
    if tool == 'fold' and backbone in ('plain', 'dilated'):
        return 'no '
    return None


DIMENSIONS = {
    'tool': list(TOOLS),
    'backbone': list(BACKBONES),
    'channels': list(CHANNELS),
    'wrapper': list(WRAPPERS),
    'style': list(STYLES),
    'scope': list(SCOPES),
}


def pairwise(dimensions):
    """Return few cases that cover each pair of values; greedy, deterministic."""
    names = list(dimensions)
    left = {
        ((a, x), (b, y))
        for a, b in itertools.combinations(names, 2)
        for x in dimensions[a]
        for y in dimensions[b]
    }
    first, second, *rest = names
    cases = []
    for x, y in itertools.product(dimensions[first], dimensions[second]):
        case = {first: x, second: y}
        for name in rest:
            gain = {
                value: sum(
                    ((other, case[other]), (name, value)) in left for other in case
                )
                for value in dimensions[name]
            }
            case[name] = max(gain, key=gain.get)
        left -= set(itertools.combinations(case.items(), 2))
        cases.append(case)
    assert not left, left
    return cases


CASES = pairwise(DIMENSIONS)


@pytest.mark.parametrize('case', CASES, ids=lambda c: '-'.join(map(str, c.values())))
def test_tool(case, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    settings = {k: v for k, v in case.items() if k != 'tool'}
    write_config(**settings)
    write_data(case['scope'], case['channels'])
    parameters = write_weights(case['scope'], case['backbone'], case['channels'])
    expected = sentence(case)
    check = TOOLS[case['tool']]
    if expected is None:
        check({**case, 'parameters': parameters}, capsys)
        return
    with pytest.raises(SystemExit, match=f'error: .*{expected}'):
        check(case, capsys)
