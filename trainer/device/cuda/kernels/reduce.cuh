// Sums. Columns are summed in parts of rowsPerPart rows, each in one chain by one thread, and the parts by columnTotal.

constexpr int rowsPerPart = 256; // as BatchNorm's order says

// Part is a column of some rows, [from, to), that a thread has to itself. Threads next to each other have columns, then parts, next to each other: so
// all of them have some, however few columns there are.
struct Part { i64 part, column, from, to; };
__device__ inline Part partOf(i64 rows, i64 cols) {
    Part p;
    split(globalThread(), cols, p.part, p.column);
    p.from = p.part * rowsPerPart, p.to = p.from + rowsPerPart < rows ? p.from + rowsPerPart : rows;
    return p;
}

// columnTotal adds up f(part) of a column over n parts. A block has totalColumns columns, and as many threads of each as it has warps: thread l takes
// parts l, l + 32, and so on, and what the 32 have is added in their order. Only the first has the total, and only it may write.
constexpr int totalColumns = blockThreads / warpThreads;
__device__ inline i64 totalColumn() { return (i64)blockIdx.x * totalColumns + threadIdx.x % totalColumns; }
template <class T, class F> __device__ inline T columnTotal(i64 n, bool is, F f) {
    __shared__ T sums[warpThreads][totalColumns];
    T sum = 0;
    if (is)
        for (i64 i = threadIdx.x / totalColumns; i < n; i += warpThreads) sum += f(i);
    __syncthreads(); // of a total before
    sums[threadIdx.x / totalColumns][threadIdx.x % totalColumns] = sum;
    __syncthreads();
    sum = sums[0][threadIdx.x % totalColumns];
    for (int l = 1; l < warpThreads; l++) sum += sums[l][threadIdx.x % totalColumns];
    return sum;
}

// out[part][j] = the sum of column j over the part's rows.
template <class T> struct sum_rows_parts_types { float *parts; const T *x; i64 rows, cols; };
KERNELS(sum_rows_parts, blockThreads) {
    const Part p = partOf(a.rows, a.cols);
    if (p.from >= a.rows) return;
    float sum = 0;
    for (i64 r = p.from; r < p.to; r++) sum += a.x[r * a.cols + p.column];
    a.parts[p.part * a.cols + p.column] = sum;
}

struct sum_parts_args { float *out; const float *parts; i64 n, cols; };
KERNEL(sum_parts, blockThreads) {
    const i64 j = totalColumn();
    const float sum = columnTotal<float>(a.n, j < a.cols, [&](i64 i) { return a.parts[i * a.cols + j]; });
    if (j < a.cols && threadIdx.x < totalColumns) a.out[j] = sum;
}

template <class T> struct finite_types { int *bad; const T *x; i64 n; };
KERNELS(finite, blockThreads) {
    for (i64 i = globalThread(); i < a.n; i += globalThreads())
        if (!(fabsf(a.x[i]) < INFINITY)) *a.bad = 1; // whoever writes it writes the same
}
