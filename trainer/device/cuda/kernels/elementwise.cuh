// One element, one thread. All files are compiled with -fmad=false: an operation is rounded by itself unless the source
// says fmaf, so the optimizers' updates have the bits of package optim.

#define EACH(i, n) for (i64 i = globalThread(); i < (n); i += globalThreads())

struct relu_backward_args { float *dx; const float *dy, *y; i64 n; };
KERNEL(relu_backward, blockThreads) {
    EACH(i, a.n) a.dx[i] = a.y[i] <= 0 ? 0.0f : a.dy[i];
}

struct add_args { float *y; const float *p, *q; i64 n; i64 act; };
KERNEL(add, blockThreads) {
    EACH(i, a.n) a.y[i] = activate(a.p[i] + a.q[i], (int)a.act);
}

struct multiply_args { float *y; const float *p, *q; i64 n; };
KERNEL(multiply, blockThreads) {
    EACH(i, a.n) a.y[i] = a.p[i] * a.q[i];
}

struct scale_args { float *y; const float *x; i64 n; float factor; };
KERNEL(scale, blockThreads) {
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
    float *to;
    const float *before;
    i64 f;
    __device__ void write(i64 at, float v) const {
        if (to) to[at] = before ? v * slope(before[at], (int)f) : value(v, (int)f);
    }
};

struct apply_args { float *y; const float *x; i64 n; i64 f; };
KERNEL(apply, blockThreads) {
    EACH(i, a.n) a.y[i] = value(a.x[i], (int)a.f);
}

struct apply_backward_args { float *dx; const float *dy, *x; i64 n; i64 f; };
KERNEL(apply_backward, blockThreads) {
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

struct dropout_args { float *y; const float *x; const u64 *key; i64 n; u64 threshold; u32 where; float factor; }; // key is the seed and the step
KERNEL(dropout, blockThreads) {
    const u64 seed = a.key[0], step = a.key[1];
    EACH(i, a.n) {
        u32 w = philox((u32)(i / 64 * 16 + i % 16), a.where, (u32)step, (u32)(step >> 32), (u32)seed, (u32)(seed >> 32), (int)(i / 16 % 4));
        a.y[i] = (u64)w < a.threshold ? 0.0f : a.x[i] * a.factor;
    }
}

// The rules of internal/optim, each operation rounded by itself, in the order in which it is written there.
enum rule { sgd, momentum, nesterov, adagrad, rmsprop, rmspropMomentum, adam, lamb, ftrl };

struct update_args {
    float *w, *m, *v;
    const float *g;
    const double *norms; // of LAMB: |w|^2 and |u|^2
    i64 n;
    i64 kind;
    float lr, decay, shrink, mu, keep1, beta2, keep2, bias1, root, eps, l1, l2, beta;
};

// The direction of LAMB; slots must be the new ones.
__device__ inline float lambDirection(const update_args &a, i64 i) {
    return a.m[i] / a.bias1 / (sqrtf(a.v[i]) / a.root + a.eps) + a.decay * a.w[i];
}

KERNEL(update, blockThreads) {
    float ratio = 1;
    if (a.kind == lamb) {
        double wn = sqrt(a.norms[0]), un = sqrt(a.norms[1]);
        ratio = (float)((double)a.lr * (wn == 0 || un == 0 ? 1.0 : wn / un));
    }
    EACH(i, a.n) {
        float w = a.w[i], d = a.g[i] + a.decay * w;
        switch (a.kind) {
        case sgd:
            a.w[i] = w - a.lr * d;
            break;
        case momentum: {
            float m = a.mu * a.m[i] + d;
            a.m[i] = m, a.w[i] = w - a.lr * m;
            break;
        }
        case nesterov: {
            float m = a.mu * a.m[i] + d;
            a.m[i] = m, a.w[i] = w - a.lr * (d + a.mu * m);
            break;
        }
        case adagrad: {
            float m = a.m[i] + d * d;
            a.m[i] = m, a.w[i] = w - a.lr * d / (sqrtf(m) + a.eps);
            break;
        }
        case rmsprop: {
            float m = a.beta2 * a.m[i] + a.keep2 * d * d;
            a.m[i] = m, a.w[i] = w - a.lr * d / (sqrtf(m) + a.eps);
            break;
        }
        case rmspropMomentum: {
            float m = a.beta2 * a.m[i] + a.keep2 * d * d, v = a.mu * a.v[i] + d / (sqrtf(m) + a.eps);
            a.m[i] = m, a.v[i] = v, a.w[i] = w - a.lr * v;
            break;
        }
        case adam: {
            float m = a.m[i] + a.keep1 * (d - a.m[i]), v = a.beta2 * a.v[i] + a.keep2 * d * d;
            a.m[i] = m, a.v[i] = v, a.w[i] = a.shrink * w - a.lr * m / (sqrtf(v) / a.root + a.eps);
            break;
        }
        case lamb:
            a.w[i] = w - ratio * lambDirection(a, i);
            break;
        case ftrl: {
            double g = a.g[i], l1 = a.l1, lr = a.lr;
            float n = (float)((double)a.v[i] + g * g);
            double root = sqrt((double)n), sigma = (root - sqrt((double)a.v[i])) / lr;
            float z = (float)((double)a.m[i] + g - sigma * (double)w);
            double q = z, out = 0;
            if (!(fabs(q) <= l1)) out = (copysign(l1, q) - q) / (((double)a.beta + root) / lr + (double)a.l2);
            a.m[i] = z, a.v[i] = n, a.w[i] = (float)out;
            break;
        }
        }
    }
}

// The first half of LAMB: its slots.
struct lamb_slots_args { float *m, *v; const float *g; i64 n; float keep1, beta2, keep2; };
KERNEL(lamb_slots, blockThreads) {
    EACH(i, a.n) {
        float g = a.g[i];
        a.m[i] = a.m[i] + a.keep1 * (g - a.m[i]);
        a.v[i] = a.beta2 * a.v[i] + a.keep2 * g * g;
    }
}

struct transpose_images_args { float *y; const float *x; i64 n, c, pixels; i64 toLast; };
KERNEL(transpose_images, blockThreads) {
    EACH(i, a.n * a.c * a.pixels) {
        i64 s, rest, fast, slow;
        split(i, a.c * a.pixels, s, rest);
        split(rest, a.toLast ? a.c : a.pixels, slow, fast);
        a.y[i] = a.x[(s * (a.toLast ? a.c : a.pixels) + fast) * (a.toLast ? a.pixels : a.c) + slow];
    }
}
