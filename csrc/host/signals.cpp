#include "host/signals.h"

#include <dlfcn.h>
#include <pthread.h>
#include <pybind11/pybind11.h>

#include <atomic>
#include <stdexcept>

namespace vfrnn {
namespace {

namespace py = pybind11;

std::atomic<unsigned long> main_thread{0};
PyObject *raised_type = nullptr, *raised_value = nullptr, *raised_traceback = nullptr;  // the main thread's

// Travels through torch, whose translators know the base, and becomes what the handler has raised. The base is one
// virtual function beside std::runtime_error in every version of pybind11.
struct Interrupted : py::builtin_exception {
  Interrupted() : builtin_exception("a handler of a signal has raised") {}
  void set_error() const override {
    PyErr_Restore(raised_type, raised_value, raised_traceback);
    raised_type = raised_value = raised_traceback = nullptr;
  }
};

bool look() {
  if (PyThread_get_thread_ident() != main_thread.load(std::memory_order_relaxed)) return false;
  const PyGILState_STATE state = PyGILState_Ensure();
  const bool raised = PyErr_CheckSignals() != 0;
  if (raised) {
    for (PyObject** held : {&raised_type, &raised_value, &raised_traceback}) Py_CLEAR(*held);
    PyErr_Fetch(&raised_type, &raised_value, &raised_traceback);
  }
  PyGILState_Release(state);
  return raised;
}

[[noreturn]] void raise() {
  throw Interrupted();
}

// In a forked child the thread that forked is the main one.
void remember_main_thread() {
  main_thread.store(PyThread_get_thread_ident(), std::memory_order_relaxed);
}

}  // namespace

void watch_signals(const std::string& library) {
  void* const loaded = dlopen(library.c_str(), RTLD_NOW | RTLD_NOLOAD);
  if (loaded == nullptr) throw std::invalid_argument("library must be the path of one that is loaded, got " + library);
  using Watch = void (*)(bool (*)(), void (*)());
  const auto watch = reinterpret_cast<Watch>(dlsym(loaded, "vfrnn_watch_signals"));
  if (watch == nullptr) throw std::invalid_argument(library + " must be libvfrnn_cpu.so of this build");
  static const bool once = [] { return pthread_atfork(nullptr, nullptr, remember_main_thread) == 0; }();
  (void)once;
  main_thread = py::module_::import("threading").attr("main_thread")().attr("ident").cast<unsigned long>();
  watch(look, raise);
  dlclose(loaded);  // NOLOAD has counted one more user
}

}  // namespace vfrnn
