// Layer norm: a block per row. Batch norm: over columns in parts of rowsPerPart rows (float32, one thread), and the
// parts in float64, in the order of columnTotal.

constexpr int mostHeld = 4; // elements of a row that a thread keeps in registers, where it has no more

// inRow calls f(i, j) for the elements j = t, t + 256, ... of a row, in this order, in thread t; i counts those that are held, else it is 0.
template <bool held, class F> __device__ inline void inRow(i64 cols, F f) {
    if (!held) {
#pragma unroll 2
        for (i64 j = threadIdx.x; j < cols; j += blockThreads) f(0, j);
    }
#pragma unroll
    for (int i = 0; held && i < mostHeld; i++)
        if (const int j = (int)threadIdx.x + i * blockThreads; j < cols) f(i, j);
}

// With p and q their sum is x, and written there besides; x may be p or q.
template <class T> struct layer_norm_types { T *y, *x; const T *p, *q; const float *gamma, *beta; float *mean, *rstd; i64 rows, cols; float eps; };
template <bool held, class T> __device__ inline void layerNorm(const layer_norm_types<T> &a) {
    for (i64 r = blockIdx.x; r < a.rows; r += gridDim.x) {
        T *const x = a.x + r * a.cols;
        float v[mostHeld], part = 0;
        auto sum = [&](i64 j) { return kept<T>(a.p[r * a.cols + j] + a.q[r * a.cols + j]); };
        if (held) inRow<held>(a.cols, [&](int i, i64 j) { v[i] = a.p ? sum(j) : (float)x[j]; });
        if (a.p) inRow<held>(a.cols, [&](int i, i64 j) { x[j] = held ? v[i] : sum(j); });
        auto at = [&](int i, i64 j) { return held ? v[i] : (float)x[j]; };
        inRow<held>(a.cols, [&](int i, i64 j) { part += at(i, j); });
        float mean = blockSum(part) / (float)a.cols;
        part = 0;
        inRow<held>(a.cols, [&](int i, i64 j) { part = fmaf(at(i, j) - mean, at(i, j) - mean, part); });
        float rstd = 1.0f / sqrtf(blockSum(part) / (float)a.cols + a.eps);
        inRow<held>(a.cols, [&](int i, i64 j) { a.y[r * a.cols + j] = (at(i, j) - mean) * rstd * a.gamma[j] + a.beta[j]; });
        if (threadIdx.x == 0) a.mean[r] = mean, a.rstd[r] = rstd;
    }
}
KERNELS_OF(layer_norm, blockThreads, 6) {
    if (a.cols <= mostHeld * blockThreads) layerNorm<true>(a);
    else layerNorm<false>(a);
}

// With plus that is added to the gradient.
template <class T> struct layer_norm_backward_types { T *dx; const T *dy, *x, *plus; const float *gamma, *mean, *rstd; i64 rows, cols; };
template <bool held, class T> __device__ inline void layerNormBackward(const layer_norm_backward_types<T> &a) {
    for (i64 r = blockIdx.x; r < a.rows; r += gridDim.x) {
        const T *x = a.x + r * a.cols, *dy = a.dy + r * a.cols;
        float mean = a.mean[r], rstd = a.rstd[r], s1 = 0, s2 = 0, gs[mostHeld], hs[mostHeld];
        auto g = [&](i64 j) { return dy[j] * a.gamma[j]; };
        auto h = [&](i64 j) { return (x[j] - mean) * rstd; };
        if (held) inRow<held>(a.cols, [&](int i, i64 j) { gs[i] = g(j), hs[i] = h(j); });
        inRow<held>(a.cols, [&](int i, i64 j) {
            float v = held ? gs[i] : g(j);
            s1 += v, s2 = fmaf(v, held ? hs[i] : h(j), s2);
        });
        s1 = blockSum(s1) / (float)a.cols, s2 = blockSum(s2) / (float)a.cols;
        inRow<held>(a.cols, [&](int i, i64 j) {
            const float v = ((held ? gs[i] : g(j)) - s1 - (held ? hs[i] : h(j)) * s2) * rstd;
            a.dx[r * a.cols + j] = a.plus ? kept<T>(v) + a.plus[r * a.cols + j] : v;
        });
    }
}
KERNELS_OF(layer_norm_backward, blockThreads, 5) {
    if (a.cols <= mostHeld * blockThreads) layerNormBackward<true>(a);
    else layerNormBackward<false>(a);
}

// scaled is what batch norm makes of an element, before its activation.
__device__ inline float scaled(float x, float mean, float rstd, float gamma, float beta) { return (x - mean) * rstd * gamma + beta; }

// Sums over the rows of a part: of dy, and of dy times the normalised x. Of layer norm mean and rstd are by row, of batch
// norm by column. With gamma and beta dy is a gradient behind a ReLU: none where that has put out 0, which is found again from x.
template <class T> struct norm_sums_types { float *parts; const T *dy, *x; const float *mean, *rstd, *gamma, *beta; i64 rows, cols, byRow; };
KERNELS(norm_sums, blockThreads) {
    const Part p = partOf(a.rows, a.cols);
    if (p.from >= a.rows) return;
    const i64 j = p.column;
    const float gamma = a.gamma ? a.gamma[j] : 0, beta = a.gamma ? a.beta[j] : 0;
    float s1 = 0, s2 = 0;
    for (i64 r = p.from; r < p.to; r++) {
        float g = a.dy[r * a.cols + j], mean = a.mean[a.byRow ? r : j], rstd = a.rstd[a.byRow ? r : j];
        const float x = a.x[r * a.cols + j];
        if (a.gamma && kept<T>(scaled(x, mean, rstd, gamma, beta)) <= 0) g = 0;
        s1 += g, s2 += g * ((x - mean) * rstd);
    }
    float *out = a.parts + p.part * 2 * a.cols;
    out[j] = s1, out[a.cols + j] = s2;
}

// Moments is the mean of n numbers, and the sum of the squares of what they are off it by. Groups of numbers are taken in one after the other (Chan, Golub and LeVeque, "Updating
// formulae and a pairwise algorithm for computing sample variances", 1979).
struct Moments {
    float n = 0, mean = 0, squares = 0;
    template <int count> __device__ void take(const float (&v)[count]) {
        float sum = 0, own = 0;
#pragma unroll
        for (int u = 0; u < count; u++) sum += v[u];
        const float middle = sum / count, off = middle - mean, share = count / (n + count);
#pragma unroll
        for (int u = 0; u < count; u++) own = fmaf(v[u] - middle, v[u] - middle, own);
        mean += off * share;
        squares += own + off * off * (n * share);
        n += count;
    }
};

// The means of the rows of a part, and sums of squares around these: x is read once.
template <class T> struct moment_parts_types { float *parts; const T *x; i64 rows, cols; };
KERNELS(moment_parts, blockThreads) {
    constexpr int together = 8;
    const Part p = partOf(a.rows, a.cols);
    if (p.from >= a.rows) return;
    const T *x = a.x + p.from * a.cols + p.column;
    Moments m;
    i64 left = p.to - p.from;
    for (; left >= together; left -= together, x += together * a.cols) {
        float v[together];
#pragma unroll
        for (int u = 0; u < together; u++) v[u] = x[u * a.cols];
        m.take(v);
    }
    for (; left > 0; left--, x += a.cols) {
        const float v[1] = {*x};
        m.take(v);
    }
    float *out = a.parts + p.part * 2 * a.cols;
    out[p.column] = m.mean, out[a.cols + p.column] = m.squares;
}

// The mean of each column and 1/sqrt(variance + eps), of the moments of parts.
struct moment_args { float *mean, *rstd; const float *parts; i64 n, rows, cols; float eps; };
KERNEL(moment, blockThreads) {
    __shared__ double means[totalColumns];
    const i64 j = totalColumn();
    auto size = [&](i64 i) { return (double)(i < a.n - 1 ? rowsPerPart : a.rows - i * rowsPerPart); };
    const double sum = columnTotal<double>(a.n, j < a.cols, [&](i64 i) { return size(i) * (double)a.parts[i * 2 * a.cols + j]; });
    if (threadIdx.x < totalColumns) means[threadIdx.x] = sum / (double)a.rows;
    __syncthreads();
    const double mean = means[threadIdx.x % totalColumns];
    const double squares = columnTotal<double>(a.n, j < a.cols, [&](i64 i) {
        const double off = (double)a.parts[i * 2 * a.cols + j] - mean;
        return (double)a.parts[(i * 2 + 1) * a.cols + j] + size(i) * off * off;
    });
    if (j < a.cols && threadIdx.x < totalColumns) a.mean[j] = (float)mean, a.rstd[j] = (float)(1.0 / sqrt(squares / (double)a.rows + (double)a.eps));
}

// byColumn calls f(numbers, i, load(i)) for the elements i, i + 1, ... i + V-1 of a matrix (rows, cols), all in their turn; numbers are of(j) of their
// columns. A thread keeps its columns: so it finds their numbers once, and divides once. It loads from two rows at once. cols is a multiple of V.
template <int V, class Of, class Load, class F> __device__ inline void byColumn(i64 rows, i64 cols, Of of, Load load, F f) {
    const i64 threads = globalThreads(), wide = cols / V, step = threads > wide ? threads / wide : 1;
    i64 first, row;
    split(globalThread(), wide, row, first);
    if (row >= step) return; // one of the few that would have a part of a row
    for (i64 c = first; c < wide; c += threads) { // once, unless there are more columns than threads
        decltype(of(c)) numbers[V];
#pragma unroll
        for (int v = 0; v < V; v++) numbers[v] = of(c * V + v);
        const i64 end = rows * cols, apart = step * cols;
        i64 i = row * cols + c * V;
        for (; i + apart < end; i += 2 * apart) {
            const auto p = load(i), q = load(i + apart);
            f(numbers, i, p), f(numbers, i + apart, q);
        }
        if (i < end) f(numbers, i, load(i));
    }
}

struct Scaled { float mean, rstd, gamma, beta; }; // of a column
// With plus that is added before the activation.
template <class T> struct batch_norm_types { T *y; const T *x, *plus; const float *gamma, *beta, *mean, *rstd; i64 rows, cols, act; };
template <int V, bool sum, class T> __device__ inline void batchNorm(const batch_norm_types<T> &a) {
    auto of = [&](i64 j) -> Scaled { return {a.mean[j], a.rstd[j], a.gamma[j], a.beta[j]}; };
    struct Both { Few<V> x, plus; };
    auto load = [&](i64 i) -> Both { return {few<V>(a.x + i), sum ? few<V>(a.plus + i) : Few<V>{}}; };
    byColumn<V>(a.rows, a.cols, of, load, [&](const Scaled (&n)[V], i64 i, Both p) {
#pragma unroll
        for (int v = 0; v < V; v++) {
            const float y = scaled(p.x.v[v], n[v].mean, n[v].rstd, n[v].gamma, n[v].beta);
            p.x.v[v] = activate(sum ? kept<T>(y) + p.plus.v[v] : y, (int)a.act);
        }
        put(a.y + i, p.x);
    });
}
KERNELS(batch_norm, blockThreads) {
    const bool fours = a.cols % 4 == 0 && aligned(a.x) && aligned(a.y) && aligned(a.plus);
    if (fours && a.plus) batchNorm<4, true>(a);
    else if (fours) batchNorm<4, false>(a);
    else if (a.plus) batchNorm<1, true>(a);
    else batchNorm<1, false>(a);
}

// dgamma and dbeta: the parts of norm_sums, in float64.
struct norm_totals_args { float *dgamma, *dbeta; const float *parts; i64 n, cols; };
KERNEL(norm_totals, blockThreads) {
    const i64 j = totalColumn();
    const double s1 = columnTotal<double>(a.n, j < a.cols, [&](i64 i) { return (double)a.parts[i * 2 * a.cols + j]; });
    const double s2 = columnTotal<double>(a.n, j < a.cols, [&](i64 i) { return (double)a.parts[(i * 2 + 1) * a.cols + j]; });
    if (j < a.cols && threadIdx.x < totalColumns) a.dbeta[j] = (float)s1, a.dgamma[j] = (float)s2;
}

// With beta dy is a gradient behind a ReLU, as in norm_sums.
template <class T> struct batch_norm_backward_types { T *dx; const T *dy, *x; const float *gamma, *beta, *dgamma, *dbeta, *mean, *rstd; i64 rows, cols; };
struct Back { float mean, rstd, dbeta, dgamma, gamma, beta; }; // of a column: the sums by row
template <int V, bool masked, class T> __device__ inline void batchNormBackward(const batch_norm_backward_types<T> &a) {
    auto of = [&](i64 j) -> Back {
        return {a.mean[j], a.rstd[j], a.dbeta[j] / (float)a.rows, a.dgamma[j] / (float)a.rows, a.gamma[j], masked ? a.beta[j] : 0.0f};
    };
    struct Both { Few<V> x, d; };
    byColumn<V>(a.rows, a.cols, of, [&](i64 i) -> Both { return {few<V>(a.x + i), few<V>(a.dy + i)}; }, [&](const Back (&n)[V], i64 i, Both p) {
#pragma unroll
        for (int v = 0; v < V; v++) {
            const float x = p.x.v[v], h = (x - n[v].mean) * n[v].rstd;
            const bool none = masked && kept<T>(scaled(x, n[v].mean, n[v].rstd, n[v].gamma, n[v].beta)) <= 0;
            p.d.v[v] = ((none ? 0.0f : p.d.v[v]) - n[v].dbeta - h * n[v].dgamma) * (n[v].gamma * n[v].rstd);
        }
        put(a.dx + i, p.d);
    });
}
KERNELS(batch_norm_backward, blockThreads) {
    const bool fours = a.cols % 4 == 0 && aligned(a.x) && aligned(a.dy) && aligned(a.dx);
    if (fours && a.beta) batchNormBackward<4, true>(a);
    else if (fours) batchNormBackward<4, false>(a);
    else if (a.beta) batchNormBackward<1, true>(a);
    else batchNormBackward<1, false>(a);
}

struct Line { float slope, shift; };
template <class T> struct batch_norm_inference_types { T *y; const T *x; const float *gamma, *beta, *mean, *variance; i64 rows, cols, act; float eps; };
KERNELS(batch_norm_inference, blockThreads) {
    auto of = [&](i64 j) -> Line {
        double f = (double)a.gamma[j] / sqrt((double)a.variance[j] + (double)a.eps);
        return {(float)f, (float)((double)a.beta[j] - (double)a.mean[j] * f)};
    };
    byColumn<1>(a.rows, a.cols, of, [&](i64 i) { return (float)a.x[i]; }, [&](const Line (&n)[1], i64 i, float x) {
        a.y[i] = activate(x * n[0].slope + n[0].shift, (int)a.act);
    });
}
