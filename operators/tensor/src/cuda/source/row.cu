// Vectors in registers: a fused group loads, computes and stores each vector once.
// A vector of N elements belongs to LANES neighbouring threads (a block where LANES is THREADS);
// each holds PER of its elements, V neighbouring ones at a time. A group that reduces nothing works
// on parts of CHUNK elements.

template <int N_, int V_, int LANES_, int CHUNK_, int OUTER_> struct Row {
  static constexpr int N = N_, V = V_, LANES = LANES_, OUTER = OUTER_;
  static constexpr int PER = (CHUNK_ + LANES * V - 1) / (LANES * V) * V;
  static constexpr int UNROLL = PER <= 64 ? PER : 1;
  static constexpr int CHUNKS = (N + CHUNK_ - 1) / CHUNK_;

  i64 vector;
  int first;
  int lane;
  bool active;

  __device__ explicit Row(i64 tensors) {
    i64 item = (i64)blockIdx.x * (THREADS / LANES) + threadIdx.x / LANES;
    vector = item / CHUNKS;
    lane = threadIdx.x % LANES;
    first = (int)(item % CHUNKS) * CHUNK_ + lane * V;
    active = vector < tensors * OUTER;
  }
  __device__ int column(int j) const { return first + j / V * (LANES * V) + j % V; }
  __device__ bool has(int j) const { return active && column(j) < N; }
};

#define EACH(j) _Pragma("unroll (R::UNROLL)") for (int j = 0; j < R::PER; ++j)
#define EACH_PACK(j) _Pragma("unroll (R::UNROLL)") for (int j = 0; j < R::PER; j += R::V)

// Vector `at` of a tensor whose vectors lie `stride` elements apart.
template <class R, class A, class T>
__device__ inline void load(const R& row, A (&v)[R::PER], const T* from, i64 at, i64 stride, int offset) {
  const T* base = from + at * stride + offset;
  EACH_PACK(j) {
    if (row.has(j)) {
      Pack<T, R::V> pack = load_pack<R::V>(base + row.column(j));
      for (int i = 0; i < R::V; ++i) get(v[j + i], pack.at[i]);
    } else {
      for (int i = 0; i < R::V; ++i) v[j + i] = 0;
    }
  }
}

template <class R, class A, class T>
__device__ inline void store(const R& row, const A (&v)[R::PER], T* to, i64 stride, int offset) {
  T* base = to + row.vector * stride + offset;
  EACH_PACK(j) {
    if (row.has(j)) {
      Pack<T, R::V> pack;
      for (int i = 0; i < R::V; ++i) put(pack.at[i], v[j + i]);
      store_pack<R::V>(base + row.column(j), pack);
    }
  }
}

// Written by one thread of each vector; a group with scalars has one chunk.
template <class R> __device__ inline void store_scalar(const R& row, float value, float* to) {
  if (row.active && row.lane == 0) to[row.vector] = value;
}

template <class R> __device__ inline float load_scalar(const R& row, const float* from) {
  return row.active ? from[row.vector] : 0.0f;
}

template <class R, class T>
__device__ inline void gather(const R& row, float (&v)[R::PER], const T* table, const int* ids) {
  load(row, v, table, row.active ? (i64)ids[row.vector] : 0, R::N, 0);
}

template <class R, class T>
__device__ inline void positions(const R& row, float (&v)[R::PER], const T* table, const int* offsets, i64 rows) {
  i64 position = row.active ? row.vector - offsets[row_of_token(offsets, rows, row.vector)] : 0;
  load(row, v, table, position, R::N, 0);
}

// The first vector of this group's row among a ragged tensor's, and the row's tokens.
template <class R> struct Tokens {
  i64 first;
  int count;
  __device__ Tokens(const R& row, const int* offsets) {
    i64 of_row = row.vector / R::OUTER;
    i64 begin = row.active ? offsets[of_row] : 0;
    count = row.active ? (int)(offsets[of_row + 1] - begin) : 0;
    first = begin * R::OUTER + row.vector % R::OUTER;
  }
};

template <class R, class T>
__device__ inline void pool_mean(const R& row, float (&v)[R::PER], const T* from, const int* offsets) {
  Tokens<R> tokens(row, offsets);
  bool overflows = false;
  EACH(j) v[j] = 0.0f;
  for (int t = 0; t < tokens.count; ++t) {
    float x[R::PER];
    load(row, x, from, tokens.first + (i64)t * R::OUTER, R::N, 0);
    EACH(j) v[j] += x[j];
  }
  float count = tokens.count > 0 ? (float)tokens.count : 1.0f;
  EACH(j) {
    overflows |= !is_finite(v[j]);
    v[j] /= count;
  }
  // The sum may be too great where the mean is not.
  if (overflows) {
    EACH(j) v[j] = 0.0f;
    for (int t = 0; t < tokens.count; ++t) {
      float x[R::PER];
      load(row, x, from, tokens.first + (i64)t * R::OUTER, R::N, 0);
      EACH(j) v[j] += x[j] / count;
    }
  }
}

template <class R, class T>
__device__ inline void pool_max(const R& row, float (&v)[R::PER], const T* from, const int* offsets) {
  Tokens<R> tokens(row, offsets);
  EACH(j) v[j] = tokens.count > 0 ? -INFINITE : 0.0f;
  for (int t = 0; t < tokens.count; ++t) {
    float x[R::PER];
    load(row, x, from, tokens.first + (i64)t * R::OUTER, R::N, 0);
    EACH(j) v[j] = max_or_nan(v[j], x[j]);
  }
}

template <class R, class T>
__device__ inline void pool_cls(const R& row, float (&v)[R::PER], const T* from, const int* offsets) {
  Tokens<R> tokens(row, offsets);
  if (tokens.count > 0) {
    load(row, v, from, tokens.first, R::N, 0);
  } else {
    EACH(j) v[j] = 0.0f;
  }
}

__device__ inline float relu(float x) { return x < 0.0f ? 0.0f : x; }
__device__ inline float gelu(float x) { return 0.5f * x * (1.0f + erff(x * 0.70710678118654752f)); }
__device__ inline float gelu_tanh(float x) {
  return 0.5f * x * (1.0f + tanhf(0.79788456080286536f * (x + 0.044715f * x * x * x)));
}
__device__ inline float silu(float x) { return x / (1.0f + expf(-x)); }

// How many boundaries are less than x; NaN is above all.
__device__ inline int bucket(const float* boundaries, int count, float x) {
  if (is_nan(x)) return count;
  int low = 0, high = count;
  while (low < high) {
    int middle = (low + high) / 2;
    if (boundaries[middle] < x) low = middle + 1; else high = middle;
  }
  return low;
}

// Squares that are too great or too small for a float are summed in double: rare, and the same for
// all threads of a vector.
#define GREAT 1e37f
#define SMALL 1e-30f

template <class R> __device__ inline double squares_in_double(const R& row, const float (&v)[R::PER]) {
  double sum = 0.0;
  EACH(j) sum += row.has(j) ? (double)v[j] * (double)v[j] : 0.0;
  return reduce<Sum, R::LANES>(sum);
}

// The vectors of a warp may differ in whether they need double: what the whole block or warp agrees
// on is that somebody does.
template <int LANES> __device__ inline bool any(bool needs) {
  return reduce<Max, (LANES < 32 ? 32 : LANES)>(needs ? 1.0f : 0.0f) > 0.0f;
}

// The sum of the squares; 0 only for zeros.
template <class R> __device__ inline float squares(const R& row, const float (&v)[R::PER]) {
  float sum = 0.0f;
  EACH(j) sum += row.has(j) ? v[j] * v[j] : 0.0f;
  sum = reduce<Sum, R::LANES>(sum);
  bool needs = !(sum < GREAT && sum > SMALL);
  if (any<R::LANES>(needs)) {
    double exact = squares_in_double(row, v);
    if (needs) sum = (float)exact;
    if (sum == 0.0f && exact > 0.0) sum = bits_to_float(1);
  }
  return sum;
}

template <class R>
__device__ inline void l2_normalise(const R& row, float (&v)[R::PER], float epsilon) {
  float sum = 0.0f;
  EACH(j) sum += row.has(j) ? v[j] * v[j] : 0.0f;
  sum = reduce<Sum, R::LANES>(sum);
  bool needs = !(sum < GREAT && sum > SMALL);
  if (any<R::LANES>(needs)) {
    double norm = sqrt(squares_in_double(row, v));
    if (norm < (double)epsilon) norm = epsilon;
    EACH(j) if (needs) v[j] = (float)((double)v[j] / norm);
  }
  if (!needs) {
    float norm = fmaxf(sqrtf(sum), epsilon);
    EACH(j) v[j] /= norm;
  }
}

template <class R>
__device__ inline void layer_norm(
    const R& row, float (&v)[R::PER], const float* gamma, const float* beta, float epsilon) {
  float sum = 0.0f;
  EACH(j) sum += row.has(j) ? v[j] : 0.0f;
  float mean = reduce<Sum, R::LANES>(sum) / (float)R::N;
  float squares = 0.0f;
  EACH(j) squares += row.has(j) ? (v[j] - mean) * (v[j] - mean) : 0.0f;
  squares = reduce<Sum, R::LANES>(squares);
  bool needs = !(squares < GREAT && squares > SMALL);
  if (any<R::LANES>(needs)) {
    double sum = 0.0, squares = 0.0;
    EACH(j) sum += row.has(j) ? (double)v[j] : 0.0;
    double mean = reduce<Sum, R::LANES>(sum) / (double)R::N;
    EACH(j) squares += row.has(j) ? ((double)v[j] - mean) * ((double)v[j] - mean) : 0.0;
    double deviation = sqrt(reduce<Sum, R::LANES>(squares) / (double)R::N + (double)epsilon);
    EACH(j) if (needs) v[j] = (float)(((double)v[j] - mean) / deviation);
  }
  if (!needs) {
    float inverse = 1.0f / sqrtf(squares / (float)R::N + epsilon);
    EACH(j) v[j] = (v[j] - mean) * inverse;
  }
  float factor[R::PER];
  load(row, factor, gamma, 0, 0, 0);
  EACH(j) v[j] *= factor[j];
  load(row, factor, beta, 0, 0, 0);
  EACH(j) v[j] += factor[j];
}

template <class R> __device__ inline void softmax(const R& row, float (&v)[R::PER]) {
  float greatest = -INFINITE;
  EACH(j) if (row.has(j)) greatest = fmaxf(greatest, v[j]);
  greatest = reduce<Max, R::LANES>(greatest);
  float sum = 0.0f;
  EACH(j) {
    v[j] = expf(v[j] - greatest);
    sum += row.has(j) ? v[j] : 0.0f;
  }
  sum = reduce<Sum, R::LANES>(sum);
  EACH(j) v[j] /= sum;
}

// The vector's scale.
template <class R>
__device__ inline float quantise(const R& row, const float (&v)[R::PER], int (&q)[R::PER]) {
  float greatest = 0.0f;
  EACH(j) if (row.has(j)) greatest = fmaxf(greatest, is_finite(v[j]) ? fabsf(v[j]) : INFINITE);
  greatest = reduce<Max, R::LANES>(greatest);
  float scale = greatest / 127.0f;
  bool is_number = is_finite(greatest);
  EACH(j) {
    int rounded = is_number && scale > 0.0f ? float_to_int(v[j] / scale) : 0;
    q[j] = rounded < -127 ? -127 : rounded > 127 ? 127 : rounded;
  }
  return is_number ? scale : NOT_A_NUMBER;
}
