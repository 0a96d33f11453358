# veratune for the CPU: docker build -t veratune .
#                       docker run --rm -v "$PWD":/work veratune alpaca --model MODEL.gguf
FROM golang:1.26-bookworm AS build
WORKDIR /src
RUN apt-get update && apt-get install -y --no-install-recommends python3-pip && rm -rf /var/lib/apt/lists/*
ENV PIP_BREAK_SYSTEM_PACKAGES=1
COPY . .
ARG VERSION=v0.0.0
RUN make release TARGETS="linux-$(go env GOARCH)" VERSION="$VERSION" && mkdir /out && \
    tar -xzf dist/*.tar.gz -C /out --strip-components 1

FROM debian:bookworm-slim
COPY --from=build /out /opt/veratune
RUN ln -s /opt/veratune/veratune /usr/local/bin/
WORKDIR /work
ENTRYPOINT ["veratune"]
