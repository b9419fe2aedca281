#pragma once

#include <cstdint>
#include <functional>

namespace vsa::cpu {

// Threads that parallel_for uses, the caller included: VSA_NUM_THREADS, else the CPUs this process may run on.
int threads();
void set_threads(int count);  // 1..1024; takes effect at the next parallel_for

// Calls body(i) for every i in [0, count), on the pool; returns when all are done. Items are handed out one by one,
// so which thread runs an item is not fixed: an item must not depend on another. The first exception that a body
// throws is thrown again here, after all have ended. Not reentrant: one caller at a time (the stream's thread).
void parallel_for(int64_t count, const std::function<void(int64_t)>& body);

}  // namespace vsa::cpu
