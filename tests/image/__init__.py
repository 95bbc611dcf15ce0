"""The image without a container runtime: the Dockerfile read, and its steps run in a clean Debian root."""
