// Attention on the tensor cores: f16 in, f32 accumulated, every token of a row seen by every other.
// A block of two warps has 32 queries of one row and head; a warp has 16 of them, whose scores
// against a tile of 32 keys stay in registers and are the left side of the second product (the
// layout of Dao 2023).

#define MMA_THREADS 64
#define MMA_QUERIES 32
#define MMA_KEYS 32
// What the greatest weight is: as great as f16 allows with room to spare, so that small ones do not
// vanish. The division by their sum takes it away.
#define WEIGHT_ONE 32768.0f

// c (16 x 8) += a (16 x 16) * b (16 x 8), as `mma.m16n8k16` spreads them over a warp: with g = lane / 4
// and t = lane % 4, c holds (g, 2t), (g, 2t + 1), (g + 8, 2t), (g + 8, 2t + 1).
__device__ inline void mma(float (&c)[4], const u32 (&a)[4], const u32 (&b)[2]) {
#ifdef THALWEG_SHIM
  struct Fragments { u32 a[4], b[2]; } mine = {{a[0], a[1], a[2], a[3]}, {b[0], b[1]}};
  const char* all = shim_exchange(mine);
  int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
  for (int i = 0; i < 4; ++i) {
    int row = g + i / 2 * 8, column = 2 * t + i % 2;
    for (int k = 0; k < 16; ++k) {
      u32 left = shim_lane<Fragments>(all, row % 8 * 4 + k % 8 / 2).a[row / 8 + k / 8 * 2];
      u32 right = shim_lane<Fragments>(all, column * 4 + k % 8 / 2).b[k / 8];
      c[i] += half_to_float((u16)(left >> k % 2 * 16)) * half_to_float((u16)(right >> k % 2 * 16));
    }
  }
#else
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#endif
}

__device__ inline u32 pair(u16 low, u16 high) { return (u32)low | (u32)high << 16; }
__device__ inline u32 pair_of(float low, float high) { return pair(float_to_half(low), float_to_half(high)); }

// Copies a tile of tokens' heads to shared memory, 16 bytes at once; zeros behind the last.
template <class P, int D, int PITCH>
__device__ inline void stage_half(u16* to, const f16* from, i64 first, int count, int head) {
  for (int i = threadIdx.x; i < MMA_KEYS * (D / 8); i += MMA_THREADS) {
    int token = i / (D / 8), d = i % (D / 8) * 8;
    Words<16> words = {0, 0, 0, 0};
    if (token < count) {
      words = *(const Words<16>*)(from + (first + token) * P::stride + P::offset + head * D + d);
    }
    *(Words<16>*)(to + token * PITCH + d) = words;
  }
}

template <int D, class Q, class K, class V>
__device__ inline void attention_mma(
    const f16* queries, const f16* keys, const f16* values, f16* out, const int* offsets, int heads) {
  // Eight elements beyond, so that a warp's loads fall into different banks.
  constexpr int PITCH = D + 8, STEPS = D / 16, PARTS = D / 8;
  __shared__ Words<16> tile_of_keys[MMA_KEYS * PITCH / 8];
  __shared__ Words<16> tile_of_values[MMA_KEYS * PITCH / 8];
  u16 *tile_keys = (u16*)tile_of_keys, *tile_values = (u16*)tile_of_values;
  i64 row = offsets[blockIdx.x];
  int length = (int)(offsets[blockIdx.x + 1] - row), first = blockIdx.y * MMA_QUERIES, head = blockIdx.z;
  if (first >= length) return;
  int lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
  int low = first + threadIdx.x / 32 * 16 + g, high = low + 8;

  u32 query[STEPS][4];
  #pragma unroll
  for (int step = 0; step < STEPS; ++step) {
    #pragma unroll
    for (int i = 0; i < 4; ++i) {
      int token = i % 2 == 0 ? low : high;
      const f16* from = queries + (row + token) * Q::stride + Q::offset + head * D + step * 16 + i / 2 * 8 + 2 * t;
      query[step][i] = token < length ? *(const u32*)from : 0;
    }
  }
  float greatest[2] = {-INFINITE, -INFINITE}, sum[2] = {0.0f, 0.0f}, made[PARTS][4];
  #pragma unroll
  for (int part = 0; part < PARTS; ++part) made[part][0] = made[part][1] = made[part][2] = made[part][3] = 0.0f;

  for (int start = 0; start < length; start += MMA_KEYS) {
    int count = length - start < MMA_KEYS ? length - start : MMA_KEYS;
    __syncthreads();
    stage_half<K, D, PITCH>(tile_keys, keys, row + start, count, head);
    stage_half<V, D, PITCH>(tile_values, values, row + start, count, head);
    __syncthreads();
    float score[MMA_KEYS / 8][4];
    #pragma unroll
    for (int block = 0; block < MMA_KEYS / 8; ++block) {
      score[block][0] = score[block][1] = score[block][2] = score[block][3] = 0.0f;
      #pragma unroll
      for (int step = 0; step < STEPS; ++step) {
        const u16* from = tile_keys + (block * 8 + g) * PITCH + step * 16 + 2 * t;
        u32 key[2] = {*(const u32*)from, *(const u32*)(from + 8)};
        mma(score[block], query[step], key);
      }
    }
    #pragma unroll
    for (int half = 0; half < 2; ++half) {
      float highest = -INFINITE;
      #pragma unroll
      for (int i = 0; i < MMA_KEYS / 4; ++i) {
        float& x = score[i / 2][half * 2 + i % 2];
        x = i / 2 * 8 + 2 * t + i % 2 < count ? x * (1.0f / sqrtf((float)D)) : -INFINITE;
        highest = fmaxf(highest, x);
      }
      highest = fmaxf(greatest[half], reduce<Max, 4>(highest));
      float base = highest == -INFINITE ? 0.0f : highest, scale = expf(greatest[half] - base), weights = 0.0f;
      #pragma unroll
      for (int i = 0; i < MMA_KEYS / 4; ++i) {
        float& x = score[i / 2][half * 2 + i % 2];
        x = expf(x - base) * WEIGHT_ONE;
        weights += x;
      }
      sum[half] = sum[half] * scale + reduce<Sum, 4>(weights);
      greatest[half] = highest;
      #pragma unroll
      for (int part = 0; part < PARTS; ++part) {
        made[part][half * 2] *= scale;
        made[part][half * 2 + 1] *= scale;
      }
    }
    #pragma unroll
    for (int step = 0; step < MMA_KEYS / 16; ++step) {
      const float(&left)[4] = score[2 * step];
      const float(&right)[4] = score[2 * step + 1];
      u32 weight[4] = {pair_of(left[0], left[1]), pair_of(left[2], left[3]), pair_of(right[0], right[1]),
                       pair_of(right[2], right[3])};
      #pragma unroll
      for (int part = 0; part < PARTS; ++part) {
        const u16* from = tile_values + (step * 16 + 2 * t) * PITCH + part * 8 + g;
        u32 value[2] = {pair(from[0], from[PITCH]), pair(from[8 * PITCH], from[9 * PITCH])};
        mma(made[part], weight, value);
      }
    }
  }
  #pragma unroll
  for (int half = 0; half < 2; ++half) {
    int token = half == 0 ? low : high;
    if (token >= length) continue;
    f16* to = out + (row + token) * ((i64)heads * D) + head * D + 2 * t;
    #pragma unroll
    for (int part = 0; part < PARTS; ++part) {
      *(u32*)(to + part * 8) = pair_of(made[part][half * 2] / sum[half], made[part][half * 2 + 1] / sum[half]);
    }
  }
}
