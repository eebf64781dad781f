"""Recurrent networks whose hidden state flows along a learned vector field, and a drop-in for `torch.nn.RNN`."""

from vfrnn import parametrizations, privacy
from vfrnn.cells import OrthogonalRNNCell, RNNCell, VFRNNCell
from vfrnn.convert import convert
from vfrnn.functional import (
    directional_derivative,
    divergence,
    field_flow,
    field_generator,
    flow_recurrence,
    gradient,
    inner_product,
    recurrence,
    skew_expm,
    spectral_recurrence,
    strang_step,
    thin_skew_expm,
)
from vfrnn.input_field import InputFieldRNN, InputFieldRNNCell
from vfrnn.inspection import inspect
from vfrnn.mesh import LatentMesh
from vfrnn.optim import param_groups
from vfrnn.rnn import RNN, VFRNN, OrthogonalRNN
from vfrnn_kernels import __version__
from vfrnn_kernels.recurrence.plan import recurrence_plan as plan

__all__ = [
    "RNN",
    "VFRNN",
    "InputFieldRNN",
    "InputFieldRNNCell",
    "LatentMesh",
    "OrthogonalRNN",
    "OrthogonalRNNCell",
    "RNNCell",
    "VFRNNCell",
    "__version__",
    "convert",
    "directional_derivative",
    "divergence",
    "field_flow",
    "field_generator",
    "flow_recurrence",
    "gradient",
    "inner_product",
    "inspect",
    "param_groups",
    "parametrizations",
    "plan",
    "privacy",
    "recurrence",
    "skew_expm",
    "spectral_recurrence",
    "strang_step",
    "thin_skew_expm",
]
