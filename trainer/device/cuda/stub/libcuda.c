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
static int status = noDevice;

__attribute__((constructor)) static void open_driver(void) {
    void *driver = dlopen("libcuda.so.1", RTLD_NOW | RTLD_GLOBAL);
    if (!driver) return;
    init = (int (*)(unsigned))dlsym(driver, "cuInit");
    void *f;
#define EACH(name) muster_##name = (f = dlsym(driver, #name)) ? f : (void *)missing;
#include "SYMBOLS.h"
#undef EACH
}

// gorgonia.org/cu ends the program where cuInit fails; so it never does, and muster_cuda_status says what it said.
int cuInit(unsigned flags) {
    if (init) status = init(flags);
    return 0;
}

// muster_cuda_status is what the driver's cuInit returned; -1 without a driver.
int muster_cuda_status(void) { return init ? status : -1; }
