"""Prints golden.json: what PyTorch makes of the models, on the initial values of package nn
(seed 42; computed here a second time, in numpy) and 8 made-up samples.

    /usr/bin/python3 golden.py > golden.json
"""

import json

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F

MODELS = {
    "linear": lambda: nn.Sequential(nn.Linear(784, 10)),
    "mlp": lambda: nn.Sequential(
        nn.Linear(784, 512), nn.ReLU(), nn.Linear(512, 256), nn.ReLU(), nn.Linear(256, 10)),
    "lenet": lambda: nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(3136, 128), nn.ReLU(), nn.Linear(128, 10)),
}
GAMMA = np.uint64(0x9E3779B97F4A7C15)
SAMPLES = 8


def mix(z):
    z = z + GAMMA
    z = (z ^ z >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ z >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    return z ^ z >> np.uint64(31)


def initial(seed, tensor, count, fan_in):
    key = mix(mix(np.array([seed], np.uint64)) ^ np.array([tensor], np.uint64) * GAMMA)
    bits = mix(key + np.arange(count, dtype=np.uint64) * GAMMA) >> np.uint64(40)
    return ((bits.astype(np.float64) / 2**23 - 1) * (1 / np.sqrt(float(fan_in)))).astype(np.float32)


def golden(name):
    model = MODELS[name]()
    state = model.state_dict()
    fan_in = 0
    for i, (key, value) in enumerate(state.items()):
        if key.endswith("weight"):
            fan_in = value[0].numel()
        value.copy_(torch.from_numpy(initial(42, i, value.numel(), fan_in)).view_as(value))
    x = (torch.arange(SAMPLES * 784) * 7919 % 1000).float() / 1000
    x = x.view(SAMPLES, 1, 28, 28) if name == "lenet" else x.view(SAMPLES, 784)
    labels = torch.arange(SAMPLES) * 3 % 10
    out = model.double()(x.double())  # float64: the truth, not another rounding of it
    loss = F.cross_entropy(out, labels, reduction="sum")
    (loss / SAMPLES).backward()
    tensors = []
    for key, p in model.named_parameters():
        g = p.grad.flatten()
        at = torch.linspace(0, len(g) - 1, 7).long()
        tensors.append({
            "name": key, "shape": list(p.shape), "norm": g.norm().item(),
            "at": at.tolist(), "gradient": g[at].tolist(), "first": p.flatten()[0].item(),
        })
    correct = (out.argmax(1) == labels).sum().item()
    return {"model": name, "loss": loss.item(), "correct": correct, "tensors": tensors}


np.seterr(over="ignore")
print(json.dumps([golden(name) for name in MODELS], indent=1))
