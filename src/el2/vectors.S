// The sixteen vectors of EL2, and the way into a guest and back.
//
// enter_guest(registers, running) looks like a function that takes a while: it returns when the guest exits, with the vector
// that was taken, unless quick_exit(running, ESR_EL2) has answered the exit. Registers are saved and put back here, and
// nothing is decided.
//
// TPIDR_EL2 points to the pCPU's block, whose first word points to the current vCPU's Registers: for a debugger.

        .macro  from_guest vector
        .balign 0x80
        stp     x0, x1, [sp, #-16]!
        mov     x1, #\vector
        b       guest_exit
        .endm

        .macro  from_el2 vector
        .balign 0x80
        // Is SP still in its stack? A set bit says so, and it is read without a free register: x0 := sp, sp := sp + x0.
        add     sp, sp, x0
        sub     x0, sp, x0
        tbz     x0, #{STACK_BIT}, 1f
        sub     x0, sp, x0
        sub     sp, sp, x0
        sub     sp, sp, #{FRAME_SIZE}
        stp     x0, x1, [sp]
        mov     x1, #\vector
        b       el2_exception
1:      b       stack_overflow
        .endm

        .text
        .balign 0x800
        .global vectors
vectors:
        .rept   4
        .balign 0x80
        b       stack_overflow          // EL2 never runs on SP_EL0: report it from a stack that is one
        .endr
        from_el2 0
        from_el2 1
        from_el2 2
        from_el2 3
        from_guest 0
        from_guest 1
        from_guest 2
        from_guest 3
        from_guest 0                    // AArch32 at EL0
        from_guest 1
        from_guest 2
        from_guest 3

// enter_guest(x0: Registers, x1: Running) -> vector
//
// The frame, from SP while the guest runs: x29 and x30, x19 to x28, and the two arguments at #96.
        .balign 64
        .global enter_guest
enter_guest:
        stp     x29, x30, [sp, #-112]!
        stp     x19, x20, [sp, #16]
        stp     x21, x22, [sp, #32]
        stp     x23, x24, [sp, #48]
        stp     x25, x26, [sp, #64]
        stp     x27, x28, [sp, #80]
        stp     x0, x1, [sp, #96]
        ldr     x19, [x0, #152]
        ldp     x20, x21, [x0, #160]
        ldp     x22, x23, [x0, #176]
        ldp     x24, x25, [x0, #192]
        ldp     x26, x27, [x0, #208]
        ldr     x28, [x0, #224]
        .global to_guest
to_guest:
        ldp     x2, x3, [x0, #{PC}]
        msr     elr_el2, x2
        msr     spsr_el2, x3
        ldp     x2, x3, [x0, #16]
        ldp     x4, x5, [x0, #32]
        ldp     x6, x7, [x0, #48]
        ldp     x8, x9, [x0, #64]
        ldp     x10, x11, [x0, #80]
        ldp     x12, x13, [x0, #96]
        ldp     x14, x15, [x0, #112]
        ldp     x16, x17, [x0, #128]
        ldr     x18, [x0, #144]
        ldp     x29, x30, [x0, #232]
        ldp     x0, x1, [x0]
        eret
        dsb     nsh                     // nothing is executed speculatively past an ERET
        isb

// What Rust may change is saved first. Most synchronous exits want no more than that, and go back from here: x19 to x28 are
// still the guest's then.
        .balign 64
guest_exit:
        ldr     x0, [sp, #(16 + 96)]
        stp     x2, x3, [x0, #16]
        stp     x4, x5, [x0, #32]
        stp     x6, x7, [x0, #48]
        stp     x8, x9, [x0, #64]
        stp     x10, x11, [x0, #80]
        stp     x12, x13, [x0, #96]
        stp     x14, x15, [x0, #112]
        stp     x16, x17, [x0, #128]
        str     x18, [x0, #144]
        stp     x29, x30, [x0, #232]
        ldp     x2, x3, [sp], #16       // the guest's x0 and x1
        stp     x2, x3, [x0]
        mrs     x2, elr_el2
        mrs     x3, spsr_el2
        stp     x2, x3, [x0, #{PC}]
        cbnz    x1, 1f
        mov     x29, sp
        ldr     x0, [sp, #104]
        mrs     x1, esr_el2
        bl      {quick_exit}
        mov     x2, x0
        ldr     x0, [sp, #96]
        cbnz    x2, to_guest
        mov     x1, xzr
1:      str     x19, [x0, #152]
        stp     x20, x21, [x0, #160]
        stp     x22, x23, [x0, #176]
        stp     x24, x25, [x0, #192]
        stp     x26, x27, [x0, #208]
        str     x28, [x0, #224]
        mov     x0, x1
        ldp     x19, x20, [sp, #16]
        ldp     x21, x22, [sp, #32]
        ldp     x23, x24, [sp, #48]
        ldp     x25, x26, [sp, #64]
        ldp     x27, x28, [sp, #80]
        ldp     x29, x30, [sp], #112
        ret

// An exception of EL2's own: fill a Frame on the stack and let Rust look. It comes back only from the places in its
// fix-up table.
el2_exception:
        stp     x2, x3, [sp, #16]
        stp     x4, x5, [sp, #32]
        stp     x6, x7, [sp, #48]
        stp     x8, x9, [sp, #64]
        stp     x10, x11, [sp, #80]
        stp     x12, x13, [sp, #96]
        stp     x14, x15, [sp, #112]
        stp     x16, x17, [sp, #128]
        stp     x18, x19, [sp, #144]
        stp     x20, x21, [sp, #160]
        stp     x22, x23, [sp, #176]
        stp     x24, x25, [sp, #192]
        stp     x26, x27, [sp, #208]
        stp     x28, x29, [sp, #224]
        add     x2, sp, #{FRAME_SIZE}
        stp     x30, x2, [sp, #240]
        mrs     x2, elr_el2
        mrs     x3, spsr_el2
        stp     x2, x3, [sp, #256]
        mrs     x2, esr_el2
        mrs     x3, far_el2
        stp     x2, x3, [sp, #272]
        mov     x0, sp
        bl      {exception}
        ldr     x2, [sp, #256]
        msr     elr_el2, x2
        ldp     x2, x3, [sp, #16]
        ldp     x4, x5, [sp, #32]
        ldp     x6, x7, [sp, #48]
        ldp     x8, x9, [sp, #64]
        ldp     x10, x11, [sp, #80]
        ldp     x12, x13, [sp, #96]
        ldp     x14, x15, [sp, #112]
        ldp     x16, x17, [sp, #128]
        ldr     x18, [sp, #144]
        ldr     x30, [sp, #240]
        ldp     x0, x1, [sp], #{FRAME_SIZE}
        eret

// The stack ran over: there is no way back, so registers of the guest's may be used to carry ours to another stack.
stack_overflow:
        msr     tpidr_el0, x0           // SP as it was
        sub     x0, sp, x0
        msr     tpidrro_el0, x0         // x0 as it was
        adrp    x0, __emergency_stack_top
        add     x0, x0, :lo12:__emergency_stack_top
        sub     sp, x0, #16
        mrs     x0, tpidrro_el0
        sub     sp, sp, #{FRAME_SIZE}
        stp     x0, x1, [sp]
        mov     x1, #{OVERFLOW}
        b       el2_exception

// probe_read(x0: address) -> x0: value, x1: 0, or x1: 1 if the access was answered with an abort
        .global probe_read, probe_access, probe_failed
probe_read:
probe_access:
        ldr     w0, [x0]
        mov     x1, #0
        ret
probe_failed:
        mov     x1, #1
        ret

// translate_s1e1r(x0: VA) -> 0, or 1 if AT itself was answered with an abort
        .global translate_s1e1r, at_access, at_failed
translate_s1e1r:
at_access:
        at      s1e1r, x0
        mov     x0, #0
        ret
at_failed:
        mov     x0, #1
        ret
