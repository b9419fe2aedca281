#pragma once

#include <napi.h>

#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <unordered_map>
#include <vector>

#include "ops/device.h"

namespace vsa::binding {

// What one JavaScript environment (the main thread or a worker) owns. Device state is the process's; promises,
// handle counts and the way back to the JavaScript thread are the environment's.
class Environment {
public:
  explicit Environment(Napi::Env env);
  static Environment& of(Napi::Env env) { return *env.GetInstanceData<Environment>(); }

  // What a device calls when work is done (ops/device.h), from its own threads. `take` copies into memory that the
  // promise's value owns: not any more once the environment is being torn down, and teardown waits for one that is
  // running.
  struct Completion {
    Device::Take take;
    Device::Done done;
  };
  // A promise that resolves to `value` (kept alive until then) once `start` has had its completion called. What `start`
  // throws is thrown: then there is no promise. `target`: where to copy to.
  Napi::Promise promise(Napi::Value value, void* target, const std::function<void(Completion)>& start);

  // Counts of what handles hold. V8 is told of the most bytes there were at once since the collector last gave some
  // back: what it is told makes it collect, and memory that is disposed and made anew in every step should not.
  void add_tensor(Napi::Env env, bool first, int64_t bytes);
  void drop_tensor(Napi::Env env, bool last, int64_t bytes, bool collected);
  int64_t tensors() const { return tensors_; }  // living handles
  int64_t bytes() const { return bytes_; }      // of their memory, shared memory counted once

private:
  struct Pending {
    Napi::Promise::Deferred deferred;
    Napi::ObjectReference value;  // empty: undefined
  };
  struct Done {
    uint64_t id;
    std::exception_ptr failure;
  };
  // Shared with the devices' threads, which may outlive the environment.
  struct Mailbox {
    std::mutex work_mutex;  // held while memory is copied to, so that teardown can wait for it
    std::mutex mutex;       // guards done, and the call to notify
    bool closed = false;
    std::vector<Done> done;
    napi_threadsafe_function notify = nullptr;
  };

  void settle(Napi::Env env);

  std::shared_ptr<Mailbox> mailbox_ = std::make_shared<Mailbox>();
  std::unordered_map<uint64_t, Pending> pending_;
  uint64_t next_id_ = 0;
  int64_t tensors_ = 0, bytes_ = 0, told_ = 0;
};

}  // namespace vsa::binding
