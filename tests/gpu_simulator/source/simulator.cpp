// The simulator, one translation unit: every thread of a launch has a program counter and registers of its own; threads
// run one at a time, and meet where the code says so. ../README.md: what is simulated and what is not.
#include <dlfcn.h>

#include <algorithm>
#include <array>
#include <cfenv>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <filesystem>
#include <fstream>
#include <limits>
#include <map>
#include <memory>
#include <mutex>
#include <regex>
#include <set>
#include <sstream>
#include <stdexcept>
#include <unordered_map>

#include "interface.h"

namespace simulator {

// clang-format off: in this order, each part uses those before it
#include "state.h"
#include "text.h"
#include "numbers.h"
#include "tensor_cores.h"
#include "memory.h"
#include "synchronization.h"
#include "ptx_decoder.h"
#include "ptx_bits.h"
#include "ptx_memory.h"
#include "ptx_warps.h"
#include "ptx_conversions.h"
#include "ptx_arithmetic.h"
#include "ptx_parser.h"
#include "sass_operands.h"
#include "sass_decoder.h"
#include "sass_integers.h"
#include "sass_floats.h"
#include "sass_bits.h"
#include "sass_memory.h"
#include "sass_warps.h"
#include "sass_parser.h"
#include "scheduler.h"
// clang-format on

}  // namespace simulator
