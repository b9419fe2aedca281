// The attention operations: each function fills the params struct of csrc/ops from the object it is given, field by
// field under the same names, and launches it. Output memory is made in TypeScript and passed in.
#include "binding/args.h"
#include "binding/ops.h"

namespace vsa::binding {
namespace {

int64_t group_checked(int64_t heads, int64_t kv_heads) {
  VSA_CHECK(kv_heads > 0 && heads % kv_heads == 0, "H must be a multiple of Hkv");
  return kv_heads;
}

Kernels kernels(const Args& a) {
  const int64_t number = a.integer("kernels");
  VSA_CHECK(number >= 0 && number <= 2, "kernels are 0 (the fastest), 1 (portable) or 2 (sm90)");
  return static_cast<Kernels>(number);
}

Napi::Value pooling_forward(const Napi::CallbackInfo& info) {
  Args a(info);
  PoolingForward p{.dtype = a.float_dtype(),
                   .B = a.integer("B"),
                   .H = a.integer("H"),
                   .D = a.integer("D"),
                   .grid = a.grid(),
                   .order = a.order(),
                   .x = nullptr,
                   .output = nullptr};
  p.x = a.in("x", p.B * p.grid.rows(p.order) * p.H * p.D * size_of(p.dtype));
  p.output = a.out_f32("output", p.B * p.grid.total_tiles() * p.H * p.D);
  return a.launch(p);
}

// q, and of the keys' heads and grid up to two more.
Napi::Value pooling_together(const Napi::CallbackInfo& info) {
  Args a(info);
  PoolingTogether p{};
  PoolingForward part{};
  part.dtype = a.float_dtype(), part.order = a.order();
  part.B = a.integer("B"), part.D = a.integer("D");
  const int64_t heads[2] = {a.integer("H"), a.integer("Hkv")};
  const TileGrid grids[2] = {a.grid("qGrid"), a.grid("kvGrid")};
  constexpr const char* kNames[][2] = {{"q", "qMeans"}, {"k", "kMeans"}, {"v", "vMeans"}};
  for (const auto& [x, means] : kNames) {
    part.H = heads[p.count > 0], part.grid = grids[p.count > 0];
    part.x = a.in_or_null(x, part.B * part.grid.rows(part.order) * part.H * part.D * size_of(part.dtype));
    part.output = static_cast<float*>(a.out_or_null(means, part.B * part.grid.total_tiles() * part.H * part.D * 4));
    VSA_CHECK((part.x == nullptr) == (part.output == nullptr), "a tensor and its means go together");
    VSA_CHECK(part.x != nullptr || p.count > 0, "q is pooled at least");
    if (part.x != nullptr) p.parts[p.count++] = part;
  }
  return a.launch(p);
}

Napi::Value pooling_backward(const Napi::CallbackInfo& info) {
  Args a(info);
  PoolingBackward p{.dtype = a.float_dtype(),
                    .B = a.integer("B"),
                    .H = a.integer("H"),
                    .D = a.integer("D"),
                    .grid = a.grid(),
                    .order = a.order(),
                    .doutput = nullptr,
                    .dx = nullptr};
  p.doutput = a.in_f32("doutput", p.B * p.grid.total_tiles() * p.H * p.D);
  p.dx = a.out("dx", p.B * p.grid.rows(p.order) * p.H * p.D * size_of(p.dtype));
  return a.launch(p);
}

// Scores of the coarse attention where they are there already: rows of a multiple of four.
int64_t padded_row(int64_t Nk) {
  return (Nk + 3) / 4 * 4;
}

template <class Coarse>
const float* kept_scores(Args& a, const Coarse& p) {
  return static_cast<const float*>(a.in_or_null("scores", p.B * p.H * p.Nq * padded_row(p.Nk) * 4));
}

Napi::Value coarse_forward(const Napi::CallbackInfo& info) {
  Args a(info);
  CoarseForward p{};
  p.B = a.integer("B"), p.H = a.integer("H"), p.Hkv = group_checked(p.H, a.integer("Hkv")), p.D = a.integer("D");
  p.Nq = a.integer("Nq"), p.Nk = a.integer("Nk");
  p.scale = static_cast<float>(a.number("scale"));
  const int64_t q_count = p.B * p.Nq * p.H * p.D, kv_count = p.B * p.Nk * p.Hkv * p.D;
  p.q = a.in_f32("q", q_count), p.k = a.in_f32("k", kv_count), p.v = a.in_f32("v", kv_count);
  p.scores = kept_scores(a, p);
  p.output = a.out_f32("output", q_count);
  p.lse = a.out_f32("lse", p.B * p.H * p.Nq);
  return a.launch(p);
}

Napi::Value coarse_backward(const Napi::CallbackInfo& info) {
  Args a(info);
  CoarseBackward p{};
  p.B = a.integer("B"), p.H = a.integer("H"), p.Hkv = group_checked(p.H, a.integer("Hkv")), p.D = a.integer("D");
  p.Nq = a.integer("Nq"), p.Nk = a.integer("Nk");
  p.scale = static_cast<float>(a.number("scale"));
  const int64_t q_count = p.B * p.Nq * p.H * p.D, kv_count = p.B * p.Nk * p.Hkv * p.D;
  p.q = a.in_f32("q", q_count), p.k = a.in_f32("k", kv_count), p.v = a.in_f32("v", kv_count);
  p.scores = kept_scores(a, p);
  p.output = a.in_f32("output", q_count), p.doutput = a.in_f32("doutput", q_count);
  p.lse = a.in_f32("lse", p.B * p.H * p.Nq);
  p.dq = a.out_f32("dq", q_count), p.dk = a.out_f32("dk", kv_count), p.dv = a.out_f32("dv", kv_count);
  return a.launch(p);
}

Napi::Value selection(const Napi::CallbackInfo& info) {
  Args a(info);
  Selection p{};
  p.B = a.integer("B"), p.H = a.integer("H"), p.Hkv = group_checked(p.H, a.integer("Hkv")), p.D = a.integer("D");
  p.Nq = a.integer("Nq"), p.Nk = a.integer("Nk");
  p.prefix_q = a.integer("prefixQ"), p.prefix_k = a.integer("prefixK");
  p.top_k = a.integer("topK");
  p.prefix_mode = a.integer("prefixMode") == 0 ? PrefixMode::exempt : PrefixMode::compete;
  p.include_self = a.boolean("includeSelf");
  p.scale = static_cast<float>(a.number("scale"));
  VSA_CHECK(p.prefix_q <= p.Nq && p.prefix_k < p.Nk, "prefix tiles are some of all tiles");
  VSA_CHECK(p.top_k >= 1 && p.top_k <= p.Nk - p.prefix_k, "K must lie in [1, N]");
  VSA_CHECK(!p.include_self || (p.Nq == p.Nk && p.prefix_q == p.prefix_k), "a tile's own index needs equal grids");
  p.q = a.in_f32("q", p.B * p.Nq * p.H * p.D), p.k = a.in_f32("k", p.B * p.Nk * p.Hkv * p.D);
  p.score_stride = a.integer("scoreStride");
  VSA_CHECK(p.score_stride == p.Nk || p.score_stride == padded_row(p.Nk), "rows of scores have Nk, or a multiple of 4");
  p.scores = static_cast<float*>(a.out_or_null("scores", p.B * p.H * p.Nq * p.score_stride * 4));
  const int64_t kept = p.prefix_q * p.Nk + (p.Nq - p.prefix_q) * (p.top_k + p.prefix_k);
  VSA_CHECK(p.B * p.H * kept <= INT32_MAX, "list entries must be counted in 32 bits");
  p.offsets = static_cast<int32_t*>(a.out("offsets", (p.B * p.H * p.Nq + 1) * 4));
  p.indices = static_cast<int32_t*>(a.out("indices", p.B * p.H * kept * 4));
  return a.launch(p);
}

Napi::Value transpose_lists(const Napi::CallbackInfo& info) {
  Args a(info);
  TransposeLists p{};
  p.B = a.integer("B"), p.H = a.integer("H");
  p.lists = a.lists("lists", p.B * p.H, a.integer("rows"), a.integer("columns"));
  VSA_CHECK(p.lists.offsets != nullptr, "full lists have no transpose to build");
  p.offsets = static_cast<int32_t*>(a.out("offsets", (p.B * p.H * p.lists.columns + 1) * 4));
  p.indices = static_cast<int32_t*>(a.out("indices", p.lists.count * 4));
  return a.launch(p);
}

Napi::Value lists_to_bits(const Napi::CallbackInfo& info) {
  Args a(info);
  ListsToBits p{};
  p.B = a.integer("B"), p.H = a.integer("H");
  p.lists = a.lists("lists", p.B * p.H, a.integer("rows"), a.integer("columns"));
  p.bits = static_cast<int32_t*>(a.out("bits", p.B * p.H * p.lists.rows * ((p.lists.columns + 31) / 32) * 4));
  return a.launch(p);
}

Napi::Value fine_forward(const Napi::CallbackInfo& info) {
  Args a(info);
  FineForward p{};
  p.dtype = a.float_dtype();
  p.B = a.integer("B"), p.H = a.integer("H"), p.Hkv = group_checked(p.H, a.integer("Hkv")), p.D = a.integer("D");
  p.q_grid = a.grid("qGrid"), p.kv_grid = a.grid("kvGrid");
  p.order = a.order();
  p.scale = static_cast<float>(a.number("scale"));
  p.lists = a.lists("lists", p.B * p.H, p.q_grid.total_tiles(), p.kv_grid.total_tiles());
  const int64_t q_rows = p.q_grid.rows(p.order), size = size_of(p.dtype);
  const int64_t q_bytes = p.B * q_rows * p.H * p.D * size;
  const int64_t kv_bytes = p.B * p.kv_grid.rows(p.order) * p.Hkv * p.D * size;
  p.q = a.in("q", q_bytes), p.k = a.in("k", kv_bytes), p.v = a.in("v", kv_bytes);
  p.output = a.out("output", q_bytes);
  p.lse = a.out_f32("lse", p.B * p.H * q_rows);
  p.kernels = kernels(a);
  p.coarse = static_cast<const float*>(a.in_or_null("coarse", p.B * p.q_grid.total_tiles() * p.H * p.D * 4));
  p.coarse_gate = a.in_or_null("coarseGate", q_bytes);
  p.fine_gate = a.in_or_null("fineGate", q_bytes);
  p.combined = a.out_or_null("combined", q_bytes);
  VSA_CHECK(p.combined != nullptr || (p.coarse == nullptr && p.fine_gate == nullptr), "a combination needs an output");
  VSA_CHECK(p.coarse != nullptr || p.coarse_gate == nullptr, "a coarse gate needs a coarse output");
  return a.launch(p);
}

Napi::Value fine_backward(const Napi::CallbackInfo& info) {
  Args a(info);
  FineBackward p{};
  p.dtype = a.float_dtype();
  p.B = a.integer("B"), p.H = a.integer("H"), p.Hkv = group_checked(p.H, a.integer("Hkv")), p.D = a.integer("D");
  p.q_grid = a.grid("qGrid"), p.kv_grid = a.grid("kvGrid");
  p.order = a.order();
  p.scale = static_cast<float>(a.number("scale"));
  const int64_t q_tiles = p.q_grid.total_tiles(), kv_tiles = p.kv_grid.total_tiles();
  p.lists = a.lists("lists", p.B * p.H, q_tiles, kv_tiles);
  p.transposed = a.lists("transposed", p.B * p.H, kv_tiles, q_tiles);
  VSA_CHECK((p.lists.offsets == nullptr) == (p.transposed.offsets == nullptr), "lists and transpose go together");
  const int64_t q_rows = p.q_grid.rows(p.order), size = size_of(p.dtype);
  const int64_t q_bytes = p.B * q_rows * p.H * p.D * size;
  const int64_t kv_bytes = p.B * p.kv_grid.rows(p.order) * p.Hkv * p.D * size;
  const int64_t q_pooled = p.B * q_tiles * p.H * p.D * 4, kv_pooled = p.B * kv_tiles * p.Hkv * p.D * 4;
  p.q = a.in("q", q_bytes), p.k = a.in("k", kv_bytes), p.v = a.in("v", kv_bytes);
  p.output = a.in("output", q_bytes), p.doutput = a.in("doutput", q_bytes);
  p.lse = a.in_f32("lse", p.B * p.H * q_rows);
  p.dq_pooled = static_cast<const float*>(a.in_or_null("dqPooled", q_pooled));
  p.dk_pooled = static_cast<const float*>(a.in_or_null("dkPooled", kv_pooled));
  p.dv_pooled = static_cast<const float*>(a.in_or_null("dvPooled", kv_pooled));
  p.delta_ready = a.boolean("deltaReady");
  if (p.delta_ready) a.in("delta", p.B * p.H * q_rows * 4);
  p.delta = a.out_f32("delta", p.B * p.H * q_rows);
  p.dq = a.out("dq", q_bytes), p.dk = a.out("dk", kv_bytes), p.dv = a.out("dv", kv_bytes);
  p.kernels = kernels(a);
  return a.launch(p);
}

Napi::Value combination_forward(const Napi::CallbackInfo& info) {
  Args a(info);
  CombinationForward p{};
  p.dtype = a.float_dtype();
  p.B = a.integer("B"), p.H = a.integer("H"), p.D = a.integer("D");
  p.grid = a.grid(), p.order = a.order();
  const int64_t bytes = p.B * p.grid.rows(p.order) * p.H * p.D * size_of(p.dtype);
  p.fine = a.in("fine", bytes);
  p.coarse = static_cast<const float*>(a.in_or_null("coarse", p.B * p.grid.total_tiles() * p.H * p.D * 4));
  p.coarse_gate = a.in_or_null("coarseGate", bytes);
  p.fine_gate = a.in_or_null("fineGate", bytes);
  p.output = a.out("output", bytes);
  return a.launch(p);
}

Napi::Value combination_backward(const Napi::CallbackInfo& info) {
  Args a(info);
  CombinationBackward p{};
  p.dtype = a.float_dtype();
  p.B = a.integer("B"), p.H = a.integer("H"), p.D = a.integer("D");
  p.grid = a.grid(), p.order = a.order();
  const int64_t bytes = p.B * p.grid.rows(p.order) * p.H * p.D * size_of(p.dtype);
  const int64_t pooled = p.B * p.grid.total_tiles() * p.H * p.D * 4;
  p.fine = a.in_or_null("fine", bytes);
  p.coarse = static_cast<const float*>(a.in_or_null("coarse", pooled));
  p.coarse_gate = a.in_or_null("coarseGate", bytes);
  p.fine_gate = a.in_or_null("fineGate", bytes);
  p.doutput = a.in("doutput", bytes);
  p.dfine = a.out_or_null("dfine", bytes);
  p.dcoarse = static_cast<float*>(a.out_or_null("dcoarse", pooled));
  p.dcoarse_gate = a.out_or_null("dcoarseGate", bytes);
  p.dfine_gate = a.out_or_null("dfineGate", bytes);
  p.delta = static_cast<float*>(a.out_or_null("delta", p.B * p.H * p.grid.rows(p.order) * 4));
  VSA_CHECK((p.dcoarse_gate == nullptr) == (p.coarse_gate == nullptr), "the coarse gate and its gradient go together");
  VSA_CHECK((p.dfine_gate == nullptr) == (p.fine_gate == nullptr), "the fine gate and its gradient go together");
  VSA_CHECK((p.dcoarse == nullptr) == (p.coarse == nullptr), "the coarse output and its gradient go together");
  VSA_CHECK(p.fine_gate == nullptr || p.fine != nullptr, "the fine gate's gradient needs the fine output");
  VSA_CHECK(p.delta == nullptr || (p.fine != nullptr && (p.fine_gate == nullptr || p.dfine != nullptr)),
            "delta needs the fine output and, beside a fine gate, its gradient");
  return a.launch(p);
}

Napi::Value tiling(const Napi::CallbackInfo& info) {
  Args a(info);
  Tiling p{};
  p.B = a.integer("B"), p.row_bytes = a.integer("rowBytes");
  p.grid = a.grid(), p.to = a.order("to");
  const Order from = p.to == Order::tiled ? Order::grid : Order::tiled;
  p.x = a.in("x", p.B * p.grid.rows(from) * p.row_bytes);
  p.output = a.out("output", p.B * p.grid.rows(p.to) * p.row_bytes);
  return a.launch(p);
}

}  // namespace

void export_attention(Napi::Env env, Napi::Object exports) {
  operation<pooling_forward>(env, exports, "poolingForward", {"dtype", "B", "H", "D", "grid", "order", "x", "output"});
  operation<pooling_together>(
      env, exports, "poolingTogether",
      {"dtype", "order", "B", "D", "H", "Hkv", "qGrid", "kvGrid", "q", "qMeans", "k", "kMeans", "v", "vMeans"});
  operation<pooling_backward>(env, exports, "poolingBackward",
                              {"dtype", "B", "H", "D", "grid", "order", "doutput", "dx"});
  operation<coarse_forward>(env, exports, "coarseForward",
                            {"B", "H", "Hkv", "D", "Nq", "Nk", "scale", "q", "k", "v", "scores", "output", "lse"});
  operation<coarse_backward>(env, exports, "coarseBackward",
                             {"B", "H", "Hkv", "D", "Nq", "Nk", "scale", "q", "k", "v", "scores", "output", "doutput",
                              "lse", "dq", "dk", "dv"});
  operation<selection>(env, exports, "selection",
                       {"B", "H", "Hkv", "D", "Nq", "Nk", "prefixQ", "prefixK", "topK", "prefixMode", "includeSelf",
                        "scale", "q", "k", "scoreStride", "scores", "offsets", "indices"});
  operation<transpose_lists>(
      env, exports, "transposeLists",
      {"B", "H", "lists.offsets", "lists.indices", "lists.count", "rows", "columns", "offsets", "indices"});
  operation<lists_to_bits>(env, exports, "listsToBits",
                           {"B", "H", "lists.offsets", "lists.indices", "lists.count", "rows", "columns", "bits"});
  operation<fine_forward>(
      env, exports, "fineForward",
      {"dtype",         "B",           "H", "Hkv", "D", "qGrid",  "kvGrid", "order",   "scale",  "lists.offsets",
       "lists.indices", "lists.count", "q", "k",   "v", "output", "lse",    "kernels", "coarse", "coarseGate",
       "fineGate",      "combined"});
  operation<fine_backward>(env, exports, "fineBackward",
                           {"dtype",
                            "B",
                            "H",
                            "Hkv",
                            "D",
                            "qGrid",
                            "kvGrid",
                            "order",
                            "scale",
                            "lists.offsets",
                            "lists.indices",
                            "lists.count",
                            "transposed.offsets",
                            "transposed.indices",
                            "transposed.count",
                            "q",
                            "k",
                            "v",
                            "output",
                            "doutput",
                            "lse",
                            "dqPooled",
                            "dkPooled",
                            "dvPooled",
                            "deltaReady",
                            "delta",
                            "dq",
                            "dk",
                            "dv",
                            "kernels"});
  operation<combination_forward>(
      env, exports, "combinationForward",
      {"dtype", "B", "H", "D", "grid", "order", "fine", "coarse", "coarseGate", "fineGate", "output"});
  operation<combination_backward>(env, exports, "combinationBackward",
                                  {"dtype", "B", "H", "D", "grid", "order", "fine", "coarse", "coarseGate", "fineGate",
                                   "doutput", "dfine", "dcoarse", "dcoarseGate", "dfineGate", "delta"});
  operation<tiling>(env, exports, "tiling", {"B", "rowBytes", "grid", "to", "x", "output"});
}

}  // namespace vsa::binding
