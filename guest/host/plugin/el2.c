/*
 * A QEMU TCG plugin: counts the instructions executed in Faultline's image, and all of them.
 *
 *   -plugin el2.so,start=0x40200000,size=0x100000,out=FILE[,histogram=on][,looks=OFFSET]
 *
 * start, size: where the image lies in physical memory; without them there is no image. At the end FILE has `el2 N` and
 * `all N`, and of both counts what they were at the guest's first instruction (`el2_first`, `all_first`) and at the first
 * one of its user space (`el2_user`, `all_user`; Linux: the first below RAM after the kernel moved to high addresses). With
 * looks=OFFSET, where the image takes the interrupts that wait, `longest N` is the longest that a CPU was in the image at one
 * time without coming there, from the guest's first instruction on: that long an interrupt waits at most. With
 * histogram=on also a line `OFFSET N` for each instruction of the image that was executed, by its offset from the image's
 * start.
 *
 * Guests use the same virtual addresses as EL2, so an instruction belongs to the image by where it lies in the host's
 * memory. The first instruction of all runs with every MMU off: it says where physical memory begins there.
 *
 * Built for the plugin interface that the QEMU at hand speaks: -DVERSION=1 up to QEMU 8, 2 from QEMU 9 on.
 */
#include "qemu-plugin.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

QEMU_PLUGIN_EXPORT int qemu_plugin_version = VERSION;

/* One vCPU thread runs at a time (thread=single), so plain additions will do. */
static uint64_t el2, all;
/* What both were at the guest's first instruction, and at its user space's; 0: not yet. */
static uint64_t el2_first, all_first, el2_user, all_user;
static bool kernel_is_high;
static uint64_t image_start, image_size;
/* Host address of physical address 0, were there memory. */
static uintptr_t physical_zero;
/* What each CPU executed in the image since it was in its guest last, or took interrupts; and the most that was. */
#define CPUS 64
static uint64_t stretch[CPUS], longest;
/* Where interrupts are taken, as an offset in the image; UINT64_MAX: not told. */
static uint64_t looks = UINT64_MAX;
/* How often each instruction of the image was executed, by its offset / 4; NULL without histogram=on. */
static uint64_t *histogram;
static char out[4096];

/* Where QEMU's virt has RAM, which is where a kernel runs before it has its own addresses. */
static const uint64_t ram_start = 0x40000000, ram_end = 0x80000000;

static void end_stretch(unsigned int cpu)
{
    if (all_first != 0 && stretch[cpu % CPUS] > longest) {
        longest = stretch[cpu % CPUS];
    }
    stretch[cpu % CPUS] = 0;
}

static void executed_look(unsigned int cpu, void *unused)
{
    (void)unused;
    end_stretch(cpu);
}

static void executed_low(unsigned int cpu, void *count)
{
    end_stretch(cpu);
    if (all_first == 0 && (image_size == 0 || el2 != 0)) {
        el2_first = el2;
        all_first = all;
    }
    all += (uintptr_t)count;
}

static void executed_high(unsigned int cpu, void *count)
{
    end_stretch(cpu);
    kernel_is_high = true;
    all += (uintptr_t)count;
}

static void executed_below_ram(unsigned int cpu, void *count)
{
    end_stretch(cpu);
    if (kernel_is_high && all_user == 0) {
        el2_user = el2;
        all_user = all;
    }
    all += (uintptr_t)count;
}

static void executed_in_image(unsigned int cpu, void *count)
{
    stretch[cpu % CPUS] += (uintptr_t)count;
    all += (uintptr_t)count;
    el2 += (uintptr_t)count;
}

static void executed_instruction(unsigned int cpu, void *place)
{
    (void)cpu;
    ++*(uint64_t *)place;
}

static uint64_t offset_in_image(const struct qemu_plugin_insn *insn)
{
    return (uintptr_t)qemu_plugin_insn_haddr(insn) - physical_zero - image_start;
}

static void translated(qemu_plugin_id_t id, struct qemu_plugin_tb *tb)
{
    (void)id;
    size_t count = qemu_plugin_tb_n_insns(tb);
    struct qemu_plugin_insn *first = qemu_plugin_tb_get_insn(tb, 0);
    if (physical_zero == 0) {
        physical_zero = (uintptr_t)qemu_plugin_insn_haddr(first) - qemu_plugin_insn_vaddr(first);
    }
    uint64_t address = qemu_plugin_insn_vaddr(first);
    bool in_image = offset_in_image(first) < image_size;
    qemu_plugin_vcpu_udata_cb_t executed = in_image                                       ? executed_in_image
                                           : address >> 63                                ? executed_high
                                           : address >= ram_start && address < ram_end    ? executed_low
                                                                                          : executed_below_ram;
    qemu_plugin_register_vcpu_tb_exec_cb(tb, executed, QEMU_PLUGIN_CB_NO_REGS, (void *)(uintptr_t)count);
    for (size_t i = 0; in_image && i < count; i++) {
        struct qemu_plugin_insn *insn = qemu_plugin_tb_get_insn(tb, i);
        uint64_t offset = offset_in_image(insn);
        if (offset == looks) {
            qemu_plugin_register_vcpu_insn_exec_cb(insn, executed_look, QEMU_PLUGIN_CB_NO_REGS, NULL);
        }
        if (histogram && offset < image_size) {
            qemu_plugin_register_vcpu_insn_exec_cb(insn, executed_instruction, QEMU_PLUGIN_CB_NO_REGS,
                                                   &histogram[offset / 4]);
        }
    }
}

static void report(qemu_plugin_id_t id, void *userdata)
{
    (void)id, (void)userdata;
    FILE *file = fopen(out, "w");
    if (!file) {
        perror(out);
        return;
    }
    fprintf(file, "el2 %" PRIu64 "\nall %" PRIu64 "\n", el2, all);
    fprintf(file, "el2_first %" PRIu64 "\nall_first %" PRIu64 "\n", el2_first, all_first);
    fprintf(file, "el2_user %" PRIu64 "\nall_user %" PRIu64 "\n", el2_user, all_user);
    if (looks != UINT64_MAX) {
        fprintf(file, "longest %" PRIu64 "\n", longest);
    }
    for (uint64_t i = 0; histogram && i < image_size / 4; i++) {
        if (histogram[i]) {
            fprintf(file, "%" PRIx64 " %" PRIu64 "\n", i * 4, histogram[i]);
        }
    }
    fclose(file);
}

QEMU_PLUGIN_EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const qemu_info_t *info, int argc, char **argv)
{
    (void)info;
    bool wants_histogram = false;
    for (int i = 0; i < argc; i++) {
        char *value = strchr(argv[i], '=');
        if (!value) {
            return -1;
        }
        *value++ = 0;
        if (!strcmp(argv[i], "start")) {
            image_start = strtoull(value, NULL, 0);
        } else if (!strcmp(argv[i], "size")) {
            image_size = strtoull(value, NULL, 0);
        } else if (!strcmp(argv[i], "out")) {
            snprintf(out, sizeof out, "%s", value);
        } else if (!strcmp(argv[i], "looks")) {
            looks = strtoull(value, NULL, 0);
        } else if (!strcmp(argv[i], "histogram")) {
            wants_histogram = !strcmp(value, "on");
        } else {
            return -1;
        }
    }
    if (wants_histogram) {
        histogram = calloc(image_size / 4 + 1, sizeof *histogram);
    }
    qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
    qemu_plugin_register_atexit_cb(id, report, NULL);
    return 0;
}
