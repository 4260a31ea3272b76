"""Write a trained model with plain convolutions, for code without dcls_mm."""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # dcls_mm, uninstalled
from dcls_mm.apis import command, fold  # noqa: E402


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__)
    command.add_model_arguments(parser)
    parser.add_argument(
        '--out',
        required=True,
        help='folder for config.py, checkpoint.pth and backbone.pt',
    )
    parser.add_argument(
        '--round-positions',
        action='store_true',
        help='move every element to the nearest whole pixel, which reduces it to one '
        'tap and changes the outputs',
    )
    return parser.parse_args()


if __name__ == '__main__':
    command.run(fold.fold_checkpoint, vars(parse_args()))
