"""Predict what is in an image or a folder of images, and draw it."""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # dcls_mm, uninstalled
from dcls_mm.apis import command, predict  # noqa: E402


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__)
    command.add_model_arguments(parser)
    parser.add_argument('images', help='an image, or a folder of images')
    parser.add_argument(
        '--out',
        required=True,
        help='folder for pictures (vis/) and predictions (preds/*.json of a detector, '
        'pred/*.png of a segmentor)',
    )
    parser.add_argument(
        '--score-threshold',
        type=float,
        default=0.3,
        help='minimum score of a detection to be drawn (default: %(default)s)',
    )
    parser.add_argument('--batch-size', type=int, default=1)
    parser.add_argument(
        '--device', help='device such as cpu or cuda:0 (default: the GPU, if any)'
    )
    return parser.parse_args()


if __name__ == '__main__':
    command.run(predict.predict, vars(parse_args()))
