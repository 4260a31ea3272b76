"""Write a trained model, or its backbone, as ONNX, TorchScript or torch.export."""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # dcls_mm, uninstalled
from dcls_mm.apis import command, export  # noqa: E402
from dcls_mm.deploy.parts import PARTS  # noqa: E402
from dcls_mm.layers.folding import FORMS  # noqa: E402


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__)
    command.add_model_arguments(parser)
    parser.add_argument('--out', required=True, help='file to write')
    parser.add_argument('--format', choices=export.FORMATS, required=True)
    parser.add_argument(
        '--part',
        choices=PARTS,
        default='model',
        help='what to export: a segmentor gives logits, a detector the outputs of its '
        'dense layers, before boxes are chosen (default: %(default)s)',
    )
    parser.add_argument(
        '--form',
        choices=FORMS,
        default='dense',
        help='of the folded layers: sparse computes only the taps that are not zero, '
        'but then the file runs on a CPU, in Python that has imported dcls_mm and has '
        'its compiled part, and ONNX has no such form (default: %(default)s)',
    )
    return parser.parse_args()


if __name__ == '__main__':
    command.run(export.export_model, vars(parse_args()))
