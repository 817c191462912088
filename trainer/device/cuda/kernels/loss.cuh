// Losses: first each row by itself, then the rows by one block: thread t adds rows t, t + 256, and so on.

struct row_loss { double loss; i64 correct; };

// Exps is the largest of some numbers, and the sum of e**(x - the largest), both found in one pass: where a larger one comes, the sum so far is of too large exponents by the
// difference (Milakov and Gimelshein, "Online normalizer calculation for softmax", 2018).
struct Exps {
    float top = -INFINITY, sum = 0;
    // base is what is subtracted: top, but a number where there was nothing yet, or nothing but -infinity.
    __device__ float base() const { return top == -INFINITY ? 0.0f : top; }
    __device__ void rebase(float larger) {
        const float before = top;
        top = larger;
        sum *= expf(before - base());
    }
    template <int n> __device__ void take(const float (&v)[n]) {
        float largest = top;
#pragma unroll
        for (int u = 0; u < n; u++) largest = fmaxf(largest, v[u]);
        rebase(largest);
#pragma unroll
        for (int u = 0; u < n; u++) sum += expf(v[u] - base());
    }
};

// Rows of dlogits are pitch apart, with zeros from classes on.
template <class T> struct softmax_cross_entropy_types { T *dlogits; const T *logits; const int *labels; row_loss *rows; fault at; i64 n, classes, pitch; float scale; };
KERNELS(softmax_cross_entropy, blockThreads) {
    for (i64 r = blockIdx.x; r < a.n; r += gridDim.x) {
        const T *x = a.logits + r * a.classes;
        int label = a.labels[r];
        if (label < 0 || label >= a.classes) {
            if (threadIdx.x == 0) blame(a.at, r);
            label = 0;
        }
        const float mine = x[label];
        Exps e;
        int before = 0; // whether a column before the label is as large: the first of equals counts
        alongRow(x, a.classes, [&](i64 j, const auto &v) {
            e.take(v);
            for (int u = 0; j < label && u < (int)(sizeof v / sizeof *v); u++) before |= v[u] >= mine && j + u * blockThreads < label;
        });
        e.rebase(blockMax(e.top));
        const float sum = blockSum(e.sum), base = e.base(), over = 1.0f / sum;
        const bool first = blockSum(before) == 0; // behind barriers: dlogits may be logits
        T *const d = a.dlogits + r * a.pitch;
        if (a.dlogits) {
            alongRow(x, a.classes, [&](i64 j, const auto &v) {
#pragma unroll
                for (int u = 0; u < (int)(sizeof v / sizeof *v); u++) d[j + u * blockThreads] = expf(v[u] - base) * over * a.scale;
            });
            for (i64 j = a.classes + threadIdx.x; j < a.pitch; j += blockThreads) d[j] = 0;
        }
        __syncthreads();
        if (threadIdx.x == 0) {
            const double loss = log((double)sum) - ((double)mine - (double)e.top);
            if (a.dlogits) d[label] = (expf(mine - base) * over - 1.0f) * a.scale;
            a.rows[r].loss = loss, a.rows[r].correct = loss == loss && mine == e.top && first;
        }
    }
}

// Targets are floats or integers.
template <class T> struct binary_cross_entropy_types { T *dlogits; const T *logits; const float *targets; const int *labels; row_loss *rows; fault at; i64 n; float scale; };
KERNELS(binary_cross_entropy, blockThreads) {
    for (i64 i = globalThread(); i < a.n; i += globalThreads()) {
        double x = a.logits[i], t = a.labels ? (double)a.labels[i] : (double)a.targets[i];
        if (!(t >= 0 && t <= 1)) blame(a.at, i);
        double e = exp(-fabs(x));
        a.rows[i].loss = (x > 0 ? x : x != x ? x : 0.0) - x * t + log1p(e);
        a.rows[i].correct = (x > 0) == (t > 0.5);
        double s = x >= 0 ? 1.0 / (1.0 + e) : e / (1.0 + e);
        if (a.dlogits) a.dlogits[i] = (float)((double)a.scale * (s - t));
    }
}

template <class T> struct squared_error_types { T *dy; const T *y; const float *targets; row_loss *rows; i64 n; float scale; };
KERNELS(squared_error, blockThreads) {
    for (i64 i = globalThread(); i < a.n; i += globalThreads()) {
        double d = (double)a.y[i] - (double)a.targets[i];
        a.rows[i].loss = d * d, a.rows[i].correct = 0;
        if (a.dy) a.dy[i] = (float)((double)a.scale * (2.0 * d));
    }
}

struct total_loss_args { row_loss *out; const row_loss *rows; i64 n; };
KERNEL(total_loss, blockThreads) {
    double loss = 0;
    i64 correct = 0;
    for (i64 r = threadIdx.x; r < a.n; r += blockDim.x) loss += a.rows[r].loss, correct += a.rows[r].correct;
    loss = blockSum(loss), correct = blockSum(correct);
    if (threadIdx.x == 0) a.out->loss = loss, a.out->correct = correct;
}
