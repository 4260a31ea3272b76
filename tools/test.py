"""Evaluate a checkpoint on the test set of an mmdet or mmseg config."""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # dcls_mm, uninstalled
from dcls_mm.apis import command  # noqa: E402
from dcls_mm.apis import test as testing


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoint', help='file, or URL that mmengine knows')
    parser.add_argument('--work-dir', help='folder for logs and metrics')
    parser.add_argument(
        '--out',
        help='save the predictions to this .pkl file (mmdet), or as label maps in this '
        'folder (mmseg)',
    )
    parser.add_argument('--show', action='store_true', help='show the predictions')
    parser.add_argument('--show-dir', help='folder for pictures of the predictions')
    parser.add_argument(
        '--wait-time', type=float, default=2.0, help='seconds to show each image'
    )
    parser.add_argument(
        '--tta', action='store_true', help='merge the predictions of augmented images'
    )
    command.add_common_arguments(parser)
    return parser.parse_args()


if __name__ == '__main__':
    command.run(testing.test, vars(parse_args()))
