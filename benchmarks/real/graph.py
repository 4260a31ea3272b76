"""TensorFlow graphs as torch modules, whose convolutions are torch's own."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .padding import SamePad2d
from .tfjs import Node

ACTIVATIONS = {'Relu': nn.ReLU, 'Relu6': nn.ReLU6}
# What convolutions must have, if they say it.
EXPECTED = {'data_format': 'NHWC', 'dilations': [1, 1, 1, 1], 'explicit_paddings': []}


class GraphModel(nn.Module):
    """A graph as a module, from one input to chosen outputs.

    Images are (n, rows, columns, channels), as in the graph. Its convolutions are
    ``nn.Conv2d`` in ``convs``, named as in the graph.

    Args:
        nodes: the operators, each after its inputs.
        constants: by name.
        outputs: names of the outputs.

    Raises:
        ValueError: an operator, or an attribute of it, is not known here.
    """

    def __init__(
        self, nodes: list[Node], constants: dict[str, Tensor], outputs: list[str]
    ):
        super().__init__()
        self.convs = nn.ModuleDict()
        self.outputs = outputs
        self.nodes = _needed(nodes, outputs)
        self.constants = {}
        for node in self.nodes:
            if node.operator in CONVS:
                self.convs[_key(node)] = _conv(node, constants)
            elif node.operator in OPERATORS:
                given = [name for name in node.inputs if name in constants]
                self.constants.update({name: constants[name] for name in given})
            elif node.operator != 'Placeholder':
                raise ValueError(
                    f'{node.name}: the operator {node.operator} is unknown'
                )

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        values = {
            name: value.to(images.dtype) if value.is_floating_point() else value
            for name, value in self.constants.items()
        }
        for node in self.nodes:
            if node.operator == 'Placeholder':
                values[node.name] = images
            elif node.operator in CONVS:
                x = values[node.inputs[0]].permute(0, 3, 1, 2)
                values[node.name] = self.convs[_key(node)](x).permute(0, 2, 3, 1)
            else:
                inputs = [values[name] for name in node.inputs]
                values[node.name] = OPERATORS[node.operator](inputs, node.attributes)
        return {name: values[name] for name in self.outputs}


def _key(node: Node) -> str:
    return node.name.replace('.', '_')


def _needed(nodes: list[Node], outputs: list[str]) -> list[Node]:
    """Leave out the operators that no output depends on."""
    names = set(outputs)
    needed = []
    for node in reversed(nodes):
        if node.name in names:
            needed.append(node)
            names.update(node.inputs)
    return needed[::-1]


def _conv(node: Node, constants: dict[str, Tensor]) -> nn.Sequential:
    """Return padding, convolution, and the activation that is fused with it."""
    attributes = node.attributes
    activations = [
        name for name in attributes.get('fused_ops', []) if name != 'BiasAdd'
    ]
    other = {k for k, v in EXPECTED.items() if attributes.get(k, v) != v}
    if other or not set(activations) <= set(ACTIVATIONS):
        told = {key: attributes[key] for key in sorted(other)} or activations
        raise ValueError(f'{node.name}: a convolution with {told} is unknown')
    kernel, *bias = (constants[name] for name in node.inputs[1:])
    rows, columns, inputs, _ = kernel.shape
    depthwise = 'Depthwise' in node.operator
    if depthwise:
        # An input channel may have several kernels, one after the other.
        weight = kernel.permute(2, 3, 0, 1).reshape(-1, 1, rows, columns)
    else:
        weight = kernel.permute(3, 2, 0, 1)
    stride = tuple(attributes['strides'][1:3])
    conv = nn.Conv2d(
        inputs,
        len(weight),
        (rows, columns),
        stride=stride,
        groups=inputs if depthwise else 1,
        bias=bool(bias),
    )
    with torch.no_grad():
        conv.weight.copy_(weight)
        if bias:
            conv.bias.copy_(bias[0])
    parts = nn.Sequential()
    if attributes['padding'] == 'SAME':
        parts.append(SamePad2d((rows, columns), stride))
    parts.append(conv)
    for name in activations:
        parts.append(ACTIVATIONS[name]())
    return parts


def _resize(inputs: list[Tensor], attributes: dict[str, Any]) -> Tensor:
    """Resize bilinearly as TensorFlow 1 did: output pixel i samples at i / scale."""
    if attributes['align_corners'] or attributes['half_pixel_centers']:
        raise ValueError(
            'ResizeBilinear is known here without aligned corners or centers'
        )
    x, sizes = inputs
    for axis, length in zip((1, 2), sizes.tolist()):
        places = torch.arange(length) * (x.shape[axis] / length)
        lower = places.long()
        upper = (lower + 1).clamp(max=x.shape[axis] - 1)
        share = (places - lower).to(x).view(-1, *[1] * (3 - axis))
        x = x.index_select(axis, lower).lerp(x.index_select(axis, upper), share)
    return x


def _concat(inputs: list[Tensor], attributes: dict[str, Any]) -> Tensor:
    return torch.cat(inputs[:-1], int(inputs[-1]))


def _mean(inputs: list[Tensor], attributes: dict[str, Any]) -> Tensor:
    return inputs[0].mean(inputs[1].tolist(), keepdim=attributes['keep_dims'])


OPERATORS: dict[str, Callable[[list[Tensor], dict[str, Any]], Tensor]] = {
    'Add': lambda inputs, _: inputs[0] + inputs[1],
    'ConcatV2': _concat,
    'Identity': lambda inputs, _: inputs[0],
    'Mean': _mean,
    'Mul': lambda inputs, _: inputs[0] * inputs[1],
    'Relu': lambda inputs, _: inputs[0].relu(),
    'Relu6': lambda inputs, _: F.relu6(inputs[0]),
    'ResizeBilinear': _resize,
    'Sigmoid': lambda inputs, _: inputs[0].sigmoid(),
}
CONVS = (
    'Conv2D',
    '_FusedConv2D',
    'DepthwiseConv2dNative',
    'FusedDepthwiseConv2dNative',
)
