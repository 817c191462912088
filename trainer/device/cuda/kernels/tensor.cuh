// Matrix products and convolutions on tensor cores: one main loop over operands that say where their pieces are (implicit GEMM).
//
// Operands are rounded to the precision before, once for each product, into words of 1 or 2 elements whose lines begin at multiples of 16 bytes, with
// zeros at their ends (round): so the loop reads half as much of bf16, converts nothing, and knows no odd shapes; a chunk is 4 words.
//
// C (M, N) is cut into tiles of BM x BN, one block of 2 x 4 warps each. Slices of depth words of A and B come to shared memory by asynchronous copies,
// some stages ahead. An element adds up its products 16 (bf16) or 8 (tf32) of k at a time, from k = 0 upwards, in float32: so it does not depend on
// M, N or the tile. Bias and activation come at the end. K is cut into parts as in gemm.cuh.

constexpr int depth = 32; // words of k in a slice

// round is to (rows, words*per) = x (rows, cols) rounded, with zeros from cols on; or, with taps above 1, of x (rows/taps, cols, taps), whose rows are
// (outer, tap): weights of a convolution with their channels last.
template <class T> struct Round { u32 *to; const T *x; i64 rows, cols, words, taps; };
template <class P, class T> __device__ inline void roundTo(const Round<T> &a) {
    const u32 line = (u32)(a.words / 4);
    const bool vector = a.taps == 1 && a.cols % 4 == 0 && (u64)a.x % (4 * sizeof(T)) == 0;
    for (i64 i = globalThread(); i < a.rows * line; i += globalThreads()) {
        i64 row = 0, chunk = i;
        if (a.rows > 1) split(i, line, row, chunk);
        float v[4 * P::per];
        const T *x = a.x + (a.taps == 1 ? row * a.cols : (row / a.taps * a.cols) * a.taps + row % a.taps);
#pragma unroll
        for (int q = 0; q < P::per; q++) {
            const i64 c = (chunk * P::per + q) * 4;
            const float4 four = vector && c < a.cols ? fourOf(x + c) : float4{0, 0, 0, 0};
            v[4 * q] = four.x, v[4 * q + 1] = four.y, v[4 * q + 2] = four.z, v[4 * q + 3] = four.w;
#pragma unroll
            for (int j = 0; j < 4; j++)
                if (!vector && c + j < a.cols) v[4 * q + j] = x[(c + j) * a.taps];
        }
        u32 w[4];
#pragma unroll
        for (int j = 0; j < 4; j++) w[j] = P::word(v[j * P::per], v[j * P::per + P::per - 1]);
        *(uint4 *)(a.to + 4 * i) = {w[0], w[1], w[2], w[3]};
    }
}
using round_bf16_args = Round<float>; using round_tf32_args = Round<float>; using round_bf16_bf16_args = Round<bf16>;
KERNEL(round_bf16, blockThreads) { roundTo<BF16>(a); }
KERNEL(round_tf32, blockThreads) { roundTo<TF32>(a); }
KERNEL(round_bf16_bf16, blockThreads) { roundTo<BF16>(a); } // rounds nothing, but fills lines up

// Slab is how a slice of an operand lies in shared memory: a line for each row with k along it, or for each k with rows along it. The chunks of a line
// are shuffled so that those that are read at once lie in different banks.
template <class P, bool along, int rows> struct Slab {
    static constexpr int lines = along ? rows : depth * P::per, line = along ? depth : rows / P::per; // line: words
    static constexpr int lineChunks = line / 4;
    __device__ static int at(int l, int chunk) { return l * line + (chunk ^ (along || P::per == 2 ? l & 7 : (l & 3) * 2)) * 4; }

    // factor is 8 words of k, from word w on, of rows r..r+15: as the left factor, or as the right one two times 8 columns.
    template <bool left> __device__ static void factor(u32 (&f)[4], const u32 *tile, int r, int w) {
        const int lane = threadIdx.x % warpThreads, low = lane % 8, odd = lane / 8 % 2, high = lane / 16;
        if (along) {
            loadMatrices(f, tile + at(r + low + (left ? odd : high) * 8, w / 4 + (left ? high : odd)));
        } else if (P::per == 2) {
            loadMatricesTurned(f, tile + at(w * 2 + low + (left ? high : odd) * 8, r / 8 + (left ? odd : high)));
        } else {
#pragma unroll
            for (int i = 0; i < 4; i++) {
                const int row = r + lane / 4 + (left ? i % 2 : i / 2) * 8, k = w + lane % 4 + (left ? i / 2 : i % 2) * 4;
                f[i] = tile[at(k, row / 4) + row % 4];
            }
        }
    }
};

// A Loader copies slices of an operand, one after the other. Of operand Op:
//
//   alongK          elements that follow one another in memory are of one row, else of one k
//   Row row(r)      what there is to know of a row (of several, where they share a chunk), and
//   Slice slice(k)  of a k: computed once for many chunks
//   step(Slice, n)  goes n further along k
//   at(Row, Slice)  the chunk, or null for zeros
//   base            any address that may be read
template <class P, class Op, int rows> struct Loader {
    using Lies = Slab<P, Op::alongK, rows>;
    static constexpr bool along = Op::alongK;
    static constexpr int chunks = rows * depth / 4 / blockThreads;        // of a thread in a slice
    static constexpr int apart = blockThreads / Lies::lineChunks;         // lines that are copied at once
    static constexpr int elements = 4 * P::per;                           // of a chunk
    const Op &op;
    const int chunk, line;
    typename Op::Row row[along ? chunks : 1];
    typename Op::Slice slice;
    int k;

    __device__ Loader(const Op &op, i64 first, i64 k0)
        : op(op), chunk((int)threadIdx.x % Lies::lineChunks), line((int)threadIdx.x / Lies::lineChunks), k((int)k0 + (along ? chunk * elements : line)) {
#pragma unroll
        for (int i = 0; i < (along ? chunks : 1); i++) row[i] = op.row(first + (along ? line + i * apart : chunk * elements));
        slice = op.slice(k);
    }
    // fetch asks for the next slice, whose k ends before k1.
    __device__ void fetch(u32 *tile, int k1) {
#pragma unroll
        for (int i = 0; i < chunks; i++) {
            const u32 *p = k < k1 ? op.at(row[along ? i : 0], slice) : nullptr;
            copyAsync(tile + Lies::at(line + i * apart, chunk), p ? p : op.base, p);
            if (!along) op.step(slice, apart), k += apart;
        }
        if (along) op.step(slice, depth * P::per), k += depth * P::per;
    }
};

// Ends says what becomes of the sums.
struct Ends {
    float *out;         // or, with half, of bf16
    float *partial;
    const float *bias;
    i64 M, N, partK, K; // N and K count padding
    int act, half;
    i64 elements;       // of C
    Second second;
};

// In which order blocks take the tiles: in bands of this many along N, so that those at work at a time share rows and columns in the cache.
constexpr u32 band = 8;
__device__ inline void tileOf(u32 &m, u32 &n) {
    const u32 id = blockIdx.y * gridDim.x + blockIdx.x, whole = gridDim.x * band, first = id / whole * band;
    const u32 width = gridDim.y - first < band ? gridDim.y - first : band, within = id % whole;
    m = within / width, n = first + within % width;
}

// Spread is how the lanes of a warp share rows of WN columns: a lane has V columns side by side, in all rows the same, or several times V. So what there is to know of
// a column is found once, and little waits for memory row by row.
template <int V, int WN> struct Spread {
    static constexpr int lanes = WN / V < warpThreads ? WN / V : warpThreads, apart = lanes * V; // lanes: of a row
    static constexpr int down = warpThreads / lanes;                                             // rows at once
    __device__ static int row() { return threadIdx.x % warpThreads / lanes; }
    __device__ static int column() { return threadIdx.x % lanes * V; }
};

// writeRows ends 16 rows of WN columns from (m, n) on, whose sums a warp has in shared memory, and keeps them as T.
template <class T, int V, int WN, class Place> __device__ inline void writeRows(const Ends &e, const Place &place, const float *sums, i64 m, i64 n) {
    using S = Spread<V, WN>;
    T *const to = e.partial ? (T *)(e.partial + blockIdx.z * e.elements) : (T *)e.out;
    m += S::row(), sums += S::row() * (WN + 8);
#pragma unroll
    for (int c = S::column(); c < WN; c += S::apart) {
        const bool is = n + c < e.N;
        const auto column = place.column(n + c);
        Few<V> bias = {};
#pragma unroll
        for (int v = 0; v < V; v++)
            if (e.bias && is) bias.v[v] = e.bias[n + c + v];
#pragma unroll (Place::unrolled)
        for (int s = 0; s < 16; s += S::down) {
            Few<V> x = few<V>(sums + s * (WN + 8) + c);
#pragma unroll
            for (int v = 0; v < V; v++) x.v[v] = e.partial ? x.v[v] : activate(x.v[v] + bias.v[v], e.act);
            if (const i64 i = is && m + s < e.M ? place.at(m + s, column) : -1; i >= 0) put(to + i, x);
        }
    }
}

// writeSecond makes what the product has besides of what writeRows has kept of WM rows: each thread of what it has written itself.
template <class T, int V, int WM, int WN, class Place> __device__ inline void writeSecond(const Ends &e, const Place &place, i64 m, i64 n) {
    using S = Spread<V, WN>;
    struct Both { Few<V> x, b; };
    m += S::row();
#pragma unroll 1
    for (int c = S::column(); c < WN && n + c < e.N; c += S::apart) {
        const auto column = place.column(n + c);
        auto load = [&](int s) {
            Both p = {};
            if (s >= WM || m + s >= e.M) return p;
            const i64 i = place.at(m + s, column);
            p.x = few<V>((const T *)e.out + i);
            if (e.second.before) p.b = few<V>((const T *)e.second.before + i);
            return p;
        };
        Both next = load(0);
#pragma unroll 1
        for (int s = 0; s < WM && m + s < e.M; s += S::down) {
            Both p = next;
            next = load(s + S::down); // on its way meanwhile
            e.second.apply(p.x, p.b);
            put((T *)e.second.to + place.at(m + s, column), p.x);
        }
    }
}

// A Place says where the elements of C lie: place.at(m, place.column(n)), below 0 if it is padding, of which there is none with a second; fours, whether 4 of a row lie side
// by side where they can be written at once as T; unrolled, how many rows are worth their instructions.
template <class P, int BM, int BN, int stages, class A, class B, class Place>
__device__ inline void product(const A &a, const B &b, const Ends &e, Place place) {
    constexpr int WM = BM / 2, WN = BN / 4, FM = WM / 16, FN = WN / 8; // of a warp; and in instructions
    constexpr int stage = (BM + BN) * depth;
    SHARED_STAGES(shared);
    const int warp = threadIdx.x / warpThreads, wm = warp / 4 * WM, wn = warp % 4 * WN;
    u32 tm, tn;
    tileOf(tm, tn);
    const i64 m0 = (i64)tm * BM, n0 = (i64)tn * BN;
    const i64 k0 = (i64)blockIdx.z * e.partK, k1 = e.partial && k0 + e.partK < e.K ? k0 + e.partK : e.K;
    const int slices = (int)((k1 - k0 + depth * P::per - 1) / (depth * P::per));

    Loader<P, A, BM> la(a, m0, k0);
    Loader<P, B, BN> lb(b, n0, k0);
    auto load = [&](int i) {
        u32 *to = shared + i % stages * stage;
        if (i < slices) la.fetch(to, (int)k1), lb.fetch(to + BM * depth, (int)k1);
        copyCommit(); // an empty group, too: copyWait counts them
    };
    float sum[FM][FN][4] = {};
#pragma unroll
    for (int i = 0; i < stages - 1; i++) load(i);
    for (int i = 0; i < slices; i++) {
        copyWait<stages - 2>();
        __syncthreads();      // slice i is there, and everyone is done with slice i - 1,
        load(i + stages - 1); // in whose place this one goes
        const u32 *as = shared + i % stages * stage, *bs = as + BM * depth;
#pragma unroll
        for (int w = 0; w < depth; w += 8) {
            u32 x[FM][4];
#pragma unroll
            for (int f = 0; f < FM; f++) Slab<P, A::alongK, BM>::template factor<true>(x[f], as, wm + f * 16, w);
#pragma unroll
            for (int j = 0; j < FN; j += 2) {
                u32 y[4];
                Slab<P, B::alongK, BN>::template factor<false>(y, bs, wn + j * 8, w);
#pragma unroll
                for (int f = 0; f < FM; f++) P::multiply(sum[f][j], x[f], y[0], y[1]), P::multiply(sum[f][j + 1], x[f], y[2], y[3]);
            }
        }
    }
    copyWait<0>();
    __syncthreads(); // the slices have served

    // By way of shared memory, 16 rows of a warp at a time, so that what lies side by side is written together.
    constexpr int pitch = WN + 8;
    float *const mine = (float *)shared + warp * 16 * pitch;
    const bool half = P::per == 2 && e.half && !e.partial, fours = half ? place.template fours<bf16>(e) : place.template fours<float>(e);
#pragma unroll
    for (int f = 0; f < FM; f++) {
#pragma unroll
        for (int j = 0; j < FN; j++)
#pragma unroll
            for (int r = 0; r < 2; r++) *(float2 *)(mine + rowOfSum(2 * r) * pitch + j * 8 + columnOfSum(0)) = {sum[f][j][2 * r], sum[f][j][2 * r + 1]};
        __syncwarp();
        const i64 m = m0 + wm + f * 16, n = n0 + wn;
        if (half && fours) writeRows<bf16, 4, WN>(e, place, mine, m, n);
        else if (half) writeRows<bf16, 1, WN>(e, place, mine, m, n);
        else if (fours) writeRows<float, 4, WN>(e, place, mine, m, n);
        else writeRows<float, 1, WN>(e, place, mine, m, n);
        __syncwarp();
    }
    if (!Place::second || !e.second.to) return;
    if (half && fours) writeSecond<bf16, 4, WM, WN>(e, place, m0 + wm, n0 + wn);
    else if (half) writeSecond<bf16, 1, WM, WN>(e, place, m0 + wm, n0 + wn);
    else if (fours) writeSecond<float, 4, WM, WN>(e, place, m0 + wm, n0 + wn);
    else writeSecond<float, 1, WM, WN>(e, place, m0 + wm, n0 + wn);
}

// Places in a matrix (M, N) with its rows one after the other; second: what the product has besides may be something.
template <bool may> struct InRows {
    static constexpr bool second = may;
    static constexpr int unrolled = 16;
    i64 N;
    using Column = i64;
    __device__ Column column(i64 n) const { return n; }
    __device__ i64 at(i64 m, Column n) const { return m * N + n; }
    template <class T> __device__ bool fours(const Ends &e) const {
        return N % 4 == 0 && aligned((const T *)e.out) && aligned(e.partial) && aligned((const T *)e.second.to) && aligned((const T *)e.second.before);
    }
};

// Every product comes in tiles of three sizes; the largest only in bf16, as it pays where the loop is fast.
#define TENSOR_PRODUCT(name, args, f)                                                                            \
    using name##_tf32_medium_args = args; using name##_tf32_small_args = args; using name##_bf16_large_args = args; \
    using name##_bf16_medium_args = args; using name##_bf16_small_args = args;                                   \
    KERNEL_OF(name##_tf32_medium, blockThreads, 2) { f<TF32, 128, 128, 3>(a); }                                        \
    KERNEL(name##_tf32_small, blockThreads) { f<TF32, 64, 64, 3>(a); }                                           \
    KERNEL(name##_bf16_large, blockThreads) { f<BF16, 128, 256, 2>(a); }                                         \
    KERNEL_OF(name##_bf16_medium, blockThreads, 2) { f<BF16, 128, 128, 3>(a); }                                        \
    KERNEL(name##_bf16_small, blockThreads) { f<BF16, 64, 64, 3>(a); }

// Dense is a matrix: the chunk of element (r, k) is in line r, or across in line k.
template <class P, bool along> struct Dense {
    static constexpr bool alongK = along;
    const u32 *base;
    i64 rows, words; // words: of a line
    using Row = const u32 *;
    using Slice = i64;
    __device__ Row row(i64 r) const { return r < rows ? base + (along ? r * words : r / P::per) : nullptr; }
    __device__ Slice slice(int k) const { return along ? k / P::per : k * words; }
    __device__ void step(Slice &s, int n) const { s += along ? n / P::per : n * words; }
    __device__ const u32 *at(Row r, Slice s) const { return r ? r + s : nullptr; }
};

// wordsOf is how long a line of so many elements is: whole chunks.
template <class P> __device__ inline i64 wordsOf(i64 elements) { return (elements + 4 * P::per - 1) / (4 * P::per) * 4; }

struct tensor_args { const u32 *a, *b; float *c; const float *bias; float *partial; i64 M, N, K, act, half, partK; Second second; };

template <bool transA, bool transB> struct MatMulTensor {
    template <class P, int BM, int BN, int stages> __device__ static void run(const tensor_args &g) {
        Dense<P, !transA> a{g.a, g.M, wordsOf<P>(transA ? g.M : g.K)};
        Dense<P, transB> b{g.b, g.N, wordsOf<P>(transB ? g.K : g.N)};
        product<P, BM, BN, stages>(a, b, {g.c, g.partial, g.bias, g.M, g.N, g.partK, g.K, (int)g.act, (int)g.half, g.M * g.N, g.second}, InRows<true>{g.N});
    }
};
using TensorNN = MatMulTensor<false, false>;
using TensorNT = MatMulTensor<false, true>;
using TensorTN = MatMulTensor<true, false>;
TENSOR_PRODUCT(matmul_nn, tensor_args, TensorNN::run)
TENSOR_PRODUCT(matmul_nt, tensor_args, TensorNT::run)
TENSOR_PRODUCT(matmul_tn, tensor_args, TensorTN::run)

// Window is images seen through the windows of a convolution: row r is a window, one for each place of a grid (n, GH, GW); k is (kh, kw, c) within it, with
// C channels, padding among them. Of forward these are windows on x; of the gradient of x windows on dy. Places are counted in words from the base, modulo 2^32; one may
// lie outside the images, and is not read then.
template <class P> struct Window {
    static constexpr bool alongK = true;
    const u32 *base;
    i64 rows;
    int H, W, C, GH, GW, KW, pace, shiftH, shiftW;
    struct Row { u32 place; int h, w; };
    struct Slice { u32 place; int h, w, c; }; // from the row's
    __device__ int words(int h, int w) const { return (h * W + w) * (C / P::per); }
    __device__ Row row(i64 r) const { return r < rows ? place((u32)r) : Row{0, outside, outside}; }
    __device__ Row place(u32 r) const {
        const u32 pixel = r % (u32)(GH * GW), sample = r / (u32)(GH * GW);
        const int h = (int)(pixel / GW) * pace - shiftH, w = (int)(pixel % GW) * pace - shiftW;
        return {sample * (u32)words(H, 0) + (u32)words(h, w), h, w};
    }
    __device__ Slice slice(int k) const {
        const int tap = k / C, h = tap / KW, w = tap % KW, c = k % C;
        return {(u32)(words(h, w) + c / P::per), h, w, c};
    }
    __device__ void step(Slice &s, int n) const {
        s.place += n / P::per; // which is right beyond the last channel, too: the next pixel follows it
        for (s.c += n; s.c >= C; s.c -= C)
            if (++s.w == KW) s.w = 0, s.h++, s.place += words(1, -KW);
    }
    __device__ bool in(int h, int w) const { return (u32)h < (u32)H && (u32)w < (u32)W; }
    __device__ const u32 *at(const Row &r, const Slice &s) const { return in(r.h + s.h, r.w + s.w) ? base + (r.place + s.place) : nullptr; }
    static constexpr int outside = 1 << 30;
};

// Turned is windows on x with rows and k changed over: of the gradient of the weights, which sums over the places of windows.
template <class P> struct Turned {
    static constexpr bool alongK = false;
    const Window<P> of;
    const u32 *base;
    i64 columns;
    int endH, endW; // where h and w of a slice are, after the grid's last
    struct Row { u32 place; int h, w; };
    struct Slice { u32 place; int h, w; }; // of a window
    __device__ Turned(const Window<P> &of, i64 columns) : of(of), base(of.base), columns(columns), endH(of.GH * of.pace - of.shiftH), endW(of.GW * of.pace - of.shiftW) {}
    __device__ Row row(i64 r) const {
        const auto tap = of.slice((int)r);
        return {tap.place, r < columns ? tap.h : of.outside, tap.w};
    }
    __device__ Slice slice(int k) const {
        const auto r = of.place((u32)k);
        return {r.place, r.h, r.w};
    }
    __device__ void step(Slice &s, int n) const {
        s.place += of.words(0, n * of.pace);
        for (s.w += n * of.pace; s.w >= endW; s.w -= of.GW * of.pace) {
            s.place += of.words(of.pace, -of.GW * of.pace);
            if ((s.h += of.pace) >= endH) s.h -= of.GH * of.pace, s.place += of.words(of.H - of.GH * of.pace, 0);
        }
    }
    __device__ const u32 *at(const Row &r, const Slice &s) const { return of.in(s.h + r.h, s.w + r.w) ? base + (s.place + r.place) : nullptr; }
};

// Flipped is weights (Out, KH, KW, C), of which the gradient of x sums over (th, tw, out): every stride-th tap, from the last one on backwards; outs counts padding.
template <class P> struct Flipped {
    static constexpr bool alongK = false;
    const u32 *base;
    int C, taps, outs, realOuts, lastTap, KW, TW, stride; // C: with padding; TW: taps of a row that it takes
    using Row = int;                                      // words of a line, or below 0
    struct Slice { u32 line; int out, w; };
    __device__ int words(int tap) const { return tap * (C / P::per); }
    __device__ Row row(i64 r) const { return r < C ? (int)r / P::per : -1; }
    __device__ Slice slice(int k) const {
        const int tap = k / outs, w = tap % TW, out = k % outs;
        return {(u32)(out * words(taps) + words(lastTap - (tap / TW * KW + w) * stride)), out, w};
    }
    __device__ void step(Slice &s, int n) const {
        s.line += n * words(taps);
        for (s.out += n; s.out >= outs; s.out -= outs) {
            s.line -= outs * words(taps) + words(stride);
            if (++s.w == TW) s.w = 0, s.line += words((TW - KW) * stride);
        }
    }
    __device__ const u32 *at(Row r, const Slice &s) const { return r < 0 || s.out >= realOuts ? nullptr : base + (s.line + r); }
};

// Convolutions. All operands are rounded: x and dy with whole chunks of channels, w as (Out, KH, KW, C).
struct tensor_conv_args {
    const u32 *x, *w, *dy;
    const float *bias;
    float *out, *partial;
    i64 n, C, H, W, Out, KH, KW, stride, pad, OH, OW, act, half, partK;
    i64 firstH, firstW; // of the gradient of x: the first pixel of those that a launch makes, below stride
};

template <class P> __device__ inline int padded(i64 channels) { return (int)wordsOf<P>(channels) * P::per; }

template <class P> __device__ inline Window<P> windowsOnX(const tensor_conv_args &g) {
    return {g.x, g.n * g.OH * g.OW, (int)g.H, (int)g.W, padded<P>(g.C), (int)g.OH, (int)g.OW, (int)g.KW, (int)g.stride, (int)g.pad, (int)g.pad};
}

template <class P, int BM, int BN, int stages> __device__ inline void convTensor(const tensor_conv_args &g) {
    const i64 K = g.KH * g.KW * padded<P>(g.C);
    const Ends e{g.out, g.partial, g.bias, g.n * g.OH * g.OW, g.Out, g.partK, K, (int)g.act, (int)g.half, g.n * g.OH * g.OW * g.Out, {}};
    product<P, BM, BN, stages>(windowsOnX<P>(g), Dense<P, true>{g.w, g.Out, K / P::per}, e, InRows<false>{g.Out});
}

// Places in images (n, H, W, N): a row of C is a pixel (h + i*stride, w + j*stride), of which there are GH x GW in an image.
struct InPixels {
    static constexpr bool second = false;
    static constexpr int unrolled = 2;
    i64 N;
    int H, W, GH, GW, h, w, stride;
    using Column = i64;
    __device__ Column column(i64 n) const { return n; }
    __device__ i64 at(i64 m, Column n) const {
        if (stride == 1) return m * N + n;
        const u32 pixel = (u32)m % (u32)(GH * GW), sample = (u32)m / (u32)(GH * GW);
        return (((i64)sample * H + h + (int)(pixel / GW) * stride) * W + w + (int)(pixel % GW) * stride) * N + n;
    }
    template <class T> __device__ bool fours(const Ends &e) const { return N % 4 == 0 && aligned((const T *)e.out); }
};

// Every stride-th pixel of x, in both directions, from (h, w) on: those that see the same taps, of which the others see none. They are every stride-th tap, too, and
// where there is none, the gradient is zero.
template <class P, int BM, int BN, int stages> __device__ inline void convBackwardDataTensor(const tensor_conv_args &g) {
    const int stride = (int)g.stride, C = padded<P>(g.C), outs = padded<P>(g.Out), h = (int)(g.firstH + g.pad), w = (int)(g.firstW + g.pad);
    const int firstH = h % stride, firstW = w % stride, TH = ((int)g.KH - firstH + stride - 1) / stride, TW = ((int)g.KW - firstW + stride - 1) / stride;
    const int lastH = firstH + (TH - 1) * stride, lastW = firstW + (TW - 1) * stride; // taps
    const int GH = (int)(g.H - g.firstH + stride - 1) / stride, GW = (int)(g.W - g.firstW + stride - 1) / stride;
    const i64 K = TH > 0 && TW > 0 ? (i64)TH * TW * outs : 0, pixels = g.n * GH * GW;
    Window<P> dy{g.dy, pixels, (int)g.OH, (int)g.OW, outs, GH, GW, TW > 0 ? TW : 1, 1, (lastH - h) / stride, (lastW - w) / stride};
    Flipped<P> weights{g.w, C, (int)(g.KH * g.KW), outs, (int)g.Out, lastH * (int)g.KW + lastW, (int)g.KW, TW > 0 ? TW : 1, stride};
    const Ends e{g.out, g.partial, nullptr, pixels, g.C, g.partK, K, identity, (int)g.half, pixels * g.C, {}};
    product<P, BM, BN, stages>(dy, weights, e, InPixels{g.C, (int)g.H, (int)g.W, GH, GW, (int)g.firstH, (int)g.firstW, stride});
}

// Columns (kh, kw, c) in dw (Out, C, KH, KW).
struct OfWeights {
    static constexpr bool second = false;
    static constexpr int unrolled = 2;
    int taps, C, all; // all: channels with padding
    struct Column { int c, tap; };
    __device__ Column column(i64 n) const { return {(int)n % all, (int)n / all}; }
    __device__ i64 at(i64 m, Column n) const { return n.c < C ? (m * C + n.c) * taps + n.tap : -1; }
    template <class T> __device__ bool fours(const Ends &) const { return false; }
};

template <class P, int BM, int BN, int stages> __device__ inline void convBackwardWeightTensor(const tensor_conv_args &g) {
    const int taps = (int)(g.KH * g.KW), C = (int)g.C, all = padded<P>(g.C);
    Dense<P, false> dy{g.dy, g.Out, wordsOf<P>(g.Out)};
    Turned<P> x(windowsOnX<P>(g), (i64)taps * all);
    const Ends e{g.out, g.partial, nullptr, g.Out, (i64)taps * all, g.partK, g.n * g.OH * g.OW, identity, 0, g.Out * taps * C, {}};
    product<P, BM, BN, stages>(dy, x, e, OfWeights{taps, C, all});
}
TENSOR_PRODUCT(conv, tensor_conv_args, convTensor)
TENSOR_PRODUCT(conv_backward_data, tensor_conv_args, convBackwardDataTensor)
TENSOR_PRODUCT(conv_backward_weight, tensor_conv_args, convBackwardWeightTensor)
