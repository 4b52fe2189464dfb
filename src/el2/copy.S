// memcpy, which the compiler calls wherever more than 32 bytes move: a fault's structures, and whole pages.
//
// The one that comes with the compiler takes some 40 instructions for 48 bytes, and moves 8 bytes at a time.

// memcpy(x0: to, x1: from, x2: bytes) -> to
        .text
        .balign 64
        .global memcpy
memcpy:
        orr     x3, x0, x1
        orr     x3, x3, x2
        tst     x3, #7
        b.ne    ragged
        mov     x3, x0
        subs    x2, x2, #32
        b.lo    2f
1:      ldp     x4, x5, [x1]
        ldp     x6, x7, [x1, #16]
        add     x1, x1, #32
        stp     x4, x5, [x3]
        stp     x6, x7, [x3, #16]
        add     x3, x3, #32
        subs    x2, x2, #32
        b.hs    1b
2:      tbz     x2, #4, 3f              // what is left, less 32: the low bits are right
        ldp     x4, x5, [x1], #16
        stp     x4, x5, [x3], #16
3:      tbz     x2, #3, 4f
        ldr     x4, [x1]
        str     x4, [x3]
4:      ret

// Not in whole words. Without the MMU all memory is Device memory, which wants its accesses aligned; what refuses to run
// at another level than EL2 has none either.
ragged:
        mov     x3, x0
        mrs     x4, CurrentEL
        cmp     x4, #8                  // EL2
        b.ne    2f
        mrs     x4, sctlr_el2
        tbz     x4, #0, 2f
        subs    x2, x2, #16
        b.lo    1f
0:      ldp     x4, x5, [x1], #16
        stp     x4, x5, [x3], #16
        subs    x2, x2, #16
        b.hs    0b
1:      and     x2, x2, #15
2:      cbz     x2, 4f
3:      ldrb    w4, [x1], #1
        strb    w4, [x3], #1
        subs    x2, x2, #1
        b.ne    3b
4:      ret
