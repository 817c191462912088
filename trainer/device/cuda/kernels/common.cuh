// What every kernel uses. The kernels are plain CUDA C++ that also compiles for the host, where the emulator of
// ../emulator runs them thread by thread (MUSTER_EMULATED): so all but their speed is tested without a GPU.
//
// A kernel takes one argument, a struct by value, whose fields the Go side packs in the same order (../calls.go), and its mark.
// Sums have one fixed order each, a function of the operation's shape; there are no atomic additions of floats.

using i64 = long long;
using u8 = unsigned char;
using u32 = unsigned int;
using u64 = unsigned long long;

#ifdef MUSTER_EMULATED
#include "../emulator/shim.h"
#else
// A mark tells the host that this kernel has begun: where is memory of the host, which can be read when the GPU has failed.
struct mark { volatile u32 *where; u64 number; };
#define KERNEL(name, threads) KERNEL_OF(name, threads, 1)
// A kernel of which so many blocks shall fit a processor together: the compiler gives it no more registers than that leaves.
#define KERNEL_OF(name, threads, blocks)                                                                      \
    __device__ __forceinline__ void name##_body(const name##_args &a);                                        \
    extern "C" __global__ void __launch_bounds__(threads, blocks) name(const name##_args a, const mark m) {           \
        if ((threadIdx.x | blockIdx.x | blockIdx.y | blockIdx.z) == 0) *m.where = (u32)m.number;              \
        name##_body(a);                                                                                       \
    }                                                                                                         \
    __device__ __forceinline__ void name##_body(const name##_args &a)
#define INFINITY __int_as_float(0x7f800000)
#define NAN __int_as_float(0x7fffffff)
#endif

// A number of 8 significant bits with float's range, as outputs of layers are kept in precision bf16. It is read as a float, and rounded to nearest even
// when it is written.
__device__ inline u32 packBF16(float low, float high);
struct bf16 {
    unsigned short bits;
    __device__ operator float() const { return __uint_as_float((u32)bits << 16); }
    __device__ bf16 &operator=(float v) {
        bits = (unsigned short)packBF16(v, v);
        return *this;
    }
};

// kept is a number as it is read again from memory of T.
template <class T> __device__ inline float kept(float v) {
    T t;
    t = v;
    return t;
}

// KERNELS is a kernel over memories of float, NAME, and one over memories of bf16, NAME_bf16. Its arguments are NAME_types<T>.
#define KERNELS(name, threads) KERNELS_OF(name, threads, 1)
#define KERNELS_OF(name, threads, blocks)                                           \
    template <class T> __device__ void name##_of(const name##_types<T> &a);         \
    using name##_args = name##_types<float>;                                        \
    using name##_bf16_args = name##_types<bf16>;                                    \
    KERNEL_OF(name, threads, blocks) { name##_of<float>(a); }                       \
    KERNEL_OF(name##_bf16, threads, blocks) { name##_of<bf16>(a); }                 \
    template <class T> __device__ void name##_of(const name##_types<T> &a)

// A fault is something that only the data show (a label out of range). The earliest operation's lowest place is kept;
// the host reads it at Sync.
struct fault { u64 *word; u64 operation; };
__device__ inline void blame(const fault &f, i64 place) { atomicMin(f.word, f.operation << 40 | (u64)place); }

constexpr int warpThreads = 32;
constexpr int blockThreads = 256; // of every kernel

enum activation { identity = 0, relu = 1 };

// NaN stays NaN.
__device__ inline float activate(float x, int act) { return act == relu && x < 0 ? 0.0f : x; }

__device__ inline i64 globalThread() { return (i64)blockIdx.x * blockDim.x + threadIdx.x; }
__device__ inline i64 globalThreads() { return (i64)gridDim.x * blockDim.x; }

// split is quotient and rest, in 32 bits where they suffice: a division in 64 bits takes some hundred instructions.
__device__ inline void split(i64 i, i64 by, i64 &quotient, i64 &rest) {
    if (((u64)i | (u64)by) >> 32 == 0) quotient = (u32)i / (u32)by, rest = (u32)i % (u32)by;
    else quotient = i / by, rest = i % by;
}

// Few is several numbers that lie side by side, which are read and written at once: in memory as T, at a multiple of their size, and as floats in
// registers.
template <int n, class T = float> struct alignas(sizeof(T) * n) Few { T v[n]; };
template <int n, class T> __device__ inline Few<n> few(const T *p) {
    const Few<n, T> in = *(const Few<n, T> *)p;
    Few<n> out;
#pragma unroll
    for (int i = 0; i < n; i++) out.v[i] = in.v[i];
    return out;
}
template <int n, class T> __device__ inline void put(T *p, const Few<n> &v) {
    Few<n, T> out;
#pragma unroll
    for (int i = 0; i < n; i++) out.v[i] = v.v[i];
    *(Few<n, T> *)p = out;
}
template <class T> __device__ inline bool aligned(const T *p) { return (u64)p % sizeof(Few<4, T>) == 0; }

// alongRow calls f(j, v) for all of a row of n, some elements at a time: v[u] is x[j + u*256], and j goes up from t in thread t. Several are read before a call, so
// that their loads are under way together; f may write where they were.
template <class T, class F> __device__ inline void alongRow(const T *x, i64 n, F f) {
    constexpr int together = 8;
    i64 j = threadIdx.x;
    for (; j + (together - 1) * blockThreads < n; j += together * blockThreads) {
        float v[together];
#pragma unroll
        for (int u = 0; u < together; u++) v[u] = x[j + u * blockThreads];
        f(j, v);
    }
    for (; j < n; j += blockThreads) {
        const float v[1] = {x[j]};
        f(j, v);
    }
}

// A value to add up, in the fixed order of a butterfly.
template <class T> __device__ inline T warpSum(T v) {
    for (int m = warpThreads / 2; m > 0; m /= 2) v += __shfl_xor_sync(0xffffffffu, v, m);
    return v;
}

__device__ inline float warpMax(float v) {
    for (int m = warpThreads / 2; m > 0; m /= 2) v = fmaxf(v, __shfl_xor_sync(0xffffffffu, v, m));
    return v;
}

// blockSum adds over a block of blockThreads; every thread gets the sum. All threads must call it.
template <class T> __device__ inline T blockSum(T v) {
    __shared__ T parts[blockThreads / warpThreads];
    v = warpSum(v);
    __syncthreads();
    if (threadIdx.x % warpThreads == 0) parts[threadIdx.x / warpThreads] = v;
    __syncthreads();
    T sum = parts[0];
    for (int i = 1; i < blockThreads / warpThreads; i++) sum += parts[i];
    return sum;
}

__device__ inline float blockMax(float v) {
    __shared__ float parts[blockThreads / warpThreads];
    v = warpMax(v);
    __syncthreads();
    if (threadIdx.x % warpThreads == 0) parts[threadIdx.x / warpThreads] = v;
    __syncthreads();
    float m = parts[0];
    for (int i = 1; i < blockThreads / warpThreads; i++) m = fmaxf(m, parts[i]);
    return m;
}
