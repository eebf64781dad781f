"""field_flow: moves a state along a vector field by the latent gradient and divergence, without an n x n matrix."""

from vfrnn_kernels.field_flow.op import field_flow
from vfrnn_kernels.field_flow.reference import field_flow_reference

__all__ = ["field_flow", "field_flow_reference"]
