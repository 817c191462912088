// Pooling of images (n, h, w, c). The backward passes gather: each input pixel asks the windows that it is in, in their order.

template <class T> struct pool_types { T *out; const T *in, *y; u8 *index; i64 n, c, h, w, size, stride, pad, oh, ow, act; float factor; };

struct Pixel { i64 sample, c; int h, w; };
__device__ inline Pixel pixel(i64 i, i64 c, i64 h, i64 w) {
    Pixel p;
    i64 row, column;
    split(i, c, i, p.c), split(i, w, i, column), split(i, h, p.sample, row);
    p.h = (int)row, p.w = (int)column;
    return p;
}

template <class T> using max_pool_types = pool_types<T>;
KERNELS(max_pool, blockThreads) {
    for (i64 i = globalThread(); i < a.n * a.oh * a.ow * a.c; i += globalThreads()) {
        Pixel o = pixel(i, a.c, a.oh, a.ow);
        float best = -INFINITY;
        int at = -1;
        for (int k = 0; k < a.size * a.size; k++) {
            int h = o.h * (int)a.stride - (int)a.pad + k / (int)a.size, w = o.w * (int)a.stride - (int)a.pad + k % (int)a.size;
            if (h < 0 || h >= a.h || w < 0 || w >= a.w) continue;
            float x = a.in[((o.sample * a.h + h) * a.w + w) * a.c + o.c];
            if (at < 0 || x > best || (x != x && best == best)) best = x, at = k;
        }
        a.out[i] = activate(best, (int)a.act), a.index[i] = (u8)at;
    }
}

template <class T> using max_pool_backward_types = pool_types<T>;
KERNELS(max_pool_backward, blockThreads) {
    for (i64 i = globalThread(); i < a.n * a.h * a.w * a.c; i += globalThreads()) {
        Pixel p = pixel(i, a.c, a.h, a.w);
        int h0 = p.h + (int)a.pad - (int)a.size + 1, w0 = p.w + (int)a.pad - (int)a.size + 1;
        int oh = h0 > 0 ? (h0 + (int)a.stride - 1) / (int)a.stride : 0, first = w0 > 0 ? (w0 + (int)a.stride - 1) / (int)a.stride : 0;
        float sum = 0;
        for (; oh < a.oh && oh * a.stride <= p.h + a.pad; oh++)
            for (int ow = first; ow < a.ow && ow * a.stride <= p.w + a.pad; ow++) {
                i64 o = ((p.sample * a.oh + oh) * a.ow + ow) * a.c + p.c;
                int k = (p.h + (int)a.pad - oh * (int)a.stride) * (int)a.size + p.w + (int)a.pad - ow * (int)a.stride;
                if (a.index[o] == k && !(a.act == relu && a.y[o] <= 0)) sum += a.in[o];
            }
        a.out[i] = sum;
    }
}

template <class T> using average_pool_types = pool_types<T>;
KERNELS(average_pool, blockThreads) {
    for (i64 i = globalThread(); i < a.n * a.oh * a.ow * a.c; i += globalThreads()) {
        Pixel o = pixel(i, a.c, a.oh, a.ow);
        float sum = 0;
        for (int k = 0; k < a.size * a.size; k++) {
            i64 h = o.h * a.stride + k / a.size, w = o.w * a.stride + k % a.size;
            sum += a.in[((o.sample * a.h + h) * a.w + w) * a.c + o.c];
        }
        a.out[i] = sum * a.factor;
    }
}

template <class T> using average_pool_backward_types = pool_types<T>;
KERNELS(average_pool_backward, blockThreads) {
    for (i64 i = globalThread(); i < a.n * a.h * a.w * a.c; i += globalThreads()) {
        Pixel p = pixel(i, a.c, a.h, a.w);
        int h0 = p.h - (int)a.size + 1, w0 = p.w - (int)a.size + 1;
        int oh = h0 > 0 ? (h0 + (int)a.stride - 1) / (int)a.stride : 0, first = w0 > 0 ? (w0 + (int)a.stride - 1) / (int)a.stride : 0;
        float sum = 0;
        for (; oh < a.oh && oh * a.stride <= p.h; oh++)
            for (int ow = first; ow < a.ow && ow * a.stride <= p.w; ow++) sum += a.in[((p.sample * a.oh + oh) * a.ow + ow) * a.c + p.c];
        a.out[i] = sum * a.factor;
    }
}

template <class T> struct global_average_pool_types { T *out; const T *in; i64 n, pixels, c; };
KERNELS(global_average_pool, blockThreads) {
    for (i64 i = globalThread(); i < a.n * a.c; i += globalThreads()) {
        float sum = 0;
        for (i64 p = 0; p < a.pixels; p++) sum += a.in[(i / a.c * a.pixels + p) * a.c + i % a.c];
        a.out[i] = sum / (float)a.pixels;
    }
}

template <class T> using global_average_pool_backward_types = global_average_pool_types<T>;
KERNELS(global_average_pool_backward, blockThreads) {
    for (i64 i = globalThread(); i < a.n * a.pixels * a.c; i += globalThreads())
        a.out[i] = a.in[i / (a.c * a.pixels) * a.c + i % a.c] / (float)a.pixels;
}
