#!/usr/bin/env python3
"""Compiles muster.cu ahead with NVRTC, which needs no GPU: muster.ptx for cards that are not named here, and
muster_ARCH.cubin for those that are. With them go their sources' digest, by which
a test sees whether they are up to date. Called by make cuda-kernels.

    compile.py SDK OUT    SDK: the folder that scripts/cuda-sdk.sh made
"""
import ctypes
import gzip
import hashlib
import multiprocessing
import pathlib
import sys

CARDS = ["sm_80", "sm_86", "sm_89", "sm_90"]
PTX = "compute_80"
HERE = pathlib.Path(__file__).parent


def compile(nvrtc, source, options, arch):
    def check(code, program=None):
        if code == 0:
            return
        size = ctypes.c_size_t()
        text = b""
        if program is not None:
            nvrtc.nvrtcGetProgramLogSize(program, ctypes.byref(size))
            log = ctypes.create_string_buffer(size.value)
            nvrtc.nvrtcGetProgramLog(program, log)
            text = log.value
        raise RuntimeError(f"nvrtc, {arch}: error {code}\n{text.decode()}")

    program = ctypes.c_void_p()
    check(nvrtc.nvrtcCreateProgram(ctypes.byref(program), source.read_bytes(), source.name.encode(), 0, None, None))
    options = [o.encode() for o in options + [f"--gpu-architecture={arch}"]]
    check(nvrtc.nvrtcCompileProgram(program, len(options), (ctypes.c_char_p * len(options))(*options)), program)
    kind = "CUBIN" if arch.startswith("sm_") else "PTX"
    size = ctypes.c_size_t()
    check(getattr(nvrtc, f"nvrtcGet{kind}Size")(program, ctypes.byref(size)))
    out = ctypes.create_string_buffer(size.value)
    check(getattr(nvrtc, f"nvrtcGet{kind}")(program, out))
    return out.raw.rstrip(b"\0") if kind == "PTX" else out.raw


def build(sdk, out, arch):
    for builtins in sdk.glob("lib/libnvrtc-builtins.so.*"):
        ctypes.CDLL(str(builtins), mode=ctypes.RTLD_GLOBAL)
    nvrtc = ctypes.CDLL(str(sdk / "lib/libnvrtc.so.12"))
    options = ["--std=c++17", "-default-device", "--fmad=false", f"-I{HERE}", f"-I{sdk}/include"]
    name = f"muster_{arch}.cubin" if arch in CARDS else "muster.ptx"
    image = compile(nvrtc, HERE / "muster.cu", options, arch)
    (out / (name + ".gz")).write_bytes(gzip.compress(image, 9, mtime=0))


def main():
    sdk, out = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
    out.mkdir(parents=True, exist_ok=True)
    with multiprocessing.Pool() as pool:  # the compiler does one at a time in a process
        pool.starmap(build, [(sdk, out, arch) for arch in CARDS + [PTX]], chunksize=1)
    digest = hashlib.sha256()
    for source in sorted(p for p in HERE.iterdir() if p.is_file()):
        digest.update(source.name.encode() + b"\n" + source.read_bytes())
    (out / "sources.sha256").write_text(digest.hexdigest() + "\n")


if __name__ == "__main__":
    main()
