"""Training steps of a small ConvNeXt-dcls, alone or as one of two processes by DDP.

python ddp_steps.py RANK FOLDER
"""

import sys

import torch
from torch import distributed
from torch.nn.parallel import DistributedDataParallel

from dcls_mm.backbones import ConvNeXtDCLS

# Name -> arguments of the backbone, arguments of DDP.
CASES = {
    'default': ({}, {}),
    'views': ({}, dict(gradient_as_bucket_view=True)),
    'static': ({}, dict(static_graph=True, gradient_as_bucket_view=True)),
    'checkpointed': (dict(with_cp=True), dict(gradient_as_bucket_view=True)),
    'checkpointed, static': (dict(with_cp=True), dict(static_graph=True)),
    'frozen': (dict(with_cp=True, frozen_stages=1), {}),
}
STEPS = 3  # DDP reports a parameter without gradient in the second


def backbone_for(name):
    torch.manual_seed(0)
    return ConvNeXtDCLS(
        dict(depths=[2, 3], dims=[8, 12]),
        depthwise_cfg=dict(type='DCLSConv2d', kernel_count=4, dilated_kernel_size=7),
        layer_scale_init_value=1.0,
        out_indices=(0, 1),
        **CASES[name][0],
    ).double()


def train(model, samples):
    """Return the gradients of each step on these samples of the batch, by name."""
    torch.manual_seed(1)
    batch = torch.randn(4, 3, 48, 48, dtype=torch.double)[samples]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    grads = []
    for _ in range(STEPS):
        optimizer.zero_grad()
        sum(y.sin().mean() for y in model(batch)).backward()
        grads.append(
            {
                name.removeprefix('module.'): parameter.grad.clone()
                for name, parameter in model.named_parameters()
                if parameter.requires_grad
            }
        )
        optimizer.step()
    return grads


def main(rank, folder):
    distributed.init_process_group(
        'gloo', init_method=f'file://{folder}/store', rank=rank, world_size=2
    )
    results = {}
    for name, (_, options) in CASES.items():
        model = DistributedDataParallel(backbone_for(name), **options)
        grads = train(model, slice(2 * rank, 2 * rank + 2))
        results[name] = grads, model.module.state_dict()
    torch.save(results, f'{folder}/rank_{rank}.pth')
    distributed.destroy_process_group()


if __name__ == '__main__':
    torch.set_num_threads(1)
    main(int(sys.argv[1]), sys.argv[2])
