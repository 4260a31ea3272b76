# The FlexConv counterpart of the DCLS atto: continuous kernels in 17x17 pixels that
# learn their size, starting at 7x7. It has no AliasLossHook, because training and test
# have the same resolution.
_base_ = './convnext-atto_upernet_1xb4-1k_camvid-256x256.py'

model = dict(
    backbone=dict(
        depthwise_cfg=dict(
            _delete_=True, type='FlexConv2d', dilated_kernel_size=17, mask_width=0.2
        )
    )
)
