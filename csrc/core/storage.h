#pragma once

#include <atomic>
#include <cstdint>
#include <exception>
#include <memory>
#include <mutex>
#include <vector>

namespace vsa {

inline constexpr int kCpu = -1;  // as a device's number; 0 and up are GPUs

// Memory of a tensor on one device, freed when the last handle and the last task that uses it let go of it. Each
// device has its own kind (cpu/memory.h, cuda/memory.h).
class Storage {
public:
  virtual ~Storage() = default;
  Storage(const Storage&) = delete;
  Storage& operator=(const Storage&) = delete;

  int device() const { return device_; }
  void* data() const { return data_; }  // an address of the device
  int64_t bytes() const { return bytes_; }

  // A task that should have filled this memory failed: whoever reads it is told, until a later one has filled it
  // (null).
  void fail(std::exception_ptr why);
  std::exception_ptr failure() const;  // null if all is well

  // Made while a graph was recorded: it holds nothing until `*replayed`.
  void awaits(std::shared_ptr<const std::atomic<bool>> replayed) { replayed_ = std::move(replayed); }
  bool awaits_replay() const { return replayed_ != nullptr && !replayed_->load(); }

  // Its address is given away: from now on anyone may write here at any time.
  virtual void expose() {}

  // Counts the tensors that share this memory (binding/handle.h), which all live on one thread.
  bool add_tensor() { return tensors_++ == 0; }  // whether it is the first
  bool drop_tensor() {                           // whether it was the last
    if (--tensors_ > 0) return false;
    abandon();
    return true;
  }

protected:
  Storage(int device, void* data, int64_t bytes) : device_(device), data_(data), bytes_(bytes) {}

private:
  virtual void abandon() {}  // no tensor is left, tasks that have not run yet may still hold it

  const int device_;
  void* const data_;
  const int64_t bytes_;
  int64_t tensors_ = 0;
  std::shared_ptr<const std::atomic<bool>> replayed_;
  std::atomic<bool> failed_ = false;  // whether there is a failure: nearly never, and then nobody needs the lock
  mutable std::mutex mutex_;
  std::exception_ptr failure_;
};

using Held = std::vector<std::shared_ptr<Storage>>;

// For tests: from now on fresh memory is filled with NaN (all bits set, in every dtype) and lies between guard zones
// of the same pattern, checked when it is freed. Unwritten outputs, reads and writes out of bounds then show.
inline constexpr int64_t kGuardBytes = 4096;
void set_debug_memory(bool on);
bool debug_memory();
// Guard zones found damaged so far.
void count_damaged_guard();
int64_t damaged_guards();
bool guard_intact(const void* guard);  // kGuardBytes that the host can read

}  // namespace vsa
