"""Writes what PyTorch makes of the models, which trainer/nn/golden_test.go compares with:

    /usr/bin/python3 bench/golden.py trainer/nn/testdata

For each model NAME.safetensors holds the initial weights as PyTorch draws them, and the samples; golden.json the loss
and the gradient at these weights, and the losses of 20 steps with each optimizer. The arithmetic is float64: the truth, not
another rounding of it. Debian's python3-torch is all that it needs.
"""

import json
import math
import pathlib
import struct
import sys

import torch
import torch.nn as nn
import torch.nn.functional as F

BATCH = 8   # samples of a step
POOL = 16   # samples in all: step s takes those from 8*s on, round and round
STEPS = 20

# The learning rate of momentum. Batch norm makes small weights learn fast, and with ReLU small networks are chaotic
# then: with 0.01, or other samples in each step, changing the initial values of resnet18 by 1e-7 (still in
# float64) changes the losses by up to 4e-2; with these by 1e-7.
RATE = {"resnet18": 0.0001, "resnet50": 0.0001}
POOLS = {"resnet18": 8, "resnet50": 8}


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
    """That of ../shared/peers/torch/models.py, with other sizes."""

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


class Bottleneck(nn.Module):
    def __init__(self, channels, width, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, 4 * width, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * width)
        self.downsample = None
        if stride != 1 or channels != 4 * width:
            self.downsample = nn.Sequential(nn.Conv2d(channels, 4 * width, 1, stride, bias=False), nn.BatchNorm2d(4 * width))

    def forward(self, x):
        y = F.relu(self.bn1(self.conv1(x)))
        y = self.bn3(self.conv3(F.relu(self.bn2(self.conv2(y)))))
        return F.relu(y + (x if self.downsample is None else self.downsample(x)))


class ResNet50(nn.Module):
    """torchvision's, with other sizes: Debian has no torchvision."""

    def __init__(self, channels, blocks, inputs, classes):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, channels[0], 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(channels[0])
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        before = channels[0]
        for stage, (width, count) in enumerate(zip(channels, blocks)):
            layers = []
            for i in range(count):
                layers.append(Bottleneck(before, width, 2 if stage > 0 and i == 0 else 1))
                before = 4 * width
            setattr(self, f"layer{stage + 1}", nn.Sequential(*layers))
        self.fc = nn.Linear(before, classes)

    def forward(self, x):
        x = self.maxpool(F.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(F.adaptive_avg_pool2d(x, 1).flatten(1))


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
    """That of ../shared/peers/torch/models.py, with other sizes."""

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


# (model, its options as in a job file, shape of a sample, classes (0: regression), constructor)
MODELS = [
    ("linear", {}, [13], 0, lambda o: nn.Sequential(nn.Linear(13, 1))),
    ("logistic", {}, [21], 2, lambda o: nn.Sequential(nn.Linear(21, 1))),
    ("mlp", {"hidden": [48, 33]}, [14, 14], 10, lambda o: nn.Sequential(
        nn.Flatten(), nn.Linear(196, 48), nn.ReLU(), nn.Linear(48, 33), nn.ReLU(), nn.Linear(33, 10))),
    ("lenet", {"channels": [8, 12], "hidden": 40}, [1, 14, 14], 10, lambda o: nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(8, 12, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(108, 40), nn.ReLU(), nn.Linear(40, 10))),
    ("resnet18", {"channels": [4, 6, 8, 10]}, [3, 16, 16], 10, lambda o: ResNet18(o["channels"], 3, 10)),
    ("resnet50", {"channels": [4, 4, 6, 8], "blocks": [1, 2, 1, 1]}, [3, 32, 32], 10, lambda o: ResNet50(o["channels"], o["blocks"], 3, 10)),
    ("gpt", {"vocab": 90, "width": 36, "heads": 3, "layers": 2, "context": 24}, [20], 81, lambda o: GPT(**o)),
]


def name_of(model, key):
    """The name of a tensor here: PyTorch's, but of mlp, where ours has no Flatten before the first layer."""
    if model == "mlp":
        number, rest = key.split(".")
        return f"{int(number) - 1}.{rest}"
    return key


def write_safetensors(path, tensors):
    header, at = {}, 0
    for name, t in tensors.items():
        header[name] = {"dtype": "F32", "shape": list(t.shape), "data_offsets": [at, at + 4 * t.numel()]}
        at += 4 * t.numel()
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text)
        for t in tensors.values():
            f.write(t.float().contiguous().numpy().tobytes())


def samples(shape, classes, pool, tokens):
    """The samples and their labels, or targets."""
    if tokens:
        return torch.randint(classes, (pool, *shape)), torch.randint(classes, (pool, *shape))
    return torch.randn(pool, *shape), torch.randn(pool) if classes == 0 else torch.randint(classes, (pool,))


def batch(data, step):
    at = (torch.arange(BATCH) + BATCH * step) % len(data[1])
    x, y = data[0][at], data[1][at]
    return x.double() if x.is_floating_point() else x, y


def loss_of(out, y, classes):
    """The sum of the losses, and how many labels are right."""
    if classes == 0:
        return F.mse_loss(out.flatten(), y.double(), reduction="sum"), 0
    if out.shape[-1] == 1:
        out = out.flatten()
        return F.binary_cross_entropy_with_logits(out, y.double(), reduction="sum"), ((out > 0) == (y == 1)).sum().item()
    out, y = out.flatten(0, -2), y.flatten()
    return F.cross_entropy(out, y, reduction="sum"), (out.argmax(1) == y).sum().item()


def train(model, optimizer, data, classes):
    losses = []
    for step in range(STEPS):
        x, y = batch(data, step)
        optimizer.zero_grad()
        loss = loss_of(model(x), y, classes)[0] / y.numel()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def golden(folder, number, name, options, shape, classes, constructor):
    torch.manual_seed(number)
    model = constructor(options)
    data = samples(shape, classes, POOLS.get(name, POOL), name == "gpt")
    start = {key: value.clone() for key, value in model.state_dict().items()}
    named = {name_of(name, key): p.detach() for key, p in model.named_parameters()}
    write_safetensors(folder / f"{name}.safetensors", {**named, "samples": data[0], "labels": data[1]})
    model.double()
    x, y = batch(data, 0)
    loss, correct = loss_of(model(x), y, classes)
    (loss / y.numel()).backward()
    tensors = []
    for key, p in model.named_parameters():
        g = p.grad.flatten()
        at = torch.linspace(0, len(g) - 1, 7).long()
        tensors.append({"name": name_of(name, key), "shape": list(p.shape), "norm": g.norm().item(), "at": at.tolist(), "gradient": g[at].tolist()})
    entry = {"model": name, "options": options, "in": shape, "classes": classes, "loss": loss.item(), "correct": correct,
             "tensors": tensors, "rate": RATE.get(name, 0.01)}
    for optimizer, make in (("momentum", lambda p: torch.optim.SGD(p, lr=entry["rate"], momentum=0.9)), ("adamw", lambda p: torch.optim.AdamW(p, lr=3e-4))):
        model.load_state_dict(start)
        entry[optimizer] = train(model, make(model.parameters()), data, classes)
    return entry


folder = pathlib.Path(sys.argv[1])
entries = [golden(folder, number, *m) for number, m in enumerate(MODELS)]
(folder / "golden.json").write_text("[\n" + ",\n".join(map(json.dumps, entries)) + "\n]\n")
