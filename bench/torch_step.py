"""The peers' train_bench.py as it is, with three more fields in its JSON row: the processor time of a sample, the most
memory of all ranks together, and the BLAS that PyTorch has loaded.

    PEERS=../shared/peers /usr/bin/python3 bench/torch_step.py MODEL --threads 1 [--world 2] [--secs 3]
"""

import contextlib
import ctypes
import io
import json
import os
import resource
import sys

sys.path.insert(0, os.path.join(os.environ["PEERS"], "torch"))

import train_bench  # noqa: E402  reads the arguments, in every rank


def cpu_seconds():
    """User plus system time of this process."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def blas():
    """The BLAS among the libraries of this process, with its own description if it is OpenBLAS."""
    with open("/proc/self/maps", encoding="utf-8") as maps:
        files = {line.split()[-1] for line in maps if "blas" in line}
    names = []
    for name in sorted(files):
        with contextlib.suppress(OSError, AttributeError):
            config = ctypes.CDLL(name).openblas_get_config
            config.restype = ctypes.c_char_p
            return f"{config().decode().strip()} ({name})"
        names.append(name)
    return ", ".join(names) or "none"


def make(name):
    """models.make, but the clock of the processor starts when the data are made, just before the steps."""
    model, batch, data, loss, optimiser = original_make(name)

    def data_and_start(n):
        made = data(n)
        train_bench.started = cpu_seconds()
        return made

    return model, batch, data_and_start, loss, optimiser


def report(params, batch, times):
    """train_bench.report with more fields. The ranks do the same work, so rank 0 stands for all."""
    spent = cpu_seconds() - train_bench.started
    text = io.StringIO()
    with contextlib.redirect_stdout(text):
        original_report(params, batch, times)
    row = json.loads(text.getvalue())
    row["cpu_ms_per_sample"] = round(spent * 1e3 / ((len(times) + 3) * batch), 4)  # three steps are not timed
    row["max_rss_mib"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 * train_bench.ARGS.world, 1)
    row["blas"] = blas()
    print(json.dumps(row), flush=True)


original_make, original_report = train_bench.make, train_bench.report
train_bench.make, train_bench.report = make, report
train_bench.ARGS.json = True

if __name__ == "__main__":
    if train_bench.ARGS.world == 1:
        train_bench.run(0)
    else:
        train_bench.mp.spawn(train_bench.run, nprocs=train_bench.ARGS.world)
