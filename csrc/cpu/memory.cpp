#include "cpu/memory.h"

#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <limits>
#include <string>
#include <utility>

#include "core/error.h"

namespace vsa::cpu {
namespace {

constexpr int64_t kAlignment = 64;
// The system is asked what it has left once for every so many bytes: reading its files takes less than writing those.
constexpr int64_t kAskBytes = int64_t{64} << 20;
constexpr int64_t kNone = std::numeric_limits<int64_t>::max();

std::atomic<int64_t> live_bytes{0};   // of all storages
std::atomic<int64_t> peak_bytes_{0};  // the most of those
std::atomic<int64_t> abandoned_bytes_{0};
std::atomic<int64_t> unasked_bytes{0};  // granted since the system was asked last

// The number that a file begins with ("max" and absent files give none).
int64_t number_in(const char* path) {
  std::ifstream file(path);
  int64_t value = 0;
  return file >> value ? value : kNone;
}

// The number that follows a word at the beginning of one of a file's lines.
int64_t number_after(const char* path, const std::string& word) {
  std::ifstream file(path);
  std::string key, rest;
  int64_t value = 0;
  while (file >> key >> value) {
    if (key == word) return value;
    std::getline(file, rest);
  }
  return kNone;
}

// What a container (cgroup 2 or 1) leaves of its limit; the page cache that it would drop first counts as left.
int64_t left_in_container() {
  struct Files {
    const char *limit, *usage, *statistics, *cache;
  };
  constexpr Files kFiles[] = {
      {"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current", "/sys/fs/cgroup/memory.stat", "inactive_file"},
      {"/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes",
       "/sys/fs/cgroup/memory/memory.stat", "total_inactive_file"}};
  for (const Files& files : kFiles) {
    const int64_t limit = number_in(files.limit), usage = number_in(files.usage);
    if (limit == kNone || usage == kNone) continue;
    const int64_t cache = number_after(files.statistics, files.cache);
    return limit - usage + (cache == kNone ? 0 : std::min(cache, usage));
  }
  return kNone;
}

// What the system can still give without swapping. Pages count as used once they are written to, so what this process
// was granted and has not touched is taken off. (Its resident pages are not only storages: that much is unseen.)
int64_t available_memory() {
  const int64_t kilobytes = number_after("/proc/meminfo", "MemAvailable:");
  const int64_t machine = kilobytes == kNone ? total_bytes() : kilobytes * 1024;
  int64_t mapped = 0, resident = 0;
  std::ifstream("/proc/self/statm") >> mapped >> resident;
  const int64_t page = sysconf(_SC_PAGE_SIZE);
  const int64_t untouched = std::max<int64_t>(live_bytes.load() - resident * page, 0);
  const int64_t available = std::min(machine, left_in_container()) - untouched;
  rlimit limit{};  // ulimit -v
  if (getrlimit(RLIMIT_AS, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) return available;
  return std::min(available, static_cast<int64_t>(limit.rlim_cur) - mapped * page);
}

[[noreturn]] void throw_out_of_memory(int64_t wanted, int64_t free, int64_t total) {
  throw OutOfMemory("out of memory on cpu: got " + std::to_string(std::max<int64_t>(free, 0)) + " bytes free of " +
                        std::to_string(total) + ", wanted " + std::to_string(wanted) +
                        ": dispose tensors that are no longer needed, or use a smaller shape",
                    wanted, std::max<int64_t>(free, 0), total);
}

class Memory final : public Storage {
public:
  Memory(void* base, void* data, int64_t bytes, bool guarded)
      : Storage(kCpu, data, bytes), base_(base), guarded_(guarded) {}

  ~Memory() override {
    if (guarded_) {
      const auto* first = static_cast<const unsigned char*>(data());
      if (!guard_intact(first - kGuardBytes) || !guard_intact(first + bytes())) count_damaged_guard();
    }
    std::free(base_);
    live_bytes -= bytes();
    if (abandoned_) abandoned_bytes_ -= bytes();
  }

private:
  void abandon() override {
    abandoned_ = true;
    abandoned_bytes_ += bytes();
  }

  void* const base_;
  const bool guarded_;
  bool abandoned_ = false;
};

}  // namespace

int64_t total_bytes() {
  static const int64_t total =
      std::min({static_cast<int64_t>(sysconf(_SC_PHYS_PAGES)) * sysconf(_SC_PAGE_SIZE),
                number_in("/sys/fs/cgroup/memory.max"), number_in("/sys/fs/cgroup/memory/memory.limit_in_bytes")});
  return total;
}

int64_t abandoned_bytes() {
  return abandoned_bytes_.load();
}

int64_t available_bytes() {
  return std::max<int64_t>(std::min(available_memory(), total_bytes() - live_bytes.load()), 0);
}

int64_t held_bytes() {
  return live_bytes.load();
}

int64_t peak_bytes() {
  return peak_bytes_.load();
}

void reset_peak() {
  peak_bytes_ = live_bytes.load();
}

std::shared_ptr<Storage> allocate(int64_t bytes) {
  VSA_CHECK(bytes >= 0, "a size in bytes must not be negative");
  const int64_t total = total_bytes();
  const int64_t live = live_bytes.load();
  // Linux grants memory it does not have and kills the process later: refuse first.
  if (bytes > total - live) throw_out_of_memory(bytes, total - live, total);
  if ((unasked_bytes += bytes) >= kAskBytes) {
    unasked_bytes = kAskBytes;  // a refusal leaves it there: the next one asks again
    const int64_t available = available_memory();
    if (bytes > available) throw_out_of_memory(bytes, available, total);
    unasked_bytes = 0;
  }
  const bool guarded = debug_memory();
  const int64_t margin = guarded ? kGuardBytes : 0;
  // Not aligned_alloc: before glibc 2.38 it finds no freed block of the same size again, and the heap grows and grows.
  void* const base = std::malloc(static_cast<size_t>(bytes + 2 * margin + kAlignment));
  if (base == nullptr) throw_out_of_memory(bytes, available_memory(), total);
  const uintptr_t address = reinterpret_cast<uintptr_t>(base) + static_cast<uintptr_t>(margin);
  auto* data = reinterpret_cast<unsigned char*>((address + kAlignment - 1) / kAlignment * kAlignment);
  if (guarded) std::memset(data - margin, 0xFF, static_cast<size_t>(bytes + 2 * margin));
  const int64_t now = live_bytes += bytes;
  for (int64_t most = peak_bytes_; most < now && !peak_bytes_.compare_exchange_weak(most, now);) {
  }
  return std::make_shared<Memory>(base, data, bytes, guarded);
}

}  // namespace vsa::cpu
