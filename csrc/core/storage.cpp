#include "core/storage.h"

#include <algorithm>
#include <utility>

namespace vsa {
namespace {

std::atomic<bool> debugging{false};
std::atomic<int64_t> damaged{0};

}  // namespace

void Storage::fail(std::exception_ptr why) {
  if (why == nullptr && !failed_) return;
  std::lock_guard lock(mutex_);
  failed_ = why != nullptr;
  failure_ = std::move(why);
}

std::exception_ptr Storage::failure() const {
  if (!failed_) return nullptr;
  std::lock_guard lock(mutex_);
  return failure_;
}

void set_debug_memory(bool on) {
  debugging = on;
}

bool debug_memory() {
  return debugging;
}

void count_damaged_guard() {
  ++damaged;
}

int64_t damaged_guards() {
  return damaged;
}

bool guard_intact(const void* guard) {
  const auto* first = static_cast<const unsigned char*>(guard);
  return std::all_of(first, first + kGuardBytes, [](unsigned char byte) { return byte == 0xFF; });
}

}  // namespace vsa
