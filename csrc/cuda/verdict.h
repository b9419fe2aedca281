#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

namespace vsa::cuda {

class Verdicts;

// What a check kernel found, copied into pinned memory by the stream: 0 until then, and if all was well.
class Verdict {
public:
  Verdict(Verdicts& owner, int32_t* word) : owner_(owner), word_(word) {}
  ~Verdict();
  Verdict(const Verdict&) = delete;
  Verdict& operator=(const Verdict&) = delete;

  int32_t* word() const { return word_; }
  bool bad() const { return *static_cast<volatile int32_t*>(word_) != 0; }

  uint32_t number = 0;    // of the operation that checks (cuda/progress.h): once it has run, the word stays
  bool in_graph = false;  // then every replay writes it anew

private:
  Verdicts& owner_;
  int32_t* const word_;
};

// The words, reused once their verdict is let go of. Any thread.
class Verdicts {
public:
  std::shared_ptr<Verdict> take();

private:
  friend class Verdict;
  static constexpr int kPage = 1024;

  std::mutex mutex_;
  std::vector<int32_t*> free_;
};

}  // namespace vsa::cuda
