// The forward of device.h.
#include "spectral_recurrence/device.h"

namespace vfrnn {

template SpectralOnChip spectral_on_chip<float, false>(int, int);
template int64_t spectral_scratch<float, false>(int64_t, int, SpectralOnChip);
template int launch_spectral_chain<float, false>(const SpectralChain<float>&, SpectralOnChip, void*, void*);
template SpectralOnChip spectral_on_chip<double, false>(int, int);
template int64_t spectral_scratch<double, false>(int64_t, int, SpectralOnChip);
template int launch_spectral_chain<double, false>(const SpectralChain<double>&, SpectralOnChip, void*, void*);

}  // namespace vfrnn
