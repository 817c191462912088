// The emulator: runs the kernels of ../kernels for the process at its standard input, which speaks a protocol of its
// own (../emulator_test.go): a letter, then little-endian numbers of 8 bytes.
//
//   A bytes -> address                     allocate, filled with junk
//   F address                              free
//   W address bytes DATA                   write
//   R address bytes -> DATA                read
//   Z address bytes                        fill with zeros
//   L name grid*3 threads shared bytes ARGUMENTS  launch; name is its length and its letters, shared is in bytes
//
// Every request is answered by one byte, 0, before the answer itself, or by 1, a length, and an error in words.
#include <cstdio>
#include <cstdlib>
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

// The protocol. End of input at any place ends the program.
void take(void *p, size_t n) {
    if (n && fread(p, 1, n, stdin) != n) exit(0);
}
uint64_t number() {
    uint64_t v;
    take(&v, sizeof v);
    return v;
}
void give(const void *p, size_t n) { fwrite(p, 1, n, stdout); }

void serve() {
    for (;;) {
        std::string error;
        std::vector<char> answer;
        auto reply = [&](const void *p, size_t n) { answer.assign((const char *)p, (const char *)p + n); };
        char what;
        take(&what, 1);
        switch (what) {
        case 'A': {
            uint64_t n = number(), p = (uint64_t)malloc(n);
            memset((void *)p, 0x7f, n);
            reply(&p, sizeof p);
            break;
        }
        case 'F': free((void *)number()); break;
        case 'W': {
            void *p = (void *)number();
            std::vector<char> data(number());
            take(data.data(), data.size());
            memcpy(p, data.data(), data.size());
            break;
        }
        case 'R': {
            void *p = (void *)number();
            reply(p, number());
            break;
        }
        case 'Z': {
            void *p = (void *)number();
            memset(p, 0, number());
            break;
        }
        case 'L': {
            std::string name(number(), 0);
            take(&name[0], name.size());
            gridDim.x = (unsigned)number(), gridDim.y = (unsigned)number(), gridDim.z = (unsigned)number();
            unsigned threads = (unsigned)number(), shared = (unsigned)number();
            std::vector<char> args(number());
            take(args.data(), args.size());
            error = shared > stageBytes ? "too much shared memory" : (allow(shared), launch(name, threads, args));
            break;
        }
        default: error = "unknown request";
        }
        char failed = !error.empty();
        give(&failed, 1);
        if (failed) {
            uint64_t n = error.size();
            give(&n, sizeof n), give(error.data(), n);
        } else {
            give(answer.data(), answer.size());
        }
        fflush(stdout);
    }
}

} // namespace emulator

int main() { emulator::serve(); }

#include "../kernels/muster.cu"
