#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>

namespace vsa {

// Memory of a tensor on the CPU, 64-byte aligned, freed when the last handle and the last queued task let go of it.
class Storage {
 public:
  // Throws OutOfMemory where the machine (or the container) cannot give so much.
  static std::shared_ptr<Storage> allocate(int64_t bytes);
  ~Storage();
  Storage(const Storage&) = delete;
  Storage& operator=(const Storage&) = delete;

  void* data() const { return data_; }
  int64_t bytes() const { return bytes_; }

  // A task that should have filled this memory failed: whoever reads it is told.
  void fail(const std::string& why);
  std::string failure() const;  // empty if all is well

  std::atomic<int32_t> handles{0};  // tensors that share this memory; see binding/handle.h

 private:
  Storage(void* base, void* data, int64_t bytes, bool guarded);

  void* const base_;
  void* const data_;
  const int64_t bytes_;
  const bool guarded_;
  mutable std::mutex mutex_;
  std::string failure_;
};

// For tests: from now on fresh memory is filled with NaN (all bits set, in every dtype) and lies between guard zones
// of the same pattern, checked when it is freed. Unwritten outputs, reads and writes out of bounds then show.
void set_debug_memory(bool on);
// Guard zones found damaged so far.
int64_t damaged_guards();

}  // namespace vsa
