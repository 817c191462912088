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

#include "fibers.h"

namespace emulator {

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
