"""Kernels of vector-field recurrent networks: tensors in, tensors out, differentiable, on several backends.

The modules built on them are in the package `vfrnn`; the mathematics is in the README beside each op.
"""

from importlib.metadata import PackageNotFoundError, version

from vfrnn_kernels.calculus import directional_derivative, divergence, gradient, inner_product
from vfrnn_kernels.field_flow import field_flow
from vfrnn_kernels.field_generator import field_generator
from vfrnn_kernels.flow_recurrence import flow_recurrence
from vfrnn_kernels.fork import watch_forks
from vfrnn_kernels.onnx import translate_when_asked
from vfrnn_kernels.recurrence import recurrence
from vfrnn_kernels.skew_expm import skew_expm
from vfrnn_kernels.spectral_recurrence import spectral_recurrence
from vfrnn_kernels.strang_step import strang_step
from vfrnn_kernels.thin_skew_expm import thin_skew_expm

watch_forks()
translate_when_asked()

try:
    __version__ = version("vfrnn-kernels")
except PackageNotFoundError:
    __version__ = "0+source"  # run from a source tree that was never installed

__all__ = [
    "__version__",
    "directional_derivative",
    "divergence",
    "field_flow",
    "field_generator",
    "flow_recurrence",
    "gradient",
    "inner_product",
    "recurrence",
    "skew_expm",
    "spectral_recurrence",
    "strang_step",
    "thin_skew_expm",
]
