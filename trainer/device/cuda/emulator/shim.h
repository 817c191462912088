// CUDA's language on the host: the threads of a block are fibers that take turns at barriers and shuffles (fibers.h), the
// blocks run one after another. Slow and single-threaded; for tests alone.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

#define __device__
#define __global__
#define __shared__ static // one block runs at a time

struct alignas(16) float4 { float x, y, z, w; };
struct alignas(8) float2 { float x, y; };
struct alignas(8) uint2 { unsigned x, y; };
struct alignas(16) uint4 { unsigned x, y, z, w; };

struct Dimensions { unsigned x, y, z; };
extern Dimensions threadIdx, blockIdx, blockDim, gridDim;

namespace emulator {
void awaitBlock(); // returns when all threads of the block have called it
void awaitWarp();  // and of the warp
extern unsigned char *slot(unsigned thread); // 8 bytes of each thread, for shuffles
void enlist(const char *name, size_t argumentBytes, unsigned threads, void (*run)(const void *));

struct Enlist {
    Enlist(const char *name, size_t bytes, unsigned threads, void (*run)(const void *)) { enlist(name, bytes, threads, run); }
};

template <class T> T exchange(T v, unsigned from) {
    static_assert(sizeof(T) <= 8, "too large to shuffle");
    std::memcpy(slot(threadIdx.x), &v, sizeof v);
    awaitWarp();
    T other;
    std::memcpy(&other, slot(threadIdx.x / 32 * 32 + from % 32), sizeof other);
    awaitWarp();
    return other;
}
} // namespace emulator

inline void __syncthreads() { emulator::awaitBlock(); }
template <class To, class From> To bitsAs(From v) { To t; static_assert(sizeof t == sizeof v, "sizes"); memcpy(&t, &v, sizeof t); return t; }
inline unsigned __float_as_uint(float v) { return bitsAs<unsigned>(v); }
inline int __float_as_int(float v) { return bitsAs<int>(v); }
inline float __uint_as_float(unsigned v) { return bitsAs<float>(v); }
inline float __int_as_float(int v) { return bitsAs<float>(v); }
template <class T> T __shfl_xor_sync(unsigned, T v, unsigned mask) { return emulator::exchange(v, threadIdx.x % 32 ^ mask); }
template <class T> T __shfl_sync(unsigned, T v, unsigned from) { return emulator::exchange(v, from); }
inline void __syncwarp() { emulator::awaitWarp(); }
inline int __syncthreads_or(int v) {
    static int any;
    __syncthreads();
    any = 0;
    __syncthreads();
    if (v) any = 1;
    __syncthreads();
    return any;
}
using std::min; // which is there without std
inline void atomicMin(unsigned long long *p, unsigned long long v) { *p = std::min(*p, v); }

#define KERNEL_OF(name, threads, blocks) KERNEL(name, threads)
#define KERNEL(name, threads)                                                                                        \
    static void name(const name##_args a);                                                                           \
    static emulator::Enlist enlist_##name(#name, sizeof(name##_args), threads, [](const void *p) { name(*(const name##_args *)p); }); \
    static void name(const name##_args a)

#include "tensor.h"

// CUDA's functions are further off than the host's: each result here is moved by as much as CUDA's may be (CUDA C++ Programming Guide, "Mathematical
// Functions", units in the last place), up or down as the argument's bits have it.
namespace emulator {
inline float off(float v, float x, int ulps, float most) {
    uint32_t hash = bitsOf(x) * 0x9E3779B1u;
    if (x == 0 || v == 0 || std::fabs(v) == most || !std::isfinite(v)) return v;
    for (; ulps > 0; ulps--) v = std::nextafterf(v, hash >> 31 ? -most : most);
    return v;
}
} // namespace emulator
inline float cudaExp(float x) { return emulator::off(std::exp(x), x, 2, INFINITY); }
inline float cudaExp2(float x) { return emulator::off(std::exp2(x), x, 2, INFINITY); }
inline float cudaLog(float x) { return emulator::off(std::log(x), x, 1, INFINITY); }
inline float cudaErf(float x) { return emulator::off(std::erf(x), x, 2, 1); }
inline float cudaTanh(float x) { return emulator::off(std::tanh(x), x, 2, 1); }
inline float powerOf2(float x) { return x < -126 ? 0 : cudaExp2(x); }
#define expf cudaExp
#define exp2f cudaExp2
#define logf cudaLog
#define erff cudaErf
#define tanhf cudaTanh
