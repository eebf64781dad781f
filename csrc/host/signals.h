// Lets the CPU kernels run the handlers of signals.
#pragma once

#include <string>

namespace vfrnn {

// From now on calls of the kernels in this library, which is loaded, end where a handler raises. Called on Python's
// main thread alone, the only one on which handlers run.
void watch_signals(const std::string& library);

}  // namespace vfrnn
