#!/usr/bin/env python3
"""How much of summing gradients is hidden behind computing, from what muster why --record --json printed: gpu_overlap.py RECORD."""
import json
import statistics
import sys


def union(spans):
    """Intervals that do not overlap, in order."""
    all = []
    for begin, end in sorted(spans):
        if all and begin <= all[-1][1]:
            all[-1][1] = max(all[-1][1], end)
        else:
            all.append([begin, end])
    return all


def length(spans):
    return sum(end - begin for begin, end in spans)


def common(a, b):
    return [(max(x, p), min(y, q)) for x, y in a for p, q in b if max(x, p) < min(y, q)]


for record in json.load(open(sys.argv[1]))["records"]:
    done = [s for s in record["spans"] if not s.get("open")]
    steps = [s for s in done if s["track"] == "step" and s["what"] == "step"][1:]  # the first may have lost its beginning
    if not steps:
        sys.exit(f"{record['node']} has recorded no whole step")
    of = {s["step"] for s in steps}

    def busy(*tracks):
        return union((s["begin_ns"], s["begin_ns"] + s["took_ns"]) for s in done if s["step"] in of and s["track"].split()[0] in tracks)

    computing, summing = busy("compute"), busy("sum", "ring")
    hidden = length(common(computing, summing))
    print(f"{record['node']}: {len(steps)} steps, {statistics.median(s['took_ns'] for s in steps) / 1e6:.1f} ms each; a step computes for"
          f" {length(computing) / len(steps) / 1e6:.1f} ms and sums for {length(summing) / len(steps) / 1e6:.1f} ms, {100 * hidden / max(1, length(summing)):.0f} % of that while it computes")
