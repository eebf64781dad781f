"""skew_expm: the exponential of a skew-symmetric matrix, an orthogonal matrix, and its gradient."""

from vfrnn_kernels.skew_expm.op import skew_expm
from vfrnn_kernels.skew_expm.reference import skew_expm_reference

__all__ = ["skew_expm", "skew_expm_reference"]
