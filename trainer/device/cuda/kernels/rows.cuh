// Rows of sparse tables that samples need, by their places in the values (device.Rows). n samples with fields each.
struct rows_args { float *y; const int *index; const float *values, *x; fault at; i64 n, fields, width, rows, c; };

// rowOf is a field's row, or the first one after a place out of range.
__device__ inline const float *rowOf(const rows_args &a, i64 sample, i64 field) {
    int r = a.index[sample * a.fields + field];
    if (r < 0 || r >= a.rows) {
        blame(a.at, sample * a.fields + field);
        r = 0;
    }
    return a.values + r * a.width;
}

using concat_rows_args = rows_args;
KERNEL(concat_rows, blockThreads) {
    i64 cols = a.c + a.fields * a.width;
    for (i64 i = globalThread(); i < a.n * cols; i += globalThreads()) {
        i64 s = i / cols, j = i % cols;
        a.y[i] = j < a.c ? a.x[s * a.c + j] : rowOf(a, s, (j - a.c) / a.width)[(j - a.c) % a.width];
    }
}

using pool_rows_args = rows_args;
KERNEL(pool_rows, blockThreads) {
    for (i64 i = globalThread(); i < a.n * a.width; i += globalThreads()) {
        float sum = 0;
        for (i64 f = 0; f < a.fields; f++) sum += rowOf(a, i / a.width, f)[i % a.width];
        a.y[i] = sum;
    }
}

// z(0) is x, z(f+1) the row of field f.
__device__ inline const float *member(const rows_args &a, i64 sample, i64 i) {
    return i == 0 ? a.x + sample * a.width : rowOf(a, sample, i - 1);
}

using interact_rows_args = rows_args;
KERNEL(interact_rows, blockThreads) {
    i64 cols = a.width + (a.fields + 1) * a.fields / 2;
    for (i64 e = globalThread(); e < a.n * cols; e += globalThreads()) {
        i64 s = e / cols, pair = e % cols - a.width;
        if (pair < 0) {
            a.y[e] = a.x[s * a.width + e % cols];
            continue;
        }
        i64 i = 1;
        while (pair >= i) pair -= i++;
        const float *p = member(a, s, i), *q = member(a, s, pair);
        float sum = 0;
        for (i64 k = 0; k < a.width; k++) sum += p[k] * q[k];
        a.y[e] = sum;
    }
}

// The gradients of all z of a sample: y (n, fields+1, width) from dy.
struct interact_rows_backward_args { rows_args g; const float *dy; };
KERNEL(interact_rows_backward, blockThreads) {
    const rows_args &g = a.g;
    i64 members = g.fields + 1, cols = g.width + members * g.fields / 2;
    for (i64 e = globalThread(); e < g.n * members * g.width; e += globalThreads()) {
        i64 s = e / (members * g.width), i = e / g.width % members, k = e % g.width;
        const float *dy = a.dy + s * cols, *pairs = dy + g.width;
        float sum = i == 0 ? dy[k] : 0.0f;
        for (i64 j = 0; j < i; j++) sum += pairs[i * (i - 1) / 2 + j] * member(g, s, j)[k];
        for (i64 j = i + 1; j < members; j++) sum += pairs[j * (j - 1) / 2 + i] * member(g, s, j)[k];
        g.y[e] = sum;
    }
}

// The gradient of the values: the row of field f of sample s gets from + s*bySample + f*byField. Zeros lie there before. A block per place; the first of
// those that name a row gathers for it, from all of them in their order.
template <class T> struct rows_backward_types { float *out; const int *index; const T *from; i64 n, fields, width, rows, bySample, byField; };
KERNELS(rows_backward, blockThreads) {
    __shared__ int found[blockThreads];
    const i64 places = a.n * a.fields;
    for (i64 first = blockIdx.x; first < places; first += gridDim.x) {
        const int row = a.index[first];
        bool before = row < 0 || row >= a.rows;
        for (i64 p = threadIdx.x; p < first; p += blockDim.x) before |= a.index[p] == row;
        if (__syncthreads_or(before)) continue;
        for (i64 j0 = 0; j0 < a.width; j0 += blockDim.x) {
            const i64 j = j0 + threadIdx.x;
            float sum = 0;
            for (i64 p0 = first; p0 < places; p0 += blockDim.x) {
                const i64 p = p0 + threadIdx.x;
                const bool here = p < places && a.index[p] == row;
                if (!__syncthreads_or(here)) continue;
                found[threadIdx.x] = here;
                __syncthreads();
                if (j < a.width)
                    for (int i = 0; i < (int)blockDim.x; i++)
                        if (found[i]) sum += a.from[(p0 + i) / a.fields * a.bySample + (p0 + i) % a.fields * a.byField + j];
                __syncthreads();
            }
            if (j < a.width) a.out[row * a.width + j] = sum;
        }
    }
}

template <class T> struct columns_types { T *y; const T *x; i64 rows, cols, stride; };
KERNELS(columns, blockThreads) { // the first columns of x, whose rows are so far apart
    for (i64 i = globalThread(); i < a.rows * a.cols; i += globalThreads()) {
        i64 row, column;
        split(i, a.cols, row, column);
        a.y[i] = (float)a.x[row * a.stride + column];
    }
}
