"""strang_step: the transition matrix of one time step along a vector field, from its generator and divergence."""

from vfrnn_kernels.strang_step.op import strang_step
from vfrnn_kernels.strang_step.reference import strang_step_reference

__all__ = ["strang_step", "strang_step_reference"]
