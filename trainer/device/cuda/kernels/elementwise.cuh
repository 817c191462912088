// One element, one thread. All files are compiled with -fmad=false: an operation is rounded by itself unless the source
// says fmaf, so the optimizers' updates have the bits of package optim.

#define EACH(i, n) for (i64 i = globalThread(); i < (n); i += globalThreads())

// inPairs is to[i] = f(p[i], q[i]), four at once where they lie so.
template <int V, class T, class F> __device__ inline void pairs(T *to, const T *p, const T *q, i64 n, F f) {
    for (i64 i = globalThread() * V; i < n; i += globalThreads() * V) {
        Few<V> x = few<V>(p + i), y = few<V>(q + i);
#pragma unroll
        for (int v = 0; v < V; v++) x.v[v] = f(x.v[v], y.v[v]);
        put(to + i, x);
    }
}
template <class T, class F> __device__ inline void inPairs(T *to, const T *p, const T *q, i64 n, F f) {
    if (n % 4 == 0 && aligned(to) && aligned(p) && aligned(q)) pairs<4>(to, p, q, n, f);
    else pairs<1>(to, p, q, n, f);
}

template <class T> struct relu_backward_types { T *dx; const T *dy, *y; i64 n; };
KERNELS(relu_backward, blockThreads) {
    inPairs(a.dx, a.dy, a.y, a.n, [](float dy, float y) { return y <= 0 ? 0.0f : dy; });
}

// With mask the sum is a gradient, of the output of a ReLU, which mask is.
template <class T> struct add_types { T *y; const T *p, *q, *mask; i64 n; i64 act; };
template <int V, class T> __device__ inline void addMasked(const add_types<T> &a) {
    for (i64 i = globalThread() * V; i < a.n; i += globalThreads() * V) {
        Few<V> x = few<V>(a.p + i), y = few<V>(a.q + i), mask = few<V>(a.mask + i);
#pragma unroll
        for (int v = 0; v < V; v++) x.v[v] = mask.v[v] <= 0 ? 0.0f : activate(x.v[v] + y.v[v], (int)a.act);
        put(a.y + i, x);
    }
}
KERNELS(add, blockThreads) {
    if (!a.mask) inPairs(a.y, a.p, a.q, a.n, [&](float p, float q) { return activate(p + q, (int)a.act); });
    else if (a.n % 4 == 0 && aligned(a.y) && aligned(a.p) && aligned(a.q) && aligned(a.mask)) addMasked<4>(a);
    else addMasked<1>(a);
}

template <class T> struct scale_types { float *y; const T *x; i64 n; float factor; };
KERNELS(scale, blockThreads) {
    EACH(i, a.n) a.y[i] = a.factor * a.x[i];
}

enum function { gelu, silu, hyperbolic, sigmoid, rectifier };

__device__ inline float logistic(float x) { return 1.0f / (1.0f + expf(-x)); }

__device__ inline float value(float x, int f) {
    switch (f) {
    case gelu: return x * (0.5f * (1.0f + erff(x * 0.70710678118654752f)));
    case silu: return x * logistic(x);
    case hyperbolic: return tanhf(x);
    case sigmoid: return logistic(x);
    default: return x < 0 ? 0.0f : x;
    }
}

__device__ inline float slope(float x, int f) {
    switch (f) {
    case gelu: return 0.5f * (1.0f + erff(x * 0.70710678118654752f)) + x * (0.39894228040143268f * expf(-0.5f * x * x));
    case silu: {
        float s = logistic(x);
        return s * (1.0f + x * (1.0f - s));
    }
    case hyperbolic: {
        float t = tanhf(x);
        return 1.0f - t * t;
    }
    case sigmoid: {
        float s = logistic(x);
        return s * (1.0f - s);
    }
    default: return x <= 0 ? 0.0f : 1.0f;
    }
}

// Second is what the end of a product does besides with each element that it writes: a function of it, or with before its gradient. Nothing without to.
struct Second {
    void *to;
    const void *before;
    i64 f;
    template <class T> __device__ void write(i64 at, float v) const {
        if (to) ((T *)to)[at] = before ? v * slope(((const T *)before)[at], (int)f) : value(v, (int)f);
    }
    // apply makes the same of several elements v, with those of before in b.
    template <int n> __device__ void apply(Few<n> &v, const Few<n> &b) const {
        switch ((int)f) { // once for all of them
        case gelu: return apply(v, b, gelu);
        case silu: return apply(v, b, silu);
        case hyperbolic: return apply(v, b, hyperbolic);
        case sigmoid: return apply(v, b, sigmoid);
        default: return apply(v, b, rectifier);
        }
    }
    template <int n> __device__ void apply(Few<n> &v, const Few<n> &b, function of) const {
#pragma unroll
        for (int i = 0; i < n; i++) v.v[i] = before ? v.v[i] * slope(b.v[i], of) : value(v.v[i], of);
    }
};

template <class T> struct apply_types { T *y; const T *x; i64 n; i64 f; };
KERNELS(apply, blockThreads) {
    EACH(i, a.n) a.y[i] = value(a.x[i], (int)a.f);
}

template <class T> struct apply_backward_types { T *dx; const T *dy, *x; i64 n; i64 f; };
KERNELS(apply_backward, blockThreads) {
    EACH(i, a.n) a.dx[i] = a.dy[i] * slope(a.x[i], (int)a.f);
}

// Philox4x32-10 as device.Dropout describes it: element i takes word i/16%4 of counter i/64*16 + i%16.
__device__ inline u32 philox(u32 c0, u32 c1, u32 c2, u32 c3, u32 k0, u32 k1, int word) {
    for (int r = 0; r < 10; r++) {
        u64 p = 0xD2511F53ull * c0, q = 0xCD9E8D57ull * c2;
        u32 n0 = (u32)(q >> 32) ^ c1 ^ k0, n2 = (u32)(p >> 32) ^ c3 ^ k1;
        c1 = (u32)q, c3 = (u32)p, c0 = n0, c2 = n2;
        k0 += 0x9E3779B9u, k1 += 0xBB67AE85u;
    }
    return word == 0 ? c0 : word == 1 ? c1 : word == 2 ? c2 : c3;
}

template <class T> struct dropout_types { T *y; const T *x; const u64 *key; i64 n; u64 threshold; u32 where; float factor; }; // key is the seed and the step
KERNELS(dropout, blockThreads) {
    const u64 seed = a.key[0], step = a.key[1];
    EACH(i, a.n) {
        u32 w = philox((u32)(i / 64 * 16 + i % 16), a.where, (u32)step, (u32)(step >> 32), (u32)seed, (u32)(seed >> 32), (int)(i / 16 % 4));
        a.y[i] = (u64)w < a.threshold ? 0.0f : a.x[i] * a.factor;
    }
}

template <class Y, class X> struct Transposed { Y *y; const X *x; i64 n, c, pixels; i64 toLast; };
template <class Y, class X> __device__ inline void transposeImages(const Transposed<Y, X> &a) {
    EACH(i, a.n * a.c * a.pixels) {
        i64 s, rest, fast, slow;
        split(i, a.c * a.pixels, s, rest);
        split(rest, a.toLast ? a.c : a.pixels, slow, fast);
        a.y[i] = a.x[(s * (a.toLast ? a.c : a.pixels) + fast) * (a.toLast ? a.pixels : a.c) + slow];
    }
}
using transpose_images_args = Transposed<float, float>; using transpose_images_bf16_args = Transposed<bf16, bf16>;
using transpose_images_to_bf16_args = Transposed<bf16, float>;
KERNEL(transpose_images, blockThreads) { transposeImages(a); }
KERNEL(transpose_images_bf16, blockThreads) { transposeImages(a); }
KERNEL(transpose_images_to_bf16, blockThreads) { transposeImages(a); }
