// Attention without the matrix of scores: tiles of keys pass by, and a row keeps the maximum and the sum of what it has
// seen (Dao et al., "FlashAttention", 2022; the online softmax of Milakov and Gimelshein, 2018). Backward finds the
// probabilities again from LSE. One block is one tile of queries (or keys) of one head of one sample; a warp works
// on a row at a time, its lanes share the width.

constexpr int keysPerTile = 32;  // a lane per key
constexpr int maxHeadWidth = 256; // of a head: 8 elements of each lane
constexpr int rowsPerBlock = blockThreads / warpThreads;

template <class T> struct attention_types { T *y; const T *qkv; float *lse; i64 n, t, heads, width, causal; float scale; };

template <class T> __device__ inline i64 qkvAt(const attention_types<T> &a, i64 s, i64 t, int which, i64 h) {
    return (((s * a.t + t) * 3 + which) * a.heads + h) * a.width;
}

// dot is the product of two rows, the same in all lanes of the warp.
template <class T> __device__ inline float dot(const T *x, const T *y, i64 width) {
    float sum = 0;
    for (i64 i = threadIdx.x % warpThreads; i < width; i += warpThreads) sum = fmaf((float)x[i], (float)y[i], sum);
    return warpSum(sum);
}

// Blocks: (rows of queries, heads, samples). Keys and values of a tile are in shared memory.
KERNELS(attention, blockThreads) {
    __shared__ float ks[keysPerTile][maxHeadWidth + 1], qs[rowsPerBlock][maxHeadWidth];
    const int lane = threadIdx.x % warpThreads, warp = threadIdx.x / warpThreads, width = (int)a.width;
    const i64 s = blockIdx.z, h = blockIdx.y, first = (i64)blockIdx.x * rowsPerBlock, q = first + warp;
    const bool live = q < a.t;
    if (live)
        for (int i = lane; i < width; i += warpThreads) qs[warp][i] = a.qkv[qkvAt(a, s, q, 0, h) + i];
    float out[maxHeadWidth / warpThreads] = {}, top = -INFINITY, sum = 0;
    const i64 last = a.causal ? (first + rowsPerBlock < a.t ? first + rowsPerBlock : a.t) : a.t;
    for (i64 k0 = 0; k0 < last; k0 += keysPerTile) {
        __syncthreads();
        for (int e = threadIdx.x; e < keysPerTile * width; e += blockThreads)
            ks[e / width][e % width] = k0 + e / width < a.t ? a.qkv[qkvAt(a, s, k0 + e / width, 1, h) + e % width] : 0.0f;
        __syncthreads();
        i64 k = k0 + lane;
        float score = -INFINITY;
        if (live && k < a.t && !(a.causal && k > q)) {
            score = 0;
            for (int i = 0; i < width; i++) score = fmaf(qs[warp][i], ks[lane][i], score);
            score *= a.scale;
        }
        float m = fmaxf(top, warpMax(score)), p = score == -INFINITY ? 0.0f : expf(score - m);
        float shrink = top == -INFINITY ? 0.0f : expf(top - m);
        sum = sum * shrink + warpSum(p), top = m;
        for (int c = 0; c * warpThreads < width; c++) out[c] *= shrink;
        for (int j = 0; j < keysPerTile && k0 + j < last; j++) {
            float pj = __shfl_sync(0xffffffffu, p, j);
            if (pj == 0) continue;
            const T *v = a.qkv + qkvAt(a, s, k0 + j, 2, h);
            for (int c = 0; c * warpThreads < width; c++)
                if (c * warpThreads + lane < width) out[c] = fmaf(pj, (float)v[c * warpThreads + lane], out[c]);
        }
    }
    if (!live) return;
    T *y = a.y + ((s * a.t + q) * a.heads + h) * a.width;
    for (int c = 0; c * warpThreads + lane < width; c++) y[c * warpThreads + lane] = out[c] / sum;
    if (lane == 0) a.lse[(s * a.heads + h) * a.t + q] = top + logf(sum);
}

// delta[s][h][q] = sum over k of p(q, k) * (dy(q) . v(k)), which is dy(q) . y(q).
template <class T> struct attention_backward_types { T *dqkv; float *delta; const T *qkv, *dy, *y; const float *lse; i64 n, t, heads, width, causal; float scale; };

template <class T> __device__ inline i64 rowAt(const attention_backward_types<T> &a, i64 s, i64 t, int which, i64 h) {
    return (((s * a.t + t) * 3 + which) * a.heads + h) * a.width;
}

template <class T> __device__ inline const T *dyAt(const attention_backward_types<T> &a, i64 s, i64 t, i64 h) {
    return a.dy + ((s * a.t + t) * a.heads + h) * a.width;
}

// The gradient of the queries: two passes over the keys, for delta and for the gradient. A warp per query.
template <class T> using attention_backward_query_types = attention_backward_types<T>;
KERNELS(attention_backward_query, blockThreads) {
    const int lane = threadIdx.x % warpThreads, warp = threadIdx.x / warpThreads, width = (int)a.width;
    const i64 s = blockIdx.z, h = blockIdx.y, q = (i64)blockIdx.x * rowsPerBlock + warp;
    if (q >= a.t) return;
    const T *mine = a.qkv + rowAt(a, s, q, 0, h), *dy = dyAt(a, s, q, h);
    const float lse = a.lse[(s * a.heads + h) * a.t + q];
    const i64 last = a.causal ? q + 1 : a.t;
    float delta = 0;
    for (i64 k = 0; k < last; k++) {
        float p = expf(dot(mine, a.qkv + rowAt(a, s, k, 1, h), width) * a.scale - lse);
        delta = fmaf(p, dot(dy, a.qkv + rowAt(a, s, k, 2, h), width), delta);
    }
    float out[maxHeadWidth / warpThreads] = {};
    for (i64 k = 0; k < last; k++) {
        const T *key = a.qkv + rowAt(a, s, k, 1, h);
        float p = expf(dot(mine, key, width) * a.scale - lse);
        float ds = p * (dot(dy, a.qkv + rowAt(a, s, k, 2, h), width) - delta) * a.scale;
        for (int c = 0; c * warpThreads + lane < width; c++) out[c] = fmaf(ds, (float)key[c * warpThreads + lane], out[c]);
    }
    for (int c = 0; c * warpThreads + lane < width; c++) a.dqkv[rowAt(a, s, q, 0, h) + c * warpThreads + lane] = out[c];
    if (lane == 0) a.delta[(s * a.heads + h) * a.t + q] = delta;
}

// The gradients of keys and values, by the position of the query. A warp per key.
template <class T> using attention_backward_key_types = attention_backward_types<T>;
KERNELS(attention_backward_key, blockThreads) {
    const int lane = threadIdx.x % warpThreads, warp = threadIdx.x / warpThreads, width = (int)a.width;
    const i64 s = blockIdx.z, h = blockIdx.y, k = (i64)blockIdx.x * rowsPerBlock + warp;
    if (k >= a.t) return;
    const T *key = a.qkv + rowAt(a, s, k, 1, h), *v = a.qkv + rowAt(a, s, k, 2, h);
    float dk[maxHeadWidth / warpThreads] = {}, dv[maxHeadWidth / warpThreads] = {};
    for (i64 q = a.causal ? k : 0; q < a.t; q++) {
        const T *query = a.qkv + rowAt(a, s, q, 0, h), *dy = dyAt(a, s, q, h);
        i64 row = (s * a.heads + h) * a.t + q;
        float p = expf(dot(query, key, width) * a.scale - a.lse[row]);
        float ds = p * (dot(dy, v, width) - a.delta[row]) * a.scale;
        for (int c = 0; c * warpThreads + lane < width; c++) {
            int i = c * warpThreads + lane;
            dk[c] = fmaf(ds, (float)query[i], dk[c]), dv[c] = fmaf(p, (float)dy[i], dv[c]);
        }
    }
    for (int c = 0; c * warpThreads + lane < width; c++) {
        int i = c * warpThreads + lane;
        a.dqkv[rowAt(a, s, k, 1, h) + i] = dk[c], a.dqkv[rowAt(a, s, k, 2, h) + i] = dv[c];
    }
}
