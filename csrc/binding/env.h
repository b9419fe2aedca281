#pragma once

#include <napi.h>

#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <unordered_map>
#include <vector>

namespace vsa::binding {

// What one JavaScript environment (the main thread or a worker) owns. Device state is the process's; promises,
// handle counts and the way back to the JavaScript thread are the environment's.
class Environment {
public:
  explicit Environment(Napi::Env env);
  static Environment& of(Napi::Env env) { return *env.GetInstanceData<Environment>(); }

  // A promise that resolves to `value` (kept alive until then) once `work` has run on the device's queue.
  // `work` returns what failed, or null; it must not throw. It is not called any more when the environment is being
  // torn down, and teardown waits for one that is running: it may write into memory that `value` owns.
  Napi::Promise when_done(Napi::Value value, std::function<std::exception_ptr()> work);

  int64_t tensors = 0;  // living handles
  int64_t bytes = 0;    // of their memory, shared memory counted once

private:
  struct Pending {
    Napi::Promise::Deferred deferred;
    Napi::ObjectReference value;  // empty: undefined
  };
  struct Done {
    uint64_t id;
    std::exception_ptr failure;
  };
  // Shared with the queue's thread, which may outlive the environment.
  struct Mailbox {
    std::mutex work_mutex;  // held while work runs, so that teardown can wait for it
    std::mutex mutex;       // guards done, and the call to notify
    bool closed = false;
    std::vector<Done> done;
    napi_threadsafe_function notify = nullptr;
  };

  void settle(Napi::Env env);

  std::shared_ptr<Mailbox> mailbox_ = std::make_shared<Mailbox>();
  std::unordered_map<uint64_t, Pending> pending_;
  uint64_t next_id_ = 0;
};

}  // namespace vsa::binding
