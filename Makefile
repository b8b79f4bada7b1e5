# Two commands matter: `make run` and `make test`. `make help` lists the rest.

CPUS     ?= 4
CPU      ?= cortex-a57
SCENARIO ?=
FAULT    ?=
MINUTES  ?= 10
SEED     ?=
MEMORY   ?= 1536M

TARGET  := aarch64-unknown-none-softfloat
OUT     := $(or $(CARGO_TARGET_DIR),target)
ELF     := $(OUT)/$(TARGET)/release/firmware
IMAGE   := $(ELF).img
TLBSAN  := $(OUT)/release/tlbsan
# What is built for the bare-metal target only.
BARE    := firmware linux-guest
OPTIONS ?=

# What the firmware is told: the checker listens, and which cases to run.
APPEND  = tlbsan $(if $(SCENARIO),scenario=$(SCENARIO)) $(if $(FAULT),fault=$(FAULT))
MACHINE = -M virt,gic-version=3 -cpu $(CPU) -smp $(CPUS) -m $(MEMORY) -nographic -nic none \
          -semihosting-config enable=on,target=native -kernel $(IMAGE) -append "$(strip $(APPEND))"

.PHONY: run run-linux linux stress test test-linux bench lint doc build setup clean help
.DEFAULT_GOAL := help

## run: the firmware on QEMU under tlbsan; SCENARIO=name FAULT=scenario/fault CPUS=1..8 CPU=cortex-a57|neoverse-n2|max
run: build
	@echo "$(TLBSAN) run --symbols $(ELF) -- $(subst ",\",$(MACHINE))"
	@$(TLBSAN) run --symbols $(ELF) -- $(MACHINE)

## stress: threads that map, write, unmap and exit, from a random seed; MINUTES=n SEED=n FAULT=stress/correct|stress/lost-freed-tables
stress: APPEND = tlbsan fault=$(or $(FAULT),stress/correct) $(if $(SEED),seed=$(SEED)) seconds=$$((60 * $(MINUTES)))
stress: run

## test: everything that is checked, on the host and on QEMU
test: build
	@script/test

## run-linux: a stock Linux under tlbsan (fetches it, about 60 MB); CPUS=1..64 CPU=cortex-a57|neoverse-n2|max OPTIONS=...
run-linux: linux
	$(TLBSAN) run $(OPTIONS) -- -M virt -cpu $(CPU) -smp $(CPUS) -m 1G -nographic -nic none -no-reboot \
	    -kernel $(OUT)/linux/kernel -initrd $(OUT)/linux/initramfs -append "console=ttyAMA0 panic=-1 quiet"

## test-linux: a stock Linux is silent, and what it needs is missed when withheld (about 20 minutes; docs/linux.md)
test-linux: linux
	cargo test --release -p system-tests --test linux -- --test-threads=1 --nocapture

## bench: what the crates cost, beside what others cost; tables here, figures in target/bench
bench: build
	@cargo run --quiet --release -p benches --bin tlbi
	@cargo run --quiet --release -p benches --bin remedies
	@cargo run --quiet --release -p benches --bin replay
	@cargo run --quiet --release -p benches --bin qemu
	@cargo run --quiet --profile speed -p benches --bin pgtable

## linux: a stock Linux and our programs for it, in target/linux
linux: build
	@cargo build --release -p linux-guest --target $(TARGET)
	@script/linux $(OUT)/linux

## lint: formatting, clippy and rustdoc, warnings are errors
lint: setup
	cargo fmt --all --check
	cargo clippy --workspace $(BARE:%=--exclude %) --all-targets --all-features -- -D warnings
	cargo clippy $(BARE:%=-p %) --release --target $(TARGET) -- -D warnings
	RUSTDOCFLAGS='-D warnings' cargo doc --no-deps --workspace $(BARE:%=--exclude %) --all-features

## doc: the crates' manuals, in target/doc
doc: setup
	cargo doc --no-deps --workspace $(BARE:%=--exclude %) --all-features

## build: the command, the plugin and the firmware's image
build: setup
	@cargo build --release -p tlbsan-cli -p tlbsan-qemu
	@cargo build --release -p firmware --target $(TARGET)
	@script/image $(ELF) $(IMAGE)

## setup: the bare-metal target, QEMU and an assembler, where they are missing
setup:
	@script/setup

## clean: forget what was built
clean:
	cargo clean

## help: this list
help:
	@sed -n 's/^## //p' $(MAKEFILE_LIST) | awk -F': ' '{ printf "  make %-10s %s\n", $$1, $$2 }'
