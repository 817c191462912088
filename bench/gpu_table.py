#!/usr/bin/env python3
"""bench/RESULTS-gpu.md from the rows of bench/gpu.sh: gpu_table.py ROWS.

Utilisation is the floating-point operations that a sample needs (a multiplication and an addition are two; backward is twice forward)
over the card's bf16 matrix rate as measured in the same run, whatever the row's precision.
"""
import json
import sys


def gpt(vocab=50257, width=768, layers=12, context=1024):
    """Per sample: matrices, and attention of which causality needs half."""
    return 6 * context * (12 * layers * width * width + width * vocab) + 6 * layers * context * context * width


# Forward multiplications: of lenet 28*28*32*9 + 14*14*64*32*9 + 3136*128 + 1280; of resnet50 4.09e9 (He et al., 2016, with stride in the 3x3).
OPERATIONS = {"lenet": 6 * (28 * 28 * 32 * 9 + 14 * 14 * 64 * 32 * 9 + 3136 * 128 + 1280), "resnet50": 6 * 4.09e9, "gpt2-small": gpt()}


def main():
    rows = [json.loads(line) for line in open(sys.argv[1]) if line.startswith("{")]
    rate = next((r for r in rows if r["prog"] == "rate"), None)
    print("# Training steps on a GPU\n")
    if rate:
        print(f"{rate['device']}; PyTorch {rate['version']}. An 8192 x 8192 x 8192 product in bf16 by PyTorch runs at {rate['bf16_tflops']:.0f} TFLOP/s.")
    else:
        print("The card's matrix rate was not measured, and so no utilisation.")
    print("Medians of one run of each (bench/gpu.sh); memory is what the card used above what it used before.\n")
    print("| model | precision | program | samples/s | step, ms (p10, p90) | utilisation | memory, MiB |\n|---|---|---|---|---|---|---|")
    for r in rows:
        if r["prog"] == "rate":
            continue
        name = f"muster, sum: {r['sum']}" if r["prog"] == "muster" else r["prog"].replace("-", " ")
        used = f"{r['samples_per_s'] * OPERATIONS[r['model']] / rate['bf16_tflops'] / 1e12:.1%}" if rate else "-"
        print(f"| {r['model']} | {r['precision']} | {name} | {r['samples_per_s']:.0f} | {r['step_ms_med']:.2f} ({r['step_ms_p10']:.2f}, {r['step_ms_p90']:.2f}) | {used} | {r['peak_mib']} |")


main()
