// Matrix products and convolutions: one tiled kernel over problems that say where an element is (implicit GEMM, as in
// Chetlur et al., "cuDNN: efficient primitives for deep learning", 2014).
//
// C (M, N) is cut into tiles of BM x BN, one block each; the block goes through K in slices of BK, which it copies to
// shared memory while it multiplies the slice before (the next slice waits in registers). A thread adds up TM x TN
// elements, each in one chain from k = 0 upwards with fmaf: so an element does not depend on M, N or the tile.
//
// Long K with few tiles is cut into parts (blockIdx.z), which gemm_parts adds in order; their number is a function of M, N, K.

constexpr int sliceK = 8;

template <class Problem, int BM, int BN>
__device__ inline void tile(const Problem &p, float *partial, i64 partK) {
    constexpr int TM = BM / 16, TN = BN / 16;               // 16 x 16 threads
    constexpr int LA = BM * sliceK / blockThreads, LB = BN * sliceK / blockThreads; // elements that a thread copies
    static_assert(LA >= 1 && LB >= 1, "too small a tile");
    __shared__ float as[2][sliceK][BM + 4], bs[2][sliceK][BN + 4];
    const int tid = threadIdx.x, tx = tid % 16, ty = tid / 16;
    const i64 m0 = (i64)blockIdx.x * BM, n0 = (i64)blockIdx.y * BN;
    const i64 k0 = (i64)blockIdx.z * partK, k1 = k0 + partK < p.K ? k0 + partK : p.K;

    // Which elements this thread copies: neighbours in memory go to neighbouring threads.
    typename Problem::Row rows[LA];
    typename Problem::Column columns[LB];
    int am[LA], ak[LA], bn[LB], bk[LB];
    for (int i = 0; i < LA; i++) {
        int e = tid + i * blockThreads;
        am[i] = Problem::alongKA ? e / sliceK : e % BM, ak[i] = Problem::alongKA ? e % sliceK : e / BM;
        rows[i] = p.row(m0 + am[i]);
    }
    for (int i = 0; i < LB; i++) {
        int e = tid + i * blockThreads;
        bn[i] = Problem::alongKB ? e / sliceK : e % BN, bk[i] = Problem::alongKB ? e % sliceK : e / BN;
        columns[i] = p.column(n0 + bn[i]);
    }
    float fa[LA], fb[LB], sum[TM][TN];
    for (int i = 0; i < TM; i++)
        for (int j = 0; j < TN; j++) sum[i][j] = partial ? 0.0f : p.start(n0 + tx + j * 16);

    auto fetch = [&](i64 k) {
        for (int i = 0; i < LA; i++) fa[i] = k + ak[i] < k1 ? p.a(rows[i], k + ak[i]) : 0.0f;
        for (int i = 0; i < LB; i++) fb[i] = k + bk[i] < k1 ? p.b(k + bk[i], columns[i]) : 0.0f;
    };
    auto put = [&](int s) {
        for (int i = 0; i < LA; i++) as[s][ak[i]][am[i]] = fa[i];
        for (int i = 0; i < LB; i++) bs[s][bk[i]][bn[i]] = fb[i];
    };
    fetch(k0);
    put(0);
    __syncthreads();
    int s = 0;
    for (i64 k = k0; k < k1; k += sliceK, s ^= 1) {
        if (k + sliceK < k1) fetch(k + sliceK);
#pragma unroll
        for (int kk = 0; kk < sliceK; kk++) {
            float x[TM], y[TN];
            for (int i = 0; i < TM; i++) x[i] = as[s][kk][ty + i * 16];
            for (int j = 0; j < TN; j++) y[j] = bs[s][kk][tx + j * 16];
            for (int i = 0; i < TM; i++)
                for (int j = 0; j < TN; j++) sum[i][j] = fmaf(x[i], y[j], sum[i][j]);
        }
        if (k + sliceK < k1) put(s ^ 1);
        __syncthreads();
    }
    for (int i = 0; i < TM; i++)
        for (int j = 0; j < TN; j++) {
            i64 m = m0 + ty + i * 16, n = n0 + tx + j * 16;
            if (m >= p.M || n >= p.N) continue;
            if (partial) partial[((i64)blockIdx.z * p.M + m) * p.N + n] = sum[i][j];
            else p.store(m, n, sum[i][j]);
        }
}

// Every product comes in a large tile and a small one.
#define PRODUCT(name, Problem)                                                                        \
    KERNEL(name##_large, blockThreads) { tile<Problem, 128, 128>(Problem(a), a.partial, a.partK); }   \
    KERNEL(name##_small, blockThreads) { tile<Problem, 32, 32>(Problem(a), a.partial, a.partK); }

// MatMul. Rows of A and columns of B beyond the edge read element 0, and are not stored.
struct matmul_args { const float *a, *b; float *c; const float *bias; float *partial; i64 M, N, K, act, partK; };

template <bool transA, bool transB> struct MatMul {
    static constexpr bool alongKA = !transA, alongKB = transB;
    const float *pa, *pb, *bias;
    float *c;
    i64 M, N, K;
    int act;
    __device__ explicit MatMul(const matmul_args &g) : pa(g.a), pb(g.b), bias(g.bias), c(g.c), M(g.M), N(g.N), K(g.K), act((int)g.act) {}
    using Row = i64;
    using Column = i64;
    __device__ Row row(i64 m) const { return m >= M ? 0 : transA ? m : m * K; }
    __device__ Column column(i64 n) const { return n >= N ? 0 : transB ? n * K : n; }
    __device__ float a(Row r, i64 k) const { return transA ? pa[k * M + r] : pa[r + k]; }
    __device__ float b(i64 k, Column n) const { return transB ? pb[n + k] : pb[k * N + n]; }
    __device__ float start(i64 n) const { return bias && n < N ? bias[n] : 0.0f; }
    __device__ void store(i64 m, i64 n, float v) const { c[m * N + n] = activate(v, act); }
};

using matmul_nn_large_args = matmul_args; using matmul_nn_small_args = matmul_args;
using matmul_nt_large_args = matmul_args; using matmul_nt_small_args = matmul_args;
using matmul_tn_large_args = matmul_args; using matmul_tn_small_args = matmul_args;
using MatMulNN = MatMul<false, false>;
using MatMulNT = MatMul<false, true>;
using MatMulTN = MatMul<true, false>;
PRODUCT(matmul_nn, MatMulNN)
PRODUCT(matmul_nt, MatMulNT)
PRODUCT(matmul_tn, MatMulTN)

// Convolutions: y (n, oh, ow, Out), x (n, H, W, C), w (Out, C, KH, KW). ohw and so on are numbers of pixels.
struct conv_args {
    const float *x, *w, *dy, *bias;
    float *out, *partial;
    i64 n, C, H, W, Out, KH, KW, stride, pad, OH, OW, act, partK;
};

struct Place { i64 sample; int h, w; }; // the first pixel of a window, or none with sample < 0

// The output: M = (n, oh, ow), N = Out, K = (kh, kw, c).
struct ConvForward {
    static constexpr bool alongKA = true, alongKB = false;
    conv_args g;
    i64 M, N, K;
    __device__ explicit ConvForward(const conv_args &a) : g(a), M(a.n * a.OH * a.OW), N(a.Out), K(a.KH * a.KW * a.C) {}
    using Row = Place;
    using Column = i64;
    __device__ Row row(i64 m) const {
        if (m >= M) return {-1, 0, 0};
        int o = (int)(m % (g.OH * g.OW));
        return {m / (g.OH * g.OW), (int)(o / g.OW * g.stride - g.pad), (int)(o % g.OW * g.stride - g.pad)};
    }
    __device__ Column column(i64 n) const { return n < N ? n : 0; }
    __device__ float a(const Row &r, i64 k) const {
        i64 tap, c;
        split(k, g.C, tap, c);
        const int t = (int)tap, h = r.h + t / (int)g.KW, w = r.w + t % (int)g.KW;
        if (r.sample < 0 || h < 0 || h >= g.H || w < 0 || w >= g.W) return 0.0f;
        return g.x[((r.sample * g.H + h) * g.W + w) * g.C + c];
    }
    __device__ float b(i64 k, Column n) const {
        i64 tap, c;
        split(k, g.C, tap, c);
        return g.w[(n * g.C + c) * g.KH * g.KW + tap];
    }
    __device__ float start(i64 n) const { return g.bias && n < N ? g.bias[n] : 0.0f; }
    __device__ void store(i64 m, i64 n, float v) const { g.out[m * N + n] = activate(v, (int)g.act); }
};

// The gradient of the input: M = (n, h, w), N = C, K = (KH-1-kh, KW-1-kw, out).
struct ConvBackwardData {
    static constexpr bool alongKA = true, alongKB = false;
    conv_args g;
    i64 M, N, K;
    __device__ explicit ConvBackwardData(const conv_args &a) : g(a), M(a.n * a.H * a.W), N(a.C), K(a.KH * a.KW * a.Out) {}
    using Row = Place;
    using Column = i64;
    __device__ Row row(i64 m) const {
        if (m >= M) return {-1, 0, 0};
        int i = (int)(m % (g.H * g.W));
        return {m / (g.H * g.W), (int)(i / g.W + g.pad - g.KH + 1), (int)(i % g.W + g.pad - g.KW + 1)};
    }
    __device__ Column column(i64 n) const { return n < N ? n : 0; }
    __device__ float a(const Row &r, i64 k) const {
        i64 tap, o;
        split(k, g.Out, tap, o);
        int t = (int)tap, h = r.h + t / (int)g.KW, w = r.w + t % (int)g.KW;
        if (r.sample < 0 || h < 0 || w < 0 || h % (int)g.stride || w % (int)g.stride) return 0.0f;
        h /= (int)g.stride, w /= (int)g.stride;
        if (h >= g.OH || w >= g.OW) return 0.0f;
        return g.dy[((r.sample * g.OH + h) * g.OW + w) * g.Out + o];
    }
    __device__ float b(i64 k, Column n) const {
        i64 tap, o;
        split(k, g.Out, tap, o);
        return g.w[(o * g.C + n) * g.KH * g.KW + (g.KH * g.KW - 1 - tap)];
    }
    __device__ float start(i64) const { return 0.0f; }
    __device__ void store(i64 m, i64 n, float v) const { g.out[m * N + n] = v; }
};

// The gradient of the weights: M = Out, N = (c, kh, kw), K = (n, oh, ow).
struct ConvBackwardWeight {
    static constexpr bool alongKA = false, alongKB = false;
    conv_args g;
    i64 M, N, K;
    __device__ explicit ConvBackwardWeight(const conv_args &a) : g(a), M(a.Out), N(a.C * a.KH * a.KW), K(a.n * a.OH * a.OW) {}
    using Row = i64;
    struct Column { int c, kh, kw; };
    __device__ Row row(i64 m) const { return m < M ? m : 0; }
    __device__ Column column(i64 n) const {
        if (n >= N) return {0, 0, 0};
        int t = (int)(n % (g.KH * g.KW));
        return {(int)(n / (g.KH * g.KW)), (int)(t / g.KW - g.pad), (int)(t % g.KW - g.pad)};
    }
    __device__ float a(Row m, i64 k) const { return g.dy[k * g.Out + m]; }
    __device__ float b(i64 k, const Column &n) const {
        i64 sample, place;
        split(k, g.OH * g.OW, sample, place);
        const int o = (int)place, h = o / (int)g.OW * (int)g.stride + n.kh, w = o % (int)g.OW * (int)g.stride + n.kw;
        if (h < 0 || h >= g.H || w < 0 || w >= g.W) return 0.0f;
        return g.x[((sample * g.H + h) * g.W + w) * g.C + n.c];
    }
    __device__ float start(i64) const { return 0.0f; }
    __device__ void store(i64 m, i64 n, float v) const { g.out[m * N + n] = v; }
};

using conv_large_args = conv_args; using conv_small_args = conv_args;
using conv_backward_data_large_args = conv_args; using conv_backward_data_small_args = conv_args;
using conv_backward_weight_large_args = conv_args; using conv_backward_weight_small_args = conv_args;
PRODUCT(conv, ConvForward)
PRODUCT(conv_backward_data, ConvBackwardData)
PRODUCT(conv_backward_weight, ConvBackwardWeight)

// The parts of a long K, added in order, then what a product ends with. With half there is one part, of bf16, which is c.
struct gemm_parts_args { float *c; const float *partial, *bias; i64 M, N, parts, act, half; Second second; };
template <class T> __device__ inline void addParts(const gemm_parts_args &a) {
    T *const c = (T *)a.c;
    for (i64 i = globalThread(); i < a.M * a.N; i += globalThreads()) {
        i64 m, n;
        split(i, a.N, m, n);
        float v = a.bias ? a.bias[n] : 0.0f;
        for (i64 z = 0; z < a.parts; z++) v += ((const T *)a.partial)[z * a.M * a.N + i];
        c[i] = activate(v, (int)a.act);
        a.second.write<T>(i, c[i]);
    }
}
KERNEL(gemm_parts, blockThreads) {
    if (a.half) addParts<bf16>(a);
    else addParts<float>(a);
}
