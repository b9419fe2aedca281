#include "cuda/device.h"

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <map>
#include <optional>
#include <utility>
#include <variant>

#include "cuda/capture.h"
#include "cuda/devices.h"
#include "cuda/driver.h"
#include "cuda/fault.h"
#include "cuda/lists_guard.h"
#include "cuda/padding.h"
#include "cuda/pointers.h"

namespace vsa::cuda {
namespace {

// Free blocks are kept at least up to this. Bytes.
constexpr int64_t kLeastCached = int64_t{64} << 20;

// Operations get zeros up to this from a page, more of them by a memset of their own. Bytes.
constexpr int64_t kMostZeroed = 4096;

// VSA_DEBUG_MEMORY=1: every block comes from CUDA's pool and goes back there at once, so that compute-sanitizer sees
// what uses memory that was freed.
bool caches_blocks() {
  static const bool wanted = [] {
    const char* const set = std::getenv("VSA_DEBUG_MEMORY");
    return set == nullptr || *set == '\0' || std::strcmp(set, "0") == 0;
  }();
  return wanted && !debug_memory();
}

// Whether an operation's last kernel lets the next operation's first run beside it (cuda/chain.h): coarse attention's.
// Only Hopper's fine forward begins so, and its first kernel reads lists and values, which coarse attention, all
// float32, does not make.
template <typename Params>
bool lets_beside(const Params&) {
  return false;
}
bool lets_beside(const CoarseForward& p) {
  return p.B * p.H * p.Nq > 0;
}

}  // namespace

thread_local std::unique_ptr<CudaDevice::Capture> CudaDevice::capture_;
thread_local CudaDevice::Together CudaDevice::together_ = {};

CudaDevice::CudaDevice(int index)
    : index_(index), current_context_(driver_function<PFN_cuCtxGetCurrent_v4000>("cuCtxGetCurrent", 12000)) {
  check(cudaSetDevice(index), "cudaSetDevice");
  check(cudaGetDeviceProperties(&properties_, index), "cudaGetDeviceProperties");
  check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "cudaStreamCreate");
  cudaMemPoolProps props{};
  props.allocType = cudaMemAllocationTypePinned;
  props.location = {cudaMemLocationTypeDevice, index};
  check(cudaMemPoolCreate(&pool_, &props), "cudaMemPoolCreate");
  // Freed memory stays with the pool: giving it back to the driver at every wait would cost more than the kernels.
  uint64_t keep_all = UINT64_MAX;
  check(cudaMemPoolSetAttribute(pool_, cudaMemPoolAttrReleaseThreshold, &keep_all), "cudaMemPoolSetAttribute");
  current_context_(&context_);  // what cudaSetDevice has made
  staging_ = std::make_unique<Staging>();
  progress_ = std::make_unique<Progress>();
  kept_ = std::make_unique<KeptLaunches>(stream_);
  completions_ = std::make_unique<Completions>(index, stream_, [this](cudaError_t error) {
    const std::lock_guard lock(mutex_);
    return lose(CudaError(error, "waiting for the GPU"));
  });
}

// Asked for first: cudaSetDevice takes longer where there is nothing to do.
void CudaDevice::make_current() {
  CUcontext current = nullptr;
  if (context_ != nullptr && current_context_(&current) == CUDA_SUCCESS && current == context_) return;
  check(cudaSetDevice(index_), "cudaSetDevice");
}

std::exception_ptr CudaDevice::explain(const CudaError& error) {
  counters_ready_ = false;
  // An error that the stream still has after it was cleared is the context's.
  const cudaError_t state = cudaStreamQuery(stream_);
  cudaGetLastError();
  if (state != cudaSuccess && state != cudaErrorNotReady) return lose(error);
  return std::make_exception_ptr(Error(error.code, "device cuda:" + std::to_string(index_) + ": " + error.what()));
}

// The first call tells what happened, all others that it has.
std::exception_ptr CudaDevice::lose(const CudaError& error) {
  if (lost_ != nullptr) return lost_;
  const char* const running = progress_->running();
  const std::string name = running != nullptr ? running : error.call;
  const std::string device = "device cuda:" + std::to_string(index_);
  const std::string reason = std::string(cudaGetErrorString(error.error)) + " (" + cudaGetErrorName(error.error) + ")";
  lost_ = std::make_exception_ptr(Error("ERR_DEVICE_LOST", device + ": the CUDA context is lost since " + name +
                                                               " failed with " + reason + "; restart the process"));
  return std::make_exception_ptr(
      Error("ERR_DEVICE_LOST", device + ": " + name + " failed with " + reason + "; the CUDA context is lost with it"));
}

Device::MemoryInfo CudaDevice::memory_info() {
  return enter([&]() -> MemoryInfo {
    size_t free = 0, total = 0;
    uint64_t reserved = 0, used = 0;
    check(cudaMemGetInfo(&free, &total), "cudaMemGetInfo");
    check(cudaMemPoolGetAttribute(pool_, cudaMemPoolAttrReservedMemCurrent, &reserved), "cudaMemPoolGetAttribute");
    check(cudaMemPoolGetAttribute(pool_, cudaMemPoolAttrUsedMemCurrent, &used), "cudaMemPoolGetAttribute");
    return {static_cast<int64_t>(free + reserved - used) + cache_.bytes(), static_cast<int64_t>(total),
            static_cast<int64_t>(reserved), used_, peak_};
  });
}

void CudaDevice::reset_peak() {
  const std::lock_guard lock(mutex_);
  peak_ = used_;
}

void CudaDevice::throw_out_of_memory(int64_t wanted) {
  const MemoryInfo memory = memory_info();
  throw OutOfMemory("out of memory on cuda:" + std::to_string(index_) + ": got " + std::to_string(memory.free) +
                        " bytes free of " + std::to_string(memory.total) + ", wanted " + std::to_string(wanted) +
                        ": dispose tensors that are no longer needed, or use a smaller shape",
                    wanted, memory.free, memory.total);
}

void* CudaDevice::allocate_block(int64_t bytes) {
  const std::lock_guard lock(mutex_);
  if (lost_ != nullptr) std::rethrow_exception(lost_);
  if (bytes > static_cast<int64_t>(properties_.totalGlobalMem)) throw_out_of_memory(bytes);
  const int64_t size = BlockCache::rounded(bytes);
  void* data = caches_blocks() ? cache_.take(size) : nullptr;
  if (data == nullptr) data = allocate_fresh(bytes);
  used_ += size;
  most_used_ = std::max(most_used_, used_);
  peak_ = std::max(peak_, used_);
  return data;
}

void* CudaDevice::allocate_fresh(int64_t bytes) {
  return enter([&] {
    const auto size = static_cast<size_t>(BlockCache::rounded(bytes));
    void* data = nullptr;
    cudaError_t error = cudaMallocFromPoolAsync(&data, size, pool_, stream_);
    if (error == cudaErrorMemoryAllocation) {
      // Disposed memory comes back when the work that uses it has run; and what the pool holds in pieces, the driver
      // can hand out whole.
      cudaGetLastError();
      shrink_cache(0);
      check(cudaStreamSynchronize(stream_), "cudaStreamSynchronize");
      check(cudaMemPoolTrimTo(pool_, 0), "cudaMemPoolTrimTo");
      error = cudaMallocFromPoolAsync(&data, size, pool_, stream_);
    }
    if (error == cudaErrorMemoryAllocation) {
      cudaGetLastError();
      throw_out_of_memory(bytes);
    }
    check(error, "cudaMallocFromPoolAsync");
    return data;
  });
}

void CudaDevice::free_block(void* data, int64_t bytes) noexcept {
  // At the process's end, or once the context is lost, nothing is left to be done.
  const std::lock_guard lock(mutex_);
  const int64_t size = BlockCache::rounded(bytes);
  used_ -= size;
  lets_beside_ = false;
  if (lost_ != nullptr) return;
  if (!caches_blocks() && kept_->empty()) {
    if (cudaSetDevice(index_) == cudaSuccess) cudaFreeAsync(data, stream_);
    cudaGetLastError();
    return;
  }
  cache_.put(data, size);
  // No more than was ever in use at once; the pool can make other sizes of the rest.
  shrink_cache(std::max(kLeastCached, most_used_));
}

// Gives the pool blocks back until at most so many bytes are cached.
void CudaDevice::shrink_cache(int64_t most) noexcept {
  if (!kept_->empty()) return;  // they may use them: next time
  if (cache_.bytes() <= most || cudaSetDevice(index_) != cudaSuccess) return;
  cache_.shrink(most, [&](void* data) { cudaFreeAsync(data, stream_); });
  cudaGetLastError();
}

// A piece of a page that is zero: one memset serves many operations. Under the lock.
void* CudaDevice::zeroed(int64_t bytes, Launch& to) {
  constexpr int64_t kPage = 1 << 18, kPiece = 256;
  const int64_t taken = (bytes + kPiece - 1) / kPiece * kPiece;
  VSA_CHECK(taken <= kPage, "little memory is asked for as zeros");
  if (zeros_ == nullptr || zeros_taken_ + taken > kPage) {
    if (zeros_ == nullptr) zeros_ = static_cast<unsigned char*>(allocate_block(kPage));
    check(cudaMemsetAsync(zeros_, 0, kPage, to.stream()), "cudaMemsetAsync");
    to.beside = false;
    zeros_taken_ = 0;
  }
  return zeros_ + std::exchange(zeros_taken_, zeros_taken_ + taken);
}

void CudaDevice::ready_counters() {
  if (counters_ == nullptr) counters_ = static_cast<int32_t*>(allocate_block(Launch::kCounterBytes));
  kept_->launch();
  check(cudaMemsetAsync(counters_, 0, Launch::kCounterBytes, stream_), "cudaMemsetAsync");
  counters_ready_ = true;
}

void CudaDevice::check_guards(const void* base, int64_t bytes) noexcept {
  const std::lock_guard lock(mutex_);
  if (lost_ != nullptr || cudaSetDevice(index_) != cudaSuccess) return;
  try {
    launch_kept();
  } catch (...) {
    return;  // the next call meets the same
  }
  std::vector<unsigned char> guards(2 * kGuardBytes);
  const auto* const first = static_cast<const unsigned char*>(base);
  const bool read =
      cudaMemcpyAsync(guards.data(), first, kGuardBytes, cudaMemcpyDeviceToHost, stream_) == cudaSuccess &&
      cudaMemcpyAsync(guards.data() + kGuardBytes, first + kGuardBytes + bytes, kGuardBytes, cudaMemcpyDeviceToHost,
                      stream_) == cudaSuccess &&
      cudaStreamSynchronize(stream_) == cudaSuccess;
  if (read && !(guard_intact(guards.data()) && guard_intact(guards.data() + kGuardBytes))) count_damaged_guard();
}

std::shared_ptr<Storage> CudaDevice::allocate(int64_t bytes) {
  VSA_CHECK(bytes >= 0, "a size in bytes must not be negative");
  if (capturing()) {
    auto& graph = capture_->memory;
    auto memory = std::make_shared<Memory>(*this, graph->take(bytes), bytes, graph);
    memory->awaits(capture_->replayed);
    return memory;
  }
  if (!debug_memory()) return std::make_shared<Memory>(*this, allocate_block(bytes), bytes, false);
  const int64_t all = bytes + 2 * kGuardBytes;
  auto* const base = static_cast<unsigned char*>(allocate_block(all));
  enter([&] { check(cudaMemsetAsync(base, 0xFF, static_cast<size_t>(all), stream_), "cudaMemsetAsync"); });
  return std::make_shared<Memory>(*this, base + kGuardBytes, bytes, true);
}

void CudaDevice::write(const std::shared_ptr<Storage>& storage, int64_t offset, const void* source, int64_t bytes,
                       bool) {
  enter([&] {
    auto& memory = static_cast<Memory&>(*storage);
    memory.lists = 0;
    if (bytes == memory.bytes()) {
      memory.fail(nullptr);
      memory.verdicts.clear();
    }
    staging_->upload(static_cast<char*>(memory.data()) + offset, source, bytes, stream_);
    progress_->mark("copyFrom", stream_);
  });
}

void CudaDevice::read(const std::shared_ptr<Storage>& storage, int64_t offset, int64_t bytes, Take take, Done done) {
  enter([&] {
    const auto& memory = static_cast<const Memory&>(*storage);
    if (const std::exception_ptr failure = memory.failure()) {
      done(failure);
      return;
    }
    const auto pending = completions_->begin(std::move(take), std::move(done), memory.verdicts);
    try {
      void* const slab = bytes > 0 ? staging_->download_slab() : nullptr;
      for (int64_t at = 0; at < bytes; at += Staging::kSlabBytes) {
        const int64_t n = std::min(Staging::kSlabBytes, bytes - at);
        const auto* const part = static_cast<const char*>(memory.data()) + offset + at;
        check(cudaMemcpyAsync(slab, part, static_cast<size_t>(n), cudaMemcpyDeviceToHost, stream_), "reading values");
        completions_->part(pending, slab, at, n);
      }
      completions_->end(pending);
    } catch (...) {
      completions_->forget(pending);
      throw;
    }
  });
}

void CudaDevice::when_idle(Done done) {
  enter([&] {
    const auto pending = completions_->begin(nullptr, std::move(done), {});
    try {
      completions_->end(pending);
    } catch (...) {
      completions_->forget(pending);
      throw;
    }
  });
}

void CudaDevice::launch(Call call) {
  const std::lock_guard lock(mutex_);
  // Recordings may have memsets between.
  const bool may_run_beside = lets_beside_ && counters_ready_ && keeper_ == std::this_thread::get_id() && !capturing();
#if defined(VSA_WITH_SM90A)
  constexpr bool has_hopper_code = true;
#else
  constexpr bool has_hopper_code = false;  // that for other GPUs does not wait
#endif
  enter_keeping([&] {
    const bool recorded = capturing(), keeps = keeps_launches();
    throw_kept_failure();
    take_turn();
    if (!keeps) kept_->launch();
    if (!counters_ready_) ready_counters();
    const cudaStream_t queue = recorded ? capture_->stream : stream_;
    std::vector<std::pair<void*, int64_t>> scratch;
    const auto give_back = [&] {
      for (const auto& [data, bytes] : scratch) {
        recorded ? capture_->memory->give_back(data) : free_block(data, bytes);
      }
    };
    const auto take = [&](int64_t bytes) {
      void* const data = recorded ? capture_->memory->take(bytes) : allocate_block(bytes);
      scratch.emplace_back(data, bytes);
      return data;
    };
    Launch to{.queue = queue,
              .kept = keeps ? kept_.get() : nullptr,
              .sm_count = properties_.multiProcessorCount,
              .capability = 10 * properties_.major + properties_.minor,
              .shared_memory = static_cast<int>(properties_.sharedMemPerBlockOptin),
              .chains = has_hopper_code && properties_.major == 9 && properties_.minor == 0,
              .beside = false,
              .counters = counters_,
              .scratch = [&](int64_t bytes) { return take(bytes); },
              .zeroed =
                  [&](int64_t bytes) {
                    // A graph's replays need theirs zeroed anew.
                    if (!recorded && bytes <= kMostZeroed) return zeroed(bytes, to);
                    void* const data = take(bytes);
                    check(cudaMemsetAsync(data, 0, static_cast<size_t>(bytes), to.stream()), "cudaMemsetAsync");
                    to.beside = false;
                    return data;
                  }};
    bool lets = false;
    ListsGuard guard(call, verdicts_, *progress_, recorded ? capture_->memory.get() : nullptr, lists_made_);
    if (!guard.inputs_failed()) {
      try {
        std::visit(
            [&](auto& params) {
              clear_padding(params);
              guard.check_lists(params, to);
              to.beside = may_run_beside && to.chains && !guard.has_checked();
              cuda::launch(std::as_const(params), to);
              lets = lets_beside(params);
            },
            call.operation);
      } catch (...) {
        counters_ready_ = false;
        give_back();
        throw;
      }
    }
    give_back();
    guard.tell_outputs();
    if (recorded) {
      capture_->keep(call);
    } else {
      const bool is_part = in_together();
      const bool numbered = !is_part || !progress_->part(together_.name);
      keeper_name_ = together_.name;
      if (numbered) {
        kept_->launch();
        progress_->mark(is_part ? together_.name : name_of(call.operation), stream_);
      }
      if (trace_ != nullptr) {
        EventMark& end = trace_end_of(name_of(call.operation));
        keeps ? kept_->record(end.event()) : end.record(stream_);
      }
      lets_beside_ = lets && !numbered && (trace_ == nullptr || keeps) && scratch.empty();
    }
  });
}

// What is kept back must come first. If it is another thread's, that one is told of a failure, not this one.
void CudaDevice::launch_kept() {
  if (kept_->empty()) return;
  if (keeper_ == std::this_thread::get_id()) return kept_->launch();
  try {
    kept_->launch();
  } catch (const CudaError& error) {
    kept_failure_ = explain(error);
    failed_keeper_ = keeper_;
  }
}

// From here on the calling thread's launches are kept back, and its parts counted.
void CudaDevice::take_turn() {
  if (keeper_ == std::this_thread::get_id()) return;
  launch_kept();
  if (progress_->has_parts()) progress_->mark(keeper_name_, stream_);
  keeper_ = std::this_thread::get_id();
}

void CudaDevice::throw_kept_failure() {
  if (kept_failure_ == nullptr || failed_keeper_ != std::this_thread::get_id()) return;
  std::rethrow_exception(std::exchange(kept_failure_, nullptr));
}

bool CudaDevice::in_together() const {
  return together_.depth > 0 && together_.device == this;
}

// Not where blocks go back to CUDA at once, nor in a recording, which is a graph itself.
bool CudaDevice::keeps_launches() const {
  return in_together() && !capturing() && caches_blocks();
}

void CudaDevice::begin_together(const char* name) {
  if (together_.depth++ > 0) return;
  together_ = {this, name, 1};
  const std::lock_guard lock(mutex_);
  // An earlier thread of this number had it.
  if (failed_keeper_ == std::this_thread::get_id()) kept_failure_ = nullptr;
}

void CudaDevice::end_together() {
  const std::lock_guard lock(mutex_);
  if (--together_.depth > 0) return;
  throw_kept_failure();
  const bool pending = !kept_->empty() || progress_->has_parts();
  if (lost_ != nullptr || !pending || keeper_ != std::this_thread::get_id()) return;
  enter_keeping([&] {
    kept_->launch(true);
    if (!progress_->has_parts()) return;
    progress_->mark(together_.name, stream_);
    // The number is the operation's as well.
    if (trace_ != nullptr) trace_end_of(together_.name).record(stream_);
  });
}

// Without its end the operation's kernels would come at some later time, when memory they use may be gone.
void CudaDevice::end_thread() noexcept {
  if (together_.depth == 0) return;
  together_.depth = 1;
  try {
    together_.device->end_together();
  } catch (...) {
    // Nobody is left to be told.
  }
}

std::shared_ptr<Storage> CudaDevice::borrow(uint64_t address, int64_t bytes) {
  return enter([&]() -> std::shared_ptr<Storage> {
    void* const data = reinterpret_cast<void*>(address);
    const std::optional<int64_t> room = room_at(data, index_);
    if (!room.has_value() || bytes > *room) {
      throw Error("ERR_DEVICE", "pointer: got " + (room ? std::to_string(*room) : std::string("no")) +
                                    " bytes of cuda:" + std::to_string(index_) + " there, wanted " +
                                    std::to_string(bytes));
    }
    return std::make_shared<Memory>(*this, data, bytes);
  });
}

void CudaDevice::fault() {
  enter([&] {
    launch_fault(stream_);
    progress_->mark("fault", stream_);
  });
}

CudaDevice& device(int index) {
  constexpr int kMost = 64;
  static std::atomic<CudaDevice*> known[kMost];  // asked for by every call
  if (index >= 0 && index < kMost) {
    if (CudaDevice* const one = known[index].load(std::memory_order_acquire); one != nullptr) return *one;
  }
  static std::mutex mutex;
  static auto& devices = *new std::map<int, std::unique_ptr<CudaDevice>>;  // outlives every thread
  const std::lock_guard lock(mutex);
  auto& one = devices[index];
  try {
    if (one == nullptr) one = std::make_unique<CudaDevice>(index);
  } catch (const CudaError& error) {
    throw Error("ERR_DEVICE", "device cuda:" + std::to_string(index) + ": " + error.what());
  }
  if (index >= 0 && index < kMost) known[index].store(one.get(), std::memory_order_release);
  return *one;
}

}  // namespace vsa::cuda
