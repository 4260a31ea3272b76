"""Report on the learned positions of a model, with advice on extent and count."""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # dcls_mm, uninstalled
from dcls_mm.apis import command, tuning_report  # noqa: E402


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__)
    command.add_model_arguments(parser)
    parser.add_argument(
        '--out', help='folder for report.md, report.json and pictures of the positions'
    )
    parser.add_argument(
        '--since',
        metavar='CHECKPOINT',
        help='an earlier checkpoint, to measure travel from (default: the start of the '
        'training, if the checkpoint tells)',
    )
    parser.add_argument(
        '--json', action='store_true', help='print JSON instead of a table'
    )
    return parser.parse_args()


if __name__ == '__main__':
    command.run(tuning_report.report_tuning, vars(parse_args()))
