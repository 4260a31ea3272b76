"""Arguments that the conversions and their command refuse."""

from . import command, wrong
from .conversion import BACKBONE, LEGACY, PLAIN, convert, plain

ROWS = [
    wrong(
        convert('from_published', plain(), version=None),
        ValueError,
        "version must be one of ['v0', 'v1', 'max', 'gauss'], got None",
    ),
    wrong(convert('to_published', plain(), version=['v0']), ValueError, "got ['v0']"),
    wrong(
        convert('from_convnext_dcls', BACKBONE, version='triangle'),
        ValueError,
        "got 'triangle'",
    ),
    wrong(
        convert('from_published', plain(), dilated_kernel_size='5'),
        TypeError,
        'dilated_kernel_size must be an integer',
        "got '5'",
    ),
    wrong(
        convert('from_published', plain(), dilated_kernel_size=0),
        ValueError,
        'dilated_kernel_size must be at least 1, got 0',
    ),
    wrong(
        convert('from_published', plain(), dilated_kernel_size=(5, 5, 5)),
        ValueError,
        'dilated_kernel_size (5, 5, 5) does not fit P, which has 2 rows',
    ),
    wrong(
        convert('from_published', plain(), version='v1', dilated_kernel_size=None),
        ValueError,
        'dilated_kernel_size must be given for P',
        "'triangle'",
    ),
    wrong(
        convert('from_convnext', PLAIN, dilated_kernel_size=None),
        TypeError,
        'dilated_kernel_size must be an integer, got None',
    ),
    wrong(
        convert('from_convnext', PLAIN, dilated_kernel_size=5),
        ValueError,
        'dilated_kernel_size',
        'axis 0 has 5 for 7',
    ),
    wrong(
        convert('from_convnext', PLAIN, dilated_kernel_size=8),
        ValueError,
        'dilated_kernel_size (8, 8) differs from the extent (7, 7)',
    ),
    wrong(
        convert('from_convnext', PLAIN, release=['timm']),
        ValueError,
        "release must be one of ['convnext', 'dcls', 'dinov3', 'eupe', ",
        "got ['timm']",
    ),
    wrong(
        convert('to_convnext', BACKBONE, dilated_kernel_size='17'),
        TypeError,
        'dilated_kernel_size must be an integer',
        "got '17'",
    ),
    wrong(
        convert('to_convnext', BACKBONE, interpolation='linear'),
        ValueError,
        'interpolation must be one of',
        "got 'linear'",
    ),
    wrong(
        convert('from_convnext_dcls', BACKBONE, sync_positions='no'),
        TypeError,
        "sync_positions must be True or False, got 'no'",
    ),
    wrong(
        convert('from_legacy', LEGACY, gain='x'),
        TypeError,
        "gain must be a number, got 'x'",
    ),
    wrong(
        convert('from_legacy', LEGACY, gain=-1.0),
        ValueError,
        'gain must be a positive number, got -1.0',
    ),
    wrong(
        convert('from_legacy', LEGACY, gain=float('inf')),
        ValueError,
        'gain must be finite, got inf',
    ),
    wrong(
        convert('from_legacy', LEGACY, formulation=None),
        ValueError,
        "formulation must be one of ['construct', 'sample'], got None",
    ),
    wrong(
        convert('from_legacy', LEGACY, dilation='2'),
        TypeError,
        'dilation must be an integer',
        "got '2'",
    ),
    wrong(
        convert('to_legacy', plain(), kernel_size=(3, 3, 3)),
        ValueError,
        'kernel_size must be one integer or 2 of them',
    ),
    # The command.
    wrong(
        lambda: command(
            'tools/model_converters/convert.py', 'a.pth', 'b.pth', '--from', 'dcls'
        ),
        SystemExit,
        'error: ',
        'a.pth',
        'does not exist',
    ),
    wrong(
        lambda: command('tools/model_converters/convert.py', 'a.pth', 'b.pth'),
        SystemExit,
        'error: ',
        'a.pth does not exist',
    ),
    wrong(
        lambda: command(
            *('tools/model_converters/convert.py', 'a.pth', 'b.pth'),
            *('--from', 'dcls', '--extent', '17'),
        ),
        SystemExit,
        'error: --extent is for convnext, dinov3, eupe, mmpretrain, timm, ',
        'dcls weights have their own',
    ),
    wrong(
        lambda: command(
            *('tools/model_converters/convert.py', 'a.pth', 'b.pth'),
            *('--from', 'timm', '--no-sync-positions'),
        ),
        SystemExit,
        'error: --version and --no-sync-positions are for dcls',
        'timm weights have no positions',
    ),
    wrong(
        lambda: command(
            *('tools/model_converters/convert.py', 'a.pth', 'b.pth'),
            *('--from', 'dcls', '--version', 'triangle'),
        ),
        SystemExit,
        "invalid choice: 'triangle'",
        'gauss',
    ),
    wrong(
        lambda: command(
            *('tools/model_converters/convert.py', 'a.pth', 'b.pth'),
            *('--from', 'convnext', '--extent', 'large'),
        ),
        SystemExit,
        "--extent: invalid int value: 'large'",
    ),
]
