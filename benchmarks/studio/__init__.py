"""Rows of the studio engine on a GPU: `python -m benchmarks.studio [--volume FOLDER] [--full | --tiny]`.

Times don't depend on the weights, so each network has its real size and random ones (`--tiny` takes small ones, to see
the whole benchmark run on a CPU). What a random network makes of a picture means nothing: the boxes, the masks and the
hole are fixed, and what phases 3 and 4 get is flat art that was drawn by code. How good a picture is, only the
published weights can show.

Nothing is timed unseen. Before a network's row is written, its parameters are counted, none of its matrices may be all
zeros (zeros run faster), and the output of every layer must be finite: `benchmarks.studio.sound`.

A line of JSON for each row, written at once, into `benchmarks/results/studio-DEVICE.jsonl` or `--json FILE`. Each says:
the device, torch and its flags, n, p50, p95, the most GPU memory, loads, and the ratio to the floor. The floor is what
the networks' operations take at the rate of a product of matrices, and what is moved takes at the rate of a copy, both
measured in the same process. The networks alone, and each mode, have a process of their own, so that their peaks of
memory don't mix. Where the device has targets (`benchmarks.studio.targets`), a row says whether it meets them.

`paint` rows are the painting without its decoding: with every optimisation, without any, without each alone, and as
diffusers' own pipelines do it on the same modules, timed in turns. The latents of both must be equal within a tolerance
that the row states, or the benchmark fails: `benchmarks.studio.compare`.

All of it ends within `--within` seconds, ten minutes by default. Each step knows about what it takes on an H100, and
how much longer those before it took here; where time is short, rows get fewer runs, and where two of each are still too
many, what is worth least is left out: first the libraries' pipelines, then the optimisations, the faithful mode, the
networks alone. What was left out is printed at the end, and is in the last row. On an H100 with 16 cores three runs of
each row should take about nine and a half minutes. More than two of them go into the kernels and the volume, made
side by side; `--volume` keeps the latter. That is an estimate: `benchmarks.studio.plan`.

Beside torch, transformers and numpy, with what those bring along (huggingface-hub, tokenizers, safetensors, regex,
PyYAML, tqdm, filelock, packaging, typing-extensions), it needs these packages, which a machine without a network must
be given as wheels: diffusers with requests (urllib3, idna, certifi, charset-normalizer) and importlib-metadata (zipp),
numba with llvmlite, opencv-python-headless, pillow, pyvips with pyvips-binary and cffi
(pycparser), pydantic with pydantic-core, annotated-types and typing-inspection, and pydantic-settings with
python-dotenv. The bucket's and the platform's packages are not needed. Without git, rows name no commit.

Start-up is measured as the process begins: imports, reading the volume, and moving what was read to the device. With
`--paced 250` the volume gives 250 MB/s, as a network's does: from this machine's own disk a start says little.
"""
