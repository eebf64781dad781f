"""field_generator: a vector field on a latent mesh -> its skew-symmetric generator S and its divergence delta."""

from vfrnn_kernels.field_generator.op import field_generator
from vfrnn_kernels.field_generator.reference import field_generator_reference

__all__ = ["field_generator", "field_generator_reference"]
