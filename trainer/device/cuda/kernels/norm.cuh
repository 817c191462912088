// Layer norm: a block per row. Batch norm: sums over columns in parts of rowsPerPart rows (float32, one chain), and the
// parts in float64 in order.

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

template <class T> struct layer_norm_types { T *y; const T *x; const float *gamma, *beta; float *mean, *rstd; i64 rows, cols; float eps; };
template <bool held, class T> __device__ inline void layerNorm(const layer_norm_types<T> &a) {
    for (i64 r = blockIdx.x; r < a.rows; r += gridDim.x) {
        const T *x = a.x + r * a.cols;
        float v[mostHeld], part = 0;
        if (held) inRow<held>(a.cols, [&](int i, i64 j) { v[i] = x[j]; });
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

template <class T> struct layer_norm_backward_types { T *dx; const T *dy, *x; const float *gamma, *mean, *rstd; i64 rows, cols; };
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
        inRow<held>(a.cols, [&](int i, i64 j) { a.dx[r * a.cols + j] = ((held ? gs[i] : g(j)) - s1 - (held ? hs[i] : h(j)) * s2) * rstd; });
    }
}
KERNELS_OF(layer_norm_backward, blockThreads, 5) {
    if (a.cols <= mostHeld * blockThreads) layerNormBackward<true>(a);
    else layerNormBackward<false>(a);
}

// Sums over the rows of a part: of dy, and of dy times the normalised x. Of layer norm mean and rstd are by row, of batch
// norm by column.
template <class T> struct norm_sums_types { float *parts; const T *dy, *x; const float *mean, *rstd; i64 rows, cols, byRow; };
KERNELS(norm_sums, blockThreads) {
    const Part p = partOf(a.rows, a.cols);
    if (p.from >= a.rows) return;
    const i64 j = p.column;
    float s1 = 0, s2 = 0;
    for (i64 r = p.from; r < p.to; r++) {
        float g = a.dy[r * a.cols + j], mean = a.mean[a.byRow ? r : j], rstd = a.rstd[a.byRow ? r : j];
        s1 += g, s2 += g * ((a.x[r * a.cols + j] - mean) * rstd);
    }
    float *out = a.parts + p.part * 2 * a.cols;
    out[j] = s1, out[a.cols + j] = s2;
}

// Sums over the rows of a part: of x, or of the squares of x - mean.
template <class T> struct moment_parts_types { float *parts; const T *x; const float *mean; i64 rows, cols; };
KERNELS(moment_parts, blockThreads) {
    const Part p = partOf(a.rows, a.cols);
    if (p.from >= a.rows) return;
    float mean = a.mean ? a.mean[p.column] : 0, sum = 0;
    for (i64 r = p.from; r < p.to; r++) {
        float d = a.x[r * a.cols + p.column] - mean;
        sum += a.mean ? d * d : d;
    }
    a.parts[p.part * a.cols + p.column] = sum;
}

// The mean, or with rstd 1/sqrt(variance + eps).
struct moment_args { float *out; const float *parts; i64 n, rows, cols, rstd; float eps; };
KERNEL(moment, blockThreads) {
    const i64 j = totalColumn();
    double sum = columnTotal<double>(a.n, j < a.cols, [&](i64 i) { return (double)a.parts[i * a.cols + j]; });
    if (j >= a.cols || threadIdx.x >= totalColumns) return;
    sum /= (double)a.rows;
    a.out[j] = a.rstd ? (float)(1.0 / sqrt(sum + (double)a.eps)) : (float)sum;
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
template <class T> struct batch_norm_types { T *y; const T *x; const float *gamma, *beta, *mean, *rstd; i64 rows, cols, act; };
template <int V, class T> __device__ inline void batchNorm(const batch_norm_types<T> &a) {
    auto of = [&](i64 j) -> Scaled { return {a.mean[j], a.rstd[j], a.gamma[j], a.beta[j]}; };
    byColumn<V>(a.rows, a.cols, of, [&](i64 i) { return few<V>(a.x + i); }, [&](const Scaled (&n)[V], i64 i, Few<V> x) {
#pragma unroll
        for (int v = 0; v < V; v++) x.v[v] = activate((x.v[v] - n[v].mean) * n[v].rstd * n[v].gamma + n[v].beta, (int)a.act);
        put(a.y + i, x);
    });
}
KERNELS(batch_norm, blockThreads) {
    if (a.cols % 4 == 0 && aligned(a.x) && aligned(a.y)) batchNorm<4>(a);
    else batchNorm<1>(a);
}

// dgamma and dbeta: the parts of norm_sums, in float64.
struct norm_totals_args { float *dgamma, *dbeta; const float *parts; i64 n, cols; };
KERNEL(norm_totals, blockThreads) {
    const i64 j = totalColumn();
    const double s1 = columnTotal<double>(a.n, j < a.cols, [&](i64 i) { return (double)a.parts[i * 2 * a.cols + j]; });
    const double s2 = columnTotal<double>(a.n, j < a.cols, [&](i64 i) { return (double)a.parts[(i * 2 + 1) * a.cols + j]; });
    if (j < a.cols && threadIdx.x < totalColumns) a.dbeta[j] = (float)s1, a.dgamma[j] = (float)s2;
}

template <class T> struct batch_norm_backward_types { T *dx; const T *dy, *x; const float *gamma, *dgamma, *dbeta, *mean, *rstd; i64 rows, cols; };
struct Back { float mean, rstd, dbeta, dgamma, factor; }; // of a column: the sums by row
template <int V, class T> __device__ inline void batchNormBackward(const batch_norm_backward_types<T> &a) {
    auto of = [&](i64 j) -> Back {
        return {a.mean[j], a.rstd[j], a.dbeta[j] / (float)a.rows, a.dgamma[j] / (float)a.rows, a.gamma[j] * a.rstd[j]};
    };
    struct Both { Few<V> x, d; };
    byColumn<V>(a.rows, a.cols, of, [&](i64 i) -> Both { return {few<V>(a.x + i), few<V>(a.dy + i)}; }, [&](const Back (&n)[V], i64 i, Both p) {
#pragma unroll
        for (int v = 0; v < V; v++) {
            const float h = (p.x.v[v] - n[v].mean) * n[v].rstd;
            p.d.v[v] = (p.d.v[v] - n[v].dbeta - h * n[v].dgamma) * n[v].factor;
        }
        put(a.dx + i, p.d);
    });
}
KERNELS(batch_norm_backward, blockThreads) {
    if (a.cols % 4 == 0 && aligned(a.x) && aligned(a.dy) && aligned(a.dx)) batchNormBackward<4>(a);
    else batchNormBackward<1>(a);
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
