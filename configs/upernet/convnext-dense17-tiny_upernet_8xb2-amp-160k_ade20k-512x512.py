# Ablation: dense 17x17 kernels, the extent of the DCLS ones with all 289 taps learned.
# Its ImageNet-1k accuracy is published (82.0 % top-1), but no weights are. Set init_cfg
# to your own; without it the backbone starts from random weights.
_base_ = './convnext-tiny_upernet_8xb2-amp-160k_ade20k-512x512.py'

model = dict(
    backbone=dict(
        depthwise_cfg=dict(type='LargeKernelConv2d', kernel_size=17), init_cfg=None
    )
)
