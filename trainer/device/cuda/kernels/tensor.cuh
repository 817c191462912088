// Matrix products and convolutions on tensor cores: one main loop over operands that say where an element is (implicit GEMM).
//
// C (M, N) is cut into tiles of BM x BN, one block of 2 x 4 warps each. Slices of depthK of A and B come to shared memory by
// asynchronous copies, some stages ahead, as float32; they are rounded to the precision when a warp takes them to its registers. An element
// adds up its products 16 of k at a time, from k = 0 upwards, in float32: so it does not depend on M, N or the tile. Bias and
// activation come at the end. K is cut into parts as in gemm.cuh.
//
// In shared memory a tile lies as it does in the GPU's, along k or across, in chunks of 4 elements, which spot() shuffles so that the
// 8 (or 32) lanes that read at once touch all banks.

constexpr int depthK = 32, stages = 3;

// spot is where element (row, k) of a tile lies.
template <bool alongK, int rows> __device__ inline int spot(int row, int k) {
    if (alongK) return row * depthK + ((k / 4) ^ ((row & 1) << 2 | (row >> 1 & 3))) * 4 + k % 4;
    return k * rows + ((row / 4) ^ (k / 4 % 4 * 2)) * 4 + row % 4;
}

// four is the elements k..k+3 of a row; k is a multiple of 4.
template <bool alongK, int rows> __device__ inline float4 four(const float *tile, int row, int k) {
    if (alongK) return *(const float4 *)(tile + spot<true, rows>(row, k));
    return {tile[spot<false, rows>(row, k)], tile[spot<false, rows>(row, k + 1)], tile[spot<false, rows>(row, k + 2)], tile[spot<false, rows>(row, k + 3)]};
}

// A Loader copies slices of an operand. Of operand Op:
//
//   alongK          elements that follow one another in memory are of one row, else of one k
//   Row row(r)      what there is to know of a row, or of a k: computed once for many elements
//   Slice slice(k)
//   at(Row, Slice)  the element, or null for a zero
//   base            any address that may be read
//   vector          4 elements that follow one another are so in memory, at a multiple of 16 bytes, and all or none are there
template <class Op, int rows> struct Loader {
    static constexpr bool along = Op::alongK;
    static constexpr int chunks = rows * depthK / 4 / blockThreads;               // of a thread: the same rows in every slice
    static constexpr int across = along ? depthK / 4 : rows / 4;                  // chunks of a line
    static constexpr int known = along ? chunks : 4;
    const Op &op;
    typename Op::Row row[known];

    __device__ Loader(const Op &op, i64 first) : op(op) {
        for (int i = 0; i < known; i++) row[i] = op.row(first + (along ? line(i) : inLine() + i));
    }
    __device__ static int inLine() { return (int)threadIdx.x % across * 4; }
    __device__ static int line(int i) { return (int)threadIdx.x / across + i * (blockThreads / across); }

    __device__ void fetch(float *tile, i64 k0, i64 k1) const {
#pragma unroll
        for (int i = 0; i < chunks; i++) {
            const int r = along ? line(i) : inLine(), k = along ? inLine() : line(i);
            if (op.vector) {
                const float *p = k0 + k < k1 ? op.at(row[along ? i : 0], op.slice(k0 + k)) : nullptr;
                copyAsync<16>(tile + spot<along, rows>(r, k), p ? p : op.base, p);
                continue;
            }
#pragma unroll
            for (int j = 0; j < 4; j++) {
                const int rj = along ? r : r + j, kj = along ? k + j : k;
                const float *p = k0 + kj < k1 ? op.at(row[along ? i : j], op.slice(k0 + kj)) : nullptr;
                copyAsync<4>(tile + spot<along, rows>(rj, kj), p ? p : op.base, p);
            }
        }
    }
};

// Ends says what becomes of the sums.
struct Ends {
    float *out, *partial;
    const float *bias;
    i64 M, N, partK, K;
    int act;
};

template <class Precision, int BM, int BN, class A, class B, class Place>
__device__ inline void product(const A &a, const B &b, const Ends &e, Place place) {
    constexpr int WM = BM / 2, WN = BN / 4, FM = WM / 16, FN = WN / 8; // of a warp; and in instructions
    constexpr int stage = (BM + BN) * depthK;
    SHARED_STAGES(shared);
    const int lane = threadIdx.x % warpThreads, warp = threadIdx.x / warpThreads, g = lane / 4, t = lane % 4;
    const int wm = warp / 4 * WM, wn = warp % 4 * WN;
    const i64 m0 = (i64)blockIdx.x * BM, n0 = (i64)blockIdx.y * BN;
    const i64 k0 = (i64)blockIdx.z * e.partK, k1 = k0 + e.partK < e.K ? k0 + e.partK : e.K;
    const int slices = (int)((k1 - k0 + depthK - 1) / depthK);

    const Loader<A, BM> la(a, m0);
    const Loader<B, BN> lb(b, n0);
    auto load = [&](int i) {
        float *to = shared + i % stages * stage;
        if (i < slices) la.fetch(to, k0 + (i64)i * depthK, k1), lb.fetch(to + BM * depthK, k0 + (i64)i * depthK, k1);
        copyCommit(); // an empty group, too: copyWait counts them
    };
    float sum[FM][FN][4] = {};
    for (int i = 1 - stages; i < slices; i++) {
        if (i >= 0) {
            copyWait<stages - 2>();
            __syncthreads(); // slice i is there, and everyone is done with slice i - 1,
        }
        load(i + stages - 1); // in whose place this one goes
        if (i < 0) continue;
        const float *as = shared + i % stages * stage, *bs = as + BM * depthK;
#pragma unroll
        for (int k = 0; k < depthK; k += 16) {
            typename Precision::Four fb[FN];
#pragma unroll
            for (int j = 0; j < FN; j++) fb[j] = Precision::round(four<B::alongK, BN>(bs, wn + j * 8 + g, k + 4 * t));
#pragma unroll
            for (int f = 0; f < FM; f++) {
                typename Precision::Four top = Precision::round(four<A::alongK, BM>(as, wm + f * 16 + g, k + 4 * t));
                typename Precision::Four bottom = Precision::round(four<A::alongK, BM>(as, wm + f * 16 + g + 8, k + 4 * t));
#pragma unroll
                for (int j = 0; j < FN; j++) Precision::multiply(sum[f][j], top, bottom, fb[j]);
            }
        }
    }
    copyWait<0>();
#pragma unroll
    for (int f = 0; f < FM; f++)
#pragma unroll
        for (int j = 0; j < FN; j++)
#pragma unroll
            for (int c = 0; c < 4; c++) {
                const i64 m = m0 + wm + f * 16 + g + c / 2 * 8, n = n0 + wn + j * 8 + 2 * t + c % 2;
                if (m >= e.M || n >= e.N) continue;
                const i64 at = place(m, n);
                if (e.partial) e.partial[blockIdx.z * e.M * e.N + at] = sum[f][j][c];
                else e.out[at] = activate(sum[f][j][c] + (e.bias ? e.bias[n] : 0.0f), e.act);
            }
}

// Every product comes in two precisions, and in a large tile and a small one.
#define TENSOR_PRODUCT(name, args, f)                                        \
    using name##_tf32_large_args = args; using name##_tf32_small_args = args; \
    using name##_bf16_large_args = args; using name##_bf16_small_args = args; \
    KERNEL(name##_tf32_large, blockThreads) { f<TF32, 128>(a); }             \
    KERNEL(name##_tf32_small, blockThreads) { f<TF32, 64>(a); }              \
    KERNEL(name##_bf16_large, blockThreads) { f<BF16, 128>(a); }             \
    KERNEL(name##_bf16_small, blockThreads) { f<BF16, 64>(a); }

// Dense is a matrix: element (r, k) is at r*stride + k, or across at k*stride + r.
template <bool along> struct Dense {
    static constexpr bool alongK = along;
    const float *base;
    i64 rows, stride;
    bool vector;
    using Row = const float *;
    using Slice = i64;
    __device__ Row row(i64 r) const { return r < rows ? base + (along ? r * stride : r) : nullptr; }
    __device__ Slice slice(i64 k) const { return along ? k : k * stride; }
    __device__ const float *at(Row r, Slice s) const { return r ? r + s : nullptr; }
};

enum { vectorA = 1, vectorB = 2 };

template <class Precision, int tile, bool transA, bool transB> __device__ inline void matmulTensor(const matmul_args &g) {
    Dense<!transA> a{g.a, g.M, transA ? g.M : g.K, (g.vector & vectorA) != 0};
    Dense<transB> b{g.b, g.N, transB ? g.K : g.N, (g.vector & vectorB) != 0};
    const i64 N = g.N;
    product<Precision, tile, tile>(a, b, {g.c, g.partial, g.bias, g.M, g.N, g.partK, g.K, (int)g.act}, [N](i64 m, i64 n) { return m * N + n; });
}
template <class Precision, int tile> __device__ inline void matmulNN(const matmul_args &g) { matmulTensor<Precision, tile, false, false>(g); }
template <class Precision, int tile> __device__ inline void matmulNT(const matmul_args &g) { matmulTensor<Precision, tile, false, true>(g); }
template <class Precision, int tile> __device__ inline void matmulTN(const matmul_args &g) { matmulTensor<Precision, tile, true, false>(g); }
TENSOR_PRODUCT(matmul_nn, matmul_args, matmulNN)
TENSOR_PRODUCT(matmul_nt, matmul_args, matmulNT)
TENSOR_PRODUCT(matmul_tn, matmul_args, matmulTN)

// Window is images seen through the windows of a convolution: row r is a window, one for each place of a grid (n, GH, GW); k is
// (kh, kw, c) within it. Of forward these are windows on x; of the gradient of x windows on dy, where only every stride-th pixel is
// one (apart).
struct Window {
    static constexpr bool alongK = true;
    const float *base;
    i64 rows;
    int H, W, C, GH, GW, KW, step, shiftH, shiftW, apart;
    bool vector;
    struct Row { const float *sample; int h, w; }; // null: no such row
    struct Slice { int h, w, c; };
    __device__ Row row(i64 r) const {
        if (r >= rows) return {nullptr, 0, 0};
        int pixel = (int)(r % (GH * GW));
        return {base + r / (GH * GW) * H * W * C, pixel / GW * step - shiftH, pixel % GW * step - shiftW};
    }
    __device__ Slice slice(i64 k) const {
        int tap = (int)k / C;
        return {tap / KW, tap % KW, (int)k % C};
    }
    __device__ const float *at(const Row &r, const Slice &s) const {
        int h = r.h + s.h, w = r.w + s.w;
        if (!r.sample || h < 0 || w < 0) return nullptr;
        if (apart > 1) {
            if (h % apart || w % apart) return nullptr;
            h /= apart, w /= apart;
        }
        return h < H && w < W ? r.sample + ((i64)h * W + w) * C + s.c : nullptr;
    }
};

// Turned is windows with rows and k changed over: of the gradient of the weights, which sums over the places of windows.
struct Turned {
    static constexpr bool alongK = false;
    const Window of;
    const float *base;
    i64 columns;
    bool vector;
    struct Row { Window::Slice tap; bool is; };
    using Slice = Window::Row;
    __device__ Row row(i64 r) const { return {of.slice(r), r < columns}; }
    __device__ Slice slice(i64 k) const { return of.row(k); }
    __device__ const float *at(const Row &r, const Slice &s) const { return r.is ? of.at(s, r.tap) : nullptr; }
};

// Flipped is weights (Out, KH, KW, C), of which the gradient of x sums over (KH-1-kh, KW-1-kw, out).
struct Flipped {
    static constexpr bool alongK = false;
    const float *base;
    int C, taps, outs;
    bool vector;
    using Row = int;
    using Slice = const float *;
    __device__ Row row(i64 r) const { return r < C ? (int)r : -1; }
    __device__ Slice slice(i64 k) const { return base + ((k % outs) * taps + taps - 1 - k / outs) * C; }
    __device__ const float *at(Row r, Slice s) const { return r < 0 ? nullptr : s + r; }
};

// Convolutions. Here w is (Out, KH, KW, C).
__device__ inline Window windowsOnX(const conv_args &g, bool vector) {
    return {g.x, g.n * g.OH * g.OW, (int)g.H, (int)g.W, (int)g.C, (int)g.OH, (int)g.OW, (int)g.KW, (int)g.stride, (int)g.pad, (int)g.pad, 1, vector};
}

template <class Precision, int tile> __device__ inline void convTensor(const conv_args &g) {
    const i64 K = g.KH * g.KW * g.C, N = g.Out;
    product<Precision, tile, tile>(windowsOnX(g, (g.vector & vectorA) != 0), Dense<true>{g.w, N, K, (g.vector & vectorB) != 0},
        {g.out, g.partial, g.bias, g.n * g.OH * g.OW, N, g.partK, K, (int)g.act}, [N](i64 m, i64 n) { return m * N + n; });
}

template <class Precision, int tile> __device__ inline void convBackwardDataTensor(const conv_args &g) {
    const i64 N = g.C;
    Window dy{g.dy, g.n * g.H * g.W, (int)g.OH, (int)g.OW, (int)g.Out, (int)g.H, (int)g.W, (int)g.KW, 1, (int)(g.KH - 1 - g.pad),
              (int)(g.KW - 1 - g.pad), (int)g.stride, (g.vector & vectorA) != 0};
    Flipped w{g.w, (int)g.C, (int)(g.KH * g.KW), (int)g.Out, (g.vector & vectorB) != 0};
    product<Precision, tile, tile>(dy, w, {g.out, g.partial, nullptr, g.n * g.H * g.W, N, g.partK, g.KH * g.KW * g.Out, identity},
        [N](i64 m, i64 n) { return m * N + n; });
}

template <class Precision, int tile> __device__ inline void convBackwardWeightTensor(const conv_args &g) {
    const i64 taps = g.KH * g.KW, C = g.C, K = g.n * g.OH * g.OW;
    Dense<false> dy{g.dy, g.Out, g.Out, (g.vector & vectorA) != 0};
    Turned x{windowsOnX(g, false), g.x, taps * C, (g.vector & vectorB) != 0};
    product<Precision, tile, tile>(dy, x, {g.out, g.partial, nullptr, g.Out, taps * C, g.partK, K, identity},
        [taps, C](i64 m, i64 n) { return (m * C + n % C) * taps + n / C; }); // n is (kh, kw, c), and dw (Out, C, KH, KW)
}
TENSOR_PRODUCT(conv, conv_args, convTensor)
TENSOR_PRODUCT(conv_backward_data, conv_args, convBackwardDataTensor)
TENSOR_PRODUCT(conv_backward_weight, conv_args, convBackwardWeightTensor)
