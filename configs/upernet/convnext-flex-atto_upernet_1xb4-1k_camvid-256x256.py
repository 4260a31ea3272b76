# The FlexConv counterpart of the DCLS atto: continuous kernels in 17x17 pixels that
# learn their size, from 7x7 on. AliasLossHook is left out: training and test have one
# resolution.
_base_ = './convnext-atto_upernet_1xb4-1k_camvid-256x256.py'

model = dict(
    backbone=dict(
        depthwise_cfg=dict(
            _delete_=True, type='FlexConv2d', dilated_kernel_size=17, mask_width=0.2
        )
    )
)
