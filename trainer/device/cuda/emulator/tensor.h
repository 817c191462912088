// What ../kernels/mma.cuh asks of the hardware, on the host: asynchronous copies, which are done as late as they may be, and
// the products of a warp's fragments, placed as the PTX ISA says (8.8, section 9.7.14.5.8).
#pragma once
#include <sanitizer/asan_interface.h>
#include <vector>

namespace emulator {

constexpr unsigned stageBytes = 96 << 10;
alignas(16) static uint32_t stages[stageBytes / 4];
static unsigned asked;

// allow makes the sanitizer stop whoever goes beyond what a launch has asked for.
inline void allow(unsigned bytes) {
    ASAN_UNPOISON_MEMORY_REGION(stages, sizeof stages);
    ASAN_POISON_MEMORY_REGION((char *)stages + bytes, sizeof stages - bytes);
    asked = bytes;
}

struct Copy { uint32_t *dst; const uint32_t *src; bool have; };
using Group = std::vector<Copy>;
struct Copies { Group open; std::vector<Group> closed; };
static Copies copies[256]; // by thread: no block has more

// beginBlock makes what a block finds: no copy under way, and junk in its memory.
inline void beginBlock() {
    std::memset(stages, 0xff, asked); // NaN
    for (Copies &c : copies) c.open.clear(), c.closed.clear();
}

struct Fragment { uint32_t a[4], b[2]; };
static Fragment fragments[256];

inline float bf16At(uint32_t pair, int high) {
    uint32_t bits = high ? pair & 0xffff0000u : pair << 16;
    float f;
    std::memcpy(&f, &bits, sizeof f);
    return f;
}
inline float tf32At(uint32_t bits) {
    float f;
    bits &= ~0x1fffu; // the hardware does not look at the rest
    std::memcpy(&f, &bits, sizeof f);
    return f;
}

// addAll is c and some products as tensor cores add them at worst (Fasi, Higham, Mikaitis, Pranesh, "Numerical behavior of NVIDIA tensor cores", 2021,
// sections 4 and 5): all are cut to one bit more than float32 has of the largest of them, and their sum is cut to float32, not rounded.
template <int n> inline float addAll(float c, const double (&products)[n]) {
    auto bits = [](double v) {
        uint64_t u;
        std::memcpy(&u, &v, sizeof u);
        return u & INT64_MAX;
    };
    uint64_t most = bits(c);
    double plain = c;
    for (double p : products) plain += p, most = std::max(most, bits(p));
    if (most == 0 || !(std::fabs(plain) < INFINITY)) return (float)plain;
    double unit; // all are cut to so many of it, which double has exactly
    most = ((most >> 52) - 24) << 52, std::memcpy(&unit, &most, sizeof unit);
    int64_t sum = (int64_t)(c / unit);
    for (double p : products) sum += (int64_t)(p / unit);
    const double exact = (double)sum * unit;
    const float rounded = (float)exact;
    return std::fabs((double)rounded) > std::fabs(exact) ? std::nextafterf(rounded, 0) : rounded;
}

// mma adds to each lane's four elements of c, some of k at once; a(row, k) and b(k, column) find factors in the fragments of the lane that has them.
template <int depth, int atOnce, class A, class B> inline void mma(float (&c)[4], Fragment mine, A a, B b) {
    Fragment *warp = fragments + threadIdx.x / 32 * 32;
    warp[threadIdx.x % 32] = mine;
    awaitWarp();
    const int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
    for (int i = 0; i < 4; i++)
        for (int k0 = 0; k0 < depth; k0 += atOnce) {
            double products[atOnce];
            for (int k = 0; k < atOnce; k++) products[k] = (double)a(warp, g + i / 2 * 8, k0 + k) * b(warp, k0 + k, 2 * t + i % 2);
            c[i] = addAll(c[i], products);
        }
    awaitWarp();
}

} // namespace emulator

#define SHARED_STAGES(name) uint32_t *name = emulator::stages

inline void copyAsync(uint32_t *dst, const uint32_t *src, bool have) {
    if ((uintptr_t)dst % 16 || (have && (uintptr_t)src % 16)) abort(); // as the GPU would
    emulator::copies[threadIdx.x].open.push_back({dst, src, have});
}
inline void copyCommit() {
    auto &c = emulator::copies[threadIdx.x];
    c.closed.push_back(std::move(c.open)), c.open.clear();
}
template <int newest> inline void copyWait() {
    auto &groups = emulator::copies[threadIdx.x].closed;
    const size_t done = groups.size() > newest ? groups.size() - newest : 0;
    for (size_t i = 0; i < done; i++)
        for (const emulator::Copy &c : groups[i]) {
            if (c.have) std::memcpy(c.dst, c.src, 16);
            else std::memset(c.dst, 0, 16);
        }
    groups.erase(groups.begin(), groups.begin() + done);
}

inline uint32_t bitsOf(float x) {
    uint32_t u;
    std::memcpy(&u, &x, sizeof u);
    return u;
}
inline uint32_t packBF16(float low, float high) {
    auto half = [](float x) -> uint32_t {
        if (x != x) return 0x7fff;
        uint32_t u = bitsOf(x);
        return (u + 0x7fff + (u >> 16 & 1)) >> 16;
    };
    return half(low) | half(high) << 16;
}
inline uint32_t toTF32(float x) { return x - x == 0 ? (bitsOf(x) + 0x1000) & ~0x1fffu : x != x ? 0x7fffffff : bitsOf(x); }

// matrices has every lane of a warp take its part of four matrices, by the addresses of their rows.
template <class Take> inline void matrices(const uint32_t *row, Take take) {
    if ((uintptr_t)row % 16) abort();
    std::memcpy(emulator::slot(threadIdx.x), &row, sizeof row);
    emulator::awaitWarp();
    for (unsigned i = 0; i < 4; i++)
        take(i, [i](unsigned r) {
            const uint32_t *from;
            std::memcpy(&from, emulator::slot(threadIdx.x / 32 * 32 + i * 8 + r), sizeof from);
            return from;
        });
    emulator::awaitWarp();
}
inline void loadMatrices(uint32_t (&m)[4], const uint32_t *row) {
    matrices(row, [&](unsigned i, auto rowOf) { m[i] = rowOf(threadIdx.x % 32 / 4)[threadIdx.x % 4]; });
}
inline void loadMatricesTurned(uint32_t (&m)[4], const uint32_t *row) {
    matrices(row, [&](unsigned i, auto rowOf) {
        const unsigned g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
        auto half = [&](unsigned r) { return rowOf(r)[g / 2] >> g % 2 * 16 & 0xffffu; };
        m[i] = half(2 * t) | half(2 * t + 1) << 16;
    });
}

inline void mmaBF16(float (&c)[4], uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3, uint32_t b0, uint32_t b1) {
    using emulator::Fragment;
    emulator::mma<16, 8>(c, {{a0, a1, a2, a3}, {b0, b1}},
        [](const Fragment *w, int row, int k) { return emulator::bf16At(w[row % 8 * 4 + k % 8 / 2].a[row / 8 + k / 8 * 2], k % 2); },
        [](const Fragment *w, int k, int n) { return emulator::bf16At(w[n * 4 + k % 8 / 2].b[k / 8], k % 2); });
}
inline void mmaTF32(float (&c)[4], uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3, uint32_t b0, uint32_t b1) {
    using emulator::Fragment;
    emulator::mma<8, 4>(c, {{a0, a1, a2, a3}, {b0, b1}},
        [](const Fragment *w, int row, int k) { return emulator::tf32At(w[row % 8 * 4 + k % 4].a[row / 8 + k / 4 * 2]); },
        [](const Fragment *w, int k, int n) { return emulator::tf32At(w[n * 4 + k % 4].b[k / 4]); });
}
