"""thin_skew_expm: the first columns of the exponential of a skew-symmetric matrix that has no other ones."""

from vfrnn_kernels.thin_skew_expm.op import thin_skew_expm
from vfrnn_kernels.thin_skew_expm.reference import thin_skew_expm_reference

__all__ = ["thin_skew_expm", "thin_skew_expm_reference"]
