#include "core/storage.h"

#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <limits>
#include <string>

#include "core/error.h"

namespace vsa {
namespace {

constexpr int64_t kAlignment = 64;
constexpr int64_t kGuardBytes = 4096;
constexpr int64_t kLargeBytes = int64_t{64} << 20;  // below this the system is not asked how much it has left

std::atomic<int64_t> live_bytes{0};
std::atomic<bool> debug_memory{false};
std::atomic<int64_t> damaged{0};

// A number that a one-line file holds ("max" and absent files give none).
int64_t number_in(const char* path) {
  std::ifstream file(path);
  int64_t value = 0;
  return file >> value ? value : std::numeric_limits<int64_t>::max();
}

// The machine's memory, or the container's if that is less.
int64_t total_memory() {
  static const int64_t total = [] {
    const int64_t physical = static_cast<int64_t>(sysconf(_SC_PHYS_PAGES)) * sysconf(_SC_PAGE_SIZE);
    return std::min({physical, number_in("/sys/fs/cgroup/memory.max"),
                     number_in("/sys/fs/cgroup/memory/memory.limit_in_bytes")});
  }();
  return total;
}

// What the system says it can still give without swapping.
int64_t available_memory() {
  std::ifstream file("/proc/meminfo");
  std::string key, unit;
  int64_t kilobytes = 0;
  while (file >> key >> kilobytes) {
    std::getline(file, unit);
    if (key == "MemAvailable:") return kilobytes * 1024;
  }
  return total_memory();
}

[[noreturn]] void throw_out_of_memory(int64_t wanted, int64_t free, int64_t total) {
  throw OutOfMemory("out of memory on cpu: got " + std::to_string(std::max<int64_t>(free, 0)) + " bytes free of " +
                        std::to_string(total) + ", wanted " + std::to_string(wanted) +
                        ": dispose tensors that are no longer needed, or use a smaller shape",
                    wanted, std::max<int64_t>(free, 0), total);
}

bool intact(const unsigned char* guard) {
  return std::all_of(guard, guard + kGuardBytes, [](unsigned char byte) { return byte == 0xFF; });
}

}  // namespace

std::shared_ptr<Storage> Storage::allocate(int64_t bytes) {
  VSA_CHECK(bytes >= 0, "a size in bytes must not be negative");
  const int64_t total = total_memory();
  const int64_t live = live_bytes.load();
  // Linux grants memory it does not have and kills the process later: refuse first.
  if (bytes > total - live) throw_out_of_memory(bytes, total - live, total);
  if (bytes >= kLargeBytes) {
    const int64_t available = available_memory();
    if (bytes > available) throw_out_of_memory(bytes, available, total);
  }
  const bool guarded = debug_memory.load();
  const int64_t margin = guarded ? kGuardBytes : 0;
  const int64_t padded = (bytes + kAlignment - 1) / kAlignment * kAlignment;
  auto* base = static_cast<unsigned char*>(
      std::aligned_alloc(kAlignment, static_cast<size_t>(std::max(padded + 2 * margin, kAlignment))));
  if (base == nullptr) throw_out_of_memory(bytes, available_memory(), total);
  if (guarded) std::memset(base, 0xFF, static_cast<size_t>(padded + 2 * margin));
  live_bytes += bytes;
  return std::shared_ptr<Storage>(new Storage(base, base + margin, bytes, guarded));
}

Storage::Storage(void* base, void* data, int64_t bytes, bool guarded)
    : base_(base), data_(data), bytes_(bytes), guarded_(guarded) {}

Storage::~Storage() {
  if (guarded_) {
    const auto* before = static_cast<const unsigned char*>(base_);
    const auto* after = static_cast<const unsigned char*>(data_) + bytes_;
    if (!intact(before) || !intact(after)) ++damaged;
  }
  std::free(base_);
  live_bytes -= bytes_;
}

void Storage::fail(const std::string& why) {
  std::lock_guard lock(mutex_);
  if (failure_.empty()) failure_ = why;
}

std::string Storage::failure() const {
  std::lock_guard lock(mutex_);
  return failure_;
}

void set_debug_memory(bool on) { debug_memory = on; }

int64_t damaged_guards() { return damaged; }

}  // namespace vsa
