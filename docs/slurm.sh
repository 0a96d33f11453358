#!/bin/bash
#SBATCH --job-name=veratune
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=32
#SBATCH --time=08:00:00
#SBATCH --output=veratune-%j.log

# One process a machine, with all its cores. `srun --mpi=list` tells what Slurm was built with: pmix goes with Open MPI, pmi2 with MPICH.
module load openmpi 2>/dev/null || true

out=$HOME/runs/mine
more=()
[ -e "$out/config.json" ] && more=(--resume)

srun --mpi=pmix --cpus-per-task="$SLURM_CPUS_PER_TASK" --kill-on-bad-exit=1 \
	veratune alpaca --model "$HOME/models/llama2-7b.Q4_0.gguf" --data "$HOME/data/alpaca.json" --out "$out" --threads "$SLURM_CPUS_PER_TASK" "${more[@]}"
