#pragma once

#include <type_traits>

namespace vsa::cuda {

// Zeroes the bytes between the fields of a struct, where the compiler can: they would make arguments that are the same
// look different (cuda/kept_launches.h), which costs time and nothing else.
template <typename T>
void clear_padding(T& value) {
#if defined(__GNUC__) && !defined(__clang__) && __GNUC__ >= 11
  if constexpr (std::is_trivially_copyable_v<T>) __builtin_clear_padding(&value);
#else
  static_cast<void>(value);
#endif
}

}  // namespace vsa::cuda
