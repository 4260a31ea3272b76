_base_ = 'mmdet::_base_/default_runtime.py'

custom_imports = dict(imports=['dcls_mm'], allow_failed_imports=False)
default_hooks = dict(checkpoint=dict(type='AtomicCheckpointHook', max_keep_ckpts=3))
