// Graphs, borrowed memory, and what only a device as a whole can do.
#include "ops/device.h"

#include <iterator>
#include <memory>
#include <optional>
#include <utility>

#include "binding/handle.h"
#include "binding/ops.h"
#include "binding/throw.h"
#include "core/error.h"
#ifdef VSA_WITH_CUDA
#include "cuda/device.h"
#include "cuda/sensors.h"
#endif

namespace vsa::binding {
namespace {

constexpr napi_type_tag kGraphTag = {0x51c8e0f7a94d4b02, 0x8d3e6b1f0c72a945};

using GraphShare = std::shared_ptr<Graph>;  // null once released

Device& device_of(Napi::Value index) {
  return Device::at(index.As<Napi::Number>().Int32Value());
}

GraphShare& graph_of(Napi::Value value) {
  VSA_CHECK(value.IsExternal(), "a graph was expected");
  auto external = value.As<Napi::External<GraphShare>>();
  VSA_CHECK(external.CheckTypeTag(&kGraphTag), "a graph of this addon was expected");
  return *external.Data();
}

// deviceMemory(device) -> { freeBytes, totalBytes, heldBytes, usedBytes, peakBytes }
Napi::Value device_memory(const Napi::CallbackInfo& info) {
  const Device::MemoryInfo memory = device_of(info[0]).memory_info();
  auto result = Napi::Object::New(info.Env());
  result.Set("freeBytes", static_cast<double>(memory.free));
  result.Set("totalBytes", static_cast<double>(memory.total));
  result.Set("heldBytes", static_cast<double>(memory.held));
  result.Set("usedBytes", static_cast<double>(memory.used));
  result.Set("peakBytes", static_cast<double>(memory.peak));
  return result;
}

// resetPeakMemory(device)
Napi::Value reset_peak_memory(const Napi::CallbackInfo& info) {
  device_of(info[0]).reset_peak();
  return info.Env().Undefined();
}

// A mark and the number of its device.
struct MarkShare {
  std::shared_ptr<Mark> mark;
  int device;
};
constexpr napi_type_tag kMarkTag = {0x2f0be6ad91c84c11, 0xa6f4c5d03b1e7d58};

const MarkShare& mark_of(Napi::Value value) {
  VSA_CHECK(value.IsExternal(), "a mark was expected");
  auto external = value.As<Napi::External<MarkShare>>();
  VSA_CHECK(external.CheckTypeTag(&kMarkTag), "a mark of this addon was expected");
  return *external.Data();
}

// mark(device) -> mark
Napi::Value mark(const Napi::CallbackInfo& info) {
  const int index = info[0].As<Napi::Number>().Int32Value();
  auto external = Napi::External<MarkShare>::New(info.Env(), new MarkShare{Device::at(index).mark(), index},
                                                 [](Napi::Env, MarkShare* share) { delete share; });
  external.TypeTag(&kMarkTag);
  return external;
}

// elapsed(from, to) -> ms; both have been passed
Napi::Value elapsed(const Napi::CallbackInfo& info) {
  const MarkShare &from = mark_of(info[0]), &to = mark_of(info[1]);
  VSA_CHECK(from.device == to.device, "marks of one device are compared");
  return Napi::Number::New(info.Env(), Device::at(to.device).elapsed_ms(*from.mark, *to.mark));
}

// endTogether(device)
Napi::Value end_together(const Napi::CallbackInfo& info) {
  device_of(info[0]).end_together();
  return info.Env().Undefined();
}

// beginTogether(device, which of the operations that have parts)
Napi::Value begin_together(const Napi::CallbackInfo& info) {
  constexpr const char* kNames[] = {"videoSparseAttention", "blockSparseAttention", "denseAttention"};
  const uint32_t which = info[1].As<Napi::Number>().Uint32Value();
  VSA_CHECK(which < std::size(kNames), "an operation that has parts was expected");
  device_of(info[0]).begin_together(kNames[which]);
  return info.Env().Undefined();
}

// beginTrace(device)
Napi::Value begin_trace(const Napi::CallbackInfo& info) {
  device_of(info[0]).begin_trace();
  return info.Env().Undefined();
}

// endTrace(device) -> [{ name, ms }], having waited for the device
Napi::Value end_trace(const Napi::CallbackInfo& info) {
  auto result = Napi::Array::New(info.Env());
  for (const Stage& stage : device_of(info[0]).end_trace()) {
    auto one = Napi::Object::New(info.Env());
    one.Set("name", stage.name);
    one.Set("ms", stage.ms);
    result.Set(result.Length(), one);
  }
  return result;
}

// flushCache(device) -> whether it could
Napi::Value flush_cache(const Napi::CallbackInfo& info) {
  return Napi::Boolean::New(info.Env(), device_of(info[0]).flush_cache());
}

// capturing(device) -> whether this thread is recording there
Napi::Value capturing(const Napi::CallbackInfo& info) {
  return Napi::Boolean::New(info.Env(), device_of(info[0]).capturing());
}

// beginCapture(device)
Napi::Value begin_capture(const Napi::CallbackInfo& info) {
  device_of(info[0]).begin_capture();
  return info.Env().Undefined();
}

// endCapture(device, keep) -> graph, or undefined if it is not to be kept
Napi::Value end_capture(const Napi::CallbackInfo& info) {
  const bool keep = info[1].ToBoolean();
  GraphShare graph = device_of(info[0]).end_capture(keep);
  if (!keep) return info.Env().Undefined();
  auto external = Napi::External<GraphShare>::New(info.Env(), new GraphShare(std::move(graph)),
                                                  [](Napi::Env, GraphShare* share) { delete share; });
  external.TypeTag(&kGraphTag);
  return external;
}

// replay(graph)
Napi::Value replay(const Napi::CallbackInfo& info) {
  const GraphShare graph = graph_of(info[0]);
  if (graph == nullptr) throw Error("ERR_DISPOSED", "a disposed graph was replayed");
  graph->replay();
  return info.Env().Undefined();
}

// releaseGraph(graph): idempotent
Napi::Value release_graph(const Napi::CallbackInfo& info) {
  graph_of(info[0]).reset();
  return info.Env().Undefined();
}

// borrow(address, bytes, device) -> handle of memory that another owner keeps alive
Napi::Value borrow([[maybe_unused]] const Napi::CallbackInfo& info) {
#ifdef VSA_WITH_CUDA
  bool lossless = false;
  const uint64_t address = info[0].As<Napi::BigInt>().Uint64Value(&lossless);
  cuda::CudaDevice& device = cuda::device(info[2].As<Napi::Number>().Int32Value());
  return wrap(info.Env(), device.borrow(address, info[1].As<Napi::Number>().Int64Value()), info.Env().Undefined());
#else
  throw Error("ERR_DEVICE", "this addon was built without CUDA, and only a GPU's memory can be borrowed");
#endif
}

// address(handle) -> where the memory lies on its device
Napi::Value address(const Napi::CallbackInfo& info) {
  Storage& storage = *unwrap(info[0]);
  storage.expose();
  return Napi::BigInt::New(info.Env(), static_cast<uint64_t>(reinterpret_cast<uintptr_t>(storage.data())));
}

// sensors(device) -> { smMhz, watts, celsius }, null where they can't be read
Napi::Value sensors(const Napi::CallbackInfo& info) {
  auto result = Napi::Object::New(info.Env());
  const auto set = [&](const char* name, std::optional<double> value) {
    result.Set(name, value ? Napi::Value(Napi::Number::New(info.Env(), *value)) : info.Env().Null());
  };
#ifdef VSA_WITH_CUDA
  const int index = info[0].As<Napi::Number>().Int32Value();
  const cuda::Sensors read = index == kCpu ? cuda::Sensors{} : cuda::read_sensors(index);
  set("smMhz", read.sm_mhz), set("watts", read.watts), set("celsius", read.celsius);
#else
  set("smMhz", {}), set("watts", {}), set("celsius", {});
#endif
  return result;
}

// fault(device): for tests, a kernel that faults
Napi::Value fault([[maybe_unused]] const Napi::CallbackInfo& info) {
#ifdef VSA_WITH_CUDA
  cuda::device(info[0].As<Napi::Number>().Int32Value()).fault();
  return info.Env().Undefined();
#else
  throw Error("ERR_DEVICE", "this addon was built without CUDA");
#endif
}

}  // namespace

void export_device(Napi::Env env, Napi::Object exports) {
  exports.Set("deviceMemory", function<device_memory>(env));
  exports.Set("resetPeakMemory", function<reset_peak_memory>(env));
  exports.Set("mark", function<mark>(env));
  exports.Set("elapsed", function<elapsed>(env));
  exports.Set("beginTogether", function<begin_together>(env));
  exports.Set("endTogether", function<end_together>(env));
  exports.Set("beginTrace", function<begin_trace>(env));
  exports.Set("endTrace", function<end_trace>(env));
  exports.Set("flushCache", function<flush_cache>(env));
  exports.Set("capturing", function<capturing>(env));
  exports.Set("beginCapture", function<begin_capture>(env));
  exports.Set("endCapture", function<end_capture>(env));
  exports.Set("replay", function<replay>(env));
  exports.Set("releaseGraph", function<release_graph>(env));
  exports.Set("borrow", function<borrow>(env));
  exports.Set("address", function<address>(env));
  exports.Set("sensors", function<sensors>(env));
  exports.Set("fault", function<fault>(env));
}

}  // namespace vsa::binding
