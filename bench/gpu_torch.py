#!/usr/bin/env python3
"""Training steps of PyTorch for bench/gpu.sh: one JSON line, with the fields of muster bench step.

    gpu_torch.py --rate                                          the card's bf16 matrix rate, on random data
    gpu_torch.py --model M --precision P --mode eager|compile
"""
import argparse
import contextlib
import json
import statistics
import time

import torch
import torch.nn as nn
import torch.nn.functional as F


class Block(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.fc1, self.fc2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x):
        n, t, width = x.shape
        q, k, v = (p.view(n, t, self.heads, width // self.heads).transpose(1, 2) for p in self.qkv(self.norm1(x)).split(width, 2))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.proj(y.transpose(1, 2).reshape(n, t, width))
        return x + self.fc2(F.gelu(self.fc1(self.norm2(x))))


class GPT(nn.Module):
    """gpt2-small's shape, with a head of its own."""

    def __init__(self, vocab=50257, width=768, heads=12, layers=12, context=1024):
        super().__init__()
        self.token_emb, self.pos_emb = nn.Embedding(vocab, width), nn.Embedding(context, width)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(layers))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, vocab, bias=False)

    def forward(self, tokens):
        x = self.token_emb(tokens) + self.pos_emb.weight[: tokens.shape[1]]
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


def lenet():
    return nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(64 * 7 * 7, 128), nn.ReLU(), nn.Linear(128, 10))


def resnet50():
    import torchvision  # only here: not every machine has it

    return torchvision.models.resnet50()


def images(n, classes, *shape):
    x = torch.randn(n, *shape, device=device)
    return x.to(memory_format=torch.channels_last), torch.randint(classes, (n,), device=device)


def sgd(p):
    return torch.optim.SGD(p, lr=0.01, momentum=0.9)


def adamw(p):
    return torch.optim.AdamW(p, lr=3e-4, weight_decay=0.01, fused=device == "cuda")


MODELS = {
    "lenet": (lenet, 128, lambda n: images(n, 10, 1, 28, 28), sgd),
    "resnet50": (resnet50, 128, lambda n: images(n, 1000, 3, 224, 224), sgd),
    "gpt2-small": (GPT, 16, lambda n: (torch.randint(50257, (n, 1024), device=device), torch.randint(50257, (n, 1024), device=device)), adamw),
}


def synchronize():
    if device == "cuda":
        torch.cuda.synchronize()


def rate():
    n = 8192
    a, b = (torch.randn(n, n, device=device, dtype=torch.bfloat16) for _ in range(2))
    times = []
    for _ in range(13):
        synchronize()
        start = time.perf_counter()
        a @ b
        synchronize()
        times.append(time.perf_counter() - start)
    print(json.dumps({"prog": "rate", "device": torch.cuda.get_device_name(), "version": torch.__version__, "bf16_tflops": 2 * n**3 / statistics.median(times[3:]) / 1e12}))


def main():
    torch.manual_seed(0)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = args.precision == "tf32"
    build, batch, data, optimiser = MODELS[args.model]
    batch = args.batch or batch
    model = build().to(device)
    if args.model != "gpt2-small":
        model = model.to(memory_format=torch.channels_last)
    params = sum(p.numel() for p in model.parameters())
    run = torch.compile(model) if args.mode == "compile" else model
    optim = optimiser(model.parameters())
    x, y = data(batch)

    def step():
        optim.zero_grad(set_to_none=True)
        cast = torch.autocast(device, dtype=torch.bfloat16) if args.precision == "bf16" else contextlib.nullcontext()
        with cast:
            out = run(x)
            loss = F.cross_entropy(out.reshape(-1, out.shape[-1]).float(), y.reshape(-1))
        loss.backward()
        optim.step()
        return loss

    for _ in range(3):
        step()
    synchronize()
    start = time.perf_counter()
    step()
    synchronize()
    times = []
    for _ in range(max(5, min(400, int(args.secs / (time.perf_counter() - start))))):
        start = time.perf_counter()
        step()
        synchronize()
        times.append(time.perf_counter() - start)
    times.sort()
    med = statistics.median(times)
    print(json.dumps({
        "prog": "torch-" + args.mode, "version": torch.__version__, "model": args.model, "precision": args.precision, "batch": batch, "params": params,
        "steps": len(times), "step_ms_med": med * 1e3, "step_ms_p10": times[len(times) // 10] * 1e3, "step_ms_p90": times[9 * len(times) // 10] * 1e3,
        "samples_per_s": batch / med}))


parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--rate", action="store_true")
parser.add_argument("--model", choices=MODELS)
parser.add_argument("--precision", choices=["fp32", "tf32", "bf16"], default="fp32")
parser.add_argument("--mode", choices=["eager", "compile"], default="eager")
parser.add_argument("--batch", type=int, help="other than the model's, to try the script")
parser.add_argument("--secs", type=float, default=2)
parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda", help="cpu to try the script")
args = parser.parse_args()
device = args.device
rate() if args.rate else main()
