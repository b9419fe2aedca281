#pragma once

#include <cstdint>
#include <optional>

namespace vsa::cuda {

// Bytes from an address to the end of the allocation it lies in, if that is memory of this device.
std::optional<int64_t> room_at(const void* address, int device);

}  // namespace vsa::cuda
