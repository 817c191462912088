// Layer norm: a block per row. Batch norm: sums over columns in parts of rowsPerPart rows (float32, one chain), and the
// parts in float64 in order.

struct layer_norm_args { float *y; const float *x, *gamma, *beta; float *mean, *rstd; i64 rows, cols; float eps; };
KERNEL(layer_norm, blockThreads) {
    for (i64 r = blockIdx.x; r < a.rows; r += gridDim.x) {
        const float *x = a.x + r * a.cols;
        float part = 0;
        for (i64 j = threadIdx.x; j < a.cols; j += blockDim.x) part += x[j];
        float mean = blockSum(part) / (float)a.cols;
        part = 0;
        for (i64 j = threadIdx.x; j < a.cols; j += blockDim.x) part = fmaf(x[j] - mean, x[j] - mean, part);
        float rstd = 1.0f / sqrtf(blockSum(part) / (float)a.cols + a.eps);
        for (i64 j = threadIdx.x; j < a.cols; j += blockDim.x) a.y[r * a.cols + j] = (x[j] - mean) * rstd * a.gamma[j] + a.beta[j];
        if (threadIdx.x == 0) a.mean[r] = mean, a.rstd[r] = rstd;
    }
}

struct layer_norm_backward_args { float *dx; const float *dy, *x, *gamma, *mean, *rstd; i64 rows, cols; };
KERNEL(layer_norm_backward, blockThreads) {
    for (i64 r = blockIdx.x; r < a.rows; r += gridDim.x) {
        const float *x = a.x + r * a.cols, *dy = a.dy + r * a.cols;
        float mean = a.mean[r], rstd = a.rstd[r], s1 = 0, s2 = 0;
        for (i64 j = threadIdx.x; j < a.cols; j += blockDim.x) {
            float g = dy[j] * a.gamma[j];
            s1 += g, s2 = fmaf(g, (x[j] - mean) * rstd, s2);
        }
        s1 = blockSum(s1) / (float)a.cols, s2 = blockSum(s2) / (float)a.cols;
        for (i64 j = threadIdx.x; j < a.cols; j += blockDim.x)
            a.dx[r * a.cols + j] = (dy[j] * a.gamma[j] - s1 - (x[j] - mean) * rstd * s2) * rstd;
    }
}

// Sums over the rows of a part: of dy, and of dy times the normalised x. Of layer norm mean and rstd are by row, of batch
// norm by column.
struct norm_sums_args { float *parts; const float *dy, *x, *mean, *rstd; i64 rows, cols, byRow; };
KERNEL(norm_sums, blockThreads) {
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
struct moment_parts_args { float *parts; const float *x, *mean; i64 rows, cols; };
KERNEL(moment_parts, blockThreads) {
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

struct batch_norm_args { float *y; const float *x, *gamma, *beta, *mean, *rstd; i64 rows, cols, act; };
KERNEL(batch_norm, blockThreads) {
    for (i64 i = globalThread(); i < a.rows * a.cols; i += globalThreads()) {
        i64 row, j;
        split(i, a.cols, row, j);
        a.y[i] = activate((a.x[i] - a.mean[j]) * a.rstd[j] * a.gamma[j] + a.beta[j], (int)a.act);
    }
}

// dgamma and dbeta: the parts of norm_sums, in float64.
struct norm_totals_args { float *dgamma, *dbeta; const float *parts; i64 n, cols; };
KERNEL(norm_totals, blockThreads) {
    const i64 j = totalColumn();
    const double s1 = columnTotal<double>(a.n, j < a.cols, [&](i64 i) { return (double)a.parts[i * 2 * a.cols + j]; });
    const double s2 = columnTotal<double>(a.n, j < a.cols, [&](i64 i) { return (double)a.parts[(i * 2 + 1) * a.cols + j]; });
    if (j < a.cols && threadIdx.x < totalColumns) a.dbeta[j] = (float)s1, a.dgamma[j] = (float)s2;
}

struct batch_norm_backward_args { float *dx; const float *dy, *x, *gamma, *dgamma, *dbeta, *mean, *rstd; i64 rows, cols; };
KERNEL(batch_norm_backward, blockThreads) {
    for (i64 i = globalThread(); i < a.rows * a.cols; i += globalThreads()) {
        i64 row, j;
        split(i, a.cols, row, j);
        float h = (a.x[i] - a.mean[j]) * a.rstd[j];
        a.dx[i] = (a.dy[i] - a.dbeta[j] / (float)a.rows - h * (a.dgamma[j] / (float)a.rows)) * (a.gamma[j] * a.rstd[j]);
    }
}

struct batch_norm_inference_args { float *y; const float *x, *gamma, *beta, *mean, *variance; i64 rows, cols, act; float eps; };
KERNEL(batch_norm_inference, blockThreads) {
    for (i64 i = globalThread(); i < a.rows * a.cols; i += globalThreads()) {
        i64 row, j;
        split(i, a.cols, row, j);
        double f = (double)a.gamma[j] / sqrt((double)a.variance[j] + (double)a.eps);
        float slope = (float)f, shift = (float)((double)a.beta[j] - (double)a.mean[j] * f);
        a.y[i] = activate(a.x[i] * slope + shift, (int)a.act);
    }
}
