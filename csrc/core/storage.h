#pragma once

#include <atomic>
#include <cstdint>
#include <exception>
#include <memory>
#include <mutex>

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
  void fail(std::exception_ptr why);
  std::exception_ptr failure() const;  // null if all is well

  // Counts the tensors that share this memory (binding/handle.h), which all live on one thread.
  bool add_tensor() { return tensors_++ == 0; }  // whether it is the first
  bool drop_tensor();                            // whether it was the last

  // Memory, in bytes, of which no tensor is left but which tasks that have not run yet still hold.
  static int64_t abandoned_bytes();
  // The machine's memory, or the container's if that is less.
  static int64_t total_bytes();

private:
  Storage(void* base, void* data, int64_t bytes, bool guarded);

  void* const base_;
  void* const data_;
  const int64_t bytes_;
  const bool guarded_;
  int64_t tensors_ = 0;
  bool abandoned_ = false;
  mutable std::mutex mutex_;
  std::exception_ptr failure_;
};

// For tests: from now on fresh memory is filled with NaN (all bits set, in every dtype) and lies between guard zones
// of the same pattern, checked when it is freed. Unwritten outputs, reads and writes out of bounds then show.
void set_debug_memory(bool on);
// Guard zones found damaged so far.
int64_t damaged_guards();

}  // namespace vsa
