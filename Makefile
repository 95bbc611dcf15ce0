PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.livery-core
DEV    := $(VENV)/.livery-dev
STUDIO := $(VENV)/.livery-studio

# The build of PyTorch for the studio engine; TORCH_INDEX=https://download.pytorch.org/whl/cpu takes PyTorch's own.
TORCH  ?= torch==2.13.0
TORCH_INDEX ?=

.PHONY: demo studio-demo test bench lint types schema clean

$(STAMP): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable .
	@touch $@

$(DEV): $(STAMP)
	$(BIN)/python -m pip install --quiet --editable ".[dev]"
	@touch $@

# PyTorch first and alone: a range, asked for together with the rest, takes the newest build with CUDA.
$(STUDIO): $(STAMP)
	$(BIN)/python -m pip install --quiet $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) "$(TORCH)"
	$(BIN)/python -m pip install --quiet --editable ".[studio]"
	@touch $@

# Compiles the kernels into the cache beside the sources, once: no job ever waits for the compiler.
.PHONY: kernels
kernels: $(STAMP)
	@$(BIN)/python -m pipeline compile

demo: kernels
	$(BIN)/python -m pipeline demo test_input.json -o out

# The studio engine's real path on tiny random models: what it draws means nothing, that it runs does.
studio-demo: $(STUDIO) kernels
	@rm -rf out/studio-volume
	$(BIN)/python -m builder tiny --volume out/studio-volume
	LIVERY_VOLUME=out/studio-volume LIVERY_ALLOW_SYNTHETIC=1 LIVERY_THREADS=1 \
	  $(BIN)/python -m pipeline demo test_input.json --times 2 -o out/studio \
	  --with '{"engine": "studio", "cache": "off", "style": {"allow_drift": true}, "sanitize": {"max_subject_share": 1}}'

# A RunPod endpoint on this machine; SERVE="--host 0.0.0.0 --key-file key.txt" opens it to others.
.PHONY: serve
serve: kernels
	$(BIN)/python -m serve $(SERVE)

# The playground on top of that server; ENDPOINT=https://api.runpod.ai/v2/ID KEY_FILE=key.txt puts it before an endpoint.
.PHONY: playground
playground: kernels
	$(BIN)/python -m $(if $(ENDPOINT),serve.playground --endpoint $(ENDPOINT) $(if $(KEY_FILE),--key-file $(KEY_FILE)),serve --playground $(SERVE))

test: $(DEV) $(STUDIO) kernels
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

bench: $(DEV) kernels
	$(BIN)/python -m pip install --quiet --editable ".[bench]"
	$(BIN)/python -m benchmarks

# Three hundred draft jobs in one process, cancelled and poisoned ones among them: what memory and descriptors they leave.
.PHONY: soak
soak: kernels
	$(BIN)/python -m benchmarks.soak

# Full-size random models, about 17 GB, on a GPU, in ten minutes; VOLUME=folder keeps them, WITHIN=seconds takes longer.
# No `kernels` first: the benchmark compiles them while it writes the models.
.PHONY: studio-bench
studio-bench: $(STUDIO)
	$(BIN)/python -m benchmarks.studio --full $(if $(VOLUME),--volume $(VOLUME)) $(if $(WITHIN),--within $(WITHIN))

lint: $(DEV)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(DEV) $(STUDIO)
	$(BIN)/mypy

schema: $(STAMP)
	$(BIN)/python -m pipeline schema --write

# What RunPod's Hub shows and tests, made from the settings.
.PHONY: hub
hub: $(DEV)
	$(BIN)/python -m tests.make_hub

# The Dockerfile's draft stages in a clean Debian root: Linux, root and debootstrap; about five minutes the first time.
.PHONY: image-check
IMAGE_ROOT ?= out/image
image-check: $(DEV)
	IMAGE_ROOT=$(IMAGE_ROOT) $(BIN)/python -m pytest -s tests/test_image.py

clean:
	rm -rf $(VENV) out build *.egg-info
