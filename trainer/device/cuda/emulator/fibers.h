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

enum State { running, atWarp, atBlock, ended };

struct Fiber {
    ucontext_t context;
    std::vector<char> stack;
    State state;
    unsigned char slot[8];
};

std::vector<Fiber> fibers;
ucontext_t scheduler;
const Kernel *kernel;
const void *arguments;

unsigned char *slot(unsigned thread) { return fibers[thread].slot; }

void await(State s) {
    Fiber &f = fibers[threadIdx.x];
    f.state = s;
    swapcontext(&f.context, &scheduler);
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

std::string runBlock() {
    beginBlock();
    for (Fiber &f : fibers) {
        getcontext(&f.context);
        f.context.uc_stack.ss_sp = f.stack.data(), f.context.uc_stack.ss_size = f.stack.size();
        f.context.uc_link = nullptr;
        makecontext(&f.context, enter, 0);
        f.state = running;
    }
    const unsigned n = blockDim.x;
    for (;;) {
        unsigned left = 0;
        for (unsigned t = 0; t < n; t++)
            if (fibers[t].state == running) {
                threadIdx = {t, 0, 0};
                swapcontext(&scheduler, &fibers[t].context);
            }
        for (unsigned t = 0; t < n; t++) left += fibers[t].state != ended;
        if (left == 0) return "";
        bool moved = release(0, n, atBlock);
        for (unsigned w = 0; w < n; w += 32) moved = release(w, std::min(w + 32, n), atWarp) || moved;
        if (!moved) return "threads of one block wait at different barriers";
    }
}

std::string launch(const std::string &name, unsigned threads, const std::vector<char> &args) {
    auto k = kernels().find(name);
    if (k == kernels().end()) return "no such kernel";
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
