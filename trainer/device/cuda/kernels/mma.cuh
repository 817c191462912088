// The instructions of tensor cores and of asynchronous copies that ../kernels use, each by itself, so that the emulator can
// stand in for them (../emulator/tensor.h). PTX ISA 8.8, sections 9.7.9.25 (cp.async) and 9.7.14 (mma). All of sm_80 and newer.

#ifndef MUSTER_EMULATED

#define SHARED_STAGES(name) extern __shared__ __align__(16) float name[]

// copyAsync copies so many bytes (4 or 16) to shared memory some time before copyWait; zeros with have == false, when src is not read.
template <int bytes> __device__ inline void copyAsync(float *dst, const float *src, bool have) {
    u32 to = (u32)__cvta_generic_to_shared(dst), n = have ? bytes : 0;
    if (bytes == 16) asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(src), "r"(n) : "memory");
    else asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(to), "l"(src), "r"(n) : "memory");
}
// copyCommit makes a group of this thread's copies since the last one.
__device__ inline void copyCommit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
// copyWait waits until all but the newest so many groups of this thread are there. Others' copies are seen after a barrier.
template <int newest> __device__ inline void copyWait() { asm volatile("cp.async.wait_group %0;" ::"n"(newest) : "memory"); }

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

// A precision multiplies 16 of k at once. Lane (g, t) = (lane / 4, lane % 4) gives of rows g and g + 8 of A, and of column g of B, the
// elements 4t..4t+3. The instructions want other elements in the lane (2t, 2t+1, 2t+8, 2t+9); but which k stands where is of no
// account as long as it is the same of A and B, and so a lane reads 16 bytes at once. It gets elements (g, 2t), (g, 2t+1), (g+8, 2t),
// (g+8, 2t+1) of the sum.
struct BF16 {
    static constexpr int per = 2; // elements of a word of 32 bits
    __device__ static u32 word(float low, float high) { return packBF16(low, high); }
    __device__ static void put(u32 *to, float4 v) { *(uint2 *)to = {packBF16(v.x, v.y), packBF16(v.z, v.w)}; }
    __device__ static void multiply(float (&c)[4], const u32 (&a)[4], u32 b0, u32 b1) { mmaBF16(c, a[0], a[1], a[2], a[3], b0, b1); }
    // Sums of 16 x 8 each as a factor, and the place in a row of the word that has its k.
    __device__ static void factor(u32 (&a)[4], const float (&p)[4], const float (&q)[4]) {
        a[0] = packBF16(p[0], p[1]), a[1] = packBF16(p[2], p[3]), a[2] = packBF16(q[0], q[1]), a[3] = packBF16(q[2], q[3]);
    }
    __device__ static int place(int k) { return k; }

    struct Four { u32 low, high; };
    __device__ static Four round(float4 v) { return {packBF16(v.x, v.y), packBF16(v.z, v.w)}; }
    __device__ static void multiply(float (&c)[4], const Four &top, const Four &bottom, const Four &b) {
        mmaBF16(c, top.low, bottom.low, top.high, bottom.high, b.low, b.high);
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
    __device__ static int place(int k) { return (k & ~7) | (k & 1) << 2 | (k >> 1 & 3); }

    struct Four { u32 x, y, z, w; };
    __device__ static Four round(float4 v) { return {toTF32(v.x), toTF32(v.y), toTF32(v.z), toTF32(v.w)}; }
    __device__ static void multiply(float (&c)[4], const Four &top, const Four &bottom, const Four &b) {
        mmaTF32(c, top.x, bottom.x, top.y, bottom.y, b.x, b.y);
        mmaTF32(c, top.z, bottom.z, top.w, bottom.w, b.z, b.w);
    }
};
