"""Convert a ConvNeXt or ConvNeXt-dcls checkpoint of another package for dcls_mm."""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # dcls_mm, uninstalled
from dcls_mm.apis import command, convert  # noqa: E402


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('source', help='path or URL of the checkpoint to convert')
    parser.add_argument('destination', help='file to write')
    parser.add_argument(
        '--from',
        dest='form',
        choices=convert.FORMS,
        help='what the checkpoint is, by default recognised by its keys: a published '
        'ConvNeXt-dcls classifier (dcls), detector (dcls-mmdet2) or segmentor '
        '(dcls-mmseg0), or a plain ConvNeXt of that package (convnext: the original '
        'release); in a plain ConvNeXt each tap of a depthwise convolution becomes an '
        'element',
    )
    parser.add_argument(
        '--prefix', help='convert only the keys that start with this, and strip it'
    )
    parser.add_argument(
        '--version',
        choices=['v0', 'v1', 'max', 'gauss'],
        help='version of the published ConvNeXt-dcls layers',
    )
    parser.add_argument(
        '--extent',
        type=int,
        help='dilated_kernel_size for a plain ConvNeXt (default: 17)',
    )
    parser.add_argument(
        '--interpolation',
        choices=['bilinear', 'triangle', 'max', 'gauss'],
        help='of the layers that start from a plain ConvNeXt (default: bilinear)',
    )
    parser.add_argument(
        '--sigma', type=float, help='SIG at the start in pixels, for gauss and max'
    )
    parser.add_argument(
        '--no-sync-positions',
        dest='sync_positions',
        action='store_false',
        help='give every block of a stage its own positions',
    )
    parser.add_argument('--sha256', help='checksum that the checkpoint must have')
    parser.add_argument(
        '--force', action='store_true', help='replace the destination if it exists'
    )
    return parser.parse_args()


if __name__ == '__main__':
    command.run(convert.convert_file, vars(parse_args()))
