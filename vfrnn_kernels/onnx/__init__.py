"""ONNX: what torch.onnx.export(model, dynamo=True) writes for the library ops, in ONNX's own operators.

The exporter asks a registry of its own for each op. Ours are added when that is imported, so that a user passes
nothing; should a torch have no such registry, its public argument takes them: `custom_translation_table=
vfrnn_kernels.onnx.translation_table()`.
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable
from typing import Any

import torch

from vfrnn_kernels.deferred import when_imported

_REGISTRY = "torch.onnx._internal.exporter._torchlib._torchlib_registry"
_FILLED_BY = "torch.onnx._internal.exporter._torchlib.ops"  # which the exporter imports when it needs the registry


def translation_table() -> dict[Any, Callable[..., Any]]:
    """For every library op that a forward pass calls, the function that writes it in ONNX."""
    return importlib.import_module("vfrnn_kernels.onnx.ops").translations()


def _register() -> None:
    try:
        onnx_impl = importlib.import_module(_REGISTRY).onnx_impl
        for target, function in translation_table().items():
            onnx_impl(target, no_compile=True)(function)
    except (ImportError, AttributeError, TypeError) as error:
        warnings.warn(
            f"torch {torch.__version__} keeps its ONNX registry in another way ({error}): pass "
            "custom_translation_table=vfrnn_kernels.onnx.translation_table() to torch.onnx.export",
            RuntimeWarning,
            stacklevel=2,
        )


def translate_when_asked() -> None:
    """Has the ops in the exporter's registry as soon as it is filled."""
    when_imported(_FILLED_BY, _register)
