// What every kernel stands on: element types, conversions, vectorised memory access, reductions.
// No header of the toolkit is needed. Inline PTX stands in functions of this file and of
// `attention_mma.cu` alone, each beside a plain twin that a host compiler takes (THALWEG_SHIM).

typedef long long i64;
typedef unsigned long long u64;
typedef unsigned int u32;
typedef unsigned short u16;
typedef signed char i8;

#define THREADS 256
#define ALL_LANES 0xffffffffu

// IEEE 754 half precision, as stored.
struct alignas(2) f16 {
  u16 bits;
};

__device__ inline float bits_to_float(u32 bits) {
  union { u32 bits; float value; } pun;
  pun.bits = bits;
  return pun.value;
}

__device__ inline u32 float_to_bits(float value) {
  union { float value; u32 bits; } pun;
  pun.value = value;
  return pun.bits;
}

#define NOT_A_NUMBER bits_to_float(0x7fc00000u)
#define INFINITE bits_to_float(0x7f800000u)

__device__ inline bool is_nan(float x) { return x != x; }
__device__ inline bool is_finite(float x) { return (float_to_bits(x) & 0x7f800000u) != 0x7f800000u; }

__device__ inline float half_to_float(u16 half) {
#ifdef THALWEG_SHIM
  u32 sign = (u32)(half & 0x8000) << 16, exponent = (half >> 10) & 31, fraction = half & 0x3ff;
  if (exponent == 31) return bits_to_float(sign | 0x7f800000u | fraction << 13);
  if (exponent != 0) return bits_to_float(sign | (exponent + 112) << 23 | fraction << 13);
  float magnitude = (float)fraction * bits_to_float(0x33800000u);
  return bits_to_float(sign | float_to_bits(magnitude));
#else
  float value;
  asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(half));
  return value;
#endif
}

// To nearest even; what is too great becomes infinite.
__device__ inline u16 float_to_half(float value) {
#ifdef THALWEG_SHIM
  u32 bits = float_to_bits(value), sign = bits >> 16 & 0x8000, magnitude = bits & 0x7fffffff;
  if (magnitude > 0x7f800000u) return (u16)0x7fff;
  if (magnitude >= 0x47800000u) return (u16)(sign | 0x7c00);
  if (magnitude < 0x38800000u) {
    // Adding a half makes the sum's last place that of the least half: the adder rounds.
    float sum = bits_to_float(magnitude) + 0.5f;
    return (u16)(sign | (float_to_bits(sum) - 0x3f000000u));
  }
  u32 odd = magnitude >> 13 & 1;
  return (u16)(sign | (magnitude - 0x38000000u + 0xfff + odd) >> 13);
#else
  u16 half;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(half) : "f"(value));
  return half;
#endif
}

__device__ inline float round_to_f16(float value) { return half_to_float(float_to_half(value)); }

// To nearest even, saturating, NaN to 0.
__device__ inline int float_to_int(float x) {
  if (is_nan(x)) return 0;
  if (x >= 2147483648.0f) return 2147483647;
  if (x <= -2147483648.0f) return -2147483647 - 1;
  return (int)rintf(x);
}

__device__ inline int saturate_i8(int x) { return x < -128 ? -128 : x > 127 ? 127 : x; }

// Between what is in memory and what is in registers: floats as float, i8 and i32 as int.
__device__ inline void get(float& to, float from) { to = from; }
__device__ inline void get(float& to, f16 from) { to = half_to_float(from.bits); }
__device__ inline void get(int& to, int from) { to = from; }
__device__ inline void get(int& to, i8 from) { to = from; }
__device__ inline void get(i64& to, i64 from) { to = from; }
__device__ inline void put(float& to, float from) { to = from; }
__device__ inline void put(f16& to, float from) { to.bits = float_to_half(from); }
__device__ inline void put(int& to, int from) { to = from; }
__device__ inline void put(i8& to, int from) { to = (i8)from; }
__device__ inline void put(i64& to, i64 from) { to = from; }

// V elements that are read or written by loads of up to 16 bytes.
template <int BYTES> struct Words;
template <> struct Words<1> { unsigned char at; };
template <> struct Words<2> { u16 at; };
template <> struct Words<4> { u32 at; };
template <> struct alignas(8) Words<8> { u32 x, y; };
template <> struct alignas(16) Words<16> { u32 x, y, z, w; };
template <> struct alignas(16) Words<32> { Words<16> low, high; };
template <> struct alignas(16) Words<64> { Words<32> low, high; };

template <class T, int V> union Pack {
  Words<(int)sizeof(T) * V> words;
  T at[V];
  __device__ Pack() {}
};

template <int V, class T> __device__ inline Pack<T, V> load_pack(const T* from) {
  Pack<T, V> pack;
  pack.words = *(const Words<(int)sizeof(T) * V>*)from;
  return pack;
}

template <int V, class T> __device__ inline void store_pack(T* to, const Pack<T, V>& pack) {
  *(Words<(int)sizeof(T) * V>*)to = pack.words;
}

// The greater; NaN where one is.
__device__ inline float max_or_nan(float a, float b) { return is_nan(a) ? a : is_nan(b) ? b : a > b ? a : b; }

struct Sum {
  template <class T> static __device__ T of(T a, T b) { return a + b; }
};
struct Max {
  static __device__ float of(float a, float b) { return fmaxf(a, b); }
};

// Over LANES neighbouring threads, or over the block where LANES is THREADS; every thread of the
// block calls it, and every one gets the same bits.
template <class Op, int LANES, class T> __device__ inline T reduce(T value) {
  constexpr int IN_WARP = LANES < 32 ? LANES : 32;
  #pragma unroll
  for (int step = IN_WARP / 2; step > 0; step /= 2) value = Op::of(value, __shfl_xor_sync(ALL_LANES, value, step));
  if constexpr (LANES > 32) {
    __shared__ T of_warps[THREADS / 32];
    if (threadIdx.x % 32 == 0) of_warps[threadIdx.x / 32] = value;
    __syncthreads();
    value = of_warps[0];
    for (int warp = 1; warp < THREADS / 32; ++warp) value = Op::of(value, of_warps[warp]);
    __syncthreads();
  }
  return value;
}

// The row that token belongs to: the last that does not begin after it.
__device__ inline i64 row_of_token(const int* offsets, i64 rows, i64 token) {
  i64 low = 0, high = rows;
  while (high - low > 1) {
    i64 middle = (low + high) / 2;
    if (offsets[middle] <= token) low = middle; else high = middle;
  }
  return low;
}

// Where attention's query, key or value of a token lies: `stride` elements a token, from an offset on.
template <int STRIDE, int OFFSET> struct Place {
  static constexpr int stride = STRIDE, offset = OFFSET;
};
