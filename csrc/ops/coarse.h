#pragma once

#include <cstdint>

namespace vsa {

// Attention over tiles on pooled tensors, all fp32. Hkv divides H. Source: arXiv 2505.13389.
struct CoarseForward {
  int64_t B, H, Hkv, D;
  int64_t Nq, Nk;  // query and key tiles, prefix tiles included
  float scale;
  const float* q;  // [B, Nq, H, D]
  const float* k;  // [B, Nk, Hkv, D]
  const float* v;  // [B, Nk, Hkv, D]
  // The scores scale * dot(q, k) where they are there already, [B, H, Nq, Nk rounded up to a multiple of 4]; or null:
  // then they are made. Backends may pass them over.
  const float* scores;
  float* output;  // [B, Nq, H, D]
  float* lse;     // [B, H, Nq], natural log
};

// Ordinary attention backward; the softmax is recomputed from lse. dk, dv are summed over the head group.
struct CoarseBackward {
  int64_t B, H, Hkv, D;
  int64_t Nq, Nk;
  float scale;
  const float* q;        // [B, Nq, H, D]
  const float* k;        // [B, Nk, Hkv, D]
  const float* v;        // [B, Nk, Hkv, D]
  const float* scores;   // as in the forward
  const float* output;   // [B, Nq, H, D]
  const float* lse;      // [B, H, Nq]
  const float* doutput;  // [B, Nq, H, D]
  float* dq;             // [B, Nq, H, D]
  float* dk;             // [B, Nk, Hkv, D]
  float* dv;             // [B, Nk, Hkv, D]
};

}  // namespace vsa
