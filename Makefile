# Everything a person types. `make help` says what there is; the work is done by the scripts in guest/host.
MAKEFLAGS += --no-print-directory
.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: soak help run linux bench model mutants test test-all debug image setup setup-raspi4b clean build

# Variables reach the scripts through the environment, byte for byte: neither make nor a shell reads their text.
VARIABLES := BOARD GIC CPU SMP MEM QEMU GUEST INITRD APPEND GUEST_MEM VCPUS PIN VMS RIGHTS GRANULE RESIZE REBOOT SEED EPOCH TIMEOUT LINUX BUG \
	EARLYCON GDB_SCRIPT FORMAT WHAT STEPS PART
$(foreach name,$(VARIABLES),$(eval override export $(name) := $$(value $(name))))
# Where make was called: relative paths are meant from there.
override export FROM := $(value PWD)

HOST := guest/host
# What is on stdin is typed to the guest: no step before it may take a byte, hence </dev/null.

help:
	@cat $(HOST)/help.txt

run:
	@$(HOST)/check.sh run </dev/null
	@$(HOST)/setup.sh </dev/null
	@$(HOST)/build.sh hypervisor guests </dev/null
	@$(HOST)/boot.sh run

linux:
	@$(HOST)/check.sh linux </dev/null
	@$(HOST)/setup.sh </dev/null
	@$(HOST)/build.sh hypervisor guests </dev/null
	@$(HOST)/boot.sh linux

debug:
	@$(HOST)/check.sh run </dev/null
	@$(HOST)/setup.sh debug
	@$(HOST)/build.sh hypervisor guests </dev/null
	@$(HOST)/debug.sh

bench:
	@$(HOST)/check.sh machine </dev/null
	@$(HOST)/setup.sh </dev/null
	@$(HOST)/build.sh hypervisor guests </dev/null
	@$(HOST)/bench.sh

# The hardware model, for STEPS= actions from SEED= on.
model:
	@$(HOST)/model.sh </dev/null

# Deliberate bugs; WHAT= chooses some by words.
mutants:
	@$(HOST)/mutants.sh </dev/null

test:
	@$(HOST)/setup.sh test
	@$(HOST)/test.sh

# The whole matrix of machines; PART=k/n: one of n parts of it.
test-all:
	@$(HOST)/setup.sh test
	@$(HOST)/test.sh all

build:
	@$(HOST)/setup.sh </dev/null
	@$(HOST)/build.sh hypervisor guests </dev/null

# An hour of the guest's time, in some minutes of ours.
soak:
	@$(HOST)/soak.sh

image:
	@$(HOST)/image.sh

setup:
	@$(HOST)/setup.sh test
	@guest/linux/fetch.sh Image busybox

setup-raspi4b:
	@$(HOST)/qemu-backports.sh

clean:
	@$(HOST)/clean.sh
