// Attention on tensor cores, for precisions below float32 (Dao, "FlashAttention-2", 2023): the products of attention.cuh in tiles. Scores, probabilities
// and all sums are float32; probabilities and the gradients of scores are rounded as factors of the products that follow, and go from one product to the
// next within a thread.
//
// A block has some rows of queries (or of keys), each warp some of them; the rows on the other side pass by in tiles of columns, of which one is
// on its way while the one before is multiplied. Each sum has one fixed order: one block makes the gradient of its queries, another that of its keys
// and values. Heads are padded with zeros to a width of 64 or 128.
//
// In shared memory a matrix lies by row in words of a precision (1 or 2 elements), a pitch apart: 4 words more than a row has, so that 8 rows of which 16 bytes
// are read at once lie in different banks, along the matrix or turned.

// M: a warp has so many times 16 rows; the more, the fewer words it reads from shared memory for a product. C: columns.
template <class P, int W, int M, int C> struct Tiles {
    static constexpr int words = W / P::per, pitch = words + 4; // of a row
    static constexpr int warps = words < 128 ? 4 : 2, threads = warps * warpThreads;
    static constexpr int times = M, tall = 16 * M, rows = warps * tall, columns = C; // tall: rows of a warp
    static constexpr int own = rows * pitch, other = columns * pitch;                // words of a matrix
};
template <class P, int W> using Forward = Tiles<P, W, P::per, 2048 * P::per / W>;
template <class P, int W> using Backward = Tiles<P, W, P::per == 2 && W == 64 ? 2 : 1, W / P::per < 128 ? 32 : 16>; // which has more sums to keep in registers

// Rows is some rows of a matrix, from one on; they begin at multiples of 16 bytes. What is beyond the last one, or the width, is zero.
template <class T> struct Rows {
    const T *base;
    int stride, rows, width;
    __device__ bool has(int r, int d) const { return r < rows && d < width; }
    __device__ float4 four(int r, int d) const { return has(r, d) ? fourOf(base + r * stride + d) : float4{0, 0, 0, 0}; }
    __device__ Rows from(int r) const { return {base + r * stride, stride, rows - r, width}; }
};

enum { ofQuery, ofKey, ofValue };

// Head is one head of one sample: its matrices, from a row on.
struct Head {
    i64 sample, head, t, heads, width;
    int rank; // of this block among those of the head: the first have the most to do
    template <class Args> __device__ Head(const Args &a);
    __device__ i64 inQKV(i64 row, int which) const { return (((sample * t + row) * 3 + which) * heads + head) * width; }
    __device__ i64 inY(i64 row) const { return ((sample * t + row) * heads + head) * width; }
    __device__ i64 inLSE(i64 row) const { return (sample * heads + head) * t + row; }
    template <class T> __device__ Rows<T> qkv(const T *qkv, i64 row, int which) const {
        return {qkv + inQKV(row, which), (int)(3 * heads * width), (int)(t - row), (int)width};
    }
    template <class T> __device__ Rows<T> y(const T *y, i64 row) const { return {y + inY(row), (int)(heads * width), (int)(t - row), (int)width}; }
};

// In which order blocks begin: in groups of heads with about so many blocks; in a group the first of each head, then the second of each, and so on. So in a
// causal pass those that begin last have the least to do, and the matrices of a group stay in the cache.
constexpr u32 blocksOfGroup = 768;
template <class Args> __device__ inline Head::Head(const Args &a) : t(a.t), heads(a.heads), width(a.width) {
    const u32 blocks = gridDim.x, all = gridDim.y * gridDim.z, id = (blockIdx.z * gridDim.y + blockIdx.y) * blocks + blockIdx.x;
    const u32 group = blocks < blocksOfGroup ? blocksOfGroup / blocks : 1, first = id / (group * blocks) * group;
    const u32 together = all - first < group ? all - first : group, within = id - first * blocks, which = first + within % together;
    rank = (int)(within / together), sample = which / gridDim.y, head = which % gridDim.y;
}

// fetch copies rows to shared memory, where they are seen after copyWait and a barrier: what is bf16 already some time before, as it is,
template <class P, class T, int rows> __device__ inline void fetch(u32 *tile, const Rows<bf16> &m) {
    constexpr int line = T::words / 4, apart = T::threads / line; // threads of a row, rows at once
    const int r = threadIdx.x / line, w = threadIdx.x % line * 4;
    const int left = 2 * w < m.width ? m.rows - r : 0;
    const bf16 *from = m.base + r * m.stride + 2 * w;
    tile += r * T::pitch + w;
#pragma unroll
    for (int i = 0; i < rows; i += apart, from += apart * m.stride) copyAsync(tile + i * T::pitch, (const u32 *)from, i < left);
}
// and floats at once, rounded. All loads come before the first store, so that they are under way together.
template <class P, class T, int rows> __device__ inline void fetch(u32 *tile, const Rows<float> &m) {
    constexpr int line = T::words * P::per / 4, apart = T::threads / line;
    const int r = threadIdx.x / line, d = threadIdx.x % line * 4;
    float4 v[rows / apart];
#pragma unroll
    for (int i = 0; i < rows / apart; i++) v[i] = m.four(r + i * apart, d);
#pragma unroll
    for (int i = 0; i < rows / apart; i++) P::put(tile + (r + i * apart) * T::pitch + d / P::per, v[i]);
}

// Left is the rows of a warp as a left factor.
template <class T> using Left = u32[T::times][T::words / 8][4];
template <class T> __device__ inline void load(Left<T> &x, const u32 *rows) {
    const int lane = threadIdx.x % warpThreads;
    rows += lane % 16 * T::pitch + lane / 16 * 4;
#pragma unroll
    for (int m = 0; m < T::times; m++)
#pragma unroll
        for (int w = 0; w < T::words / 8; w++) loadMatrices(x[m][w], rows + m * 16 * T::pitch + w * 8);
}

// Sums is those of a warp, 8N columns wide.
template <class T, int N> using Sums = float[T::times][N][4];

// addRows is c += the products of a warp's rows with 8N rows at b.
template <class P, class T, int N> __device__ inline void addRows(Sums<T, N> &c, const Left<T> &x, const u32 *b) {
    const int lane = threadIdx.x % warpThreads;
    b += (lane % 8 + lane / 16 * 8) * T::pitch + lane / 8 % 2 * 4;
#pragma unroll
    for (int w = 0; w < T::words / 8; w++)
#pragma unroll
        for (int j = 0; j < N; j += 2) {
            u32 y[4];
            loadMatrices(y, b + j * 8 * T::pitch + w * 8);
#pragma unroll
            for (int m = 0; m < T::times; m++) P::multiply(c[m][j], x[m][w], y[0], y[1]), P::multiply(c[m][j + 1], x[m][w], y[2], y[3]);
        }
}

// addSums is c += p times 8K rows at b; p is the sums of another product.
template <class P, class T, int K, int N> __device__ inline void addSums(Sums<T, N> &c, const Sums<T, K> &p, const u32 *b) {
#pragma unroll
    for (int k = 0; k < K; k += P::per) {
        u32 x[T::times][4];
#pragma unroll
        for (int m = 0; m < T::times; m++) P::factor(x[m], p[m][k], p[m][k + P::per - 1]);
#pragma unroll
        for (int j = 0; j < N; j += 2) {
            u32 y[4];
            P::turned(y, b, T::pitch, k * 8, j * 8);
#pragma unroll
            for (int m = 0; m < T::times; m++) P::multiply(c[m][j], x[m], y[0], y[1]), P::multiply(c[m][j + 1], x[m], y[2], y[3]);
        }
    }
}

// hideKeys makes scores -infinity of keys from k0 on that are none, or come more than so far after the query.
template <class T, int N> __device__ inline void hideKeys(Sums<T, N> &s, int k0, int t, int query, int far) {
    if (k0 + 8 * N <= min(t, query + far + 1)) return;
#pragma unroll
    for (int m = 0; m < T::times; m++)
#pragma unroll
        for (int c = 0; c < 4; c++) {
            const int left = min(t, query + far + 1 + m * 16 + rowOfSum(c)) - k0 - columnOfSum(c);
#pragma unroll
            for (int j = 0; j < N; j++) s[m][j][c] = j * 8 < left ? s[m][j][c] : -INFINITY;
        }
}

constexpr float log2e = 1.44269504088896341f; // powers of 2 are what the hardware has

// store writes 16 rows of sums, the two of each that a thread has times f0 and f1.
template <int N, class E> __device__ inline void store(E *to, i64 stride, int rows, int width, const float (&sum)[N][4], float f0, float f1) {
    const float f[2] = {f0, f1};
#pragma unroll
    for (int r = 0; r < 2; r++) {
        E *const line = to + rowOfSum(2 * r) * stride;
        if (rowOfSum(2 * r) >= rows) continue;
#pragma unroll
        for (int j = 0; j < N; j++)
            if (const int d = j * 8 + columnOfSum(0); d < width) put(line + d, Few<2>{{sum[j][2 * r] * f[r], sum[j][2 * r + 1] * f[r]}});
    }
}

// soften makes probabilities of the scores p, but for their sum over all keys: powers of 2 of how far each is below the largest so far, in units. sum and out, which were
// made with the largest before, shrink.
template <class T, int N, int D> __device__ inline void soften(Sums<T, N> &p, float unit, float (&top)[T::times][2], float (&sum)[T::times][2], Sums<T, D> &out) {
#pragma unroll
    for (int m = 0; m < T::times; m++)
#pragma unroll
        for (int r = 0; r < 2; r++) {
            float high = -INFINITY;
#pragma unroll
            for (int j = 0; j < N; j++) high = fmaxf(high, fmaxf(p[m][j][2 * r], p[m][j][2 * r + 1]));
            for (int lane = 1; lane < 4; lane *= 2) high = fmaxf(high, __shfl_xor_sync(0xffffffffu, high, lane));
            high = fmaxf(top[m][r], high * unit);
            const float shrink = powerOf2(top[m][r] - high);
            top[m][r] = high, sum[m][r] *= shrink;
#pragma unroll
            for (int j = 0; j < D; j++) out[m][j][2 * r] *= shrink, out[m][j][2 * r + 1] *= shrink;
#pragma unroll
            for (int j = 0; j < N; j++)
#pragma unroll
                for (int c = 2 * r; c < 2 * r + 2; c++) p[m][j][c] = powerOf2(fmaf(p[m][j][c], unit, -high)), sum[m][r] += p[m][j][c];
        }
}

template <class P, int W, class E> __device__ inline void attend(const attention_types<E> &a) {
    using T = Forward<P, W>;
    SHARED_STAGES(shared);
    u32 *const queries = shared, *const stages = queries + T::own;
    const Head head(a);
    const int t = (int)a.t, warp = threadIdx.x / warpThreads;
    const int first = ((int)gridDim.x - 1 - head.rank) * T::rows, mine = first + warp * T::tall;
    const int far = a.causal ? 0 : t, last = min(t, first + T::rows + far); // far: how much later than a query a key may be
    const int end = mine < t ? mine + T::tall + far : 0;                    // of what this warp's queries see
    const Rows<E> keys = head.qkv(a.qkv, 0, ofKey), values = head.qkv(a.qkv, 0, ofValue);
    auto get = [&](int k0) {
        u32 *to = stages + k0 / T::columns % 2 * 2 * T::other;
        if (k0 < last) fetch<P, T, T::columns>(to, keys.from(k0)), fetch<P, T, T::columns>(to + T::other, values.from(k0));
        copyCommit();
    };
    fetch<P, T, T::rows>(queries, head.qkv(a.qkv, first, ofQuery));
    get(0);
    float out[T::times][W / 8][4] = {}, top[T::times][2], sum[T::times][2] = {};
    for (int m = 0; m < T::times; m++) top[m][0] = top[m][1] = -INFINITY;
    for (int k0 = 0; k0 < last; k0 += T::columns) {
        copyWait<0>();
        __syncthreads();      // this tile is there, and everyone is done with the one before,
        get(k0 + T::columns); // in whose place the next one goes
        if (k0 >= end) continue;
        const u32 *tile = stages + k0 / T::columns % 2 * 2 * T::other;
        Left<T> x;
        load<T>(x, queries + warp * T::tall * T::pitch);
        Sums<T, T::columns / 8> p = {};
        addRows<P, T>(p, x, tile);
        hideKeys<T>(p, k0, t, mine, far);
        soften<T>(p, a.scale * log2e, top, sum, out);
        addSums<P, T>(out, p, tile + T::other);
    }
#pragma unroll
    for (int m = 0; m < T::times; m++) {
        const int row = mine + m * 16;
#pragma unroll
        for (int r = 0; r < 2; r++) {
            for (int lane = 1; lane < 4; lane *= 2) sum[m][r] += __shfl_xor_sync(0xffffffffu, sum[m][r], lane);
            const int q = row + rowOfSum(2 * r);
            if (threadIdx.x % 4 == 0 && q < t) a.lse[head.inLSE(q)] = fmaf(top[m][r], 1 / log2e, logf(sum[m][r]));
        }
        store(a.y + head.inY(row), a.heads * a.width, t - row, (int)a.width, out[m], 1 / sum[m][0], 1 / sum[m][1]);
    }
}

// deltaOf is dy . y of a row, which is the sum over k of p(q, k) * (dy(q) . v(k)). The four threads of the row share it.
template <int W, class E> __device__ inline float deltaOf(const Rows<E> &y, const Rows<E> &dy, int row) {
    float sum = 0;
#pragma unroll
    for (int d = 0; d < W; d += 16) {
        const float4 u = y.four(row, d + threadIdx.x % 4 * 4), v = dy.four(row, d + threadIdx.x % 4 * 4);
        sum = fmaf(u.w, v.w, fmaf(u.z, v.z, fmaf(u.y, v.y, fmaf(u.x, v.x, sum))));
    }
    for (int lane = 1; lane < 4; lane *= 2) sum += __shfl_xor_sync(0xffffffffu, sum, lane);
    return sum;
}

// The gradient of the queries of a block, and delta for what comes after.
template <class P, int W, class E> __device__ inline void attendBackwardQuery(const attention_backward_types<E> &a) {
    using T = Backward<P, W>;
    SHARED_STAGES(shared);
    u32 *const queries = shared, *const dys = queries + T::own, *const stages = dys + T::own;
    const Head head(a);
    const int t = (int)a.t, own = threadIdx.x / warpThreads * T::tall; // own: the first row of this warp in the block
    const int first = ((int)gridDim.x - 1 - head.rank) * T::rows, mine = first + own;
    const int far = a.causal ? 0 : t, last = min(t, first + T::rows + far); // far: how much later than a query a key may be
    const int end = mine < t ? mine + T::tall + far : 0;                    // of what this warp's queries see
    const Rows<E> keys = head.qkv(a.qkv, 0, ofKey), values = head.qkv(a.qkv, 0, ofValue);
    auto get = [&](int k0) {
        u32 *to = stages + k0 / T::columns % 2 * 2 * T::other;
        if (k0 < last) fetch<P, T, T::columns>(to, keys.from(k0)), fetch<P, T, T::columns>(to + T::other, values.from(k0));
        copyCommit();
    };
    fetch<P, T, T::rows>(queries, head.qkv(a.qkv, first, ofQuery));
    fetch<P, T, T::rows>(dys, head.y(a.dy, first));
    copyCommit();
    get(0);
    float lse[T::times][2], delta[T::times][2];
#pragma unroll
    for (int m = 0; m < T::times; m++)
#pragma unroll
        for (int r = 0; r < 2; r++) {
            const int q = mine + m * 16 + rowOfSum(2 * r);
            lse[m][r] = q < t ? a.lse[head.inLSE(q)] * log2e : 0, delta[m][r] = deltaOf<W>(head.y(a.y, 0), head.y(a.dy, 0), q);
            if (threadIdx.x % 4 == 0 && q < t) a.delta[head.inLSE(q)] = delta[m][r];
        }
    copyWait<1>();
    __syncthreads();
    Left<T> x, dy;
    load<T>(x, queries + own * T::pitch), load<T>(dy, dys + own * T::pitch);
    float out[T::times][W / 8][4] = {};
    for (int k0 = 0; k0 < last; k0 += T::columns) {
        copyWait<0>();
        __syncthreads();
        get(k0 + T::columns);
        if (k0 >= end) continue;
        const u32 *tile = stages + k0 / T::columns % 2 * 2 * T::other;
        Sums<T, T::columns / 8> s = {}, dp = {};
        addRows<P, T>(s, x, tile);
        addRows<P, T>(dp, dy, tile + T::other);
        hideKeys<T>(s, k0, t, mine, far);
#pragma unroll
        for (int m = 0; m < T::times; m++)
#pragma unroll
            for (int j = 0; j < T::columns / 8; j++)
#pragma unroll
                for (int c = 0; c < 4; c++) s[m][j][c] = powerOf2(fmaf(s[m][j][c], a.scale * log2e, -lse[m][c / 2])) * (dp[m][j][c] - delta[m][c / 2]);
        addSums<P, T>(out, s, tile);
    }
#pragma unroll
    for (int m = 0; m < T::times; m++)
        store(a.dqkv + head.inQKV(mine + m * 16, ofQuery), 3 * a.heads * a.width, t - mine - m * 16, (int)a.width, out[m], a.scale, a.scale);
}

// addKeys adds to the gradients of a warp's keys and values what some queries make of them; tile is the queries, the gradients of their outputs, and lse and delta of each.
// after: by how much the first key is later than what the first query may see, so that all of them may see it if it is not above 0.
template <class P, class T, int N> __device__ inline void addKeys(Sums<T, N> &dk, Sums<T, N> &dv, const u32 *tile, const u32 *keys, const u32 *values, float unit, int after) {
    constexpr int C = T::columns / 8;
    const float4 *of = (const float4 *)(tile + 2 * T::other) + threadIdx.x % 4; // two queries, those of sums 0 and 1
    Left<T> x;
    load<T>(x, keys);
    Sums<T, C> p = {}, dp = {};
    addRows<P, T>(p, x, tile);
#pragma unroll
    for (int j = 0; j < C; j++) {
        const float4 two = of[j * 4];
#pragma unroll
        for (int m = 0; m < T::times; m++)
#pragma unroll
            for (int c = 0; c < 4; c++) p[m][j][c] = powerOf2(fmaf(p[m][j][c], unit, c % 2 ? -two.z : -two.x));
    }
    if (after + T::tall > 1) // of some key some query comes before it
#pragma unroll
        for (int m = 0; m < T::times; m++)
#pragma unroll
            for (int j = 0; j < C; j++)
#pragma unroll
                for (int c = 0; c < 4; c++)
                    if (after + m * 16 + rowOfSum(c) > j * 8 + columnOfSum(c)) p[m][j][c] = 0;
    addSums<P, T>(dv, p, tile + T::other);
    load<T>(x, values);
    addRows<P, T>(dp, x, tile + T::other);
#pragma unroll
    for (int j = 0; j < C; j++) {
        const float4 two = of[j * 4];
#pragma unroll
        for (int m = 0; m < T::times; m++)
#pragma unroll
            for (int c = 0; c < 4; c++) dp[m][j][c] = p[m][j][c] * (dp[m][j][c] - (c % 2 ? two.w : two.y));
    }
    addSums<P, T>(dk, dp, tile);
}

// The gradients of the keys and values of a block, from whose side everything is turned: rows are keys, columns queries.
template <class P, int W, class E> __device__ inline void attendBackwardKey(const attention_backward_types<E> &a) {
    using T = Backward<P, W>;
    constexpr int stage = 2 * T::other + 2 * T::columns;
    SHARED_STAGES(shared);
    u32 *const keys = shared, *const values = keys + T::own, *const stages = values + T::own;
    const Head head(a);
    const int t = (int)a.t, own = threadIdx.x / warpThreads * T::tall, first = head.rank * T::rows, mine = first + own;
    const int far = a.causal ? 0 : t, begin = a.causal ? first : 0;
    const Rows<E> queries = head.qkv(a.qkv, 0, ofQuery), dys = head.y(a.dy, 0);
    float2 next = {0, 0}; // lse and delta of one of the queries that are on their way
    auto get = [&](int q0) {
        u32 *to = stages + q0 / T::columns % 2 * stage;
        if (q0 < t) fetch<P, T, T::columns>(to, queries.from(q0)), fetch<P, T, T::columns>(to + T::other, dys.from(q0));
        copyCommit();
        const int q = q0 + threadIdx.x;
        next = {0, 0};
        if (threadIdx.x < T::columns && q < t) next = {a.lse[head.inLSE(q)] * log2e, a.delta[head.inLSE(q)]};
    };
    auto keep = [&](int q0) {
        if (threadIdx.x < T::columns) ((float2 *)(stages + q0 / T::columns % 2 * stage + 2 * T::other))[threadIdx.x] = next;
    };
    fetch<P, T, T::rows>(keys, head.qkv(a.qkv, first, ofKey));
    fetch<P, T, T::rows>(values, head.qkv(a.qkv, first, ofValue));
    get(begin), keep(begin);
    float dk[T::times][W / 8][4] = {}, dv[T::times][W / 8][4] = {};
    for (int q0 = begin; q0 < t; q0 += T::columns) {
        copyWait<0>();
        __syncthreads();
        get(q0 + T::columns);
        if (mine < t && q0 + T::columns + far > mine) {
            const u32 *tile = stages + q0 / T::columns % 2 * stage;
            addKeys<P, T>(dk, dv, tile, keys + own * T::pitch, values + own * T::pitch, a.scale * log2e, mine - q0 - far);
        }
        keep(q0 + T::columns);
    }
    const i64 stride = 3 * a.heads * a.width;
#pragma unroll
    for (int m = 0; m < T::times; m++) {
        const int row = mine + m * 16;
        store(a.dqkv + head.inQKV(row, ofKey), stride, t - row, (int)a.width, dk[m], a.scale, a.scale);
        store(a.dqkv + head.inQKV(row, ofValue), stride, t - row, (int)a.width, dv[m], 1, 1);
    }
}

// E is what queries, keys and values are kept in; the last are how many blocks of each shall fit a processor.
#define TENSOR_ATTENTION(P, E, suffix, W, forward, query, key)                                                               \
    using attention##suffix##_args = attention_types<E>;                                                                     \
    using attention_backward_query##suffix##_args = attention_backward_types<E>;                                             \
    using attention_backward_key##suffix##_args = attention_backward_types<E>;                                               \
    KERNEL_OF(attention##suffix, (Forward<P, W>::threads), forward) { attend<P, W>(a); }                                     \
    KERNEL_OF(attention_backward_query##suffix, (Backward<P, W>::threads), query) { attendBackwardQuery<P, W>(a); }          \
    KERNEL_OF(attention_backward_key##suffix, (Backward<P, W>::threads), key) { attendBackwardKey<P, W>(a); }
TENSOR_ATTENTION(BF16, float, _bf16_64, 64, 2, 2, 2)
TENSOR_ATTENTION(BF16, float, _bf16_128, 128, 2, 2, 2)
TENSOR_ATTENTION(BF16, bf16, _bf16_64_bf16, 64, 3, 2, 2)
TENSOR_ATTENTION(BF16, bf16, _bf16_128_bf16, 128, 2, 2, 2)
TENSOR_ATTENTION(TF32, float, _tf32_64, 64, 2, 2, 2)
TENSOR_ATTENTION(TF32, float, _tf32_128, 128, 2, 2, 2)
