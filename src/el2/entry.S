// Reset: make Rust legal, and stop.
//
// In:  the arm64 boot protocol (Linux Documentation/arch/arm64/booting.rst): x0 = device tree, MMU and data cache off,
//      the image clean to the point of coherency, loaded at any multiple of 2 MiB; EL2 as it should be, EL3 or EL1 as it
//      may happen.
// Out: el2::start(device tree) at EL2 on a guarded stack, image relocated, .bss zero, MMU and caches on, vectors set.
//      At EL1, or with HCR_EL2.E2H stuck at 1: refuse::refused(device tree, code), MMU off.
// No lock and no atomic before the MMU is on: exclusives need cacheable memory.

        .section .head, "ax"
        .global _start
_start: b       entry
        .word   0
        .quad   0                       // text_offset
        .quad   __image_size
        .quad   0xa                     // little-endian, 4 KiB pages, anywhere in memory
        .quad   0, 0, 0
        .ascii  "ARM\x64"
        .word   0
        // Early console, for machines whose device tree cannot be found: "pl011,0x9000000", put here by make.
        .global early_console_slot
early_console_slot:
        .zero   64

        .text
entry:  mov     x19, x0
        mov     x20, #0                 // 1: we are our own EL3
        adr     x21, _start
        mrs     x0, CurrentEL
        lsr     x0, x0, #2
        cmp     x0, #2
        b.hi    from_el3
        b.lo    at_el1

at_el2: msr     spsel, #1               // nobody promised EL2h
        ldr     x0, ={SCTLR_OFF}
        msr     sctlr_el2, x0
        mov     x0, #(1 << 31)          // HCR_EL2.RW, and E2H = 0
        msr     hcr_el2, x0
        isb
        mrs     x0, hcr_el2
        tbnz    x0, #34, no_host_mode   // E2H cannot be turned off here
        adrp    x0, vectors
        add     x0, x0, :lo12:vectors
        msr     vbar_el2, x0
        msr     daifset, #0xf
        bl      prepare_image
        bl      {build_map}
        // x0 = TTBR0_EL2, x1 = TCR_EL2
        ldr     x2, ={MAIR}
        msr     mair_el2, x2
        msr     tcr_el2, x1
        msr     ttbr0_el2, x0
        dsb     sy
        tlbi    alle2
        ic      iallu
        dsb     sy
        isb
        ldr     x0, ={SCTLR_ON}
        msr     sctlr_el2, x0
        isb
        mov     x0, x19
        mov     x1, x20
        mov     x29, xzr
        mov     x30, xzr
        b       {start}

at_el1: msr     spsel, #1
        msr     daifset, #0xf
        adrp    x0, el1_vectors
        add     x0, x0, :lo12:el1_vectors
        msr     vbar_el1, x0
        isb
        bl      prepare_image
        mov     x0, x19
        mov     x1, #{REFUSE_EL1}
        mov     x29, xzr
        b       {refuse}

no_host_mode:
        msr     daifset, #0xf
        bl      prepare_image
        mov     x0, x19
        mov     x1, #{REFUSE_E2H}
        mov     x29, xzr
        b       {refuse}

// A CPU that firmware or a spin table starts for us (smp.rs). In: EL2, MMU off; x0 says nothing that is needed. Who is wanted,
// and which stack is its own, the boot CPU has written and cleaned to the point of coherency. A CPU that is not wanted, or
// not at a usable EL2, waits for ever.
        .global secondary_entry
secondary_entry:
        mrs     x0, CurrentEL
        cmp     x0, #(2 << 2)
        b.ne    unwanted
        msr     spsel, #1
        msr     daifset, #0xf
        ldr     x0, ={SCTLR_OFF}
        msr     sctlr_el2, x0
        mov     x0, #(1 << 31)          // HCR_EL2.RW, and E2H = 0
        msr     hcr_el2, x0
        isb
        mrs     x0, hcr_el2
        tbnz    x0, #34, unwanted
        adrp    x0, vectors
        add     x0, x0, :lo12:vectors
        msr     vbar_el2, x0
        mrs     x1, mpidr_el1
        ldr     x2, =0xff00ffffff       // the affinity fields
        and     x1, x1, x2
        adrp    x3, {wanted}
        add     x3, x3, :lo12:{wanted}
        ldp     x4, x5, [x3]            // TTBR0_EL2, TCR_EL2
        ldp     x6, x7, [x3, #16]       // who is wanted, the top of its stack
        ldr     x8, [x3, #32]           // its ticket
        cmp     x6, x1
        b.ne    unwanted
        ldr     x2, ={MAIR}
        msr     mair_el2, x2
        msr     tcr_el2, x5
        msr     ttbr0_el2, x4
        isb
        tlbi    alle2
        ic      iallu
        dsb     nsh
        isb
        ldr     x2, ={SCTLR_ON}
        msr     sctlr_el2, x2
        isb
        sub     sp, x7, #16
        mov     x29, xzr
        mov     x30, xzr
        mov     x0, x8
        b       {secondary}

unwanted:
        wfe
        b       unwanted

// Relocates the image, zeroes .bss, sets the stack. What is written with the caches off is cleaned out of them before and
// after: a line that the loader left dirty, or that was fetched meanwhile, must not come back over it.
// In: x21 = image start. Clobbers x0-x7, x22.
prepare_image:
        mov     x22, x30
        bl      clean_image
        adrp    x0, __rela_start
        add     x0, x0, :lo12:__rela_start
        adrp    x1, __rela_end
        add     x1, x1, :lo12:__rela_end
1:      cmp     x0, x1
        b.hs    2f
        ldp     x2, x3, [x0], #16       // offset, info
        ldr     x4, [x0], #8            // addend
        cmp     w3, #1027               // R_AARCH64_RELATIVE
        b.ne    1b
        add     x4, x4, x21
        str     x4, [x21, x2]
        b       1b
2:      adrp    x0, __bss_start
        add     x0, x0, :lo12:__bss_start
        adrp    x1, __bss_end
        add     x1, x1, :lo12:__bss_end
3:      cmp     x0, x1
        b.hs    4f
        stp     xzr, xzr, [x0], #16
        b       3b
4:      bl      clean_image
        adrp    x0, __stack_top
        add     x0, x0, :lo12:__stack_top
        sub     sp, x0, #16             // the top itself has the bit clear that tells an overflow
        ret     x22

// Cleans and invalidates the image to the point of coherency, all of it. Clobbers x0-x3.
clean_image:
        mov     x0, x21
        adrp    x1, __image_end
        add     x1, x1, :lo12:__image_end
        mrs     x2, ctr_el0
        ubfx    x2, x2, #16, #4         // DminLine
        mov     x3, #4
        lsl     x2, x3, x2
1:      dc      civac, x0
        add     x0, x0, x2
        cmp     x0, x1
        b.lo    1b
        dsb     sy
        ret

// At EL3 without firmware: be just enough of it, and drop to Non-secure EL2. SMCs answer NOT_SUPPORTED.
from_el3:
        mov     x20, #1
        mov     x0, #((1 << 0) | (1 << 4) | (1 << 5) | (1 << 8) | (1 << 10))    // NS, RES1, HCE, RW
        orr     x0, x0, #((1 << 16) | (1 << 17))                                // APK, API: keys are not ours
        mrs     x1, id_aa64mmfr0_el1
        ubfx    x2, x1, #56, #4
        cbz     x2, 1f
        orr     x0, x0, #(1 << 27)      // FGTEn: FEAT_FGT's registers are EL2's
1:      mrs     x1, id_aa64mmfr1_el1
        ubfx    x2, x1, #40, #4
        cbz     x2, 2f
        orr     x0, x0, #(1 << 38)      // HXEn: so is HCRX_EL2
2:      msr     scr_el3, x0
        msr     cptr_el3, xzr
        msr     mdcr_el3, xzr           // no debug or PMU register of EL2's comes here
        mrs     x1, id_aa64pfr0_el1
        ubfx    x1, x1, #24, #4
        cbz     x1, 3f
        mov     x1, #0xf                // GICv3: system registers at EL3, and EL2 may choose
        msr     S3_6_C12_C12_5, x1      // ICC_SRE_EL3
        isb
3:      adrp    x0, el3_vectors
        add     x0, x0, :lo12:el3_vectors
        msr     vbar_el3, x0
        mov     x0, #0x3c9              // EL2h, DAIF masked
        msr     spsr_el3, x0
        adr     x0, at_el2
        msr     elr_el3, x0
        isb
        eret

        .balign 0x800
el3_vectors:
        .fill   0x400 / 4, 4, 0x14000000        // b .
        b       el3_call                // synchronous from a lower EL
        .balign 0x80
        .fill   (0x800 - 0x480) / 4, 4, 0x14000000

// An SMC of EL2's. What we need of EL3 ourselves is one store (EL3_STORE: w2 to address x1), because a GIC out of reset
// keeps its interrupts for the Secure world; all else is SMCCC NOT_SUPPORTED.
el3_call:
        msr     tpidr_el3, x3
        mrs     x3, esr_el3
        lsr     x3, x3, #26
        cmp     x3, #0x17
        b.ne    .                       // nothing else is routed here
        ldr     x3, ={EL3_STORE}
        cmp     x0, x3
        mrs     x3, tpidr_el3
        mov     x0, #-1
        b.ne    1f
        str     w2, [x1]
        dsb     sy
        mov     x0, #0
1:      eret

// At EL1 an exception is the end of it: the code says where we are.
        .balign 0x800
el1_vectors:
        .rept   16
        .balign 0x80
        mov     x0, #{REFUSE_EL1}
        wfe
        b       . - 4
        .endr
