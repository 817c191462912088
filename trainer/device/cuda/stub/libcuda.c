// A libcuda to link with, where there is no driver: every function of cuda.h passes on to the driver's own, which is opened
// when the program starts, if there is one. So one binary runs with a driver and without.
//
// SYMBOLS.h, made by scripts/cuda-sdk.sh from cuda.h, says EACH(name) for every function but cuInit.
#include <dlfcn.h>
#include <stddef.h>

enum { notFound = 500, noDevice = 100 }; // CUDA_ERROR_NOT_FOUND, CUDA_ERROR_NO_DEVICE

static int none(void) { return noDevice; }
static int missing(void) { return notFound; }

#define EACH(name)                                                                     \
    __attribute__((visibility("hidden"))) void *muster_##name = (void *)none;          \
    __asm__(".text\n.globl " #name "\n.type " #name ", @function\n" #name ":\n\tjmp *muster_" #name "(%rip)\n");
#include "SYMBOLS.h"
#undef EACH

static int (*init)(unsigned);

// Where the loader looks; where containers and WSL have it, whose loader may not know.
static const char *const places[] = {"libcuda.so.1", "/usr/local/nvidia/lib64/libcuda.so.1", "/usr/lib/wsl/lib/libcuda.so.1"};

__attribute__((constructor)) static void open_driver(void) {
    void *driver = NULL;
    for (size_t i = 0; !driver && i < sizeof places / sizeof *places; i++) driver = dlopen(places[i], RTLD_NOW | RTLD_GLOBAL);
    if (!driver) return;
    init = (int (*)(unsigned))dlsym(driver, "cuInit");
    void *f;
#define EACH(name) muster_##name = (f = dlsym(driver, #name)) ? f : (void *)missing;
#include "SYMBOLS.h"
#undef EACH
}

// gorgonia.org/cu calls cuInit when the program starts, and ends it where that fails. It takes a driver up to seconds, which a program that only
// asks a node for its status need not wait for: so muster_cuda_status does it.
int cuInit(unsigned flags) { return (void)flags, 0; }

// muster_cuda_status starts the driver and returns what its cuInit says; -1 without a driver. To be called once, before all else.
int muster_cuda_status(void) { return init ? init(0) : -1; }
