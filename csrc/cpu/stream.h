#pragma once

#include <cstdint>
#include <functional>

namespace vsa::cpu {

// The CPU backend's queue: operations run one after another, in the order they were enqueued, on one thread that
// hands their items to the pool of cpu/parallel.h. Enqueuing returns at once, as a kernel launch does. One queue
// serves the whole process (every worker thread's environment), so the CPUs are never oversubscribed.
//
// A task must not throw. Like a GPU's launch queue this one has a depth: with kQueueDepth tasks waiting, enqueuing
// blocks until one has run, or a loop that never awaits would hold the memory of all its steps at once.
inline constexpr int kQueueDepth = 1024;

void enqueue(std::function<void()> task);

// Returns when all that was enqueued before has run.
void synchronize();

}  // namespace vsa::cpu
