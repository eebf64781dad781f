// HOLDS(condition): what a harness here says must be so; else the run ends, which libFuzzer reports with the input.
#pragma once

#include <cstdio>
#include <cstdlib>

#define HOLDS(condition)                                                 \
  if (!(condition)) {                                                    \
    std::fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition); \
    std::abort();                                                        \
  }
