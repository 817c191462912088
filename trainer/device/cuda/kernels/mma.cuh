// The instructions of tensor cores and of asynchronous copies that ../kernels use, each by itself, so that the emulator can
// stand in for them (../emulator/tensor.h). PTX ISA 8.8, sections 9.7.9.25 (cp.async) and 9.7.14 (mma). All of sm_80 and newer.

#ifndef MUSTER_EMULATED

#define SHARED_STAGES(name) extern __shared__ __align__(16) u32 name[]

// copyAsync copies 16 bytes to shared memory some time before copyWait; zeros with have == false, when src is not read.
__device__ inline void copyAsync(u32 *dst, const u32 *src, bool have) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"((u32)__cvta_generic_to_shared(dst)), "l"(src), "r"(have ? 16 : 0) : "memory");
}
// copyCommit makes a group of this thread's copies since the last one.
__device__ inline void copyCommit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
// copyWait waits until all but the newest so many groups of this thread are there. Others' copies are seen after a barrier.
template <int newest> __device__ inline void copyWait() { asm volatile("cp.async.wait_group %0;" ::"n"(newest) : "memory"); }

// powerOf2 is 2 to the power of x, 2 units in the last place off at most; 0 below 2^-126. exp2f would be four instructions.
__device__ inline float powerOf2(float x) {
    float r;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(x));
    return r;
}

// Two floats, rounded to nearest even; low goes to the low half.
__device__ inline u32 packBF16(float low, float high) {
    u32 r;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(high), "f"(low));
    return r;
}
// To nearest, ties away from zero.
__device__ inline u32 toTF32(float x) {
    u32 r;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(r) : "f"(x));
    return r;
}

// loadMatrices is ldmatrix: four matrices of 8 rows of 4 words. Lane i names row i%8 of matrix i/8, at a multiple of 16 bytes in shared memory; lane
// (g, t) gets word t of row g of each.
__device__ inline void loadMatrices(u32 (&m)[4], const u32 *row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(m[0]), "=r"(m[1]), "=r"(m[2]), "=r"(m[3]) : "r"((u32)__cvta_generic_to_shared(row)) : "memory");
}

// loadMatricesTurned is the same of matrices of 8 rows of 8 halves of words, each turned: lane (g, t) gets elements (2t, g) and (2t+1, g) as one word.
__device__ inline void loadMatricesTurned(u32 (&m)[4], const u32 *row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(m[0]), "=r"(m[1]), "=r"(m[2]), "=r"(m[3]) : "r"((u32)__cvta_generic_to_shared(row)) : "memory");
}

// c (16 x 8) += a (16 x 16) b (16 x 8), of the whole warp.
__device__ inline void mmaBF16(float (&c)[4], u32 a0, u32 a1, u32 a2, u32 a3, u32 b0, u32 b1) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3]) : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}
// c (16 x 8) += a (16 x 8) b (8 x 8), of the whole warp.
__device__ inline void mmaTF32(float (&c)[4], u32 a0, u32 a1, u32 a2, u32 a3, u32 b0, u32 b1) {
    asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3]) : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

#endif

// Four numbers that lie side by side, at a multiple of their size.
template <class T> __device__ inline float4 fourOf(const T *p) {
    const Few<4> f = few<4>(p);
    return {f.v[0], f.v[1], f.v[2], f.v[3]};
}

// A precision is how factors are held, in words of 32 bits. In words the fragments of both are the same: 8 words of k at once, of which lane
// (g, t) = (lane / 4, lane % 4) gives words t and t + 4 of rows g and g + 8 of A: (g, t), (g + 8, t), (g, t + 4), (g + 8, t + 4), and of column g of B; it gets
// elements (g, 2t), (g, 2t+1), (g+8, 2t), (g+8, 2t+1) of the sum.
struct BF16 {
    static constexpr int per = 2; // elements of a word
    __device__ static u32 word(float low, float high) { return packBF16(low, high); }
    __device__ static void put(u32 *to, float4 v) { *(uint2 *)to = {packBF16(v.x, v.y), packBF16(v.z, v.w)}; }
    __device__ static void multiply(float (&c)[4], const u32 (&a)[4], u32 b0, u32 b1) { mmaBF16(c, a[0], a[1], a[2], a[3], b0, b1); }
    // Sums of 16 x 8 each as a left factor,
    __device__ static void factor(u32 (&a)[4], const float (&p)[4], const float (&q)[4]) {
        a[0] = packBF16(p[0], p[1]), a[1] = packBF16(p[2], p[3]), a[2] = packBF16(q[0], q[1]), a[3] = packBF16(q[2], q[3]);
    }
    // and what it is multiplied with: 16 rows of a matrix, from row r on, as the right factor two times 8 columns from c on.
    __device__ static void turned(u32 (&f)[4], const u32 *m, int pitch, int r, int c) {
        const int lane = threadIdx.x % warpThreads;
        loadMatricesTurned(f, m + (r + lane % 16) * pitch + c / 2 + lane / 16 * 4);
    }
};

struct TF32 {
    static constexpr int per = 1;
    __device__ static u32 word(float x, float) { return toTF32(x); }
    __device__ static void put(u32 *to, float4 v) { *(uint4 *)to = {toTF32(v.x), toTF32(v.y), toTF32(v.z), toTF32(v.w)}; }
    __device__ static void multiply(float (&c)[4], const u32 (&a)[4], u32 b0, u32 b1) { mmaTF32(c, a[0], a[1], a[2], a[3], b0, b1); }
    // A thread has sums 2t and 2t + 1 of a row, where a factor has t and t + 4.
    __device__ static void factor(u32 (&a)[4], const float (&p)[4], const float (&)[4]) {
        a[0] = toTF32(p[0]), a[1] = toTF32(p[2]), a[2] = toTF32(p[1]), a[3] = toTF32(p[3]);
    }
    // So it has rows 2t and 2t + 1 of 8.
    __device__ static void turned(u32 (&f)[4], const u32 *m, int pitch, int r, int c) {
        const int lane = threadIdx.x % warpThreads;
        m += (r + lane % 4 * 2) * pitch + c + lane / 4;
        f[0] = m[0], f[1] = m[pitch], f[2] = m[8], f[3] = m[pitch + 8];
    }
};

// A thread has of 16 x 8 sums those of rows g and g + 8, columns 2t and 2t + 1: these are the places of sum c.
__device__ inline int rowOfSum(int c) { return threadIdx.x % warpThreads / 4 + c / 2 * 8; }
__device__ inline int columnOfSum(int c) { return threadIdx.x % 4 * 2 + c % 2; }
