#pragma once

#include <cstdint>
#include <memory>

#include "core/storage.h"

namespace vsa::cpu {

// 64-byte aligned memory. Throws OutOfMemory where the machine (or the container) cannot give so much.
std::shared_ptr<Storage> allocate(int64_t bytes);

// Bytes that allocate() would still give, and those of all memory that lives.
int64_t available_bytes();
int64_t held_bytes();
// The most of those since reset_peak().
int64_t peak_bytes();
void reset_peak();
// Memory, in bytes, of which no tensor is left but which tasks that have not run yet still hold.
int64_t abandoned_bytes();
// The machine's memory, or the container's if that is less.
int64_t total_bytes();

}  // namespace vsa::cpu
