// Floating point and SIMD registers of a vCPU, to and from memory. CPTR_EL2.TFP is 0.

        .arch_extension fp
        .arch_extension simd

        .macro  all_pairs operation
        \operation  q0, q1, [x0]
        \operation  q2, q3, [x0, #32]
        \operation  q4, q5, [x0, #64]
        \operation  q6, q7, [x0, #96]
        \operation  q8, q9, [x0, #128]
        \operation  q10, q11, [x0, #160]
        \operation  q12, q13, [x0, #192]
        \operation  q14, q15, [x0, #224]
        \operation  q16, q17, [x0, #256]
        \operation  q18, q19, [x0, #288]
        \operation  q20, q21, [x0, #320]
        \operation  q22, q23, [x0, #352]
        \operation  q24, q25, [x0, #384]
        \operation  q26, q27, [x0, #416]
        \operation  q28, q29, [x0, #448]
        \operation  q30, q31, [x0, #480]
        .endm

        .text
// save_fp(x0: Q0 to Q31, FPSR, FPCR)
        .global save_fp
save_fp:
        all_pairs stp
        mrs     x1, fpsr
        mrs     x2, fpcr
        add     x0, x0, #512
        stp     x1, x2, [x0]
        ret

// load_fp(x0: the same)
        .global load_fp
load_fp:
        all_pairs ldp
        add     x0, x0, #512
        ldp     x1, x2, [x0]
        msr     fpsr, x1
        msr     fpcr, x2
        ret
