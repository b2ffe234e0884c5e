// MinHash, SimHash and feature hashing over the tokens of a row: the integers of `hashing.rs`.

__device__ inline u64 splitmix64(u64 value) {
  u64 z = value + 0x9e3779b97f4a7c15ull;
  z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
  z = (z ^ z >> 27) * 0x94d049bb133111ebull;
  return z ^ z >> 31;
}

__device__ inline u32 fmix32(u32 h) {
  h = (h ^ h >> 16) * 0x85ebca6bu;
  h = (h ^ h >> 13) * 0xc2b2ae35u;
  return h ^ h >> 16;
}

// A thread per row and hash. `parameters`: a factor and an addend per hash.
template <int HASHES>
__device__ inline void min_hash(
    const int* tokens, const int* offsets, const u32* parameters, int* out, i64 rows) {
  i64 item = (i64)blockIdx.x * THREADS + threadIdx.x;
  if (item >= rows * HASHES) return;
  i64 row = item / HASHES;
  int hash = (int)(item % HASHES);
  u32 factor = parameters[2 * hash], addend = parameters[2 * hash + 1], least = 0xffffffffu;
  for (int t = offsets[row]; t < offsets[row + 1]; ++t) {
    u32 value = fmix32((u32)tokens[t] * factor + addend);
    least = value < least ? value : least;
  }
  out[item] = (int)least;
}

// A warp per row and word; each lane hashes a token in 32 and counts two bits of all of them.
template <int WORDS>
__device__ inline void sim_hash(
    const int* tokens, const int* offsets, const u64* keys, i64* out, i64 rows) {
  i64 item = (i64)blockIdx.x * (THREADS / 32) + threadIdx.x / 32;
  int lane = threadIdx.x % 32;
  bool active = item < rows * WORDS;
  i64 row = active ? item / WORDS : 0;
  u64 key = keys[active ? item % WORDS : 0];
  int begin = active ? offsets[row] : 0, end = active ? offsets[row + 1] : 0;
  int low = 0, high = 0;
  for (int t = begin; t < end; t += 32) {
    u64 mine = t + lane < end ? splitmix64((u64)(u32)tokens[t + lane] ^ key) : 0;
    for (int from = 0; from < 32 && t + from < end; ++from) {
      u32 first = __shfl_sync(ALL_LANES, (u32)mine, from), second = __shfl_sync(ALL_LANES, (u32)(mine >> 32), from);
      low += first >> lane & 1;
      high += second >> lane & 1;
    }
  }
  u64 first = __ballot_sync(ALL_LANES, 2 * low > end - begin);
  u64 second = __ballot_sync(ALL_LANES, 2 * high > end - begin);
  if (active && lane == 0) out[item] = (i64)(first | second << 32);
}

// A block per row. Counts are summed as integers in the row's own memory, so that their order
// cannot matter, and become floats in the end.
template <int WIDTH>
__device__ inline void feature_hash(const int* tokens, const int* offsets, u64 key, float* out) {
  float* row = out + (i64)blockIdx.x * WIDTH;
  int* counts = (int*)row;
  for (int i = threadIdx.x; i < WIDTH; i += THREADS) counts[i] = 0;
  __syncthreads();
  for (int t = offsets[blockIdx.x] + threadIdx.x; t < offsets[blockIdx.x + 1]; t += THREADS) {
    u64 hash = splitmix64((u64)(u32)tokens[t] ^ key);
    atomicAdd(&counts[(u64)(u32)hash * (u64)WIDTH >> 32], hash >> 63 ? -1 : 1);
  }
  __syncthreads();
  for (int i = threadIdx.x; i < WIDTH; i += THREADS) {
    int count = counts[i];
    row[i] = (float)count;
  }
}
