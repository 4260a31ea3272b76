"""The files of drawn scenes, checked by COCO's own code and by counting pixels."""

import cv2
import numpy as np
import pytest
from pycocotools.coco import COCO

from dcls_mm.datasets import SHAPES, draw_scene, has_scenes, write_scenes
from dcls_mm.datasets.shapes import run_lengths


def draw(seed, size=96):
    return draw_scene(np.random.default_rng(seed), size)


def write(root, **changes):
    settings = dict(split='val', count=6, seed=3, size=96, **changes)
    return list(write_scenes(str(root), **settings))


def test_same_seed_same_scene():
    first, again, other = draw(0), draw(0), draw(1)
    for a, b in zip(first, again):
        np.testing.assert_array_equal(a, b)
    assert (first.image != other.image).any()


def test_scene_is_consistent():
    for seed in range(20):
        scene = draw(seed)
        assert scene.image.shape == (96, 96, 3)
        assert scene.image.dtype == np.uint8
        assert len(scene.masks) == len(scene.labels) >= 1
        assert scene.masks.sum(axis=0).max() == 1, 'visible parts must not overlap'
        assert scene.masks.any(axis=(1, 2)).all()


def test_every_class_is_drawn():
    labels = np.concatenate([draw(seed).labels for seed in range(20)])
    assert set(labels) == set(range(len(SHAPES)))


def test_outlines_differ_by_how_much_of_their_circle_they_fill():
    # Shares of the enclosing circle: a disc has 1, a ring 1 - 0.55^2, a square 2 / pi,
    # ...
    expected = {'disc': 1.0, 'ring': 0.6975, 'square': 0.637, 'triangle': 0.4135}
    filled = {name: [] for name in expected}
    for seed in range(40):
        scene = draw(seed, size=160)
        whole = len(scene.labels) - 1  # nothing covers the shape drawn last
        name = SHAPES[scene.labels[whole]]
        if name in expected:
            points = np.argwhere(scene.masks[whole]).astype(np.float32)
            _, radius = cv2.minEnclosingCircle(points)
            area = scene.masks[whole].sum()
            filled[name].append(area / (np.pi * radius**2))
    for name, values in filled.items():
        assert np.mean(values) == pytest.approx(expected[name], abs=0.06), name


def test_label_map_numbers_the_classes_from_one():
    scene = draw(5)
    labels = scene.label_map()
    assert (labels[~scene.masks.any(axis=0)] == 0).all()
    for mask, label in zip(scene.masks, scene.labels):
        assert (labels[mask] == label + 1).all()


@pytest.mark.parametrize(
    'mask, counts',
    [
        ([[0, 1], [0, 1]], [2, 2]),
        ([[1, 0], [1, 1]], [0, 2, 1, 1]),
        ([[0, 0], [0, 0]], [4]),
        ([[1, 1], [1, 1]], [0, 4]),
    ],
)
def test_run_lengths_by_hand(mask, counts):
    expected = dict(counts=counts, size=[2, 2])
    assert run_lengths(np.array(mask, dtype=bool)) == expected


def test_files_read_by_coco(tmp_path):
    assert write(tmp_path) == [1, 2, 3, 4, 5, 6]
    coco = COCO(str(tmp_path / 'annotations' / 'val.json'))
    assert [c['name'] for c in coco.loadCats(coco.getCatIds())] == list(SHAPES)
    for index in range(6):
        scene = draw([3, index])
        annotations = coco.loadAnns(coco.getAnnIds(index))
        assert [a['category_id'] - 1 for a in annotations] == list(scene.labels)
        for annotation, mask in zip(annotations, scene.masks):
            np.testing.assert_array_equal(coco.annToMask(annotation), mask)
            assert annotation['area'] == mask.sum()
            x, y, width, height = annotation['bbox']
            box = np.zeros_like(mask)
            box[y : y + height, x : x + width] = True
            assert (mask & ~box).sum() == 0
            for strip in (box[y, :], box[:, x]):
                assert strip.any()
            assert mask[y].any() and mask[y + height - 1].any()
            assert mask[:, x].any() and mask[:, x + width - 1].any()
        name = coco.loadImgs(index)[0]['file_name']
        image = cv2.imread(str(tmp_path / 'images' / 'val' / name))
        assert image.shape == scene.image.shape
        error = np.abs(image.astype(int) - scene.image)
        assert error.mean() < 20, 'more than jpeg loses'
        label_file = tmp_path / 'labels' / 'val' / name.replace('.jpg', '.png')
        labels = cv2.imread(str(label_file), cv2.IMREAD_UNCHANGED)
        np.testing.assert_array_equal(labels, scene.label_map())


def test_has_scenes_only_once_all_are_written(tmp_path):
    settings = dict(root=str(tmp_path), split='val', count=6, seed=3, size=96)
    assert not has_scenes(**settings)
    drawing = write_scenes(**settings)
    next(drawing)
    drawing.close()
    assert not has_scenes(**settings), 'interrupted'
    write(tmp_path)
    assert has_scenes(**settings)
    assert not has_scenes(**{**settings, 'seed': 4})
    assert not has_scenes(**{**settings, 'count': 7})


def test_oriented_boxes_hold_the_visible_pixels(tmp_path):
    """Each is no larger than the upright box, and a turned square fills its own."""
    write(tmp_path, oriented=True)
    assert has_scenes(str(tmp_path), 'val', 6, 3, 96, oriented=True)
    assert not has_scenes(str(tmp_path), 'val', 6, 3, 96)
    fills = []
    for index in range(6):
        scene = draw_scene(np.random.default_rng([3, index]), 96)
        text = (tmp_path / 'annfiles' / 'val' / f'{index:06d}.txt').read_text()
        lines = text.splitlines()
        assert len(lines) == len(scene.labels)
        for line, mask, label in zip(lines, scene.masks, scene.labels):
            *corners, name, difficult = line.split()
            assert (name, difficult) == (SHAPES[label], '0')
            box = np.array(corners, np.float32).reshape(4, 2)
            for y, x in np.argwhere(mask):
                assert cv2.pointPolygonTest(box, (float(x), float(y)), True) > -0.1
            rows, columns = np.nonzero(mask)
            assert cv2.contourArea(box) <= np.ptp(rows) * np.ptp(columns) + 1
            if name == 'square':
                fills.append(mask.sum() / cv2.contourArea(box))
    assert fills and max(fills) > 0.9


def test_other_scenes_are_not_mixed_in(tmp_path):
    write(tmp_path)
    with pytest.raises(FileExistsError, match='already has scenes of val'):
        next(write_scenes(str(tmp_path), 'val', count=2, seed=3))


def test_bad_arguments(tmp_path):
    with pytest.raises(ValueError, match='size must be at least 32 pixels, got 16'):
        draw(0, size=16)
    with pytest.raises(ValueError, match='count must be at least 1, got 0'):
        next(write_scenes(str(tmp_path), 'val', count=0, seed=0))
