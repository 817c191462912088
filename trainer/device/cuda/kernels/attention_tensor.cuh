// Attention on tensor cores, for precisions below float32 (Dao, "FlashAttention-2", 2023): the products of attention.cuh in tiles, of
// factors that are rounded on their way to shared memory. Scores, probabilities and all sums are float32; probabilities and the gradients of
// scores are rounded again as factors of the products that follow, and go from one product to the next within a thread.
//
// A block has some rows of queries (or of keys), 16 of each warp; the rows on the other side pass by in tiles of columns. Each sum has one
// fixed order: one block makes the gradient of its queries, another that of its keys and values. Heads are padded with zeros to
// a width of 64 or 128.
//
// In shared memory a matrix lies in words of a precision (1 or 2 elements), by row with k along it, or turned: then a row has
// what follows one another down the matrix. A row has 4 words besides, so that 8 rows that are read at once lie in different banks.

template <class P, int W, int most = 64> struct Tiles { // most: columns
    static constexpr int words = W / P::per, stride = words + 4; // of a row
    static constexpr int warps = 256 / words, threads = warps * warpThreads, rows = warps * 16;
    static constexpr int columns = 8 * warps < most ? 8 * warps : most, turned = columns / P::per + 4; // turned: the stride of a turned row of columns
    static constexpr int own = rows * stride, other = columns * stride, across = W * turned; // words of a matrix
};
template <class P, int W> using Forward = Tiles<P, W>;
template <class P, int W> using Backward = Tiles<P, W, 32>; // which has twice the sums to keep in registers

// Rows is some rows of a matrix, from one on; they begin at multiples of 16 bytes, and their width is a multiple of 4. What is beyond the last one, or
// the width, is zero.
template <class T> struct Rows {
    const T *base;
    int stride, rows, width;
    __device__ float4 four(int r, int d) const { return r < rows && d < width ? fourOf(base + r * stride + d) : float4{0, 0, 0, 0}; }
};

enum { ofQuery, ofKey, ofValue };

// Head is one head of one sample: its matrices, from a row on.
struct Head {
    i64 sample, head, t, heads, width;
    __device__ i64 inQKV(i64 row, int which) const { return (((sample * t + row) * 3 + which) * heads + head) * width; }
    __device__ i64 inY(i64 row) const { return ((sample * t + row) * heads + head) * width; }
    __device__ i64 inLSE(i64 row) const { return (sample * heads + head) * t + row; }
    template <class T> __device__ Rows<T> qkv(const T *qkv, i64 row, int which) const {
        return {qkv + inQKV(row, which), (int)(3 * heads * width), (int)(t - row), (int)width};
    }
    template <class T> __device__ Rows<T> y(const T *y, i64 row) const { return {y + inY(row), (int)(heads * width), (int)(t - row), (int)width}; }
};
template <class Args> __device__ inline Head headOf(const Args &a) { return {blockIdx.z, blockIdx.y, a.t, a.heads, a.width}; }

// stage copies rows to shared memory. All loads come before the first store, so that they are under way together.
template <class P, class T, int W, int rows, class E> __device__ inline void stage(u32 *tile, const Rows<E> &m) {
    constexpr int line = W / 4, lines = T::threads / line, each = rows / lines; // threads of a row, rows at once
    const int r = threadIdx.x / line, d = threadIdx.x % line * 4;
    float4 v[each];
#pragma unroll
    for (int i = 0; i < each; i++) v[i] = m.four(r + i * lines, d);
#pragma unroll
    for (int i = 0; i < each; i++) P::put(tile + (r + i * lines) * T::stride + d / P::per, v[i]);
}

// stageTurned copies columns of them, turned. 16 lanes write neighbouring words, the other 16 lie 16 banks further.
template <class P, class T, int W, class E> __device__ inline void stageTurned(u32 *tile, const Rows<E> &m) {
    constexpr int each = T::columns / P::per * W / 4 / T::threads;
    float4 v[each][P::per];
    auto place = [](int i, int &line, int &d) {
        const int e = threadIdx.x + i * T::threads;
        line = e % 16 + e / (4 * W) * 16, d = e / 16 % (W / 4) * 4;
    };
#pragma unroll
    for (int i = 0; i < each; i++) {
        int line, d;
        place(i, line, d);
#pragma unroll
        for (int j = 0; j < P::per; j++) v[i][j] = m.four(line * P::per + j, d);
    }
#pragma unroll
    for (int i = 0; i < each; i++) {
        int line, d;
        place(i, line, d);
        u32 *to = tile + d * T::turned + P::place(line);
        const float4 &x = v[i][0], &y = v[i][P::per - 1];
        to[0] = P::word(x.x, y.x), to[T::turned] = P::word(x.y, y.y), to[2 * T::turned] = P::word(x.z, y.z), to[3 * T::turned] = P::word(x.w, y.w);
    }
}

// addRows is c (16 x 8N) += the products of 16 rows at a with 8N rows at b.
template <class P, int words, int N> __device__ inline void addRows(float (&c)[N][4], const u32 *a, const u32 *b, int stride) {
    const int lane = threadIdx.x % warpThreads;
    a += lane % 16 * stride + lane / 16 * 4, b += (lane % 8 + lane / 16 * 8) * stride + lane / 8 % 2 * 4;
#pragma unroll
    for (int w = 0; w < words; w += 8) {
        u32 x[4];
        loadMatrices(x, a + w);
#pragma unroll
        for (int j = 0; j < N; j += 2) {
            u32 y[4];
            loadMatrices(y, b + j * 8 * stride + w);
            P::multiply(c[j], x, y[0], y[1]), P::multiply(c[j + 1], x, y[2], y[3]);
        }
    }
}

// addSums is c (16 x 8N) += p (16 x 8M) times turned rows at b; p is the sums of another product.
template <class P, int M, int N> __device__ inline void addSums(float (&c)[N][4], const float (&p)[M][4], const u32 *b, int stride) {
    const int lane = threadIdx.x % warpThreads;
    b += (lane % 8 + lane / 16 * 8) * stride + lane / 8 % 2 * 4;
#pragma unroll
    for (int m = 0; m < M; m += P::per) {
        u32 x[4];
        P::factor(x, p[m], p[m + P::per - 1]);
#pragma unroll
        for (int j = 0; j < N; j += 2) {
            u32 y[4];
            loadMatrices(y, b + j * 8 * stride + m / P::per * 8);
            P::multiply(c[j], x, y[0], y[1]), P::multiply(c[j + 1], x, y[2], y[3]);
        }
    }
}

constexpr float log2e = 1.44269504088896341f; // powers of 2 are what the hardware has

// store writes 16 rows of sums, the two of each that a thread has times f0 and f1. The width and the stride are even.
template <int N, class E> __device__ inline void store(E *to, i64 stride, int rows, int width, const float (&sum)[N][4], float f0, float f1) {
    const float f[2] = {f0, f1};
    const bool pairs = (u64)to % sizeof(Few<2, E>) == 0;
#pragma unroll
    for (int r = 0; r < 2; r++) {
        E *const line = to + rowOfSum(2 * r) * stride;
        if (rowOfSum(2 * r) >= rows) continue;
#pragma unroll
        for (int j = 0; j < N; j++) {
            const int d = j * 8 + columnOfSum(0);
            const Few<2> v = {{sum[j][2 * r] * f[r], sum[j][2 * r + 1] * f[r]}};
            if (d >= width) continue;
            if (pairs) put(line + d, v);
            else line[d] = v.v[0], line[d + 1] = v.v[1];
        }
    }
}

template <class P, int W, class E> __device__ inline void attend(const attention_types<E> &a) {
    using T = Forward<P, W>;
    SHARED_STAGES(shared);
    u32 *queries = shared, *keys = queries + T::own, *values = keys + T::other;
    const Head head = headOf(a);
    const int t = (int)a.t, warp = threadIdx.x / warpThreads;
    const int first = ((int)gridDim.x - 1 - (int)blockIdx.x) * T::rows, mine = first + warp * 16; // those with the most to do begin
    const int last = a.causal && first + T::rows < t ? first + T::rows : t;
    const float unit = a.scale * log2e;
    stage<P, T, W, T::rows>(queries, head.qkv(a.qkv, first, ofQuery));
    float out[W / 8][4] = {}, top[2] = {-INFINITY, -INFINITY}, sum[2] = {};
    for (int k0 = 0; k0 < last; k0 += T::columns) {
        __syncthreads();
        stage<P, T, W, T::columns>(keys, head.qkv(a.qkv, k0, ofKey));
        stageTurned<P, T, W>(values, head.qkv(a.qkv, k0, ofValue));
        __syncthreads();
        if (a.causal && k0 > mine + 15) continue; // nothing that this warp may see
        float p[T::columns / 8][4] = {};
        addRows<P, T::words>(p, queries + warp * 16 * T::stride, keys, T::stride);
        const bool all = k0 + T::columns <= t && !(a.causal && k0 + T::columns - 1 > mine);
        float high[2] = {top[0], top[1]};
#pragma unroll
        for (int j = 0; j < T::columns / 8; j++)
#pragma unroll
            for (int c = 0; c < 4; c++) {
                const int k = k0 + j * 8 + columnOfSum(c);
                if (!all && (k >= t || (a.causal && k > mine + rowOfSum(c)))) p[j][c] = -INFINITY;
                high[c / 2] = fmaxf(high[c / 2], p[j][c]);
            }
        float shrink[2];
#pragma unroll
        for (int r = 0; r < 2; r++) {
            for (int m = 1; m < 4; m *= 2) high[r] = fmaxf(high[r], __shfl_xor_sync(0xffffffffu, high[r], m));
            shrink[r] = exp2f((top[r] - high[r]) * unit), top[r] = high[r], sum[r] *= shrink[r];
        }
#pragma unroll
        for (int j = 0; j < T::columns / 8; j++)
#pragma unroll
            for (int c = 0; c < 4; c++) {
                p[j][c] = exp2f((p[j][c] - top[c / 2]) * unit);
                sum[c / 2] += p[j][c];
            }
#pragma unroll
        for (int j = 0; j < W / 8; j++)
#pragma unroll
            for (int c = 0; c < 4; c++) out[j][c] *= shrink[c / 2];
        addSums<P>(out, p, values, T::turned);
    }
    for (int r = 0; r < 2; r++) {
        for (int m = 1; m < 4; m *= 2) sum[r] += __shfl_xor_sync(0xffffffffu, sum[r], m);
        const int q = mine + rowOfSum(2 * r);
        if (threadIdx.x % 4 == 0 && q < t) a.lse[head.inLSE(q)] = fmaf(top[r], a.scale, logf(sum[r]));
    }
    store(a.y + head.inY(mine), a.heads * a.width, t - mine, (int)a.width, out, 1 / sum[0], 1 / sum[1]);
}

// delta[s][h][q] = dy(q) . y(q), which is the sum over k of p(q, k) * (dy(q) . v(k)). A warp per row.
template <class T> struct attention_delta_types { float *delta; const T *y, *dy; i64 n, t, heads, width; };
KERNELS(attention_delta, blockThreads) {
    const i64 warps = globalThreads() / warpThreads;
    for (i64 row = globalThread() / warpThreads; row < a.n * a.t * a.heads; row += warps) {
        const float sum = dot(a.y + row * a.width, a.dy + row * a.width, a.width);
        const i64 h = row % a.heads, s = row / a.heads / a.t, q = row / a.heads % a.t;
        if (threadIdx.x % warpThreads == 0) a.delta[(s * a.heads + h) * a.t + q] = sum;
    }
}

// The gradient of the queries of a block.
template <class P, int W, class E> __device__ inline void attendBackwardQuery(const attention_backward_types<E> &a) {
    using T = Backward<P, W>;
    SHARED_STAGES(shared);
    u32 *queries = shared, *dys = queries + T::own, *keys = dys + T::own, *values = keys + T::other, *turned = values + T::other;
    const Head head = headOf(a);
    const int t = (int)a.t, warp = threadIdx.x / warpThreads;
    const int first = ((int)gridDim.x - 1 - (int)blockIdx.x) * T::rows, mine = first + warp * 16;
    const int last = a.causal && first + T::rows < t ? first + T::rows : t;
    const float unit = a.scale * log2e;
    stage<P, T, W, T::rows>(queries, head.qkv(a.qkv, first, ofQuery));
    stage<P, T, W, T::rows>(dys, head.y(a.dy, first));
    float lse[2], delta[2];
    for (int r = 0; r < 2; r++) {
        const int q = mine + rowOfSum(2 * r);
        lse[r] = q < t ? a.lse[head.inLSE(q)] * log2e : 0, delta[r] = q < t ? a.delta[head.inLSE(q)] : 0;
    }
    float out[W / 8][4] = {};
    for (int k0 = 0; k0 < last; k0 += T::columns) {
        __syncthreads();
        stage<P, T, W, T::columns>(keys, head.qkv(a.qkv, k0, ofKey));
        stage<P, T, W, T::columns>(values, head.qkv(a.qkv, k0, ofValue));
        stageTurned<P, T, W>(turned, head.qkv(a.qkv, k0, ofKey));
        __syncthreads();
        if (a.causal && k0 > mine + 15) continue;
        float s[T::columns / 8][4] = {}, dp[T::columns / 8][4] = {};
        addRows<P, T::words>(s, queries + warp * 16 * T::stride, keys, T::stride);
        addRows<P, T::words>(dp, dys + warp * 16 * T::stride, values, T::stride);
#pragma unroll
        for (int j = 0; j < T::columns / 8; j++)
#pragma unroll
            for (int c = 0; c < 4; c++) {
                const int k = k0 + j * 8 + columnOfSum(c);
                const bool seen = k < t && !(a.causal && k > mine + rowOfSum(c));
                s[j][c] = seen ? exp2f(fmaf(s[j][c], unit, -lse[c / 2])) * (dp[j][c] - delta[c / 2]) : 0;
            }
        addSums<P>(out, s, turned, T::turned);
    }
    store(a.dqkv + head.inQKV(mine, ofQuery), 3 * a.heads * a.width, t - mine, (int)a.width, out, a.scale, a.scale);
}

// The gradients of the keys and values of a block, from whose side everything is turned: rows are keys, columns queries.
template <class P, int W, class E> __device__ inline void attendBackwardKey(const attention_backward_types<E> &a) {
    using T = Backward<P, W>;
    SHARED_STAGES(shared);
    u32 *keys = shared, *values = keys + T::own, *queries = values + T::own, *dys = queries + T::other;
    u32 *queriesTurned = dys + T::other, *dysTurned = queriesTurned + T::across;
    float *lse = (float *)(dysTurned + T::across), *delta = lse + T::columns;
    const Head head = headOf(a);
    const int t = (int)a.t, warp = threadIdx.x / warpThreads, first = (int)blockIdx.x * T::rows, mine = first + warp * 16;
    const float unit = a.scale * log2e;
    stage<P, T, W, T::rows>(keys, head.qkv(a.qkv, first, ofKey));
    stage<P, T, W, T::rows>(values, head.qkv(a.qkv, first, ofValue));
    float dk[W / 8][4] = {}, dv[W / 8][4] = {};
    for (int q0 = a.causal ? first / T::columns * T::columns : 0; q0 < t; q0 += T::columns) {
        __syncthreads();
        stage<P, T, W, T::columns>(queries, head.qkv(a.qkv, q0, ofQuery));
        stage<P, T, W, T::columns>(dys, head.y(a.dy, q0));
        stageTurned<P, T, W>(queriesTurned, head.qkv(a.qkv, q0, ofQuery));
        stageTurned<P, T, W>(dysTurned, head.y(a.dy, q0));
        for (int i = threadIdx.x; i < T::columns; i += T::threads) {
            lse[i] = q0 + i < t ? a.lse[head.inLSE(q0 + i)] * log2e : 0;
            delta[i] = q0 + i < t ? a.delta[head.inLSE(q0 + i)] : 0;
        }
        __syncthreads();
        if (a.causal && q0 + T::columns <= mine) continue;
        float p[T::columns / 8][4] = {}, dp[T::columns / 8][4] = {};
        addRows<P, T::words>(p, keys + warp * 16 * T::stride, queries, T::stride);
#pragma unroll
        for (int j = 0; j < T::columns / 8; j++)
#pragma unroll
            for (int c = 0; c < 4; c++) {
                const int i = j * 8 + columnOfSum(c), q = q0 + i;
                const bool seen = q < t && !(a.causal && mine + rowOfSum(c) > q);
                p[j][c] = seen ? exp2f(fmaf(p[j][c], unit, -lse[i])) : 0;
            }
        addSums<P>(dv, p, dysTurned, T::turned);
        addRows<P, T::words>(dp, values + warp * 16 * T::stride, dys, T::stride);
#pragma unroll
        for (int j = 0; j < T::columns / 8; j++)
#pragma unroll
            for (int c = 0; c < 4; c++) dp[j][c] = p[j][c] * (dp[j][c] - delta[j * 8 + columnOfSum(c)]);
        addSums<P>(dk, dp, queriesTurned, T::turned);
    }
    const i64 stride = 3 * a.heads * a.width;
    store(a.dqkv + head.inQKV(mine, ofKey), stride, t - mine, (int)a.width, dk, a.scale, a.scale);
    store(a.dqkv + head.inQKV(mine, ofValue), stride, t - mine, (int)a.width, dv, 1, 1);
}

// E is what queries, keys and values are kept in.
#define TENSOR_ATTENTION(P, E, suffix, W, blocks)                                                                          \
    using attention##suffix##_args = attention_types<E>;                                                                 \
    using attention_backward_query##suffix##_args = attention_backward_types<E>;                                         \
    using attention_backward_key##suffix##_args = attention_backward_types<E>;                                           \
    KERNEL_OF(attention##suffix, (Tiles<P, W>::threads), blocks) { attend<P, W>(a); }                                      \
    KERNEL_OF(attention_backward_query##suffix, (Tiles<P, W>::threads), blocks) { attendBackwardQuery<P, W>(a); }          \
    KERNEL_OF(attention_backward_key##suffix, (Tiles<P, W>::threads), blocks) { attendBackwardKey<P, W>(a); }
TENSOR_ATTENTION(BF16, float, _bf16_64, 64, 2)
TENSOR_ATTENTION(BF16, float, _bf16_128, 128, 2)
TENSOR_ATTENTION(BF16, bf16, _bf16_64_bf16, 64, 2)
TENSOR_ATTENTION(BF16, bf16, _bf16_128_bf16, 128, 2)
TENSOR_ATTENTION(TF32, float, _tf32_64, 64, 2)
TENSOR_ATTENTION(TF32, float, _tf32_128, 128, 1)
