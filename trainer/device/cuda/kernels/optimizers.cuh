// The rules of internal/optim, each operation rounded by itself, in the order in which it is written there.
enum rule { sgd, momentum, nesterov, adagrad, rmsprop, rmspropMomentum, adam, lamb, ftrl };

struct update_args {
    float *w, *m, *v;
    const float *g;
    const double *norms; // of LAMB: |w|^2 and |u|^2
    i64 n, kind;
    float lr, decay, shrink, mu, keep1, beta2, keep2, bias1, root, eps, l1, l2, beta;
};

// The direction of LAMB; slots must be the new ones.
__device__ inline float lambDirection(const update_args &a, i64 i) {
    return a.m[i] / a.bias1 / (sqrtf(a.v[i]) / a.root + a.eps) + a.decay * a.w[i];
}

// What LAMB needs first: its new slots, and the squares of weights and directions by block, in the order of vec.Partials: 16 threads have a block, and element i of it
// goes to partial sum i mod 16.
struct lamb_slots_args { update_args of; double *squares; i64 block; };
KERNEL(lamb_slots, blockThreads) {
    const update_args &u = a.of;
    const i64 blocks = (u.n + a.block - 1) / a.block, lane = threadIdx.x % 16;
    for (i64 first = globalThread() / warpThreads * 2; first < blocks; first += globalThreads() / 16) { // all of a warp together
        const i64 b = first + threadIdx.x % warpThreads / 16, to = (b + 1) * a.block < u.n ? (b + 1) * a.block : u.n;
        double weight = 0, step = 0;
        for (i64 i = b * a.block + lane; i < to; i += 16) {
            const float g = u.g[i], w = u.w[i];
            u.m[i] = u.m[i] + u.keep1 * (g - u.m[i]);
            u.v[i] = u.beta2 * u.v[i] + u.keep2 * g * g;
            const float d = lambDirection(u, i);
            weight += (double)w * w, step += (double)d * d;
        }
        for (int m = 8; m > 0; m /= 2) weight += __shfl_xor_sync(0xffffffffu, weight, m), step += __shfl_xor_sync(0xffffffffu, step, m);
        if (lane == 0 && b < blocks) a.squares[2 * b] = weight, a.squares[2 * b + 1] = step;
    }
}

// Then their sums over the blocks, in their order.
struct lamb_norms_args { double *norms; const double *squares; i64 blocks; };
KERNEL(lamb_norms, warpThreads) {
    if (threadIdx.x >= 2) return;
    double sum = 0;
    for (i64 b = 0; b < a.blocks; b++) sum += a.squares[2 * b + threadIdx.x];
    a.norms[threadIdx.x] = sum;
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
