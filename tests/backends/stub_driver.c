/* A driver of CUDA that knows its version, STUB_DRIVER (12080 for 12.8), and has no device: as libcuda.so.1 it is what
   a CUDA runtime finds on LD_LIBRARY_PATH. */
#include <stdlib.h>
#include <string.h>

enum { success = 0, no_device = 100 };

static int driver_version(int* version) {
  *version = atoi(getenv("STUB_DRIVER"));
  return success;
}
static int any_other(void) {
  return no_device;
}

int cuGetProcAddress_v2(const char* name, void** function, int version, unsigned long long flags, int* status) {
  (void)version, (void)flags;
  if (status != NULL) *status = 0;
  *function = strcmp(name, "cuDriverGetVersion") == 0 ? (void*)driver_version
              : strcmp(name, "cuGetProcAddress") == 0 ? (void*)cuGetProcAddress_v2
                                                      : (void*)any_other;
  return success;
}
int cuGetProcAddress(const char* name, void** function, int version, unsigned long long flags) {
  return cuGetProcAddress_v2(name, function, version, flags, NULL);
}
