#include "binding/env.h"

#include <cstring>
#include <utility>

#include "binding/throw.h"

namespace vsa::binding {

Environment::Environment(Napi::Env env) {
  const napi_status status = napi_create_threadsafe_function(
      env, nullptr, nullptr, Napi::String::New(env, "vsa.completions"), 0, 1, nullptr, nullptr, this,
      [](napi_env raw, napi_value, void* context, void*) {
        if (raw == nullptr) return;  // the environment is going
        Napi::Env callback_env(raw);
        Napi::HandleScope scope(callback_env);
        static_cast<Environment*>(context)->settle(callback_env);
      },
      &mailbox_->notify);
  if (status != napi_ok) throw Napi::Error::New(env, "cannot create the completion queue");
  // It must not keep the process alive unless a promise is pending.
  napi_unref_threadsafe_function(env, mailbox_->notify);
  // Hooks run last in, first out: this one before the completion queue's own.
  auto* held = new std::shared_ptr<Mailbox>(mailbox_);
  env.AddCleanupHook(
      [](std::shared_ptr<Mailbox>* mailbox) {
        Device::end_thread();
        {
          std::scoped_lock lock((*mailbox)->work_mutex, (*mailbox)->mutex);
          (*mailbox)->closed = true;
        }
        delete mailbox;
      },
      held);
}

void Environment::add_tensor(Napi::Env env, bool first, int64_t bytes) {
  ++tensors_;
  if (!first) return;
  bytes_ += bytes;
  if (bytes_ > told_) Napi::MemoryManagement::AdjustExternalMemory(env, bytes_ - std::exchange(told_, bytes_));
}

void Environment::drop_tensor(Napi::Env env, bool last, int64_t bytes, bool collected) {
  --tensors_;
  if (!last) return;
  bytes_ -= bytes;
  if (collected) Napi::MemoryManagement::AdjustExternalMemory(env, bytes_ - std::exchange(told_, bytes_));
}

Napi::Promise Environment::promise(Napi::Value value, void* target, const std::function<void(Completion)>& start) {
  const Napi::Env env = value.Env();
  const uint64_t id = next_id_++;
  Pending pending{Napi::Promise::Deferred::New(env), {}};
  if (value.IsObject()) pending.value = Napi::Persistent(value.As<Napi::Object>());
  const Napi::Promise promise = pending.deferred.Promise();
  // What fails in start is thrown, what fails after it rejects: the device has the work, or there is no promise.
  start({[mailbox = mailbox_, target](const void* part, int64_t at, int64_t n) {
           const std::lock_guard working(mailbox->work_mutex);
           if (!mailbox->closed) std::memcpy(static_cast<unsigned char*>(target) + at, part, static_cast<size_t>(n));
         },
         [mailbox = mailbox_, id](std::exception_ptr failure) {
           const std::lock_guard lock(mailbox->mutex);
           if (mailbox->closed) return;
           mailbox->done.push_back({id, std::move(failure)});
           napi_call_threadsafe_function(mailbox->notify, nullptr, napi_tsfn_nonblocking);
         }});
  if (pending_.empty()) napi_ref_threadsafe_function(env, mailbox_->notify);
  pending_.emplace(id, std::move(pending));
  return promise;
}

void Environment::settle(Napi::Env env) {
  std::vector<Done> done;
  {
    std::lock_guard lock(mailbox_->mutex);
    done.swap(mailbox_->done);
  }
  guarded(env, [&]() -> napi_value {
    for (const Done& one : done) {
      auto node = pending_.extract(one.id);
      if (node.empty()) continue;
      Pending& pending = node.mapped();
      if (one.failure == nullptr) {
        pending.deferred.Resolve(pending.value.IsEmpty() ? env.Undefined() : pending.value.Value());
      } else {
        pending.deferred.Reject(to_javascript(env, one.failure).Value());
      }
    }
    return nullptr;
  });
  if (!done.empty() && pending_.empty()) napi_unref_threadsafe_function(env, mailbox_->notify);
}

}  // namespace vsa::binding
