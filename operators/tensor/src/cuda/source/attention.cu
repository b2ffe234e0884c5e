// Scaled dot-product attention over packed rows, with the softmax computed as the keys go by
// (Milakov, Gimelshein 2018; Dao et al. 2022): the score matrix is never stored.
// What a token must not see is left out, not weighed with 0: a NaN there stays there.

#define QUERIES 32
#define KEYS 32
#define QUERIES_OF_WARP (QUERIES / (THREADS / 32))

// Copies tokens' heads to shared memory as float; zeros behind the last.
template <class P, class T, int D, int PITCH>
__device__ inline void stage(float* to, const T* from, i64 first, int count, int head) {
  for (int i = threadIdx.x; i < KEYS * D; i += THREADS) {
    int token = i / D, d = i % D;
    float x = 0.0f;
    if (token < count) get(x, from[(first + token) * P::stride + P::offset + head * D + d]);
    to[token * PITCH + d] = x;
  }
}

// A block per row, tile of queries and head; each warp has four queries. A lane scores one key of a
// tile against them, then sums its dimensions of the values.
template <class T, int D, bool CAUSAL, class Q, class K, class V>
__device__ inline void attention(
    const T* queries, const T* keys, const T* values, T* out, const int* offsets, int heads) {
  constexpr int PARTS = (D + 31) / 32, PITCH = D | 1;
  __shared__ float query[QUERIES * D];
  __shared__ float tile[KEYS * PITCH];
  __shared__ float weights[QUERIES][KEYS];
  i64 row = offsets[blockIdx.x];
  int length = (int)(offsets[blockIdx.x + 1] - row), first = blockIdx.y * QUERIES, head = blockIdx.z;
  if (first >= length) return;
  int lane = threadIdx.x % 32, mine = threadIdx.x / 32 * QUERIES_OF_WARP;
  float greatest[QUERIES_OF_WARP], sum[QUERIES_OF_WARP], made[QUERIES_OF_WARP][PARTS];
  #pragma unroll
  for (int i = 0; i < QUERIES_OF_WARP; ++i) {
    greatest[i] = -INFINITE;
    sum[i] = 0.0f;
    for (int part = 0; part < PARTS; ++part) made[i][part] = 0.0f;
  }
  stage<Q, T, D, D>(query, queries, row + first, length - first, head);
  int end = CAUSAL && first + QUERIES < length ? first + QUERIES : length;
  for (int start = 0; start < end; start += KEYS) {
    int count = end - start < KEYS ? end - start : KEYS;
    __syncthreads();
    stage<K, T, D, PITCH>(tile, keys, row + start, count, head);
    __syncthreads();
    float score[QUERIES_OF_WARP] = {};
    for (int d = 0; d < D; ++d) {
      float key = tile[lane * PITCH + d];
      #pragma unroll
      for (int i = 0; i < QUERIES_OF_WARP; ++i) score[i] += query[(mine + i) * D + d] * key;
    }
    #pragma unroll
    for (int i = 0; i < QUERIES_OF_WARP; ++i) {
      bool sees = lane < count && (!CAUSAL || start + lane <= first + mine + i);
      float x = sees ? score[i] * (1.0f / sqrtf((float)D)) : -INFINITE;
      float highest = fmaxf(greatest[i], reduce<Max, 32>(x));
      // A token that has seen nothing but -inf yet weighs nothing; in the end 0 / 0 is NaN.
      float base = highest == -INFINITE ? 0.0f : highest;
      float weight = sees ? expf(x - base) : 0.0f, scale = expf(greatest[i] - base);
      weights[mine + i][lane] = weight;
      sum[i] = sum[i] * scale + reduce<Sum, 32>(weight);
      greatest[i] = highest;
      for (int part = 0; part < PARTS; ++part) made[i][part] *= scale;
    }
    __syncthreads();
    stage<V, T, D, PITCH>(tile, values, row + start, count, head);
    __syncthreads();
    for (int key = 0; key < count; ++key) {
      #pragma unroll
      for (int part = 0; part < PARTS; ++part) {
        int d = part * 32 + lane;
        float value = d < D ? tile[key * PITCH + d] : 0.0f;
        #pragma unroll
        for (int i = 0; i < QUERIES_OF_WARP; ++i) {
          bool sees = !CAUSAL || start + key <= first + mine + i;
          if (sees) made[i][part] += weights[mine + i][key] * value;
        }
      }
    }
  }
  for (int i = 0; i < QUERIES_OF_WARP; ++i) {
    for (int part = 0; part < PARTS; ++part) {
      int d = part * 32 + lane;
      if (first + mine + i < length && d < D) {
        put(out[(row + first + mine + i) * ((i64)heads * D) + head * D + d], made[i][part] / sum[i]);
      }
    }
  }
}

// For heads too wide for tiles in shared memory: a warp per token and head.
template <class T, int D, bool CAUSAL, class Q, class K, class V>
__device__ inline void attention_wide(
    const T* queries, const T* keys, const T* values, T* out, const int* offsets, int heads, i64 rows, i64 tokens) {
  constexpr int PARTS = (D + 31) / 32;
  i64 item = (i64)blockIdx.x * (THREADS / 32) + threadIdx.x / 32;
  if (item >= tokens * heads) return;
  i64 token = item / heads, row = row_of_token(offsets, rows, token), begin = offsets[row];
  int head = (int)(item % heads), lane = threadIdx.x % 32;
  i64 end = CAUSAL ? token + 1 : (i64)offsets[row + 1];
  float query[PARTS], made[PARTS], greatest = -INFINITE, sum = 0.0f;
  for (int part = 0; part < PARTS; ++part) {
    int d = part * 32 + lane;
    query[part] = made[part] = 0.0f;
    if (d < D) get(query[part], queries[token * Q::stride + Q::offset + head * D + d]);
  }
  for (i64 key = begin; key < end; ++key) {
    float score = 0.0f;
    for (int part = 0; part < PARTS; ++part) {
      int d = part * 32 + lane;
      float x = 0.0f;
      if (d < D) get(x, keys[key * K::stride + K::offset + head * D + d]);
      score += query[part] * x;
    }
    score = reduce<Sum, 32>(score) * (1.0f / sqrtf((float)D));
    float highest = fmaxf(greatest, score), base = highest == -INFINITE ? 0.0f : highest;
    float weight = expf(score - base), scale = expf(greatest - base);
    sum = sum * scale + weight;
    greatest = highest;
    for (int part = 0; part < PARTS; ++part) {
      int d = part * 32 + lane;
      float x = 0.0f;
      if (d < D) get(x, values[key * V::stride + V::offset + head * D + d]);
      made[part] = made[part] * scale + weight * x;
    }
  }
  for (int part = 0; part < PARTS; ++part) {
    int d = part * 32 + lane;
    if (d < D) put(out[token * ((i64)heads * D) + head * D + d], made[part] / sum);
  }
}
