"""Wrong options of the commands that predict, draw, count, convert and report."""

import functools
from pathlib import Path

import cv2
import numpy as np
import torch

from . import ROOT, command, wrong

CONFIGS = ROOT / 'configs'
DET = CONFIGS / 'demo/cascade-mask-rcnn_convnext-dcls-demo_fpn_shapes.py'
SEG = CONFIGS / 'demo/upernet_convnext-dcls-demo_shapes.py'

PREDICT = functools.partial(command, 'tools/predict.py')
VISUALIZE = functools.partial(command, 'tools/analysis_tools/visualize.py')
REPORT = functools.partial(command, 'tools/analysis_tools/tuning_report.py')
FLOPS = functools.partial(command, 'tools/analysis_tools/get_flops.py')
ROBUSTNESS = functools.partial(command, 'tools/analysis_tools/test_robustness.py')
CONVERT = functools.partial(command, 'tools/model_converters/convert.py')
DRAW = functools.partial(command, 'tools/dataset_converters/draw_shapes.py')


def config(text: str) -> Path:
    """Write a config to the working directory."""
    path = Path('config.py')
    path.write_text(text)
    return path


def weights(content=None) -> Path:
    """Write a checkpoint to the working directory."""
    torch.save({'state_dict': {}} if content is None else content, 'weights.pth')
    return Path('weights.pth')


def image(name: str = 'image.png', content: bytes = b'') -> Path:
    """Write an image, or a file with this content, to the working directory."""
    if content:
        Path(name).write_bytes(content)
    else:
        cv2.imwrite(name, np.zeros((64, 64, 3), np.uint8))
    return Path(name)


def folder(name: str = 'folder') -> Path:
    Path(name).mkdir()
    return Path(name)


def file(name: str = 'file') -> Path:
    Path(name).write_text('')
    return Path(name)


def says(call, *texts):
    """Make a row for a command that exits with these texts."""
    return wrong(call, SystemExit, *texts)


ROWS = [
    # predict.py
    says(lambda: PREDICT(), 'required: config, checkpoint, images, --out'),
    says(lambda: PREDICT(SEG, 'a.pth', 'x.png'), 'required: --out'),
    says(
        lambda: PREDICT(SEG, 'a.pth', 'x.png', '--out', 'o'),
        'error: x.png does not exist (looked in ',
    ),
    says(
        lambda: PREDICT(SEG, 'a.pth', folder(), '--out', 'o'),
        'error: folder has no images: no file ends in .jpg, ',
    ),
    says(
        lambda: PREDICT(SEG, 'a.pth', image(content=b'text'), '--out', 'o'),
        'error: image.png is not an image that OpenCV can read',
    ),
    says(
        lambda: PREDICT(SEG, 'a.pth', image(), '--out', 'o'),
        'error: checkpoint a.pth does not exist',
    ),
    says(
        lambda: PREDICT('no.py', 'a.pth', image(), '--out', 'o'),
        'error: config no.py does not exist',
    ),
    says(
        lambda: PREDICT(SEG, 'a.pth', image(), '--out', file()),
        'error: --out file: File exists',
    ),
    says(
        lambda: PREDICT(SEG, 'a.pth', image(), '--out', 'o', '--batch-size', 0),
        'error: --batch-size must be at least 1, got 0',
    ),
    says(
        lambda: PREDICT(SEG, 'a.pth', image(), '--out', 'o', '--batch-size', 'two'),
        "argument --batch-size: invalid int value: 'two'",
    ),
    says(
        lambda: PREDICT(SEG, 'a', image(), '--out', 'o', '--score-threshold', 'nan'),
        'error: --score-threshold must be a finite number, got nan',
    ),
    says(
        lambda: PREDICT(SEG, 'a', image(), '--out', 'o', '--score-threshold=-inf'),
        'error: --score-threshold must be a finite number, got -inf',
    ),
    says(
        lambda: PREDICT(SEG, 'a.pth', image(), '--out', 'o', '--device', 'abacus'),
        'error: --device abacus: ',
    ),
    says(
        lambda: PREDICT(SEG, 'a.pth', image(), '--out', 'o', '--cfg-options', 'foo'),
        "expected KEY=VALUE, got 'foo'",
    ),
    says(
        lambda: PREDICT(SEG, 'a', image(), '--out', 'o', '--cfg-options', 'modell.a=1'),
        'error: --cfg-options modell.a: no config has a modell; did you mean model?',
    ),
    says(
        lambda: PREDICT(
            config("default_scope = 'mmdet'\nmodel = dict(type='RetinaNet')\n"),
            weights(),
            image(),
            *('--out', 'o'),
        ),
        'error: the config has no test_dataloader.dataset, whose pipeline',
    ),
    says(
        lambda: PREDICT(SEG, weights(), image(), '--out', 'o'),
        'error: checkpoint weights.pth',
    ),
    # visualize.py
    says(lambda: VISUALIZE(), 'required: command'),
    says(lambda: VISUALIZE('kernel'), "invalid choice: 'kernel'"),
    says(lambda: VISUALIZE('kernels', DET), 'required: checkpoint, --out'),
    says(
        lambda: VISUALIZE('kernels', DET, 'a.pth', '--out', 'o.gif'),
        'error: --out o.gif: must be the name of a .png file',
    ),
    says(
        lambda: VISUALIZE('positions', DET, 'a.pth', '--out', folder('o.png')),
        'error: --out o.png: is a folder',
    ),
    says(
        lambda: VISUALIZE('kernels', DET, 'a.pth', '--out', file() / 'o.png'),
        'error: --out file: File exists',
    ),
    says(
        lambda: VISUALIZE('kernels', DET, 'a.pth', '--out', 'o.png', '--columns', 0),
        'error: --columns must be at least 1, got 0',
    ),
    says(
        lambda: VISUALIZE('kernels', DET, 'a.pth', '--out', 'o.png', '--columns', 9999),
        'error: --columns must be at most 32, got 9999',
    ),
    says(
        lambda: VISUALIZE('movement', DET, 'a', '--out', 'o', '--columns', 33),
        'error: --columns must be at most 32, got 33',
    ),
    says(
        lambda: VISUALIZE('movement', DET, 'nowhere', '--out', 'o'),
        'error: nowhere is not a folder',
    ),
    says(
        lambda: VISUALIZE('movement', DET, folder(), '--out', 'o'),
        'error: folder must have at least two checkpoints, epoch_{}.pth or iter_{}.pth',
    ),
    says(
        lambda: VISUALIZE('kernels', DET, 'a.pth', '--out', 'o.png'),
        'error: checkpoint a.pth does not exist',
    ),
    says(
        lambda: VISUALIZE(
            'kernels',
            config("default_scope = 'mmdet'\n"),
            weights({'state_dict': {'a': torch.ones(1)}}),
            *('--out', 'o.png'),
        ),
        'error: config.py: the config has no model',
    ),
    says(
        lambda: VISUALIZE(
            'kernels',
            config("default_scope = 'mmdet'\nmodel = dict(type='Retina')\n"),
            weights({'state_dict': {'a': torch.ones(1)}}),
            *('--out', 'o.png'),
        ),
        'error: config.py: the model cannot be built: ',
    ),
    says(
        lambda: VISUALIZE('receptive-field', DET, 'a', '--out', 'o.png', '--count', 0),
        'error: --count must be at least 1, got 0',
    ),
    says(
        lambda: VISUALIZE(
            'receptive-field', DET, 'a', '--out', 'o.png', '--shape', 9, -1
        ),
        'error: --shape must be at least 1, got -1',
    ),
    says(
        lambda: VISUALIZE('receptive-field', DET, 'a', '--out', 'o.png', '--shape', 9),
        'argument --shape: expected 2 arguments',
    ),
    says(
        lambda: VISUALIZE(
            'receptive-field', DET, 'a', '--out', 'o.png', '--shares', 0.5, 95
        ),
        'error: --shares must lie between 0 and 1, got 0.5 95.0',
    ),
    says(
        lambda: VISUALIZE(
            'receptive-field', DET, 'a', '--out', 'o.png', '--shares', 'nan'
        ),
        'error: --shares must lie between 0 and 1, got nan',
    ),
    says(
        lambda: VISUALIZE(
            'receptive-field', DET, 'a', '--out', 'o.png', '--against', DET, 'a'
        ),
        'error: --names must give 2 different names, one per model',
    ),
    says(
        lambda: VISUALIZE(
            'receptive-field', DET, 'a', '--out', 'o.png', '--names', 'x', 'y'
        ),
        'error: --names must give 1 different names, one per model, got x, y',
    ),
    says(
        lambda: VISUALIZE(
            'receptive-field', DET, 'a', '--out', 'o.png', '--images', 'nowhere'
        ),
        'error: nowhere does not exist',
    ),
    says(
        lambda: VISUALIZE('predictions', DET, 'a', '--out', file()),
        'error: --out file: File exists',
    ),
    says(
        lambda: VISUALIZE('predictions', DET, 'a', '--out', 'o', '--count', -1),
        'error: --count must be at least 1, got -1',
    ),
    says(
        lambda: VISUALIZE(
            'predictions', DET, 'a', '--out', 'o', '--score-threshold', 'nan'
        ),
        'error: --score-threshold must be a finite number, got nan',
    ),
    says(
        lambda: VISUALIZE('grad-cam', DET, 'a', '--out', 'o'),
        'the following arguments are required: --images',
    ),
    says(
        lambda: VISUALIZE('grad-cam', DET, 'a', '--out', 'o', '--images', 'nowhere'),
        'error: nowhere does not exist',
    ),
    says(
        lambda: VISUALIZE('curves', 'nowhere', '--out', 'o.png'),
        'error: WORK_DIR: nowhere has no */vis_data/scalars.json to read',
    ),
    # tuning_report.py
    says(
        lambda: REPORT(DET, 'a.pth'),
        'error: checkpoint a.pth does not exist',
    ),
    says(
        lambda: REPORT(DET, 'a.pth', '--out', file()),
        'error: --out file: File exists',
    ),
    # get_flops.py
    says(lambda: FLOPS('no.py'), 'error: config no.py does not exist'),
    says(lambda: FLOPS(DET, '--cfg-options', 'foo'), "expected KEY=VALUE, got 'foo'"),
    *(
        says(
            lambda value=value: FLOPS(DET, '--cfg-options', f'custom_hooks={value}'),
            "custom_hooks: a dict can't be given here, got ",
            'write it into a config whose _base_ is this one, or set keys of a section',
        )
        for value in (
            "[dict(type='X',begin=-1)]",  # DictAction would split it forever
            "dict(type='X')",
            "{'type': 'X', 'begin': -1}",
        )
    ),
    says(
        lambda: FLOPS(DET, '--cfg-options', 'model.backbone.out_indices=[1,2'),
        'model.backbone.out_indices: expected a value, or a list such as [1,2] or ',
        "got '[1,2'",
    ),
    says(lambda: FLOPS(DET, '--cfg-options', '=3'), "expected KEY=VALUE, got '=3'"),
    says(
        lambda: FLOPS(DET, '--cfg-options', 'model.backbone.arch.x=1'),
        'the model cannot be built: arch must be a dict(depths=..., dims=...)',
    ),
    says(
        lambda: FLOPS(DET, '--shape', 1, 2, 3),
        'error: --shape must be a positive height and width in pixels, or one side',
    ),
    says(lambda: FLOPS(DET, '--shape', 0), 'error: --shape must be a positive height'),
    says(lambda: FLOPS(DET, '--shape', 'big'), "invalid int value: 'big'"),
    says(
        lambda: FLOPS(SEG, '--shape', 2),
        'EncoderDecoder cannot be run on an image of 2x2: the input must have at least',
    ),
    says(
        lambda: FLOPS(config('model = dict(\n')),
        'error: config.py: cannot be read, SyntaxError: ',
    ),
    says(
        lambda: FLOPS(config('model = undefined\n')),
        "error: config.py: cannot be read, NameError: name 'undefined' is not defined",
    ),
    says(
        lambda: FLOPS(config("default_scope = 'mmpose'\n")),
        "default_scope must be one of mmdet, mmrotate, mmseg, got 'mmpose'",
    ),
    says(
        lambda: FLOPS(config("default_scope = 'mmdet'\nmodel = dict(type='Retina')\n")),
        'error: config.py: the model cannot be built: ',
    ),
    # test_robustness.py
    says(
        lambda: ROBUSTNESS(SEG, 'a.pth', '--corruptions', 'fogg'),
        'error: --corruptions fogg: must be one of common, all, noise',
    ),
    says(
        lambda: ROBUSTNESS(SEG, 'a.pth', '--severities', 6),
        'error: --severities 6: must be from 1 to 5',
    ),
    says(
        lambda: ROBUSTNESS(SEG, 'a.pth', '--severities', 'mild'),
        "invalid int value: 'mild'",
    ),
    says(
        lambda: ROBUSTNESS(SEG, 'a.pth', '--out', 'no/where.json'),
        'error: --out no/where.json: no is not a writable folder',
    ),
    says(
        lambda: ROBUSTNESS(SEG, 'a.pth'),
        'error: checkpoint a.pth does not exist',
    ),
    # convert.py
    says(
        lambda: CONVERT(weights({'a.weight': torch.ones(1)}), 'b.pth'),
        'error: weights.pth: state_dict is not of a ConvNeXt with the keys of any of ',
        'it has a.weight',
    ),
    says(
        lambda: CONVERT('a.pth', 'b.pth', '--from', 'keras'), "invalid choice: 'keras'"
    ),
    says(
        lambda: CONVERT('a.pth', 'b.pth', '--from', 'timm'),
        'error: checkpoint a.pth does not exist',
    ),
    says(
        lambda: CONVERT(weights(), file('b.pth'), '--from', 'timm'),
        'error: b.pth exists; pass --force to replace it',
    ),
    says(
        lambda: CONVERT(weights(), 'b.pth', '--from', 'timm', '--version', 'gauss'),
        'error: --version and --no-sync-positions are for dcls, dcls-mmdet2, ',
        'timm weights have no positions',
    ),
    says(
        lambda: CONVERT(weights(), 'b.pth', '--from', 'dcls', '--extent', 17),
        'error: --extent is for convnext, dinov3, eupe, mmpretrain, timm, ',
        'dcls weights have their own',
    ),
    says(
        lambda: CONVERT(weights(), 'b.pth', '--from', 'timm', '--sha256', '12'),
        'error: weights.pth has the SHA-256 ',
        'expected 12',
    ),
    says(
        lambda: CONVERT(
            weights({'stages.0.blocks.0.conv_dw.weight': torch.ones(8, 1, 7, 7)}),
            *('b.pth', '--from', 'timm', '--extent', 4),
        ),
        'error: weights.pth, --extent 4: state_dict is not quite of timm, which needs ',
    ),
    says(
        lambda: CONVERT(weights(), 'b.pth', '--from', 'timm'),
        'error: checkpoint weights.pth holds no weights, only state_dict with nothing',
    ),
    # draw_shapes.py
    says(lambda: DRAW('shapes', '--count', 0), 'error: count must be at least 1'),
    says(lambda: DRAW('shapes', '--size', 3), 'error: size must be at least 32 pixels'),
    says(
        lambda: DRAW('shapes', '--split', '../x'),
        "error: split must be the name of a folder, got '../x'",
    ),
    says(lambda: DRAW('shapes', '--seed', -1), 'error: seed must be at least 0'),
    says(lambda: DRAW('shapes', '--seed', 'x'), "invalid int value: 'x'"),
    says(lambda: DRAW(file(), '--count', 1), 'error: ', 'file'),
]
