#!/usr/bin/python3
"""Optimizer updates and clipping of muster beside PyTorch's, on one processor, case by case in turns: medians over the
rounds, for 4 Mi parameters in one tensor. PyTorch's Adam and AdamW as by default, and with foreach=True. From the root:

    bench/optim.py [ROUNDS]
"""

import os
import re
import statistics
import subprocess
import sys
import tempfile
import time

import torch

N = 1 << 22
O = torch.optim
CASES = {
    "Update/^plain$": lambda p: O.SGD(p, lr=0.1),
    "Update/^momentum$": lambda p: O.SGD(p, lr=0.05, momentum=0.9),
    "Update/^nesterov$": lambda p: O.SGD(p, lr=0.02, momentum=0.8, nesterov=True, weight_decay=0.01),
    "Update/^adagrad$": lambda p: O.Adagrad(p, lr=0.1, weight_decay=0.01),
    "Update/^rmsprop$": lambda p: O.RMSprop(p, lr=0.01),
    "Update/^adam$": lambda p: O.Adam(p, lr=1e-3),
    "Update/^adamw$": lambda p: O.AdamW(p, lr=1e-2, weight_decay=0.1),
    "Update/^adamw$ ": lambda p: O.AdamW(p, lr=1e-2, weight_decay=0.1, foreach=True),
    "Clip": None,
}


def ours(binary, case):
    """Milliseconds of one update."""
    args = [binary, "-test.run", "^$", "-test.bench", case.strip(), "-test.benchtime", "100ms", "-test.cpu", "1"]
    out = subprocess.run(args, check=True, capture_output=True, text=True).stdout
    return float(re.search(r"([\d.]+) ns/op", out).group(1)) / 1e6


def theirs(make):
    """The median in milliseconds of ten updates after two."""
    p = torch.randn(N, requires_grad=True)
    p.grad = torch.randn(N)
    step = make([p]).step if make else lambda: torch.nn.utils.clip_grad_norm_([p], 1.0)
    times = []
    for _ in range(12):
        begun = time.perf_counter()
        step()
        times.append(time.perf_counter() - begun)
    return statistics.median(times[2:]) * 1e3


def main():
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    torch.set_num_threads(1)
    figures = {case: ([], []) for case in CASES}
    with tempfile.TemporaryDirectory() as work:
        binary = os.path.join(work, "optim.test")
        subprocess.run(["go", "test", "-c", "-o", binary, "./internal/optim"], check=True)
        for _ in range(rounds):
            for case, make in CASES.items():
                figures[case][0].append(ours(binary, case))
                figures[case][1].append(theirs(make))
    print(f"{N} parameters, one processor, milliseconds; PyTorch {torch.__version__}; medians of {rounds} rounds\n")
    print("| | muster | PyTorch | PyTorch / muster |\n|---|---:|---:|---:|")
    for case, (mine, other) in figures.items():
        name = case.strip().removeprefix("Update/^").removesuffix("$") if "/" in case else "clip by norm"
        a, b = statistics.median(mine), statistics.median(other)
        print(f"| {name}{' (foreach)' if case.endswith(' ') else ''} | {a:.2f} | {b:.2f} | {b / a:.1f} |")


main()
