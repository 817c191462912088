// A libcuda.so.1 without a GPU, for tests: the calls of NVIDIA's driver that ../driver_cu.go makes, with kernels done on the host. So the
// whole binary can be run, with all that it does to a driver: contexts and threads, streams, events, graphs, errors that stay.
//
// What is asked of a stream is done as late as may be: when something waits for it. Whoever does not wait reads junk.
// Misuse that a driver may forgive is an error here: a call without a context, a copy from memory that is not pinned, a memory given back while in use.
//
//   MUSTER_FAKE_GPUS    how many GPUs there are (default 1)
//   MUSTER_FAKE_MEMORY  bytes of each (default 1 GiB)
//   MUSTER_FAKE_FAULT   GPU:KERNEL:N  the Nth launch of that kernel on that GPU reads where it must not; GPU:lost:N the Nth launch of any finds
//                       the card gone
//   MUSTER_FAKE_GRAPHS  off: capturing fails
//   MUSTER_FAKE_LOCKS   off: memory of the host is not locked
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <mutex>
#include <set>

#include "fibers.h"

#include "../kernels/muster.cu"

#include <cuda.h>

namespace {

std::mutex one; // the emulator has one of everything; and nothing here is about speed

struct Stream;
struct Context { int gpu; CUresult broken; size_t used; std::map<CUdeviceptr, size_t> memories; };
struct Operation { std::function<CUresult()> run; };
struct Stream { Context *context; std::vector<Operation> later; size_t done; bool capturing; std::vector<Operation> captured; };
struct Event { Stream *stream; size_t place; };
struct Graph { std::vector<Operation> operations; };
struct Function { std::string name; const emulator::Kernel *kernel; unsigned shared; };

std::map<char *, size_t> pinned;
std::map<std::string, Function *> functions;
std::map<int, std::map<std::string, int>> launches;
thread_local Context *current;

std::string setting(const char *name) {
    const char *s = getenv(name);
    return s ? s : "";
}
int gpus() { return setting("MUSTER_FAKE_GPUS").empty() ? 1 : atoi(getenv("MUSTER_FAKE_GPUS")); }
size_t memory() { return setting("MUSTER_FAKE_MEMORY").empty() ? (size_t)1 << 30 : strtoull(getenv("MUSTER_FAKE_MEMORY"), nullptr, 10); }

CUresult complain(CUresult r, const std::string &why) {
    fprintf(stderr, "fake libcuda: %s\n", why.c_str());
    return r;
}

bool within(const std::map<char *, size_t> &all, const void *p, size_t n) {
    auto next = all.upper_bound((char *)p);
    if (next == all.begin()) return false;
    --next;
    return (char *)p + n <= next->first + next->second;
}
bool within(const std::map<CUdeviceptr, size_t> &all, CUdeviceptr p, size_t n) {
    auto next = all.upper_bound(p);
    if (next == all.begin()) return false;
    --next;
    return p + n <= next->first + next->second;
}

// usable says what keeps a call from being made in the current context.
CUresult usable() { return !current ? complain(CUDA_ERROR_INVALID_CONTEXT, "a call without a context") : current->broken; }
CUresult usable(Stream *s) {
    if (CUresult r = usable()) return r;
    return s->context == current ? CUDA_SUCCESS : complain(CUDA_ERROR_INVALID_HANDLE, "a stream of another context");
}

CUresult ask(Stream *s, std::function<CUresult()> run) {
    (s->capturing ? s->captured : s->later).push_back({run});
    return CUDA_SUCCESS;
}

// doUntil does what a stream was asked for before a place. What fails breaks its context for good.
CUresult doUntil(Stream *s, size_t place) {
    while (s->done < place) {
        Operation o = s->later.front();
        s->later.erase(s->later.begin());
        s->done++;
        if (s->context->broken) return s->context->broken;
        if (CUresult r = o.run()) return s->context->broken = r;
    }
    return s->context->broken;
}

CUresult all(Stream *s) { return doUntil(s, s->done + s->later.size()); }

// injected is the fault that a launch is to meet.
CUresult injected(Context *c, const std::string &kernel) {
    const std::string f = setting("MUSTER_FAKE_FAULT");
    for (const std::string &name : {kernel, std::string("lost")}) {
        const int n = ++launches[c->gpu][name];
        if (f == std::to_string(c->gpu) + ":" + name + ":" + std::to_string(n))
            return name == "lost" ? CUDA_ERROR_UNKNOWN : CUDA_ERROR_ILLEGAL_ADDRESS;
    }
    return CUDA_SUCCESS;
}

CUresult launched(Context *c, const Function *f, Dimensions grid, unsigned threads, unsigned shared, const std::vector<char> &args) {
    const size_t bytes = args.size() - 16;
    uint32_t *where;
    uint64_t number;
    memcpy(&where, &args[bytes], 8), memcpy(&number, &args[bytes + 8], 8);
    *where = (uint32_t)number;
    if (CUresult r = injected(c, f->name)) return r;
    gridDim = grid;
    emulator::allow(shared);
    const std::string error = emulator::launch(f->name, threads, std::vector<char>(args.begin(), args.begin() + bytes));
    return error.empty() ? CUDA_SUCCESS : complain(CUDA_ERROR_LAUNCH_FAILED, f->name + ": " + error);
}

} // namespace

#define LOCKED std::lock_guard<std::mutex> lock(one)

extern "C" {

CUresult cuInit(unsigned) { return CUDA_SUCCESS; }
CUresult cuDriverGetVersion(int *v) { return *v = 12090, CUDA_SUCCESS; }
CUresult cuDeviceGetCount(int *n) { return *n = gpus(), CUDA_SUCCESS; }
CUresult cuDeviceGetName(char *name, int n, CUdevice d) { return snprintf(name, n, "made-up card %d", (int)d), CUDA_SUCCESS; }
CUresult cuDeviceGetAttribute(int *v, CUdevice_attribute a, CUdevice) {
    switch (a) {
    case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR: return *v = 8, CUDA_SUCCESS;
    case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR: return *v = 0, CUDA_SUCCESS;
    case CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT: return *v = 4, CUDA_SUCCESS;
    case CU_DEVICE_ATTRIBUTE_CLOCK_RATE: return *v = 0, CUDA_SUCCESS;
    default: return CUDA_ERROR_INVALID_VALUE;
    }
}
CUresult cuGetErrorString(CUresult r, const char **s) {
    switch (r) {
    case CUDA_ERROR_OUT_OF_MEMORY: *s = "out of memory"; break;
    case CUDA_ERROR_ILLEGAL_ADDRESS: *s = "an illegal memory access was encountered"; break;
    case CUDA_ERROR_NOT_SUPPORTED: *s = "operation not supported"; break;
    case CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED: *s = "operation not permitted when stream is capturing"; break;
    default: *s = "unknown error";
    }
    return CUDA_SUCCESS;
}

CUresult cuCtxCreate(CUcontext *c, unsigned, CUdevice d) {
    current = new Context{(int)d, CUDA_SUCCESS, 0, {}};
    return *c = (CUcontext)current, CUDA_SUCCESS;
}
CUresult cuCtxGetCurrent(CUcontext *c) { return *c = (CUcontext)current, CUDA_SUCCESS; }
CUresult cuCtxSetCurrent(CUcontext c) { return current = (Context *)c, CUDA_SUCCESS; }

CUresult cuModuleLoadData(CUmodule *m, const void *image) {
    if (CUresult r = usable()) return r;
    if (memcmp(image, "\177ELF", 4)) return complain(CUDA_ERROR_INVALID_IMAGE, "no machine code");
    return *m = (CUmodule)image, CUDA_SUCCESS;
}
CUresult cuModuleGetFunction(CUfunction *f, CUmodule, const char *name) {
    LOCKED;
    if (CUresult r = usable()) return r;
    auto k = emulator::kernels().find(name);
    if (k == emulator::kernels().end()) return complain(CUDA_ERROR_NOT_FOUND, std::string("no kernel ") + name);
    Function *&known = functions[name];
    if (!known) known = new Function{name, &k->second, 48 << 10};
    return *f = (CUfunction)known, CUDA_SUCCESS;
}
CUresult cuFuncSetAttribute(CUfunction f, CUfunction_attribute a, int v) {
    LOCKED;
    if (CUresult r = usable()) return r;
    if (a != CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES) return CUDA_ERROR_INVALID_VALUE;
    if (v > 99 << 10) return complain(CUDA_ERROR_INVALID_VALUE, "more shared memory than a block has on sm_86 and sm_89");
    return ((Function *)f)->shared = (unsigned)v, CUDA_SUCCESS;
}

CUresult cuMemGetInfo(size_t *free, size_t *total) {
    LOCKED;
    if (CUresult r = usable()) return r;
    return *free = memory() - current->used, *total = memory(), CUDA_SUCCESS;
}
CUresult cuMemAlloc(CUdeviceptr *p, size_t n) {
    LOCKED;
    if (CUresult r = usable()) return r;
    if (current->used + n > memory()) return CUDA_ERROR_OUT_OF_MEMORY;
    void *m = aligned_alloc(256, (n + 255) / 256 * 256);
    memset(m, 0x7f, n);
    current->used += n, current->memories[(CUdeviceptr)m] = n;
    return *p = (CUdeviceptr)m, CUDA_SUCCESS;
}
CUresult cuMemFree(CUdeviceptr p) { // a driver waits for what is under way
    LOCKED;
    if (CUresult r = usable()) return r;
    if (!current->memories.count(p)) return complain(CUDA_ERROR_INVALID_VALUE, "a memory given back that is none");
    current->used -= current->memories[p], current->memories.erase(p);
    return free((void *)p), CUDA_SUCCESS;
}
CUresult cuMemHostAlloc(void **p, size_t n, unsigned) {
    LOCKED;
    if (CUresult r = usable()) return r;
    *p = aligned_alloc(256, (n + 255) / 256 * 256);
    return pinned[(char *)*p] = n, CUDA_SUCCESS;
}
CUresult cuMemFreeHost(void *p) {
    LOCKED;
    if (!pinned.erase((char *)p)) return complain(CUDA_ERROR_INVALID_VALUE, "pinned memory given back that is none");
    return free(p), CUDA_SUCCESS;
}
CUresult cuMemHostRegister(void *p, size_t n, unsigned flags) {
    LOCKED;
    if (CUresult r = usable()) return r;
    if (setting("MUSTER_FAKE_LOCKS") == "off") return CUDA_ERROR_NOT_SUPPORTED;
    if (!(flags & CU_MEMHOSTREGISTER_PORTABLE)) return complain(CUDA_ERROR_INVALID_VALUE, "memory locked for one GPU alone");
    auto next = pinned.upper_bound((char *)p);
    if ((next != pinned.end() && next->first < (char *)p + n) || within(pinned, p, 1)) return complain(CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED, "memory locked twice");
    return pinned[(char *)p] = n, CUDA_SUCCESS;
}
CUresult cuMemHostUnregister(void *p) {
    LOCKED;
    if (CUresult r = usable()) return r;
    return pinned.erase((char *)p) ? CUDA_SUCCESS : complain(CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED, "memory unlocked that is not locked");
}
CUresult cuMemcpyHtoDAsync(CUdeviceptr to, const void *from, size_t n, CUstream stream) {
    LOCKED;
    Stream *s = (Stream *)stream;
    if (CUresult r = usable(s)) return r;
    if (s->capturing || !within(pinned, from, n) || !within(current->memories, to, n)) return complain(CUDA_ERROR_INVALID_VALUE, "a bad copy to the GPU");
    return ask(s, [=] { return memcpy((void *)to, from, n), CUDA_SUCCESS; });
}
CUresult cuMemcpyDtoHAsync(void *to, CUdeviceptr from, size_t n, CUstream stream) {
    LOCKED;
    Stream *s = (Stream *)stream;
    if (CUresult r = usable(s)) return r;
    if (s->capturing || !within(pinned, to, n) || !within(current->memories, from, n)) return complain(CUDA_ERROR_INVALID_VALUE, "a bad copy from the GPU");
    return ask(s, [=] { return memcpy(to, (void *)from, n), CUDA_SUCCESS; });
}
CUresult cuMemcpyDtoDAsync(CUdeviceptr to, CUdeviceptr from, size_t n, CUstream stream) {
    LOCKED;
    Stream *s = (Stream *)stream;
    if (CUresult r = usable(s)) return r;
    if (s->capturing || !within(current->memories, to, n) || !within(current->memories, from, n)) return complain(CUDA_ERROR_INVALID_VALUE, "a bad copy on the GPU");
    return ask(s, [=] { return memcpy((void *)to, (void *)from, n), CUDA_SUCCESS; });
}
CUresult cuMemcpyPeerAsync(CUdeviceptr to, CUcontext of, CUdeviceptr from, CUcontext other, size_t n, CUstream stream) {
    LOCKED;
    Stream *s = (Stream *)stream;
    if (CUresult r = usable(s)) return r;
    if (s->capturing || (Context *)of != current || of == other || !within(current->memories, to, n) || !within(((Context *)other)->memories, from, n))
        return complain(CUDA_ERROR_INVALID_VALUE, "a bad copy from GPU to GPU");
    return ask(s, [=] { return memcpy((void *)to, (void *)from, n), CUDA_SUCCESS; });
}
CUresult cuCtxEnablePeerAccess(CUcontext, unsigned) { return usable() ? usable() : CUDA_ERROR_PEER_ACCESS_UNSUPPORTED; }
CUresult cuMemsetD8Async(CUdeviceptr p, unsigned char v, size_t n, CUstream stream) {
    LOCKED;
    Stream *s = (Stream *)stream;
    if (CUresult r = usable(s)) return r;
    if (!within(current->memories, p, n)) return complain(CUDA_ERROR_INVALID_VALUE, "a bad memset");
    return ask(s, [=] { return memset((void *)p, v, n), CUDA_SUCCESS; });
}

CUresult cuStreamCreate(CUstream *s, unsigned) {
    if (CUresult r = usable()) return r;
    return *s = (CUstream) new Stream{current, {}, 0, false, {}}, CUDA_SUCCESS;
}
CUresult cuStreamDestroy(CUstream s) { return usable((Stream *)s); } // its events may still be asked
CUresult cuStreamSynchronize(CUstream stream) {
    LOCKED;
    Stream *s = (Stream *)stream;
    if (CUresult r = usable(s)) return r;
    return s->capturing ? complain(CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, "a wait while capturing") : all(s);
}
CUresult cuStreamWaitEvent(CUstream stream, CUevent event, unsigned) {
    LOCKED;
    Stream *s = (Stream *)stream;
    if (CUresult r = usable(s)) return r;
    if (s->capturing) return complain(CUDA_ERROR_STREAM_CAPTURE_ISOLATION, "a graph that waits for what is not in it");
    const Event then = *(Event *)event;
    return ask(s, [=] {
        const CUresult r = doUntil(then.stream, then.place);
        return then.stream && then.stream->context == s->context ? r : CUDA_SUCCESS; // another context's fault is not this one's
    });
}
CUresult cuEventCreate(CUevent *e, unsigned) {
    if (CUresult r = usable()) return r;
    return *e = (CUevent) new Event{}, CUDA_SUCCESS;
}
CUresult cuEventDestroy(CUevent e) { return usable() ? usable() : (delete (Event *)e, CUDA_SUCCESS); }
CUresult cuEventRecord(CUevent e, CUstream stream) {
    LOCKED;
    Stream *s = (Stream *)stream;
    if (CUresult r = usable(s)) return r;
    if (s->capturing) return complain(CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, "an event in a graph, of which the host is to know");
    return *(Event *)e = {s, s->done + s->later.size()}, CUDA_SUCCESS;
}
CUresult cuEventSynchronize(CUevent e) {
    LOCKED;
    if (CUresult r = usable()) return r;
    return doUntil(((Event *)e)->stream, ((Event *)e)->place);
}

CUresult cuLaunchKernel(CUfunction function, unsigned x, unsigned y, unsigned z, unsigned threads, unsigned, unsigned, unsigned shared, CUstream stream,
        void **, void **extra) {
    LOCKED;
    Stream *s = (Stream *)stream;
    Function *f = (Function *)function;
    if (CUresult r = usable(s)) return r;
    const char *buffer = (const char *)extra[1];
    const size_t n = *(size_t *)extra[3];
    if (n != f->kernel->bytes + 16) return complain(CUDA_ERROR_INVALID_VALUE, f->name + ": wrong size of arguments");
    if (shared > f->shared) return complain(CUDA_ERROR_INVALID_VALUE, f->name + ": more shared memory than it was allowed");
    if (!x || !y || !z || y > 65535 || z > 65535) return complain(CUDA_ERROR_INVALID_VALUE, f->name + ": a bad grid");
    std::vector<char> args(buffer, buffer + n);
    Context *c = current;
    return ask(s, [=] { return launched(c, f, {x, y, z}, threads, shared, args); });
}

CUresult cuStreamBeginCapture(CUstream stream, CUstreamCaptureMode) {
    LOCKED;
    Stream *s = (Stream *)stream;
    if (CUresult r = usable(s)) return r;
    if (setting("MUSTER_FAKE_GRAPHS") == "off") return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
    if (s->capturing) return complain(CUDA_ERROR_ILLEGAL_STATE, "a stream captures already");
    return s->capturing = true, s->captured.clear(), CUDA_SUCCESS;
}
CUresult cuStreamEndCapture(CUstream stream, CUgraph *g) {
    LOCKED;
    Stream *s = (Stream *)stream;
    if (CUresult r = usable(s)) return r;
    s->capturing = false;
    return *g = (CUgraph) new Graph{s->captured}, CUDA_SUCCESS;
}
CUresult cuGraphInstantiateWithFlags(CUgraphExec *e, CUgraph g, unsigned long long) { return *e = (CUgraphExec) new Graph(*(Graph *)g), CUDA_SUCCESS; }
CUresult cuGraphDestroy(CUgraph g) { return delete (Graph *)g, CUDA_SUCCESS; }
CUresult cuGraphExecDestroy(CUgraphExec g) { return delete (Graph *)g, CUDA_SUCCESS; }
CUresult cuGraphLaunch(CUgraphExec g, CUstream stream) {
    LOCKED;
    Stream *s = (Stream *)stream;
    if (CUresult r = usable(s)) return r;
    for (const Operation &o : ((Graph *)g)->operations) ask(s, o.run);
    return CUDA_SUCCESS;
}

} // extern "C"
