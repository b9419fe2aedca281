#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

#include "core/storage.h"
#include "cuda/verdict.h"

namespace vsa::cuda {

class CudaDevice;

// Blocks of a graph: allocated outside of it, used by it and by the tensors it made, freed when both are gone. While
// the graph is recorded, a block that is given back serves the next request: what is recorded runs in order.
class GraphMemory {
public:
  explicit GraphMemory(CudaDevice& device) : device_(device) {}
  ~GraphMemory();
  GraphMemory(const GraphMemory&) = delete;
  GraphMemory& operator=(const GraphMemory&) = delete;

  void* take(int64_t bytes);
  void give_back(void* data);

private:
  struct Block {
    void* data;
    int64_t bytes;
    bool free;
  };

  CudaDevice& device_;
  std::vector<Block> blocks_;
};

// Memory of a tensor on a GPU: a piece of the device's stream-ordered pool, of a graph's memory, or borrowed.
class Memory final : public Storage {
public:
  Memory(CudaDevice& device, void* data, int64_t bytes, bool guarded);                  // of the pool
  Memory(CudaDevice& device, void* data, int64_t bytes, std::shared_ptr<GraphMemory>);  // of a graph
  Memory(CudaDevice& device, void* data, int64_t bytes);                                // borrowed
  ~Memory() override;

  bool in_graph(const GraphMemory* graph) const { return graph_ != nullptr && graph_.get() == graph; }
  void expose() override { exposed_ = true; }
  // Whether these are lists that an operation of ours made, of that number, and that nobody has written to since.
  bool holds_lists(uint64_t number) const { return number != 0 && lists == number && !exposed_; }

  // Under the device's lock.
  // The operation of ours that made these lists, if nothing has been written here since; 0: they must be checked.
  uint64_t lists = 0;
  // Of the operations that led to these values. Empty if all is known to be well.
  std::vector<std::shared_ptr<Verdict>> verdicts;

private:
  CudaDevice& device_;
  const std::shared_ptr<GraphMemory> graph_;
  const bool borrowed_ = false, guarded_ = false;
  std::atomic<bool> exposed_ = false;
};

}  // namespace vsa::cuda
