"""Print the parameters and FLOPs of an mmdet or mmseg config's model."""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # dcls_mm, uninstalled
from dcls_mm.apis import command, flops  # noqa: E402


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config file')
    parser.add_argument(
        '--shape',
        type=int,
        nargs='+',
        metavar=('HEIGHT', 'WIDTH'),
        help='size of the image in pixels (default: 800 1280 for detectors, 512 2048 '
        'for segmentors)',
    )
    command.add_override_argument(parser)
    return parser.parse_args()


def show(config, shape, cfg_options):
    found = flops.count_config(config, shape, cfg_options)
    print('image       {}x{} (height x width)'.format(*found.shape))
    print(f'parameters  {found.parameters / 1e6:.1f} M')
    print(f'FLOPs       {found.flops / 1e9:.1f} G (a multiply-add counts as one)')


if __name__ == '__main__':
    command.run(show, vars(parse_args()))
