"""What becomes of ConvNeXt weights in every format: a table of keys and differences.

Models of timm, torchvision and transformers are built where these are installed. The
formats without such a package are computed by tests/test_conversion/other_convnexts.py.
All weights are random. The largest difference of any output of the four stages, and of
the logits where the file has the original's classifier, is relative to that output's
largest value; the images have 64x64 pixels.
"""

import argparse
import importlib.util
import logging
import sys
import tempfile
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from package_models import SOURCES, Outputs, randomize
from torch import Tensor, nn

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / 'tests' / 'test_conversion')]
import other_convnexts as others  # noqa: E402

from dcls_mm import ConvNeXtDCLS  # noqa: E402
from dcls_mm.backbones.weight_facts import facts_of  # noqa: E402
from dcls_mm.conversion.convnext_weights import read_convnext  # noqa: E402

KERNELS = {
    'plain 7x7': dict(type='Conv2d', kernel_size=7),
    'DCLS 17x17': dict(type='DCLSConv2d', kernel_count=49, dilated_kernel_size=17),
}
# Rows of the other formats: title -> package in other_convnexts.
REST = {
    'release, ConvNeXt-T': 'release',
    'release, ConvNeXt-V2-T': 'release of V2',
    'DINOv3 release, T': 'DINOv3',
    'mmpretrain, T': 'mmpretrain',
    'mmdet or mmseg backbone, T': 'mmdet backbone',
}


def package_rows(small: bool):
    """Yield (row's title, package, weights, forward, normed) of installed packages."""
    for name, source in SOURCES.items():
        if importlib.util.find_spec(source.package) is None:
            continue
        model = randomize(source.build(small))

        def forward(x, source=source, model=model) -> Outputs:
            with torch.no_grad():
                return source.forward(model, x)

        yield name, source.package, model.state_dict(), forward, source.normed


def other_rows(small: bool):
    """Yield the same for what the tests compute themselves."""
    sizes = (others.DEPTHS, others.DIMS, others.CLASSES) if small else others.TINY
    for title, name in REST.items():
        _, package = others.PACKAGES[name]
        if name == 'mmpretrain':
            package = others.mmpretrain(stages=len(sizes[1]))
        weights = others.random_weights(
            package, bool(package.v2), torch.float32, *sizes
        )
        if name == 'DINOv3':
            for tensor in ('weight', 'bias'):
                weights[f'norms.3.{tensor}'] = weights[f'norm.{tensor}']

        def forward(x, package=package, weights=weights) -> Outputs:
            found = others.forward(package, weights, x, sizes[0])
            return Outputs(found.stages, found.logits)

        yield title, 'the tests', weights, forward, package.outputs is not None


def measure(
    weights: Mapping[str, Tensor],
    forward: Callable[[Tensor], Outputs],
    normed: bool,
    path: Path,
) -> tuple[str, int, int, list[float]]:
    """Return the format, the keys read and left, and the difference per kernel."""
    match, read = read_convnext(weights)
    facts = facts_of(read)
    torch.save(weights, path)
    x = torch.randn(1, 3, 64, 64)
    theirs = forward(x)
    differences = []
    for cfg in KERNELS.values():
        backbone = ConvNeXtDCLS(
            arch=dict(depths=facts.depths, dims=facts.dims),
            out_indices=range(len(facts.dims)),
            depthwise_cfg=cfg,
            layer_scale_init_value=float(facts.layer_scale),
            grn=facts.grn,
            init_cfg=dict(type='Pretrained', checkpoint=str(path)),
        )
        backbone.init_weights()
        if not normed:
            for i in range(len(facts.dims)):
                setattr(backbone, f'norm{i}', nn.Identity())
        with torch.no_grad():
            ours = list(backbone.eval()(x))
        expected = list(theirs.stages)
        if theirs.logits is not None:
            y = ours[-1].mean((2, 3))
            norm = 'norm' if 'norm.weight' in read else f'norm{len(facts.dims) - 1}'
            affine = read[f'{norm}.weight'], read[f'{norm}.bias']
            y = nn.functional.layer_norm(y, y.shape[1:], *affine, 1e-6)
            ours.append(nn.functional.linear(y, read['head.weight'], read['head.bias']))
            expected.append(theirs.logits)
        differences.append(
            max(
                ((a - b).abs().max() / b.abs().max()).item()
                for a, b in zip(ours, expected)
            )
        )
    return match.name, len(read), len(match.left), differences


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--quick', action='store_true', help='small models')
    quick = parser.parse_args().quick
    logging.disable(logging.WARNING)
    warnings.simplefilter('ignore')
    torch.manual_seed(0)
    columns = ['weights', 'computed by', 'format', 'keys read', 'keys left', *KERNELS]
    print(f'torch {torch.__version__}, float32, random weights\n')
    print(f'| {" | ".join(columns)} |\n|{"---|" * len(columns)}')
    with tempfile.TemporaryDirectory() as folder:
        for rows in (other_rows, package_rows):
            for title, package, weights, forward, normed in rows(quick):
                path = Path(folder, 'weights.pth')
                form, read, left, found = measure(weights, forward, normed, path)
                cells = [title, package, form, read, left]
                cells += [f'{difference:.1e}' for difference in found]
                print(f'| {" | ".join(map(str, cells))} |', flush=True)


if __name__ == '__main__':
    main()
