# Our QEMU plugin (guest/host/plugin/el2.c): built for the QEMU at hand, and what it counted read. Sourced, after
# common.sh; $QEMU is known.

# The version of the plugin interface: 1 up to QEMU 8, 2 from 9 on.
plugin_build() {
    major=$("$QEMU" --version | sed -n '1s/^QEMU emulator version \([0-9]*\).*/\1/p')
    interface=1
    [ "${major:-0}" -lt 9 ] || interface=2
    plugin_file=$PWD/target/host/el2-$interface.so
    if [ ! -e "$plugin_file" ] || [ guest/host/plugin/el2.c -nt "$plugin_file" ]; then
        cc -O2 -Wall -Wextra -Werror -DVERSION=$interface -shared -fPIC -o "$plugin_file.$$" guest/host/plugin/el2.c
        mv "$plugin_file.$$" "$plugin_file"
    fi
}

# Where QEMU's virt puts the image, and how many bytes of it are code and constants.
image_start=0x40200000
image_size() {
    nm target/faultline.elf | sed -n 's/^\([0-9a-f]*\) . __file_end$/0x\1/p'
}

# Where EL2 takes the interrupts that wait, in the image.
looks() {
    place=$(nm -C target/faultline.elf | sed -n 's/^\([0-9a-f]*\) . faultline::el2::interrupts::handle$/0x\1/p')
    [ -n "$place" ] || refuse "target/faultline.elf has no function interrupts::handle: it was inlined"
    echo "$place"
}

# plugin_with OUT [OPTION]: QEMU's arguments for it.
plugin_with() {
    plugin_build
    printf '%s' "-plugin $plugin_file,start=$image_start,size=$(image_size),out=$1${2:+,$2}"
}

# per_call FUNCTION: instructions that one call of this function of `impl Machine for Cpu` took, from $folder/counts.
per_call() {
    symbol=$(nm -C -S target/faultline.elf |
        sed -n "s/^\([0-9a-f]*\) \([0-9a-f]*\) . <faultline::el2::machine::Cpu as faultline::machine::Machine>::$1\$/\1 \2/p")
    [ -n "$symbol" ] || refuse "target/faultline.elf has no function $1: it was inlined"
    while read -r offset count; do
        case $offset in
            *_* | el2 | all | longest) ;;
            *) echo "$((0x$offset)) $count" ;;
        esac
    done <"$folder/counts" | awk -v start=$((0x${symbol% *})) -v size=$((0x${symbol#* })) '
        $1 == start { calls = $2 }
        $1 >= start && $1 < start + size { sum += $2 }
        END { printf "%d\n", calls ? sum / calls + 0.5 : 0 }'
}
