// The part of CUDA that the kernels use, for a host compiler: the same kernel text, block by block.
//
// Each thread of a block is a fiber with a stack of its own. It runs until it has to wait for its
// block or its warp; then the next one runs. What a warp exchanges goes through a slot per lane.
// One thread at a time launches kernels: shared memory is a plain static.

#pragma once
#define THALWEG_SHIM 1

// No header: most of a compilation would go into reading it.
typedef __SIZE_TYPE__ shim_size;
typedef __UINT64_TYPE__ shim_word;
extern "C" {
void* memcpy(void*, const void*, shim_size);
float fmaxf(float, float);
float fabsf(float);
float rintf(float);
float sqrtf(float);
float expf(float);
float erff(float);
float tanhf(float);
double sqrt(double);
}

#define __device__
#define __global__
#define __shared__ static
#define __launch_bounds__(threads)

struct ShimIndex {
  unsigned x, y, z;
};
static ShimIndex threadIdx, blockIdx;

enum { SHIM_THREADS_MAX = 256, SHIM_STACK_BYTES = 1 << 20, SHIM_SLOT_BYTES = 32, SHIM_ARGUMENTS_MAX = 48 };

// Threads that wait for each other: those of a block, or of a warp.
struct ShimGroup {
  int live, arrived;
  unsigned generation;
};

struct ShimFiber {
  void* stack;
  ShimGroup* waits;
  unsigned generation;
  bool done;
};

static ShimFiber shim_fibers[SHIM_THREADS_MAX];
static ShimGroup shim_block, shim_warps[SHIM_THREADS_MAX / 32];
static void* shim_scheduler;
static char* shim_stacks;
alignas(16) static char shim_slots[SHIM_THREADS_MAX / 32][2][32][SHIM_SLOT_BYTES];

#if defined(__x86_64__)
// Saves what a call must keep on this stack, and goes on with another.
asm(R"(
.text
.type shim_switch, @function
shim_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  retq
)");
// One word more, so that the stack is 8 bytes off a multiple of 16, as after a call.
enum { SHIM_SAVED_WORDS = 8, SHIM_RETURN_WORD = 6 };
#elif defined(__aarch64__)
asm(R"(
.text
.type shim_switch, %function
shim_switch:
  sub sp, sp, #160
  stp x19, x20, [sp, #0]
  stp x21, x22, [sp, #16]
  stp x23, x24, [sp, #32]
  stp x25, x26, [sp, #48]
  stp x27, x28, [sp, #64]
  stp x29, x30, [sp, #80]
  stp d8, d9, [sp, #96]
  stp d10, d11, [sp, #112]
  stp d12, d13, [sp, #128]
  stp d14, d15, [sp, #144]
  mov x9, sp
  str x9, [x0]
  mov sp, x1
  ldp x19, x20, [sp, #0]
  ldp x21, x22, [sp, #16]
  ldp x23, x24, [sp, #32]
  ldp x25, x26, [sp, #48]
  ldp x27, x28, [sp, #64]
  ldp x29, x30, [sp, #80]
  ldp d8, d9, [sp, #96]
  ldp d10, d11, [sp, #112]
  ldp d12, d13, [sp, #128]
  ldp d14, d15, [sp, #144]
  add sp, sp, #160
  ret
)");
enum { SHIM_SAVED_WORDS = 20, SHIM_RETURN_WORD = 11 };
#else
#error "no switch of fibers for this processor"
#endif
extern "C" void shim_switch(void** save, void* load);

static void shim_wait(ShimGroup& group) {
  ShimFiber& self = shim_fibers[threadIdx.x];
  unsigned generation = group.generation;
  if (++group.arrived == group.live) {
    group.arrived = 0;
    ++group.generation;
    return;
  }
  self.waits = &group;
  self.generation = generation;
  shim_switch(&self.stack, shim_scheduler);
}

static void shim_leave(ShimGroup& group) {
  --group.live;
  if (group.live > 0 && group.arrived == group.live) {
    group.arrived = 0;
    ++group.generation;
  }
}

// A launch: a kernel whose arguments are all 8 bytes wide. It is given more than it takes, which the
// calling conventions of both processors let pass.
static void* shim_kernel;
static const shim_word* shim_arguments;

#define SHIM_EIGHT(type) type, type, type, type, type, type, type, type
typedef void (*ShimKernel)(SHIM_EIGHT(shim_word), SHIM_EIGHT(shim_word), SHIM_EIGHT(shim_word), SHIM_EIGHT(shim_word),
                           SHIM_EIGHT(shim_word), SHIM_EIGHT(shim_word));
#define SHIM_ARGUMENTS(at) a[at], a[at + 1], a[at + 2], a[at + 3], a[at + 4], a[at + 5], a[at + 6], a[at + 7]

static void shim_call() {
  const shim_word* a = shim_arguments;
  ((ShimKernel)shim_kernel)(SHIM_ARGUMENTS(0), SHIM_ARGUMENTS(8), SHIM_ARGUMENTS(16), SHIM_ARGUMENTS(24),
                            SHIM_ARGUMENTS(32), SHIM_ARGUMENTS(40));
}

static void shim_start() {
  unsigned self = threadIdx.x;
  shim_call();
  shim_fibers[self].done = true;
  shim_leave(shim_warps[self / 32]);
  shim_leave(shim_block);
  shim_switch(&shim_fibers[self].stack, shim_scheduler);
}

// False where the threads wait for each other in vain.
static bool shim_run_block(unsigned threads) {
  shim_block = {(int)threads, 0, 0};
  for (unsigned warp = 0; warp < threads / 32; ++warp) shim_warps[warp] = {32, 0, 0};
  for (unsigned thread = 0; thread < threads; ++thread) {
    void** frame = (void**)(shim_stacks + (shim_size)(thread + 1) * SHIM_STACK_BYTES) - SHIM_SAVED_WORDS;
    for (int word = 0; word < SHIM_SAVED_WORDS; ++word) frame[word] = nullptr;
    frame[SHIM_RETURN_WORD] = (void*)shim_start;
    shim_fibers[thread] = {frame, nullptr, 0, false};
  }
  for (unsigned left = threads; left > 0;) {
    bool moved = false;
    for (unsigned thread = 0; thread < threads; ++thread) {
      ShimFiber& fiber = shim_fibers[thread];
      if (fiber.done || (fiber.waits && fiber.waits->generation == fiber.generation)) continue;
      fiber.waits = nullptr;
      threadIdx = {thread, 0, 0};
      shim_switch(&shim_scheduler, fiber.stack);
      moved = true;
      left -= fiber.done;
    }
    if (!moved) return false;
  }
  return true;
}

// Runs a kernel over a grid. The caller gives SHIM_THREADS_MAX stacks, and SHIM_ARGUMENTS_MAX
// arguments.
extern "C" bool shim_launch(
    void* kernel, const unsigned* grid, unsigned threads, const shim_word* arguments, char* stacks) {
  if (threads > SHIM_THREADS_MAX || threads % 32 != 0) return false;
  shim_stacks = stacks;
  shim_kernel = kernel;
  shim_arguments = arguments;
  for (unsigned z = 0; z < grid[2]; ++z) {
    for (unsigned y = 0; y < grid[1]; ++y) {
      for (unsigned x = 0; x < grid[0]; ++x) {
        blockIdx = {x, y, z};
        if (!shim_run_block(threads)) return false;
      }
    }
  }
  return true;
}

static inline void __syncthreads() { shim_wait(shim_block); }

// What every lane of the warp gives: valid until the lane's exchange after the next.
template <class T> static inline const char* shim_exchange(const T& mine) {
  static_assert(sizeof(T) <= SHIM_SLOT_BYTES, "too large for a slot");
  unsigned warp = threadIdx.x / 32;
  char (&slots)[32][SHIM_SLOT_BYTES] = shim_slots[warp][shim_warps[warp].generation & 1];
  memcpy(slots[threadIdx.x % 32], &mine, sizeof(T));
  shim_wait(shim_warps[warp]);
  return slots[0];
}

template <class T> static inline T shim_lane(const char* slots, unsigned lane) {
  T value;
  memcpy(&value, slots + lane * SHIM_SLOT_BYTES, sizeof(T));
  return value;
}

template <class T> static inline T __shfl_sync(unsigned, T value, int from) {
  return shim_lane<T>(shim_exchange(value), from & 31);
}
template <class T> static inline T __shfl_xor_sync(unsigned, T value, int mask) {
  unsigned lane = threadIdx.x % 32;
  return shim_lane<T>(shim_exchange(value), lane ^ mask);
}
static inline unsigned __ballot_sync(unsigned, bool value) {
  const char* slots = shim_exchange(value);
  unsigned ballot = 0;
  for (unsigned lane = 0; lane < 32; ++lane) ballot |= (unsigned)shim_lane<bool>(slots, lane) << lane;
  return ballot;
}

static inline int atomicAdd(int* at, int value) {
  int old = *at;
  *at = old + value;
  return old;
}
