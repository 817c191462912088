// Losses: first each row by itself, then the rows by one block: thread t adds rows t, t + 256, and so on.

struct row_loss { double loss; i64 correct; };

template <class T> struct softmax_cross_entropy_types { T *dlogits; const T *logits; const int *labels; row_loss *rows; fault at; i64 n, classes; float scale; };
KERNELS(softmax_cross_entropy, blockThreads) {
    for (i64 r = blockIdx.x; r < a.n; r += gridDim.x) {
        const T *x = a.logits + r * a.classes;
        int label = a.labels[r];
        if (label < 0 || label >= a.classes) {
            if (threadIdx.x == 0) blame(a.at, r);
            label = 0;
        }
        float top = -INFINITY;
        alongRow(x, a.classes, [&](i64, float v) { top = fmaxf(top, v); });
        top = blockMax(top);
        float part = 0, first = -INFINITY, broken = 0; // first: minus the first column that has the largest logit
        alongRow(x, a.classes, [&](i64 j, float v) {
            part += expf(v - top);
            if (v == top) first = fmaxf(first, (float)-j);
            if (v != v) broken = 1;
        });
        float sum = blockSum(part);
        i64 best = (i64)-blockMax(first);
        broken = blockMax(broken);
        float mine = x[label];
        __syncthreads(); // dlogits may be logits
        if (a.dlogits)
            alongRow(x, a.classes, [&](i64 j, float v) { a.dlogits[r * a.classes + j] = (expf(v - top) / sum - (j == label ? 1.0f : 0.0f)) * a.scale; });
        if (threadIdx.x == 0) {
            a.rows[r].loss = broken > 0 ? (double)NAN : log((double)sum) - ((double)mine - (double)top);
            a.rows[r].correct = broken == 0 && best == label;
        }
        __syncthreads();
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
