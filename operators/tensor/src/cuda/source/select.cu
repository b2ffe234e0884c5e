// The nearest of many: keeps each query's best while tiles of scores go by.
// A candidate is one integer, the lesser the nearer: the score's bits, put in order, above the
// vector's place in the matrix. So ties fall to the vector that stands earlier, NaN comes last, and
// the order in which threads find candidates cannot matter.

#define SLOTS 2048
#define ROUND (4 * THREADS)
#define EMPTY 0xffffffffffffffffull

enum Metric { DOT, COSINE, L2 };

template <Metric METRIC> __device__ inline u64 candidate(float score, u32 place) {
  u32 order = 0xffffffffu;
  if (!is_nan(score)) {
    u32 bits = float_to_bits(score == 0.0f ? 0.0f : score);
    u32 rising = bits >> 31 ? ~bits : bits | 0x80000000u;
    order = METRIC == L2 ? rising : ~rising;
  }
  return (u64)order << 32 | place;
}

template <Metric METRIC> __device__ inline float score_of(u64 candidate) {
  u32 order = (u32)(candidate >> 32);
  if (order == 0xffffffffu) return NOT_A_NUMBER;
  u32 rising = METRIC == L2 ? order : ~order;
  return bits_to_float(rising >> 31 ? rising & 0x7fffffffu : ~rising);
}

// Sorts the first `count` slots, of SLOTS. All threads of the block call it.
__device__ inline void sort(u64* slots, int count) {
  __syncthreads();
  if (count <= THREADS) {
    int mine = threadIdx.x, rank = 0;
    u64 value = mine < count ? slots[mine] : EMPTY;
    if (mine < count) {
      for (int other = 0; other < count; ++other) {
        u64 theirs = slots[other];
        rank += theirs < value || (theirs == value && other < mine);
      }
    }
    __syncthreads();
    if (mine < count) slots[rank] = value;
    __syncthreads();
    return;
  }
  int size = 2 * THREADS;
  while (size < count) size *= 2;
  for (int i = count + threadIdx.x; i < size; i += THREADS) slots[i] = EMPTY;
  __syncthreads();
  for (int run = 2; run <= size; run *= 2) {
    for (int step = run / 2; step > 0; step /= 2) {
      for (int i = threadIdx.x; i < size / 2; i += THREADS) {
        int low = i / step * step * 2 + i % step, high = low + step;
        u64 a = slots[low], b = slots[high];
        bool rises = (low & run) == 0;
        if ((a > b) == rises) {
          slots[low] = b;
          slots[high] = a;
        }
      }
      __syncthreads();
    }
  }
}

// The K best of what is offered: KEPT slots of the best so far, sorted, and behind them what may be
// better.
template <int K> struct Best {
  static constexpr int KEPT = K <= 16 ? 16 : K <= 64 ? 64 : K <= 256 ? 256 : 1024;
  u64* slots;
  int* filled;
  u64 bound;

  __device__ Best(u64* slots, int* filled) : slots(slots), filled(filled), bound(EMPTY) {}

  __device__ void begin(const u64* list) {
    for (int i = threadIdx.x; i < KEPT; i += THREADS) slots[i] = list && i < K ? list[i] : EMPTY;
    if (threadIdx.x == 0) *filled = KEPT;
    __syncthreads();
    bound = slots[K - 1];
  }
  // Once before each round, in which each thread offers four at most.
  __device__ void make_room() {
    __syncthreads();
    int now = *filled;
    __syncthreads();
    if (now > SLOTS - ROUND) settle(now);
  }
  __device__ void offer(u64 candidate) {
    if (candidate < bound) slots[atomicAdd(filled, 1)] = candidate;
  }
  __device__ void settle(int now) {
    if (now > KEPT) sort(slots, now);
    if (threadIdx.x == 0) *filled = KEPT;
    __syncthreads();
    bound = slots[K - 1];
  }
  __device__ void end() {
    __syncthreads();
    int now = *filled;
    __syncthreads();
    settle(now);
  }
};

// In double, from the vectors: where the product's f32 cannot hold what a score is made of.
template <Metric METRIC, class T, int D> __device__ inline float score_directly(const T* query, const T* vector) {
  double product = 0.0, squares = 0.0, others = 0.0, distance = 0.0;
  for (int d = 0; d < D; ++d) {
    float a, b;
    get(a, query[d]);
    get(b, vector[d]);
    product += (double)a * b;
    squares += (double)a * a;
    others += (double)b * b;
    distance += ((double)a - b) * ((double)a - b);
  }
  if (METRIC == DOT) return (float)product;
  if (METRIC == L2) return (float)distance;
  double norms = sqrt(squares) * sqrt(others);
  return norms == 0.0 ? 0.0f : (float)(product / norms);
}

// Of the product that the library made, and the sums of the squares of both.
template <Metric METRIC, class T, int D>
__device__ inline float score(float product, float squares, float others, const T* query, const T* vector) {
  if (is_nan(squares) || is_nan(others)) return NOT_A_NUMBER;
  float score = product;
  bool holds = is_finite(product);
  if (METRIC == COSINE) {
    if ((squares == 0.0f && others < 1e37f) || (others == 0.0f && squares < 1e37f)) return 0.0f;
    score = product / (sqrtf(squares) * sqrtf(others));
    holds = holds && squares < 1e37f && others < 1e37f && squares > 1e-30f && others > 1e-30f;
  }
  if (METRIC == L2) {
    score = squares + others - 2.0f * product;
    score = score < 0.0f ? 0.0f : score;
  }
  return holds && is_finite(score) ? score : score_directly<METRIC, T, D>(query, vector);
}

// A block per query (x) and list of it (y), which takes its share of the tile.
template <Metric METRIC, class T, int D, int K>
__device__ inline void select(
    const float* scores, const T* queries, const float* squares, const T* vectors, const float* others, u64* lists,
    i64 query_first, i64 tile_first, i64 tile_count, i64 splits) {
  __shared__ u64 slots[SLOTS];
  __shared__ int filled;
  i64 query = query_first + blockIdx.x, share = (tile_count + splits - 1) / splits;
  i64 begin = blockIdx.y * share, end = begin + share < tile_count ? begin + share : tile_count;
  u64* list = lists + (query * splits + blockIdx.y) * K;
  const float* mine = scores + blockIdx.x * tile_count;
  float square = squares[query];
  Best<K> best(slots, &filled);
  best.begin(tile_first == 0 ? nullptr : list);
  for (i64 base = begin; base < end; base += ROUND) {
    best.make_room();
    #pragma unroll
    for (int i = 0; i < ROUND / THREADS; ++i) {
      i64 at = base + i * THREADS + threadIdx.x;
      if (at < end) {
        i64 place = tile_first + at;
        float of = score<METRIC, T, D>(mine[at], square, others[place], queries + query * D, vectors + place * D);
        best.offer(candidate<METRIC>(of, (u32)place));
      }
    }
  }
  best.end();
  for (int i = threadIdx.x; i < K; i += THREADS) list[i] = slots[i];
}

// A block per query: its lists become one, distances are computed anew from the vectors (the
// product loses what two near vectors differ in), and places become ids.
template <Metric METRIC, class T, int D, int K>
__device__ inline void finish(
    const u64* lists, const T* queries, const T* vectors, const i64* ids, i64* out_ids, float* out_scores,
    i64 reference_rows, i64 splits) {
  __shared__ u64 slots[SLOTS];
  __shared__ int filled;
  i64 query = blockIdx.x;
  Best<K> best(slots, &filled);
  best.begin(nullptr);
  i64 count = reference_rows > 0 ? splits * K : 0;
  for (i64 base = 0; base < count; base += ROUND) {
    best.make_room();
    for (int i = 0; i < ROUND / THREADS; ++i) {
      i64 at = base + i * THREADS + threadIdx.x;
      if (at < count) best.offer(lists[query * splits * K + at]);
    }
  }
  best.end();
  if (METRIC == L2) {
    int lane = threadIdx.x % 32;
    for (int i = threadIdx.x / 32; i < K; i += THREADS / 32) {
      u64 old = slots[i];
      float sum = 0.0f;
      if (old != EMPTY) {
        const T* vector = vectors + (i64)(u32)old * D;
        for (int d = lane; d < D; d += 32) {
          float a, b;
          get(a, queries[query * D + d]);
          get(b, vector[d]);
          sum += (a - b) * (a - b);
        }
      }
      sum = reduce<Sum, 32>(sum);
      if (lane == 0 && old != EMPTY && is_finite(sum)) slots[i] = candidate<METRIC>(sum, (u32)old);
    }
    sort(slots, K);
  }
  for (int i = threadIdx.x; i < K; i += THREADS) {
    u64 found = slots[i];
    out_ids[query * K + i] = found == EMPTY ? -1 : ids[(u32)found];
    out_scores[query * K + i] = found == EMPTY ? NOT_A_NUMBER : score_of<METRIC>(found);
  }
}
