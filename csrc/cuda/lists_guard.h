#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "cuda/launch.h"
#include "cuda/memory.h"
#include "cuda/progress.h"
#include "cuda/verdict.h"
#include "ops/device.h"

namespace vsa::cuda {

// Stands between an operation and lists that may hold anything: they are memory that a program may overwrite. Lists
// that an operation of ours made and nobody has touched are trusted. All others are checked on the device first; where
// they are bad, the operation sees empty lists, and whoever reads what came of it is told. Under the device's lock.
class ListsGuard {
public:
  // `recording`: memory of the graph that is being recorded, or null.
  ListsGuard(Call& call, Verdicts& verdicts, const Progress& progress, const GraphMemory* recording,
             uint64_t& lists_made);

  // Whether an input is known to have failed; then so have the outputs, and nothing is to be launched.
  bool inputs_failed() const { return failure_ != nullptr; }

  // Puts a check on the stream where these parameters have lists that need one, and makes them safe.
  template <typename Params>
  void check_lists(Params&, const Launch&) {}
  void check_lists(FineForward& params, const Launch& to);
  void check_lists(FineBackward& params, const Launch& to);
  void check_lists(TransposeLists& params, const Launch& to);
  void check_lists(ListsToBits& params, const Launch& to);
  void check_lists(Selection& params, const Launch& to);

  // Whether it has put one there: what comes next must wait for it.
  bool has_checked() const { return has_checked_; }

  // After the launch.
  void tell_outputs();

private:
  void check(TileLists& lists, int64_t heads, const Launch& to);
  Memory* find(const Held& held, const void* data) const;
  void made(const int32_t* offsets, const int32_t* indices);

  Call& call_;
  Verdicts& pool_;
  const Progress& progress_;
  const GraphMemory* const recording_;
  uint64_t& lists_made_;
  std::exception_ptr failure_;
  bool has_checked_ = false;
  std::vector<std::shared_ptr<Verdict>> verdicts_;  // that the outputs depend on
  const int32_t* made_offsets_ = nullptr;
  const int32_t* made_indices_ = nullptr;
};

}  // namespace vsa::cuda
