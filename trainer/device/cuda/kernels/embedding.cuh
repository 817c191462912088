// Rows by number: embeddings, and sparse matrices (CSR). Backward gathers (rows.cuh).

template <class T> struct embedding_types { T *y; const int *tokens; const float *table, *positions; fault at; i64 n, t, width, vocab; };
KERNELS(embedding, blockThreads) {
    for (i64 i = globalThread(); i < a.n * a.t * a.width; i += globalThreads()) {
        i64 place, j, s, at;
        split(i, a.width, place, j);
        split(place, a.t, s, at);
        int token = a.tokens[place];
        if (token < 0 || token >= a.vocab) {
            blame(a.at, place);
            continue;
        }
        float v = a.table[token * a.width + j];
        a.y[i] = a.positions ? v + a.positions[at * a.width + j] : v;
    }
}

template <class T> struct positions_backward_types { float *out; const T *dy; i64 n, t, width, context; };
KERNELS(positions_backward, blockThreads) {
    for (i64 i = globalThread(); i < a.context * a.width; i += globalThreads()) {
        float sum = 0;
        if (i < a.t * a.width)
            for (i64 s = 0; s < a.n; s++) sum += a.dy[s * a.t * a.width + i];
        a.out[i] = sum;
    }
}

struct sparse_args { float *out; const int *starts, *columns; const float *values, *w, *bias; fault at; i64 rows, cols, entries, outs, act; };

// Whether a row's entries can be read; the first fault is kept.
__device__ inline bool sound(const sparse_args &a, i64 row) {
    int from = a.starts[row], to = a.starts[row + 1];
    if (from < 0 || to < from || to > a.entries) {
        blame(a.at, row);
        return false;
    }
    for (int e = from; e < to; e++)
        if (a.columns[e] < 0 || a.columns[e] >= a.cols) {
            blame(a.at, row);
            return false;
        }
    return true;
}

using sparse_matmul_args = sparse_args;
KERNEL(sparse_matmul, blockThreads) {
    for (i64 i = globalThread(); i < a.rows * a.outs; i += globalThreads()) {
        i64 row = i / a.outs, o = i % a.outs;
        if (!sound(a, row)) continue;
        float sum = a.bias ? a.bias[o] : 0.0f;
        for (int e = a.starts[row]; e < a.starts[row + 1]; e++) sum = fmaf(a.values[e], a.w[o * a.cols + a.columns[e]], sum);
        a.out[i] = activate(sum, (int)a.act);
    }
}

// A block per output; out is zero before. A thread takes the columns that are its own modulo the block.
using sparse_matmul_backward_weight_args = sparse_args;
KERNEL(sparse_matmul_backward_weight, blockThreads) {
    i64 o = blockIdx.x;
    for (i64 row = 0; row < a.rows; row++) {
        if (!sound(a, row)) return;
        float dy = a.w[row * a.outs + o];
        for (int e = a.starts[row]; e < a.starts[row + 1]; e++) {
            i64 c = a.columns[e];
            if (c % blockDim.x == threadIdx.x) a.out[o * a.cols + c] = fmaf(dy, a.values[e], a.out[o * a.cols + c]);
        }
    }
}
