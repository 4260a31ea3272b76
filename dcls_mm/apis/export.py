"""Backbones, segmentors and detectors as ONNX, TorchScript and torch.export files."""

import os
import warnings
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..checks.arguments import checked
from ..checks.errors import ConfigError, errors_about, refusals
from ..deploy.parts import (
    CHECKED_SHAPES,
    PARTS,
    RECORDED_SHAPE,
    Part,
    check_difference,
    largest_difference,
    sample_images,
    take_part,
)
from ..deploy.pooling import unroll_pooling
from ..functional._arguments import check_choice
from ..layers import ConstructedConvNd
from ..layers.folding import switch_to_deploy
from .outputs import check_new, whole_files
from .trained import load_trained

Outputs = Sequence[Tensor]


class Format(NamedTuple):
    """A file format of recorded models.

    Attributes:
        write: (part, images, path), writes the file.
        read: (path), gives a function from images to outputs; None where what runs
            the file is not installed.
        needs: packages to write it.
    """

    write: Callable[[Part, Tensor, Path], None]
    read: Callable[[Path], Callable[[Tensor], Outputs] | None]
    needs: tuple[str, ...] = ()


def export_model(
    config: str,
    checkpoint: str,
    out: str,
    format: str,
    part: str = 'model',
    cfg_options: dict[str, Any] | None = None,
) -> str:
    """Fold the DCLS layers of a model, and write it in a format that needs no dcls_mm.

    Batch, height and width stay free. What the parts take and give, see
    :mod:`..deploy.parts`: a segmentor gives logits of the images' size; a detector what
    its dense layers give, as boxes are chosen by mmdet's own Python code, whose
    operators (nms, RoIAlign) these formats have only by mmcv or not at all. The file is
    run and compared with the model, at other sizes than it was recorded at, before it
    takes its place.

    Args:
        config, cfg_options: see :func:`.configs.load_config`.
        checkpoint: the weights: a path, or a URL that mmengine knows.
        out: the file to write.
        format: a key of ``FORMATS``.
        part: 'backbone' or 'model'.

    Returns:
        What was written, and how far it differs, in a line.

    Raises:
        ConfigError: the config can't be used, a package is missing, the model has no
            such part, a layer can't be folded, ``out`` can't be written to, or the
            format can't hold the part, or computes something else.
        CheckpointError: the checkpoint can't be read, or is of another model.
    """
    checked(check_choice, '--format', format, choices=FORMATS)
    checked(check_choice, '--part', part, choices=PARTS)
    form = FORMATS[format]
    folder, name = os.path.split(out)
    if not name:
        raise ConfigError(f'--out {out}: must be the name of a file, not of a folder')
    check_new(folder or '.', name)
    missing = [package for package in form.needs if find_spec(package) is None]
    if missing:
        raise ConfigError(f'--format {format} needs: pip install {" ".join(missing)}')
    model = load_trained(config, checkpoint, cfg_options).model
    taken = take_part(model, part)
    recorded, *checks = sample_images(taken, RECORDED_SHAPE, *CHECKED_SHAPES)
    with torch.no_grad(), whole_files(folder or '.', name) as unfinished:
        with refusals(f'the {part} of the {type(model).__name__} does not run alone'):
            expected = [taken(images) for images in checks]
        if any(isinstance(layer, ConstructedConvNd) for layer in model.modules()):
            with errors_about(config):
                switch_to_deploy(model)
        unroll_pooling(taken)
        with warnings.catch_warnings():
            # Of what a record may not keep: the comparison at other sizes shows it.
            warnings.simplefilter('ignore')
            with refusals(f"--format {format} can't hold the {part}"):
                form.write(taken, recorded, unfinished / name)
                run = form.read(unfinished / name)
            if run is None:
                return f'{out}: {part}, not compared: pip install onnxruntime'
            with refusals(
                f'the {format} file does not run at other sizes than it was recorded at'
            ):
                found = [run(images) for images in checks]
        difference = max(map(largest_difference, found, expected))
        check_difference(
            difference, f'the {format} file, run at other sizes than recorded,'
        )
    return (
        f'{out}: {part} as {format}; differs from the model by {difference:.2g} of the '
        'largest output'
    )


def _export(part: Part, images: Tensor) -> torch.export.ExportedProgram:
    free = torch.export.Dim.DYNAMIC
    return torch.export.export(
        part, (images,), dynamic_shapes=({0: free, 2: free, 3: free},)
    )


def _write_program(part: Part, images: Tensor, path: Path) -> None:
    torch.export.save(_export(part, images), path)


def _read_program(path: Path) -> Callable[[Tensor], Outputs]:
    return torch.export.load(path).module()


def _write_script(part: Part, images: Tensor, path: Path) -> None:
    torch.jit.save(torch.jit.trace(part, images, check_trace=False), str(path))


def _write_onnx(part: Part, images: Tensor, path: Path) -> None:
    torch.onnx.export(
        _export(part, images),
        dynamo=True,
        input_names=['images'],
        output_names=part.names(images),
        verbose=False,
    ).save(path, external_data=False)


def _read_onnx(path: Path) -> Callable[[Tensor], Outputs] | None:
    if find_spec('onnxruntime') is None:
        return None
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(
        str(path), options, providers=['CPUExecutionProvider']
    )

    def run(images: Tensor) -> Outputs:
        outputs = session.run(None, {'images': images.numpy()})
        return [torch.from_numpy(output) for output in outputs]

    return run


FORMATS = {
    'onnx': Format(_write_onnx, _read_onnx, ('onnx', 'onnxscript')),
    'torchscript': Format(_write_script, lambda path: torch.jit.load(str(path))),
    'torch-export': Format(_write_program, _read_program),
}
