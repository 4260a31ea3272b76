"""Draw a data set of textured shapes: COCO instances and ADE-style label maps.

With --oriented also DOTA's text files of oriented boxes.
"""

import argparse
import sys
from pathlib import Path

from mmengine.utils import track_iter_progress

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # dcls_mm, uninstalled
from dcls_mm.datasets import has_scenes, write_scenes  # noqa: E402


def parse_args():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('root', help='folder of the data set, such as data/shapes')
    parser.add_argument('--split', default='train', help="name, such as 'train'")
    parser.add_argument('--count', type=int, default=1000, help='number of scenes')
    parser.add_argument(
        '--seed', type=int, default=0, help='another seed gives other scenes'
    )
    parser.add_argument(
        '--size', type=int, default=160, help='side of a scene in pixels'
    )
    parser.add_argument(
        '--oriented', action='store_true', help="write DOTA's annfiles too"
    )
    return parser.parse_args()


def main():
    args = parse_args()
    settings = vars(args)
    if has_scenes(**settings):
        print(f'{args.root} already has the {args.count} scenes of {args.split}')
        return
    print(f'drawing {args.count} scenes into {args.root}, split {args.split}')
    try:
        for _ in track_iter_progress((write_scenes(**settings), args.count)):
            pass
    except (ValueError, OSError) as error:
        sys.exit(f'error: {error}')


if __name__ == '__main__':
    main()
