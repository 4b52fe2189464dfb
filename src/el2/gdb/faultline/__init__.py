"""The commands behind `help faultline`, from the machine up:

target     registers and physical memory, by QEMU's gdb stub; where the image runs
record     what the hypervisor tells a debugger (src/el2/debug.rs)
stage2     VTCR_EL2, descriptors, walk and leaves, as the hardware walks them
stage1     the guest's own translation, VA to IPA
syndrome   ESR_EL2, HPFAR_EL2 and PSTATE in words
stops      breakpoints on kinds of fault
commands   the commands

Nothing here guesses the layout of a Rust type: tables are the architecture's, the record is C's.
"""
