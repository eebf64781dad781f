"""spectral_recurrence: a recurrent layer whose steps have times of their own."""

from vfrnn_kernels.spectral_recurrence.op import spectral_recurrence
from vfrnn_kernels.spectral_recurrence.reference import spectral_recurrence_reference

__all__ = ["spectral_recurrence", "spectral_recurrence_reference"]
