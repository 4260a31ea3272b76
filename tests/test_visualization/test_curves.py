"""Curves rise where their values do, and join those of a resumed training."""

import json

import numpy as np
import pytest

from dcls_mm.visualization import (
    draw_curves,
    draw_position_curves,
    read_curves,
    read_position_curves,
)

BLUE = '#0072B2'  # the first curve's


def test_curve_rises(find_colour):
    image = draw_curves({'AP': [(0, 0.0), (10, 1.0)]}, title='')
    panel = image[: image.shape[0] * 3 // 4]  # without the legend
    left, right = np.array_split(panel[:, 80:-20], 2, axis=1)
    assert find_colour(left, BLUE)[0] > find_colour(right, BLUE)[0] + 20


def test_every_curve_is_drawn():
    """There are more curves than colours or markers."""
    points = {f'layer {i}': [(0, i), (1, i)] for i in range(20)}
    without = draw_curves({**points, 'layer 19': [(0, 0), (1, 19)]}, title='')
    assert (draw_curves(points, title='') != without).any()


def write_log(work_dir, run, records):
    folder = work_dir / run / 'vis_data'
    folder.mkdir(parents=True)
    lines = [json.dumps(record) for record in records]
    (folder / 'scalars.json').write_text('\n'.join(lines) + '\n')


def test_curves_of_a_resumed_training(tmp_path):
    first = [dict(loss=9.0, step=5), dict(AP=0.1, step=1), dict(AP=0.2, step=2)]
    write_log(tmp_path, '20260101_000000', first)
    write_log(tmp_path, '20260101_010000', [dict(AP=0.3, step=2), dict(AP=0.4, step=3)])
    assert read_curves(tmp_path, ['AP']) == {'AP': [(1, 0.1), (2, 0.3), (3, 0.4)]}


def test_curves_that_are_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match='scalars.json'):
        read_curves(tmp_path, ['AP'])
    write_log(tmp_path, '20260101_000000', [dict(loss=1.0, step=1)])
    with pytest.raises(ValueError, match='has no value of AP'):
        read_curves(tmp_path, ['AP', 'loss'])


@pytest.mark.parametrize('torn', ['{"AP": 0.', '{"AP": 0.9, "step', '{', '\0' * 40])
def test_a_last_line_that_was_cut_off_is_passed_over(tmp_path, torn):
    write_log(tmp_path, '20260101_000000', [dict(AP=0.1, step=1), dict(AP=0.2, step=2)])
    write_log(tmp_path, '20260101_010000', [dict(AP=0.3, step=2)])
    (log, _) = sorted(tmp_path.glob('*/vis_data/scalars.json'))
    log.write_bytes(log.read_bytes() + torn.encode())
    assert read_curves(tmp_path, ['AP']) == {'AP': [(1, 0.1), (2, 0.3)]}


@pytest.mark.parametrize('torn', [b'{"AP": 0.', b'\xff\xfe', b'', b'[1]', b'7'])
def test_a_line_before_the_last_is_not(tmp_path, torn):
    write_log(tmp_path, '20260101_000000', [dict(AP=0.1, step=1)])
    (log,) = tmp_path.glob('*/vis_data/scalars.json')
    log.write_bytes(log.read_bytes() + torn + b'\n{"AP": 0.2, "step": 2}\n')
    with pytest.raises(ValueError, match=r'scalars\.json, line 2: '):
        read_curves(tmp_path, ['AP'])


def test_curves_of_positions(tmp_path):
    """Names of stages may have slashes; other scalars and kinds are passed over."""
    first = [
        {'positions/net.0/extent': 9, 'positions/a/b/travel': 0.5, 'step': 10},
        {'loss': 1.0, 'positions/spread': 2, 'positions/net.0/reach': 3, 'step': 10},
        {'positions/net.0/extent': 9, 'step': 20},
    ]
    write_log(tmp_path, '20260101_000000', first)
    later = [{'positions/net.0/extent': 11, 'positions/net.1/count': 5, 'step': 20}]
    write_log(tmp_path, '20260101_010000', later)
    assert read_position_curves(tmp_path) == {
        'extent': {'net.0': [(10, 9), (20, 11)]},
        'count': {'net.1': [(20, 5)]},
        'spread': {},
        'travel': {'a/b': [(10, 0.5)]},
    }


def test_without_curves_of_positions(tmp_path):
    with pytest.raises(FileNotFoundError, match='scalars.json'):
        read_position_curves(tmp_path)
    write_log(tmp_path, '20260101_000000', [dict(loss=1.0, step=1)])
    with pytest.raises(ValueError, match="type='PositionsLogHook'"):
        read_position_curves(tmp_path)


def test_each_figure_of_each_stage_is_drawn():
    levels = {'extent': 1, 'count': 2, 'spread': 3, 'travel': 4}
    both = {
        figure: {stage: [(0, y), (5, y), (9, y)] for stage in ('net.0', 'net.1')}
        for figure, y in levels.items()
    }
    drawn = draw_position_curves(both)
    for figure, y in levels.items():
        lower = {**both[figure], 'net.1': [(0, y), (5, y / 2), (9, y)]}
        changed = {**both, figure: lower}
        rows, columns = (draw_position_curves(changed) != drawn).any(-1).nonzero()
        height, width = drawn.shape[:2]
        panel = list(levels).index(figure)
        assert (rows < height / 2).all() == (panel < 2)
        assert (columns < width / 2).all() == (panel % 2 == 0)
