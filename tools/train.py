"""Train the model of an mmdet or mmseg config."""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # dcls_mm, uninstalled
from dcls_mm.apis import command, train  # noqa: E402


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config file')
    parser.add_argument('--work-dir', help='folder for logs and checkpoints')
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        metavar='CHECKPOINT',
        help='resume from this checkpoint; without a value, from the last intact one '
        'in the work directory, or from the start if there is none',
    )
    parser.add_argument('--amp', action='store_true', help='train in mixed precision')
    parser.add_argument(
        '--auto-scale-lr',
        action='store_true',
        help='scale the learning rate to the batch size in use',
    )
    command.add_common_arguments(parser)
    return parser.parse_args()


if __name__ == '__main__':
    command.run(train.train, vars(parse_args()))
