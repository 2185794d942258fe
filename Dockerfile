# The command line as an image. `make image` builds it and runs the demo in it; by hand, with PyTorch for the CPU or for CUDA:
#   docker build --tag coh_lightning .
#   docker build --tag coh_lightning --build-arg TORCH_INDEX= .
#   docker run --rm --volume "$PWD/runs:/home/coh/runs" coh_lightning fit --config conf/quickstart.yaml
# pip's own settings (a mirror, a certificate), if any, are the secret pip.conf and reach no layer: --secret id=pip.conf,src=$HOME/.config/pip/pip.conf

ARG BASE=python:3.11.13-slim-bookworm

FROM ${BASE} AS build
WORKDIR /build
ENV PIP_ROOT_USER_ACTION=ignore
RUN useradd --uid 1000 --create-home coh && python3 -m venv /opt/coh_lightning
ENV PATH=/opt/coh_lightning/bin:$PATH
COPY constraints.txt ./
# the largest layer first; without an index of its own this is the build on PyPI, which is for CUDA. Its own tests go, 83 MB
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
RUN --mount=type=secret,id=pip.conf,target=/etc/pip.conf --mount=type=cache,target=/root/.cache/pip \
    pip install --no-deps --constraint constraints.txt ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} torch \
    && rm -r /opt/coh_lightning/lib/python3*/site-packages/torch/test
# then what changes seldom: the dependencies, and those of some extras, such as "study lora"
COPY pyproject.toml ./
ARG EXTRAS=study
RUN --mount=type=secret,id=pip.conf,target=/etc/pip.conf --mount=type=cache,target=/root/.cache/pip \
    python -c "import tomllib; project = tomllib.load(open('pyproject.toml', 'rb'))['project']; extras = project['optional-dependencies']; \
print(*project['dependencies'], *(each for extra in '${EXTRAS}'.split() for each in extras[extra]), sep='\n')" > requirements.txt \
    && pip install --constraint constraints.txt --requirement requirements.txt
COPY README.md LICENSE ./
COPY conf conf
COPY coh_lightning coh_lightning
RUN --mount=type=secret,id=pip.conf,target=/etc/pip.conf --mount=type=cache,target=/root/.cache/pip \
    pip install --no-deps .

# no RUN here: some builders keep empty folders in the place of what was mounted
FROM ${BASE}
COPY --from=build /etc/passwd /etc/group /etc/
COPY --from=build --chown=1000:1000 /home/coh /home/coh
COPY --from=build /opt/coh_lightning /opt/coh_lightning
ENV PATH=/opt/coh_lightning/bin:$PATH
USER 1000:1000
WORKDIR /home/coh
ENTRYPOINT ["python", "-m", "coh_lightning"]
CMD ["--help"]
