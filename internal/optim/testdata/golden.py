#!/usr/bin/python3
"""Prints golden.json: what torch.optim, its schedulers and clip_grad_norm_ do, in float64, to a vector whose
gradient optim_test.go computes too. From internal/optim:

    /usr/bin/python3 testdata/golden.py > testdata/golden.json
"""

import json
import warnings

import torch

warnings.simplefilter("ignore")
N, STEPS = 33, 40
T = torch.float64


def start():
    return torch.tensor([((i * 37) % 64 - 32) / 16 for i in range(N)], dtype=T, requires_grad=True)


def gradient(w, step):
    """A slope towards a target, with something that no descent gets rid of."""
    slope = torch.tensor([(i % 7 + 1) / 4 for i in range(N)], dtype=T)
    target = torch.tensor([(i % 5 - 2) / 2 for i in range(N)], dtype=T)
    noise = torch.tensor([((i * 31 + step * 17) % 13 - 6) / 8 for i in range(N)], dtype=T)
    return slope * (w - target) + noise


def warm(optimizer, warmup, then):
    """A scheduler after a linear rise in warmup steps."""
    if warmup == 0:
        return then(optimizer)
    rise = torch.optim.lr_scheduler.LinearLR(optimizer, start_factor=1 / warmup, end_factor=1, total_iters=warmup - 1)
    return torch.optim.lr_scheduler.SequentialLR(optimizer, [rise, then(optimizer)], milestones=[warmup])


def run(make, schedule=None, clip=None):
    w = start()
    optimizer = make([w])
    scheduler = schedule(optimizer) if schedule else None
    rates = []
    for step in range(STEPS):
        w.grad = gradient(w.detach(), step)
        if clip:
            torch.nn.utils.clip_grad_norm_([w], clip)
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if scheduler:
            scheduler.step()
    return {"w": w.tolist(), "rates": rates}


O, S = torch.optim, torch.optim.lr_scheduler
CASES = {
    "sgd": run(lambda p: O.SGD(p, lr=0.05, weight_decay=0.01)),
    "momentum": run(lambda p: O.SGD(p, lr=0.02, momentum=0.9, weight_decay=0.01)),
    "nesterov": run(lambda p: O.SGD(p, lr=0.02, momentum=0.9, nesterov=True, weight_decay=0.01)),
    "adagrad": run(lambda p: O.Adagrad(p, lr=0.1, weight_decay=0.01)),
    "rmsprop": run(lambda p: O.RMSprop(p, lr=0.01, weight_decay=0.01)),
    "rmsprop momentum": run(lambda p: O.RMSprop(p, lr=0.01, alpha=0.9, momentum=0.5, eps=1e-6)),
    "adam": run(lambda p: O.Adam(p, lr=0.01, weight_decay=0.01)),
    "adamw": run(lambda p: O.AdamW(p, lr=0.01, betas=(0.8, 0.99), eps=1e-6, weight_decay=0.1)),
    "clip": run(lambda p: O.SGD(p, lr=0.05, momentum=0.9), clip=1.5),
    "step": run(lambda p: O.SGD(p, lr=0.1), lambda o: warm(o, 5, lambda o: S.StepLR(o, step_size=7, gamma=0.5))),
    "cosine": run(lambda p: O.AdamW(p, lr=0.05), lambda o: warm(o, 8, lambda o: S.CosineAnnealingLR(o, T_max=STEPS - 8, eta_min=0.001))),
    "polynomial": run(lambda p: O.SGD(p, lr=0.1), lambda o: warm(o, 0, lambda o: S.PolynomialLR(o, total_iters=STEPS, power=0.9))),
    "warm constant": run(lambda p: O.SGD(p, lr=0.1), lambda o: warm(o, 10, lambda o: S.ConstantLR(o, factor=1))),
}

print(json.dumps({"torch": torch.__version__, "cases": CASES}, indent=1))
