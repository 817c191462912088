// Sums of gradients that stay on the card, with the bits of package collective: see ../../sums.go. A block of threads takes a block of elements.

constexpr int mostParts = 8; // of one launch

struct Parts { const float *of[mostParts]; };

// y[b] is the largest bit pattern of a magnitude in block b, or what is there, if that is larger and more says so.
struct magnitudes_args { u32 *y; Parts x; i64 parts, more, n, block; };
KERNEL(magnitudes, blockThreads) {
    __shared__ u32 largest[blockThreads / warpThreads];
    for (i64 b = blockIdx.x; b * a.block < a.n; b += gridDim.x) {
        const i64 to = (b + 1) * a.block < a.n ? (b + 1) * a.block : a.n;
        u32 m = 0;
#pragma unroll
        for (int p = 0; p < mostParts; p++) // by their number, as a kernel's arguments cannot be indexed
            for (i64 i = b * a.block + threadIdx.x; p < (int)a.parts && i < to; i += blockThreads) {
                const u32 v = __float_as_uint(a.x.of[p][i]) & 0x7fffffffu;
                m = v > m ? v : m;
            }
        for (int l = warpThreads / 2; l > 0; l /= 2) {
            const u32 v = __shfl_xor_sync(0xffffffffu, m, l);
            m = v > m ? v : m;
        }
        __syncthreads(); // of a block before
        if (threadIdx.x % warpThreads == 0) largest[threadIdx.x / warpThreads] = m;
        __syncthreads();
        if (threadIdx.x == 0) {
            m = a.more ? a.y[b] : 0;
            for (int w = 0; w < blockThreads / warpThreads; w++) m = largest[w] > m ? largest[w] : m;
            a.y[b] = m;
        }
    }
}

// Sums of multiples lie as words in the memory of y, before the last launch of several and where they stay open. Parts are words themselves, or numbers. y may be a
// part: an element is read before it is written.
struct exact_sum_args { float *y; Parts x; const int *exponents; i64 parts, words, first, last, n, block, width; };
template <bool words> __device__ inline void exactSum(const exact_sum_args &a) {
    for (i64 b = blockIdx.x; b * a.block < a.n; b += gridDim.x) {
        const i64 to = (b + 1) * a.block < a.n ? (b + 1) * a.block : a.n;
        const int e = a.exponents[b];
        const bool zeros = e == (-2147483647 - 1), none = e == 2147483647;
        // In float64 both products are exact but for the rounding that is meant, wherever the exponent lies.
        const double scale = zeros || none ? 0 : ldexp(1.0, (int)a.width - e), quantum = zeros || none ? 0 : ldexp(1.0, e - (int)a.width);
        for (i64 i = b * a.block + threadIdx.x; i < to; i += blockThreads) {
            if (zeros || none) {
                a.y[i] = zeros || !a.last ? 0.0f : __uint_as_float(0x7fc00000u);
                continue;
            }
            int sum = a.first ? 0 : __float_as_int(a.y[i]);
#pragma unroll
            for (int p = 0; p < mostParts; p++)
                if (p < (int)a.parts) sum += words ? __float_as_int(a.x.of[p][i]) : (int)rint((double)a.x.of[p][i] * scale);
            a.y[i] = a.last ? (float)((double)sum * quantum) : __int_as_float(sum);
        }
    }
}
KERNEL(exact_sum, blockThreads) {
    if (a.words) exactSum<true>(a);
    else exactSum<false>(a);
}

// The order of vec.Partials in each block, which 16 threads have: element i of it goes to partial sum i mod 16.
struct squares_args { double *y; const float *x; i64 n, block; };
KERNEL(squares, blockThreads) {
    const i64 blocks = (a.n + a.block - 1) / a.block, lane = threadIdx.x % 16;
    for (i64 first = globalThread() / warpThreads * 2; first < blocks; first += globalThreads() / 16) { // all of a warp together
        const i64 b = first + threadIdx.x % warpThreads / 16, to = (b + 1) * a.block < a.n ? (b + 1) * a.block : a.n;
        double sum = 0;
        for (i64 i = b * a.block + lane; i < to; i += 16) sum += (double)a.x[i] * a.x[i];
        for (int m = 8; m > 0; m /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, m);
        if (lane == 0 && b < blocks) a.y[b] = sum;
    }
}
