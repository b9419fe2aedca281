#pragma once

#include <cstdint>
#include <functional>

namespace vsa::cpu {

// The CPU backend's queue: operations run one after another, in the order they were enqueued, on one thread that
// hands their items to the pool of cpu/parallel.h. Enqueuing returns at once, as a kernel launch does. One queue
// serves the whole process (every worker thread's environment), so the CPUs are never oversubscribed.
//
// A task must not throw. Like a GPU's launch queue this one has a depth: with kQueueDepth tasks waiting, enqueuing
// blocks until one has run, or a loop that never awaits would hold the memory of all its steps at once. Where the
// waiting tasks hold more than kAbandonedShare of the memory in tensors already disposed, the depth is kShortDepth:
// still enough to keep the queue busy.
inline constexpr int kQueueDepth = 1024;
inline constexpr int kShortDepth = 32;
inline constexpr double kAbandonedShare = 1.0 / 16;

// Throws where the system has no thread for the queue.
void enqueue(std::function<void()> task);
// The same, without ever blocking: for reads, whose memory is the reader's own.
void enqueue_unbounded(std::function<void()> task);

// Returns when all that was enqueued before has run.
void synchronize();

}  // namespace vsa::cpu
