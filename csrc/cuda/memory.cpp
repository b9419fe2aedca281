#include "cuda/memory.h"

#include <mutex>
#include <utility>

#include "cuda/device.h"

namespace vsa::cuda {

GraphMemory::~GraphMemory() {
  for (const Block& block : blocks_) device_.free_block(block.data, block.bytes);
}

// The smallest free block that is not wastefully large.
void* GraphMemory::take(int64_t bytes) {
  const std::lock_guard lock(device_.mutex());
  Block* best = nullptr;
  for (Block& block : blocks_) {
    if (block.free && block.bytes >= bytes && block.bytes <= 2 * bytes && (!best || block.bytes < best->bytes)) {
      best = &block;
    }
  }
  if (best == nullptr) {
    blocks_.push_back({device_.allocate_block(bytes), bytes, true});
    best = &blocks_.back();
  }
  best->free = false;
  return best->data;
}

void GraphMemory::give_back(void* data) {
  const std::lock_guard lock(device_.mutex());
  for (Block& block : blocks_) {
    if (block.data == data) block.free = true;
  }
}

Memory::Memory(CudaDevice& device, void* data, int64_t bytes, bool guarded)
    : Storage(device.index(), data, bytes), device_(device), guarded_(guarded) {}

Memory::Memory(CudaDevice& device, void* data, int64_t bytes, std::shared_ptr<GraphMemory> graph)
    : Storage(device.index(), data, bytes), device_(device), graph_(std::move(graph)) {}

Memory::Memory(CudaDevice& device, void* data, int64_t bytes)
    : Storage(device.index(), data, bytes), device_(device), borrowed_(true) {}

Memory::~Memory() {
  if (borrowed_) return;
  if (graph_ != nullptr) {
    graph_->give_back(data());
    return;
  }
  if (!guarded_) {
    device_.free_block(data(), bytes());
    return;
  }
  unsigned char* const base = static_cast<unsigned char*>(data()) - kGuardBytes;
  device_.check_guards(base, bytes());
  device_.free_block(base, bytes() + 2 * kGuardBytes);
}

}  // namespace vsa::cuda
