"""Prints golden.json: what PyTorch makes of the models, on the initial values of package nn
(seed 42; computed here a second time, in numpy) and 8 made-up samples: the loss and the gradient, and the
losses of 20 steps of each optimizer. In float64: the truth, not another rounding of it.

    /usr/bin/python3 golden.py > golden.json
"""

import json
import math

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F

GAMMA = np.uint64(0x9E3779B97F4A7C15)
SAMPLES = 8
STEPS = 20

# The learning rate of momentum. Batch norm makes small weights learn fast, and with ReLU small networks are chaotic
# then: with 0.01, or other samples in each step, changing the initial values of resnet18 by 1e-7 (still in
# float64) changes the losses by up to 4e-2; with these by 1e-7.
RATE = {"resnet18": 0.0001}


class ResidualBlock(nn.Module):
    def __init__(self, channels, out, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, out, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(out)
        self.conv2 = nn.Conv2d(out, out, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(out)
        self.shortcut = nn.Sequential()
        if stride != 1 or channels != out:
            self.shortcut = nn.Sequential(nn.Conv2d(channels, out, 1, stride, bias=False), nn.BatchNorm2d(out))

    def forward(self, x):
        y = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(y)) + self.shortcut(x))


class ResNet18(nn.Module):
    def __init__(self, channels, inputs, classes):
        super().__init__()
        layers = [nn.Conv2d(inputs, channels[0], 3, 1, 1, bias=False), nn.BatchNorm2d(channels[0]), nn.ReLU()]
        before = channels[0]
        for i in range(8):
            layers.append(ResidualBlock(before, channels[i // 2], 2 if i in (2, 4, 6) else 1))
            before = channels[i // 2]
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(before, classes)

    def forward(self, x):
        return self.classifier(self.features(x).mean((2, 3)))


class TransformerBlock(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(width)
        self.norm2 = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, x, mask):
        batch, time, width = x.shape
        q, k, v = (t.view(batch, time, self.heads, width // self.heads).transpose(1, 2)
                   for t in self.qkv(self.norm1(x)).split(width, 2))
        att = (q @ k.transpose(-2, -1)) / math.sqrt(width // self.heads)
        att = att.masked_fill(mask, float("-inf")).softmax(-1)
        x = x + self.proj((att @ v).transpose(1, 2).reshape(batch, time, width))
        return x + self.fc2(F.gelu(self.fc1(self.norm2(x))))


class GPT(nn.Module):
    def __init__(self, vocab, width, heads, layers, context):
        super().__init__()
        self.token_emb = nn.Embedding(vocab, width)
        self.pos_emb = nn.Embedding(context, width)
        self.blocks = nn.ModuleList(TransformerBlock(width, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, vocab, bias=False)

    def forward(self, tokens):
        time = tokens.shape[1]
        x = self.token_emb(tokens) + self.pos_emb.weight[:time]
        mask = torch.triu(torch.ones(time, time, dtype=torch.bool), 1)
        for block in self.blocks:
            x = block(x, mask)
        return self.head(self.norm(x))


# (model, its options, shape of a sample, classes, constructor); options as in a job file
MODELS = [
    ("linear", {}, [1, 28, 28], 10, lambda o: nn.Sequential(nn.Flatten(), nn.Linear(784, 10))),
    ("mlp", {}, [1, 28, 28], 10, lambda o: nn.Sequential(
        nn.Linear(784, 512), nn.ReLU(), nn.Linear(512, 256), nn.ReLU(), nn.Linear(256, 10))),
    ("lenet", {}, [1, 28, 28], 10, lambda o: nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(3136, 128), nn.ReLU(), nn.Linear(128, 10))),
    ("resnet18", {"channels": [4, 6, 8, 10]}, [3, 16, 16], 10, lambda o: ResNet18(o["channels"], 3, 10)),
    ("gpt", {"vocab": 160, "width": 48, "heads": 3, "layers": 2, "context": 40}, [36], 150, lambda o: GPT(**o)),
]


def mix(z):
    z = z + GAMMA
    z = (z ^ z >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ z >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    return z ^ z >> np.uint64(31)


def initial(seed, tensor, name, shape, fan_in):
    count = int(np.prod(shape))
    if len(shape) == 1 and fan_in is None:  # a norm's
        return np.full(count, float(name.endswith("weight")), np.float32)
    key = mix(mix(np.array([seed], np.uint64)) ^ np.array([tensor], np.uint64) * GAMMA)
    if "_emb." in name:
        bits = mix(key + np.arange(4 * count, dtype=np.uint64) * GAMMA).reshape(count, 4)
        low = np.uint64(2**21 - 1)
        total = sum((bits >> np.uint64(s) & low).astype(np.int64) for s in (0, 21, 42)).sum(1) - 6 * (2**21 - 1)
        return (total.astype(np.float64) / 2**21).astype(np.float32)
    bits = mix(key + np.arange(count, dtype=np.uint64) * GAMMA) >> np.uint64(40)
    return ((bits.astype(np.float64) / 2**23 - 1) * (1 / np.sqrt(float(fan_in)))).astype(np.float32)


def build(constructor, options):
    model = constructor(options)
    fan_in = None
    for i, (key, value) in enumerate(model.named_parameters()):
        if key.endswith("weight"):
            fan_in = value[0].numel() if value.dim() > 1 else None
        start = initial(42, i, key, value.shape, fan_in)
        value.data.copy_(torch.from_numpy(start).view_as(value))
    return model.double()


def batch(name, shape, classes, step):
    """The samples of a step, and their labels."""
    if name == "gpt":
        at = torch.arange(SAMPLES * shape[0])
        tokens = (at * at * 31 + at * 7 + step * 13) % classes
        return tokens.view(SAMPLES, -1), ((at * at * 31 + at * 11 + step * 17) % classes)
    if name == "resnet18":
        step = 0  # see RATE
    at = np.arange(SAMPLES * math.prod(shape), dtype=np.uint64) + np.uint64(step * 1000003)
    x = torch.from_numpy((mix(at) >> np.uint64(40)).astype(np.float64) / 2**24)
    x = x.view(SAMPLES, -1) if name == "mlp" else x.view(SAMPLES, *shape)
    return x, (torch.arange(SAMPLES) * 3 + step) % classes


def loss_of(model, data):
    out = model(data[0]).flatten(0, -2)
    return out, F.cross_entropy(out, data[1], reduction="sum")


def train(model, optimizer, data):
    losses = []
    for step in range(STEPS):
        samples = data(step)
        optimizer.zero_grad()
        loss = loss_of(model, samples)[1] / len(samples[1])
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def golden(name, options, shape, classes, constructor):
    model = build(constructor, options)
    data = lambda step: batch(name, shape, classes, step)
    out, loss = loss_of(model, data(0))
    labels = data(0)[1]
    (loss / len(labels)).backward()
    tensors = []
    for key, p in model.named_parameters():
        g = p.grad.flatten()
        at = torch.linspace(0, len(g) - 1, 7).long()
        key = key.replace("1.", "0.") if name == "linear" else key  # there is no Flatten in ours
        tensors.append({
            "name": key, "shape": list(p.shape), "norm": g.norm().item(),
            "at": at.tolist(), "gradient": g[at].tolist(), "first": p.flatten()[0].item(),
        })
    rate = RATE.get(name, 0.01)
    sgd = train(model, torch.optim.SGD(model.parameters(), lr=rate, momentum=0.9), data)
    model = build(constructor, options)
    adamw = train(model, torch.optim.AdamW(model.parameters(), lr=3e-4), data)
    correct = (out.argmax(1) == labels).sum().item()
    return {"model": name, "options": options, "in": shape, "classes": classes,
            "loss": loss.item(), "correct": correct, "rate": rate, "momentum": sgd, "adamw": adamw, "tensors": tensors}


np.seterr(over="ignore")
print("[\n" + ",\n".join(json.dumps(golden(*m)) for m in MODELS) + "\n]")
