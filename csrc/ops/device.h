#pragma once

#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <vector>

#include "core/storage.h"
#include "ops/operation.h"

namespace vsa {

// What an operation is called with: its parameters, and the memory that its pointers lie in.
struct Call {
  Operation operation;
  Held inputs, outputs;
};

// Work that was recorded, to run again and again.
class Graph {
public:
  virtual ~Graph() = default;
  // Puts the recorded work on the device's queue and returns.
  virtual void replay() = 0;
};

// A point in the time of a device's queue.
class Mark {
public:
  virtual ~Mark() = default;
};

// How long one operation took on the device, from the end of the one before it (or the beginning of the trace).
struct Stage {
  const char* name;
  double ms;
};

// A place that holds memory and runs operations in the order they come: a queue. Every call puts its work there and
// returns at once; the process has one queue a device, shared by all threads.
class Device {
public:
  // The CPU (kCpu) or a GPU. Throws ERR_DEVICE, with the reason, where it can't be used.
  static Device& at(int index);

  virtual ~Device() = default;

  // Throws OutOfMemory.
  virtual std::shared_ptr<Storage> allocate(int64_t bytes) = 0;

  struct MemoryInfo {
    int64_t free, total, held;  // bytes; held: by this process for tensors, in use or kept for the next ones
    int64_t used, peak;         // in use, and the most that ever was since reset_peak()
  };
  virtual MemoryInfo memory_info() = 0;
  virtual void reset_peak() = 0;  // to what is in use now

  virtual void launch(Call call) = 0;

  // Copies `bytes` from the host into a storage, in queue order; they are read before it returns. `fresh`: nothing is
  // queued on this memory yet.
  virtual void write(const std::shared_ptr<Storage>& storage, int64_t offset, const void* source, int64_t bytes,
                     bool fresh) = 0;

  // Calls take(part, at, n) for every part of [offset, offset + bytes) of a storage, `at` counted from offset, and
  // then done(failure), from a thread of the device's: once, whatever happens. Neither may throw or call the device.
  using Take = std::function<void(const void* part, int64_t at, int64_t n)>;
  using Done = std::function<void(std::exception_ptr failure)>;
  virtual void read(const std::shared_ptr<Storage>& storage, int64_t offset, int64_t bytes, Take take, Done done) = 0;

  // done(failure) when all that was called before has run.
  virtual void when_idle(Done done) = 0;
  // Waits for that; throws what failed.
  void synchronize();

  // Between the two, operations are parts of one that the caller knows by a name (a literal): errors tell that name,
  // it costs what one costs to follow how far the queue is, and they may all be put on the queue at the end. Pairs may
  // nest, the outermost names it. For what the calling thread launches.
  virtual void begin_together(const char* name) = 0;
  virtual void end_together() = 0;
  // For a thread that ends, maybe between the two: puts on the queue what is not there yet.
  static void end_thread() noexcept;

  // When the queue gets there. elapsed() is for marks that it has passed: after synchronize().
  virtual std::shared_ptr<Mark> mark() = 0;
  virtual double elapsed_ms(const Mark& from, const Mark& to) = 0;
  // From begin_trace() on every operation is timed; end_trace() waits for them and tells.
  virtual void begin_trace() = 0;
  virtual std::vector<Stage> end_trace() = 0;
  // Queues work that leaves nothing useful in the device's last-level cache; false if it can't.
  virtual bool flush_cache() = 0;

  // Between the two, what this thread launches here is recorded and not run; memory it allocates belongs to the
  // recording, and reads and writes from the host throw ERR_CAPTURE. end_capture(false) forgets the recording.
  virtual void begin_capture() = 0;
  virtual std::shared_ptr<Graph> end_capture(bool keep) = 0;
  virtual bool capturing() const = 0;  // this thread, here
};

}  // namespace vsa
