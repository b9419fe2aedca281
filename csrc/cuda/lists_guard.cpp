#include "cuda/lists_guard.h"

#include <algorithm>

#include "cuda/check.h"
#include "cuda/completions.h"
#include "cuda/lists_check.h"

namespace vsa::cuda {

ListsGuard::ListsGuard(Call& call, Verdicts& verdicts, const Progress& progress, const GraphMemory* recording,
                       uint64_t& lists_made)
    : call_(call), pool_(verdicts), progress_(progress), recording_(recording), lists_made_(lists_made) {
  for (const auto& input : call.inputs) {
    auto& memory = static_cast<Memory&>(*input);
    if (failure_ == nullptr) failure_ = memory.failure();
    std::erase_if(memory.verdicts, [&](const std::shared_ptr<Verdict>& verdict) {
      if (verdict->in_graph || !progress_.done(verdict->number)) return false;
      if (verdict->bad()) memory.fail(bad_lists());
      return true;
    });
    if (failure_ == nullptr) failure_ = memory.failure();
    for (const auto& verdict : memory.verdicts) {
      if (std::find(verdicts_.begin(), verdicts_.end(), verdict) == verdicts_.end()) verdicts_.push_back(verdict);
    }
  }
}

Memory* ListsGuard::find(const Held& held, const void* data) const {
  for (const auto& storage : held) {
    if (storage->data() == data) return static_cast<Memory*>(storage.get());
  }
  return nullptr;
}

void ListsGuard::check(TileLists& lists, int64_t heads, const Launch& to) {
  if (lists.offsets == nullptr) return;
  const Memory* const offsets = find(call_.inputs, lists.offsets);
  const Memory* const indices = find(call_.inputs, lists.indices);
  VSA_CHECK(offsets != nullptr && indices != nullptr, "the memory of lists is held");
  // What a graph has not made itself may change before every replay.
  const bool ours = recording_ == nullptr || (offsets->in_graph(recording_) && indices->in_graph(recording_));
  if (ours && offsets->holds_lists(offsets->lists) && indices->holds_lists(offsets->lists)) return;

  const std::shared_ptr<Verdict> verdict = pool_.take();
  verdict->number = progress_.next();
  verdict->in_graph = recording_ != nullptr;
  auto* const problem = to.zeroed_of<int32_t>(1);
  auto* const safe_offsets = to.scratch_of<int32_t>(heads * lists.rows + 1);
  launch_lists_check(lists, heads, problem, safe_offsets, to);
  cuda::check(cudaMemcpyAsync(verdict->word(), problem, sizeof(int32_t), cudaMemcpyDeviceToHost, to.stream()),
              "cudaMemcpyAsync");
  lists.offsets = safe_offsets;
  has_checked_ = true;
  verdicts_.push_back(verdict);
}

void ListsGuard::check_lists(FineForward& params, const Launch& to) {
  check(params.lists, params.B * params.H, to);
}

void ListsGuard::check_lists(FineBackward& params, const Launch& to) {
  check(params.lists, params.B * params.H, to);
  check(params.transposed, params.B * params.H, to);
}

void ListsGuard::check_lists(TransposeLists& params, const Launch& to) {
  check(params.lists, params.B * params.H, to);
  made(params.offsets, params.indices);
}

void ListsGuard::check_lists(ListsToBits& params, const Launch& to) {
  check(params.lists, params.B * params.H, to);
}

void ListsGuard::check_lists(Selection& params, const Launch&) {
  made(params.offsets, params.indices);
}

void ListsGuard::made(const int32_t* offsets, const int32_t* indices) {
  made_offsets_ = offsets;
  made_indices_ = indices;
}

void ListsGuard::tell_outputs() {
  for (const auto& output : call_.outputs) {
    auto& memory = static_cast<Memory&>(*output);
    memory.fail(failure_);
    memory.verdicts = verdicts_;
    memory.lists = 0;
  }
  if (made_offsets_ == nullptr || failure_ != nullptr) return;
  Memory* const offsets = find(call_.outputs, made_offsets_);
  Memory* const indices = find(call_.outputs, made_indices_);
  VSA_CHECK(offsets != nullptr && indices != nullptr, "the memory of lists is held");
  offsets->lists = indices->lists = ++lists_made_;
}

}  // namespace vsa::cuda
