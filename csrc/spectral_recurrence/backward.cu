// The backward of device.h.
#include "spectral_recurrence/device.h"

namespace vfrnn {

template SpectralOnChip spectral_on_chip<float, true>(int, int);
template int64_t spectral_scratch<float, true>(int64_t, int, SpectralOnChip);
template int launch_spectral_chain<float, true>(const SpectralChain<float>&, SpectralOnChip, void*, void*);
template SpectralOnChip spectral_on_chip<double, true>(int, int);
template int64_t spectral_scratch<double, true>(int64_t, int, SpectralOnChip);
template int launch_spectral_chain<double, true>(const SpectralChain<double>&, SpectralOnChip, void*, void*);

}  // namespace vfrnn
