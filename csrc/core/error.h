#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>

namespace vsa {

// A failure with a code of the public API (lib/errors.ts), thrown on to JavaScript by the binding.
struct Error : std::runtime_error {
  Error(std::string code_, const std::string& message) : std::runtime_error(message), code(std::move(code_)) {}
  std::string code;
};

struct OutOfMemory : Error {
  OutOfMemory(const std::string& message, int64_t wanted_, int64_t free_, int64_t total_)
      : Error("ERR_OUT_OF_MEMORY", message), wanted(wanted_), free(free_), total(total_) {}
  int64_t wanted, free, total;  // bytes
};

}  // namespace vsa

// TypeScript has validated every argument; this checks again what memory safety needs.
#define VSA_CHECK(condition, sentence)                                                                                \
  do {                                                                                                                \
    if (!(condition)) {                                                                                               \
      throw ::vsa::Error("ERR_INTERNAL",                                                                              \
                         std::string(sentence) + " (" #condition ", " __FILE__ ":" + std::to_string(__LINE__) + ")"); \
    }                                                                                                                 \
  } while (0)
