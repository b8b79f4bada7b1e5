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

# What the firmware is told: the checker listens, and which cases to run.
APPEND  = tlbsan $(if $(SCENARIO),scenario=$(SCENARIO)) $(if $(FAULT),fault=$(FAULT))
MACHINE = -M virt,gic-version=3 -cpu $(CPU) -smp $(CPUS) -m $(MEMORY) -nographic -nic none \
          -semihosting-config enable=on,target=native -kernel $(IMAGE) -append "$(strip $(APPEND))"

.PHONY: run stress test bench lint doc build setup clean help
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

## bench: what the crates cost, beside what others cost; tables here, figures in target/bench
bench: build
	@cargo run --quiet --release -p benches --bin tlbi
	@cargo run --quiet --release -p benches --bin remedies
	@cargo run --quiet --release -p benches --bin replay
	@cargo run --quiet --profile speed -p benches --bin pgtable

## lint: formatting, clippy and rustdoc, warnings are errors
lint: setup
	cargo fmt --all --check
	cargo clippy --workspace --exclude firmware --all-targets --all-features -- -D warnings
	cargo clippy -p firmware --release --target $(TARGET) -- -D warnings
	RUSTDOCFLAGS='-D warnings' cargo doc --no-deps --workspace --exclude firmware --all-features

## doc: the crates' manuals, in target/doc
doc: setup
	cargo doc --no-deps --workspace --exclude firmware --all-features

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
	@sed -n 's/^## //p' $(MAKEFILE_LIST) | awk -F': ' '{ printf "  make %-6s %s\n", $$1, $$2 }'
