// Sums. Columns are summed in blocks of rowsPerPart rows, each in one chain, and the blocks in order.

constexpr int rowsPerPart = 256; // as BatchNorm's order says

// out[part][j] = the sum of column j over the part's rows.
struct sum_rows_parts_args { float *parts; const float *x; i64 rows, cols; };
KERNEL(sum_rows_parts, blockThreads) {
    i64 j = globalThread();
    if (j >= a.cols) return;
    i64 r0 = (i64)blockIdx.y * rowsPerPart, r1 = r0 + rowsPerPart < a.rows ? r0 + rowsPerPart : a.rows;
    float sum = 0;
    for (i64 r = r0; r < r1; r++) sum += a.x[r * a.cols + j];
    a.parts[(i64)blockIdx.y * a.cols + j] = sum;
}

struct sum_parts_args { float *out; const float *parts; i64 n, cols; };
KERNEL(sum_parts, blockThreads) {
    i64 j = globalThread();
    if (j >= a.cols) return;
    float sum = 0;
    for (i64 i = 0; i < a.n; i++) sum += a.parts[i * a.cols + j];
    a.out[j] = sum;
}

// The order of vec.Partials: element i goes to partial sum i mod 16. One warp: lanes 0..15 hold the partial sums.
// x (a sum), x*x (a sum of squares), or the square of LAMB's direction.
struct total_args {
    double *out;
    const float *x;
    i64 n;
    i64 square;
    const float *m, *v; // with LAMB's
    float bias1, root, eps, decay;
};
KERNEL(total, warpThreads) {
    int lane = threadIdx.x;
    double sum = 0;
    if (lane < 16)
        for (i64 i = lane; i < a.n; i += 16) {
            float x = a.x[i];
            if (a.m) x = a.m[i] / a.bias1 / (sqrtf(a.v[i]) / a.root + a.eps) + a.decay * x;
            sum += a.square ? (double)x * x : (double)x;
        }
    for (int m = 8; m > 0; m /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, m);
    if (lane == 0) *a.out = sum;
}

struct finite_args { int *bad; const float *x; i64 n; };
KERNEL(finite, blockThreads) {
    for (i64 i = globalThread(); i < a.n; i += globalThreads())
        if (!(fabsf(a.x[i]) < INFINITY)) *a.bad = 1; // whoever writes it writes the same
}
