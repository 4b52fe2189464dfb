# The variables a person may set: checked and completed with their defaults. Sourced, after common.sh.
#
# Everything that can be known to be impossible is refused here, in one line, before anything is fetched, built or
# started. `run.sh` documents each variable. Sets besides them: guest_kind (built | file | bundle), guest_file,
# initrd_file, machine_mib, guest_mib.

check_word() { # NAME VALUE ALLOWED...
    name=$1 value=$2
    shift 2
    for allowed; do [ "$value" != "$allowed" ] || return 0; done
    refuse "$name=$value: must be one of: $*"
}

check_number() { # NAME VALUE LOW HIGH
    is_number "$2" && [ "$2" -ge "$3" ] && [ "$2" -le "$4" ] || refuse "$1=$2: must be a number from $3 to $4"
}

check_file() { # NAME VALUE
    [ -e "$(locate "$2")" ] || refuse "$1=$2: there is no such file"
    [ -f "$(locate "$2")" ] || refuse "$1=$2: is not a file"
    [ -r "$(locate "$2")" ] || refuse "$1=$2: cannot be read"
    [ -s "$(locate "$2")" ] || refuse "$1=$2: is empty"
}

check_machine() {
    BOARD=${BOARD:-virt}
    check_word BOARD "$BOARD" virt raspi4b
    if [ "$BOARD" = raspi4b ]; then
        [ "${GIC:-2}" = 2 ] || refuse "GIC=$GIC: a Raspberry Pi 4 has a GICv2; leave GIC= out or set it to 2"
        [ "${SMP:-4}" = 4 ] || refuse "SMP=$SMP: a Raspberry Pi 4 has 4 CPUs; leave SMP= out"
        [ "${MEM:-2G}" = 2G ] || refuse "MEM=$MEM: QEMU's raspi4b has 2G; leave MEM= out"
        [ "${CPU:-cortex-a72}" = cortex-a72 ] || refuse "CPU=$CPU: a Raspberry Pi 4 has Cortex-A72 CPUs; leave CPU= out"
        GIC=2 SMP=4 MEM=2G
    fi
    GIC=${GIC:-3} CPU=${CPU:-cortex-a72} SMP=${SMP:-1} MEM=${MEM:-1G} TIMEOUT=${TIMEOUT:-}
    check_word GIC "$GIC" 2 3
    check_number SMP "$SMP" 1 512
    [ "$GIC" = 3 ] || [ "$SMP" -le 8 ] || refuse "SMP=$SMP: a GICv2 serves at most 8 CPUs; use GIC=3"
    machine_mib=$(mebibytes "$MEM") || refuse "MEM=$MEM: must be a size such as 512M or 2G"
    [ "$machine_mib" -ge 12 ] || refuse "MEM=$MEM: QEMU needs at least 12M to load hypervisor, tree and guest"
    [ "$machine_mib" -le 261120 ] || refuse "MEM=$MEM: QEMU's virt has room for at most 255G"
    EARLYCON=${EARLYCON:-}
    case $EARLYCON in
        *[!a-z0-9,]* | ????????????????????????????????????????????????????????????????*)
            refuse "EARLYCON=$EARLYCON: must be such as pl011,0x9000000" ;;
        '' | pl011,0x[0-9a-f]* | ns16550,0x[0-9a-f]*) ;;
        *) refuse "EARLYCON=$EARLYCON: must be such as pl011,0x9000000 or ns16550,0xfe215040,2,4" ;;
    esac
    [ -z "$TIMEOUT" ] || check_number TIMEOUT "$TIMEOUT" 0 1000000
    case $CPU in
        *[!a-z0-9,=._-]*) refuse "CPU=$CPU: not the name of a CPU" ;;
        cortex-[mr]* | cortex-a[5789] | cortex-a1[57] | arm* | pxa* | sa1* | ti9*)
            refuse "CPU=$CPU: is a 32-bit CPU; Faultline needs arm64 with EL2, such as cortex-a72" ;;
        host) refuse "CPU=host: needs KVM, and KVM keeps EL2 to itself; use cortex-a72 or max" ;;
    esac
}

# The QEMU at hand decides what boards and CPUs there are. Call when it is installed.
check_qemu() {
    if [ -z "${QEMU:-}" ]; then
        QEMU=qemu-system-aarch64
        command -v "$QEMU" >/dev/null || [ ! -x target/qemu-release/qemu ] || QEMU=$PWD/target/qemu-release/qemu
        [ "$BOARD" = virt ] || qemu_has_board || [ ! -x target/qemu-backports/qemu ] || QEMU=$PWD/target/qemu-backports/qemu
    elif [ "${QEMU#*/}" != "$QEMU" ]; then
        check_file QEMU "$QEMU"
        QEMU=$(locate "$QEMU")
    fi
    command -v "$QEMU" >/dev/null || refuse "QEMU=$QEMU: there is no such program"
    case $("$QEMU" --version 2>/dev/null) in
        "QEMU emulator"*) ;;
        *) refuse "QEMU=$QEMU: is not a QEMU" ;;
    esac
    if [ "$BOARD" = raspi4b ]; then
        qemu_has_board || refuse "BOARD=raspi4b: this QEMU does not have it; \`make setup-raspi4b\` brings one that does"
        return 0
    fi
    "$QEMU" -cpu help | sed 's/^ *//' | grep -qxF "${CPU%%,*}" ||
        refuse "CPU=$CPU: this QEMU has no such CPU; \`$QEMU -cpu help\` lists them"
    why=$(echo quit | "$QEMU" -machine "$(virt_machine)" -cpu "$CPU" -smp "$SMP" -S \
        -display none -nic none -serial null -monitor stdio 2>&1 >/dev/null) ||
        refuse "QEMU cannot make this machine: $(printf '%s' "$why" | tail -n 1 | sed 's/^[^:]*: //')"
}

qemu_has_board() {
    "$QEMU" -machine help 2>/dev/null | grep -q "^$BOARD "
}

virt_machine() {
    echo "virt,virtualization=on,gic-version=$GIC"
}

check_guest() {
    VCPUS=${VCPUS:-1} PIN=${PIN:-} REBOOT=${REBOOT:-restart} SEED=${SEED:-} EPOCH=${EPOCH:-} initrd_file=
    if [ -n "${VMS:-}" ]; then
        for name in GUEST INITRD APPEND GUEST_MEM PIN RIGHTS GRANULE RESIZE; do
            eval "[ -z \"\${$name:-}\" ]" || refuse "VMS=$VMS describes the whole VM; leave $name= out"
        done
        check_file VMS "$VMS"
        guest_kind=bundle guest_file=$(locate "$VMS")
        case $VMS in
            *.dtb) [ "$(head -c 4 "$guest_file" | od -An -tx1 | tr -d ' ')" = d00dfeed ] ||
                refuse "VMS=$VMS: is no compiled device tree" ;;
        esac
    else
        GUEST=${GUEST:-tour}
        case $GUEST in
            */* | *.*) check_file GUEST "$GUEST"
                guest_kind=file guest_file=$(locate "$GUEST") ;;
            *) guest_kind=built guest_file=target/guest/$GUEST.bin
                grep -qx "name = \"$GUEST\"" guest/Cargo.toml 2>/dev/null ||
                    refuse "GUEST=$GUEST: not a guest of ours ($(built_guests)), and a path has a / or a . in it" ;;
        esac
        if [ -n "${INITRD:-}" ]; then check_file INITRD "$INITRD"; initrd_file=$(locate "$INITRD"); fi
    fi
    # The tour shows both kinds of fault on every CPU, so its rights grow one by one, page by page.
    if [ "${GUEST:-}" = tour ]; then RIGHTS=${RIGHTS:-lazy} GRANULE=${GRANULE:-4k}; fi
    RIGHTS=${RIGHTS:-eager} GRANULE=${GRANULE:-auto} GUEST_MEM=${GUEST_MEM:-256M} APPEND=${APPEND:-}
    check_word RIGHTS "$RIGHTS" eager lazy
    check_word GRANULE "$GRANULE" 4k 64k contiguous 2m 1g auto
    RESIZE=${RESIZE:-break-before-make}
    check_word RESIZE "$RESIZE" break-before-make in-place
    check_word REBOOT "$REBOOT" restart stop
    is_number "$VCPUS" && [ "$VCPUS" -gt 0 ] || refuse "VCPUS=$VCPUS: must be a number"
    [ "$VCPUS" -le 8 ] || refuse "VCPUS=$VCPUS: a VM has 1 to 8 vCPUs"
    case $PIN in
        *[!0-9,\ -]*) refuse "PIN=$PIN: must be lists of CPUs, such as 0 1-3 0,2" ;;
    esac
    # shellcheck disable=SC2086  # a list of words
    set -- $PIN
    [ $# -le "$VCPUS" ] || refuse "PIN=$PIN: has $# lists, and VCPUS=$VCPUS"
    guest_mib=$(mebibytes "$GUEST_MEM") || refuse "GUEST_MEM=$GUEST_MEM: must be a size such as 256M or 1G"
    [ "$guest_mib" -le 64512 ] || refuse "GUEST_MEM=$GUEST_MEM: a guest can have at most 63G"
    case $APPEND in
        *[![:print:]]*) refuse "APPEND: only printable characters can be passed to a guest" ;;
    esac
    [ -z "$SEED" ] || is_number "$SEED" || refuse "SEED=$SEED: must be a number"
    [ -z "$EPOCH" ] || is_number "$EPOCH" || refuse "EPOCH=$EPOCH: must be a number of seconds since 1970"
}

built_guests() {
    sed -n '/^\[\[bin\]\]/,/^$/s/^name = "\(.*\)"/\1/p' guest/Cargo.toml 2>/dev/null | paste -sd' ' -
}
