"""Triton's launches, recorded on a machine without a GPU.

A launch function is called as ever, on CPU tensors. Where it launches a kernel, the
kernel's arguments are specialised as Triton's launcher does it (dtypes, divisibility by
16, arguments equal to one, constexprs), and the launch is recorded:

    with recorded(arch=90) as launches:
        convolve_depthwise(x, kernel, None, (8, 8), (32, 32), False)
    cubin(launches[0])      # as ptxas makes it
    ttir(launches[0])       # as the front end and its own passes leave it

Only this module depends on the inside of Triton.
"""

import contextlib
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, NamedTuple

import triton
from triton._C.libtriton import ir
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, make_backend
from triton.runtime.jit import JITFunction

ARCHS = (80, 86, 90, 100)


class Launch(NamedTuple):
    """A kernel specialised for its arguments; those that are not constants; a grid."""

    source: ASTSource
    target: GPUTarget
    options: Any
    arguments: list
    grid: tuple[int, ...]

    @property
    def name(self) -> str:
        return self.source.name


@contextlib.contextmanager
def recorded(arch: int, on_launch: Callable[[Launch], None] | None = None):
    """Record launches for compute capability ``arch``; yield the list of them.

    Args:
        arch: the compute capability, 80 for sm_80.
        on_launch: called with each launch, in place of the kernel.
    """
    launches: list[Launch] = []

    def run(self, *args, grid, warmup, **kwargs):
        launch = specialise(self, grid, args, kwargs)
        launches.append(launch)
        if on_launch:
            on_launch(launch)

    # The launcher keeps what it derives from the target by the number of the device.
    driver = SimpleNamespace(
        get_current_device=lambda: arch,
        get_current_stream=lambda device: 0,
        get_current_target=lambda: GPUTarget('cuda', arch, 32),
    )
    original = JITFunction.run
    triton.runtime.driver.set_active(driver)
    JITFunction.run = run
    try:
        yield launches
    finally:
        JITFunction.run = original


def specialise(function: JITFunction, grid, args, kwargs) -> Launch:
    """Do what ``JITFunction.run`` does up to the compilation."""
    device = triton.runtime.driver.active.get_current_device()
    _, _, target, backend, binder = function.device_caches[device]
    bound, specialization, options = binder(*args, **kwargs)
    options, signature, constexprs, attributes = function._pack_args(
        backend, kwargs, bound, specialization, options
    )
    names = [name for name, kind in signature.items() if kind != 'constexpr']
    return Launch(
        ASTSource(function, signature, constexprs, attributes),
        target,
        options,
        [bound[name] for name in names],
        tuple(grid(bound)) if callable(grid) else tuple(grid),
    )


def cubin(launch: Launch) -> tuple[bytes, int]:
    """Return the code, and the bytes of shared memory that it is launched with."""
    compiled = triton.compile(
        launch.source, target=launch.target, options=launch.options.__dict__
    )
    return compiled.asm['cubin'], compiled.metadata.shared


def ttir(launch: Launch) -> str:
    """Return the text that Triton's front end and the passes on TTIR give."""
    backend = make_backend(launch.target)
    context = ir.context()
    ir.load_dialects(context)
    backend.load_dialects(context)
    stages: dict[str, Callable] = {}
    backend.add_stages(stages, launch.options, launch.source.language)
    module = launch.source.make_ir(
        launch.target,
        launch.options,
        backend.get_codegen_implementation(launch.options),
        backend.get_module_map(),
        context,
    )
    return stages['ttir'](module, {}).str_nodebug()
