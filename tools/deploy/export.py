"""Writes a trained model, or its backbone, as ONNX, TorchScript or torch.export."""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # dcls_mm, uninstalled
from dcls_mm import deploy  # noqa: E402
from dcls_mm.engine import launch  # noqa: E402


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config file of the model')
    parser.add_argument('checkpoint', help='file, or URL that mmengine knows')
    parser.add_argument('--out', required=True, help='file to write')
    parser.add_argument('--format', choices=deploy.FORMATS, required=True)
    parser.add_argument(
        '--part',
        choices=deploy.PARTS,
        default='model',
        help='a segmentor gives logits; a detector what its dense layers give, before '
        'boxes are chosen (%(default)s)',
    )
    launch.add_override_argument(parser)
    return parser.parse_args()


def main(**options):
    print(deploy.export_model(**options))


if __name__ == '__main__':
    launch.run(main, vars(parse_args()))
