// How a launch is done on the host: the threads of a block are fibers that take turns at barriers and shuffles, blocks come one after
// another. For main.cc, which tests drive, and for libcuda.cc, which stands in for a driver.
#pragma once
#include <map>
#include <string>
#include <ucontext.h>
#include <vector>

#include "shim.h"

Dimensions threadIdx, blockIdx, blockDim, gridDim;

namespace emulator {

struct Kernel { size_t bytes; unsigned threads; void (*run)(const void *); };

std::map<std::string, Kernel> &kernels() {
    static std::map<std::string, Kernel> all;
    return all;
}

void enlist(const char *name, size_t bytes, unsigned threads, void (*run)(const void *)) { kernels()[name] = {bytes, threads, run}; }

constexpr unsigned warpSize = 32; // of which every block has whole ones

enum State { running, atWarp, atBlock, ended };

// Context is where a fiber, or who drives them, goes on. Changing over is done by hand where it can be: swapcontext asks the system for the mask of
// signals each time, which takes longer than all else.
#ifdef __x86_64__
using Context = void *; // the stack, with what a function must leave as it was on top
extern "C" void emulatorChange(Context *from, Context to);
asm(".text\n.hidden emulatorChange\n.globl emulatorChange\nemulatorChange:\n"
    "push %rbp\n push %rbx\n push %r12\n push %r13\n push %r14\n push %r15\n mov %rsp, (%rdi)\n mov %rsi, %rsp\n"
    "pop %r15\n pop %r14\n pop %r13\n pop %r12\n pop %rbx\n pop %rbp\n ret\n");
inline void change(Context &from, Context &to) { emulatorChange(&from, to); }
inline void begin(Context &c, std::vector<char> &stack, void (*run)()) {
    auto top = (void **)((uintptr_t)(stack.data() + stack.size()) & ~(uintptr_t)15);
    top[-1] = nullptr, top[-2] = (void *)run; // run finds the stack as if it had been called
    c = std::fill_n(top - 8, 6, nullptr) - 6;
}
#else
using Context = ucontext_t;
inline void change(Context &from, Context &to) { swapcontext(&from, &to); }
inline void begin(Context &c, std::vector<char> &stack, void (*run)()) {
    getcontext(&c);
    c.uc_stack.ss_sp = stack.data(), c.uc_stack.ss_size = stack.size(), c.uc_link = nullptr;
    makecontext(&c, run, 0);
}
#endif

struct Fiber {
    Context context;
    std::vector<char> stack;
    State state;
    unsigned char slot[8];
};

std::vector<Fiber> fibers;
Context scheduler;
const Kernel *kernel;
const void *arguments;

unsigned char *slot(unsigned thread) { return fibers[thread].slot; }

void await(State s) {
    Fiber &f = fibers[threadIdx.x];
    f.state = s;
    change(f.context, scheduler);
}
void awaitBlock() { await(atBlock); }
void awaitWarp() { await(atWarp); }

void enter() {
    kernel->run(arguments);
    await(ended);
}

// release lets those go on of whom all that are left wait at the same place.
bool release(unsigned from, unsigned to, State s) {
    bool any = false;
    for (unsigned t = from; t < to; t++) {
        if (fibers[t].state == ended) continue;
        if (fibers[t].state != s) return false;
        any = true;
    }
    for (unsigned t = from; t < to; t++)
        if (fibers[t].state == s) fibers[t].state = running;
    return any;
}

// halves tells whether of some threads some have ended and some wait at a place.
bool halves(unsigned from, unsigned to, State s) {
    bool left = false, waits = false;
    for (unsigned t = from; t < to; t++) left |= fibers[t].state == ended, waits |= fibers[t].state == s;
    return left && waits;
}

// Threads between two barriers may go in any order, and warps at any pace. So each round has another order, and some warps stay where they are: what a
// missing barrier lets happen does happen, sooner or later.
std::string runBlock() {
    static uint32_t chance = 1;
    beginBlock();
    for (Fiber &f : fibers) {
        begin(f.context, f.stack, enter);
        f.state = running;
    }
    const unsigned n = blockDim.x;
    for (;;) {
        chance = chance * 1664525 + 1013904223;
        unsigned left = 0;
        bool moved = false;
        for (unsigned i = 0; i < n; i++) {
            const unsigned t = i ^ (chance >> 8 & 31), warp = t / warpSize; // i in the order of warps, as they may all stay
            if (fibers[t].state != running) continue;
            moved = true;
            if ((chance & chance >> 8) >> (16 + warp % 8) & 1 && n > warpSize) continue;
            threadIdx = {t, 0, 0};
            change(scheduler, fibers[t].context);
        }
        for (unsigned t = 0; t < n; t++) left += fibers[t].state != ended;
        if (left == 0) return "";
        moved = release(0, n, atBlock) || moved;
        for (unsigned w = 0; w < n; w += warpSize) {
            if (halves(w, w + warpSize, atWarp)) return "some lanes of a warp have ended where others wait for them";
            moved = release(w, w + warpSize, atWarp) || moved;
        }
        if (!moved) return "threads of one block wait at different barriers";
    }
}

std::string launch(const std::string &name, unsigned threads, const std::vector<char> &args) {
    auto k = kernels().find(name);
    if (k == kernels().end()) return "no such kernel: " + name;
    if (k->second.bytes != args.size()) return "takes " + std::to_string(k->second.bytes) + " bytes of arguments, not " + std::to_string(args.size());
    if (threads != k->second.threads) return "made for " + std::to_string(k->second.threads) + " threads, not " + std::to_string(threads);
    kernel = &k->second, arguments = args.data();
    blockDim = {threads, 1, 1};
    if (fibers.size() < threads) fibers.resize(threads);
    for (unsigned t = 0; t < fibers.size(); t++) {
        fibers[t].state = ended;
        if (fibers[t].stack.empty()) fibers[t].stack.resize(64 << 10);
    }
    fibers.resize(threads);
    for (blockIdx.z = 0; blockIdx.z < gridDim.z; blockIdx.z++)
        for (blockIdx.y = 0; blockIdx.y < gridDim.y; blockIdx.y++)
            for (blockIdx.x = 0; blockIdx.x < gridDim.x; blockIdx.x++) {
                std::string error = runBlock();
                if (!error.empty()) return error;
            }
    return "";
}

} // namespace emulator
