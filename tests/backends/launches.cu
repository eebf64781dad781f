// Launches that a runtime which runs nothing (stub_runtime.cpp) must accept: of sizes that no test could compute.
//   launches sizes   two host threads launch one kernel with different shared memory, and with clusters of 16
//   launches grids   more matrices, axes and samples than a grid has rows
//   launches waiting the cooperative launch of field_flow, m 12 and n 190, 600 samples
//   launches asks    a device that does not answer is an error, and asked again; which clusters it runs
#include <cstdio>
#include <cstring>
#include <thread>
#include <vector>

#include "common/device.h"
#include "common/gpu.h"
#include "field_flow/cuda.h"
#include "field_generator/cuda.h"
#include "skew_expm/cuda.h"

extern "C" int stub_failures, stub_device, stub_largest_cluster, stub_code;

namespace {

using namespace vfrnn;

int failures = 0;

void expect(int error, const char* what) {
  if (error == 0) return;
  std::printf("%s: error %d\n", what, error);
  ++failures;
}

template <int>
__global__ void sized_kernel() {}
__global__ void clustered_kernel() {}

// One kernel from two threads, each a kernel anew in every round: the first launches race.
template <int round>
void race() {
  int errors[2] = {};
  std::vector<std::thread> threads;
  for (int k = 0; k < 2; ++k) {
    threads.emplace_back([k, &errors] {
      for (int again = 0; again < 5 && errors[k] == 0; ++again) {
        const gpu::Launch l{1, 1, 1, 32, k == 0 ? 200 * 1024 : 60 * 1024, 1, false, nullptr};
        errors[k] = gpu::launch(l, sized_kernel<round>);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  expect(errors[0], "200 KB"), expect(errors[1], "60 KB");
}

void sizes() {
  race<0>(), race<1>(), race<2>();
  expect(gpu::launch({16, 1, 1, 32, 0, 16, false, nullptr}, clustered_kernel), "a cluster of 16");
}

void grids() {
  for (const int substeps : {1, 3}) {
    ExponentialForward forward{};
    ExponentialBackward backward{};
    forward.K = backward.K = 70000, forward.n = backward.n = 129, forward.substeps = backward.substeps = substeps;
    float number = 0.f;
    forward.delta = backward.delta = forward.M = &number;  // not read: no kernel runs
    expect(exponential_forward(forward, nullptr), "exponentials, forward");
    expect(exponential_backward(backward, nullptr), "exponentials, backward");
  }
  float number = 0.f;
  FieldGeneratorProblem problem{};
  problem.N = &number, problem.K = 2, problem.m = 1, problem.n = 1, problem.d = 70000;
  FieldGeneratorGradients gradients{};
  gradients.grad_w = gradients.grad_G = gradients.grad_b = gradients.A = gradients.parts_b = &number;
  expect(launch_field_generator(problem, &number, &number, nullptr), "generator, forward");
  expect(launch_field_generator_backward(problem, gradients, nullptr), "generator, backward");
}

void waiting() {
  gpu::DeviceProperties device{};
  expect(gpu::device_properties(device), "properties");
  FieldFlowProblem problem{};
  problem.B = 600, problem.m = 12, problem.n = 190, problem.d = 2, problem.order = 8, problem.one_field = true;
  const FieldFlowLayout layout = field_flow_layout({problem.B, 12, 190, 8, true, true, true}, device);
  expect(launch_field_flow_backward(problem, {}, layout, nullptr), "flow, backward");
}

void asks() {
  gpu::DeviceProperties device{};
  for (int attempt = 0; attempt < 2; ++attempt) {
    stub_failures = 1;
    if (gpu::device_properties(device) == 0) expect(-1, "a failure is reported");
  }
  expect(gpu::device_properties(device), "properties");
  if (device.arch != 90 || device.multiprocessors != 132 || device.shared_limit != 232448) expect(-1, "the answer");
  stub_failures = 1;
  expect(gpu::device_properties(device), "what was answered is kept");
  stub_failures = 0;
  for (const int largest : {16, 8, 4, 1}) {
    stub_device = stub_largest_cluster = largest;  // another device each
    expect(gpu::device_properties(device), "properties");
    if (device.largest_cluster != largest) expect(-1, "the largest cluster");
  }
  stub_largest_cluster = 16;
  for (const int code : {0, 80}) {  // none, or what was made from the PTX of an older architecture
    stub_device = 100 + code, stub_code = code;
    int found = -1;
    expect(gpu::served_architecture(found), "the code");
    if (found != code) expect(-1, "the code's architecture");
    expect(gpu::device_properties(device), "properties");
    if (device.largest_cluster != 1) expect(-1, "no cluster without code for it");
  }
}

}  // namespace

int main(int count, char** arguments) {
  const char* what = count == 2 ? arguments[1] : "";
  int ran = 0;
  const struct {
    const char* name;
    void (*run)();
  } all[] = {{"sizes", sizes}, {"grids", grids}, {"waiting", waiting}, {"asks", asks}};
  for (const auto& one : all) {
    if (std::strcmp(what, one.name) == 0) one.run(), ++ran;
  }
  return ran == 1 && failures == 0 ? 0 : 1;
}
