"""Distributed data-parallel training of a small network on made-up data."""

import argparse
import os

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", type=int, default=3)
    arguments = parser.parse_args()

    torch.set_num_threads(1)
    dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    rank, world = dist.get_rank(), dist.get_world_size()
    print(f"rank {rank} of {world} on node {os.environ['NODE_RANK']}", flush=True)

    torch.manual_seed(rank)
    inputs = torch.randn(512, 8)
    targets = inputs.sum(dim=1, keepdim=True)
    model = DistributedDataParallel(nn.Linear(8, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for epoch in range(arguments.epochs):
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(model(inputs), targets)
        loss.backward()
        optimizer.step()
        total = loss.detach().clone()
        dist.all_reduce(total)
        if rank == 0:
            print(f"epoch {epoch} loss {total.item() / world:.4f}", flush=True)
    # Nobody leaves while another still talks, and nothing that holds the group outlives it.
    dist.barrier()
    del model, optimizer, loss
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
