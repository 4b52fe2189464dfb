#!/bin/sh
# Boots Faultline under QEMU and answers with the verdict. What `make run`, `make linux` and the tests call.
#
# Input is the environment alone; empty means the default. Paths are taken from $FROM (the folder make was called in),
# else from the repository.
#
#   machine   BOARD=virt|raspi4b  GIC=2|3  CPU=cortex-a72  SMP=1  MEM=1G   QEMU=program or path
#   guest     GUEST=tour          a guest of ours by name, or the path of a flat arm64 image (it has a / or a .)
#             INITRD=file  APPEND="words for its command line"  GUEST_MEM=256M  VCPUS=1
#             PIN="0 1-3 0,2"       the CPUs that vCPU 0, 1 and 2 may run on; the others run anywhere
#             RIGHTS=eager|lazy  GRANULE=4k|64k|contiguous|2m|1g|auto  REBOOT=restart|stop
#             RESIZE=break-before-make|in-place
#             VMS=file.dts|.dtb   a whole VM bundle instead of all these
#   run       SEED=n  EPOCH=seconds since 1970 (now)  TIMEOUT=seconds, 0 for none (none on a terminal, else 600)
#             EARLYCON=pl011,0x9000000 | ns16550,0xfe215040,2,4   the UART for lines before the device tree is found
#   tests     IMAGE=file          the hypervisor (target/faultline.img)
#             LOG=file            keeps the console's bytes (target/console.log)
#             HOST_APPEND="..."   more words for the host's command line
#             QEMU_ARGS="..."     more arguments for QEMU, split at blanks
#             ENTRY=el2|el1|el3   el1: no virtualization. el3: the image alone is put at LOAD_AT (0x40200000) and entered
#                                 at EL3 with x0 = 0; the tree, with bundle and nonce, lies at RAM base as QEMU does it
#             BUNDLE=no           boots without any VM description
#             PROPERTIES="..."    more properties of the domain, as in a .dts
#             CONSOLE=path        the console on a socket of this path, instead of stdin and stdout
#             EOF_KEYS="..."      typed when stdin (not a terminal) has ended and the console has been quiet for 3 s
#
# stdin may be a terminal, a pipe or /dev/null; stdout is the console and nothing else. On a terminal Ctrl-C goes to
# the guest, Ctrl-A x quits QEMU, Ctrl-A c is QEMU's monitor.
#
# Exit code: the hypervisor's last line, `faultline: verdict=WORD nonce=N`, with the nonce that only it was given:
#   0 ok   1 failed (a guest said so)   2 stopped (a VM, by the hypervisor)   3 crashed (EL2)   4 refused to start
#   5 no verdict   124 time limit
# A closed stdin is an empty one.
[ -e /dev/fd/0 ] || exec </dev/null
set -eu
cd "$(dirname "$0")/../.."
. guest/host/common.sh
. guest/host/options.sh

check_machine
check_guest
check_qemu
IMAGE=${IMAGE:-target/faultline.img} LOG=${LOG:-target/console.log} ENTRY=${ENTRY:-el2} EOF_KEYS=${EOF_KEYS:-}
check_word ENTRY "$ENTRY" el1 el2 el3
[ -s "$IMAGE" ] || refuse "$IMAGE: not built yet; \`make run\` builds it"
[ "$guest_kind" != built ] || [ -s "$guest_file" ] || refuse "$guest_file: not built yet; \`make run\` builds it"
[ "$guest_mib" -le "$machine_mib" ] ||
    say note "GUEST_MEM=$GUEST_MEM is more than the machine's $MEM: fine until the guest touches it all"

mkdir -p target
folder=$(mktemp -d target/run.XXXXXX)
qemu_pid= feeder_pid= terminal=
cleanup() {
    [ -z "$feeder_pid" ] || kill "$feeder_pid" 2>/dev/null || true
    [ -z "$qemu_pid" ] || kill -KILL "$qemu_pid" 2>/dev/null || true
    [ -z "$terminal" ] || stty "$terminal" 2>/dev/null || true
    rm -rf "$folder"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP
if [ -t 0 ]; then terminal=$(stty -g); fi

# The consoles of QEMU's boards, for what is said before any device tree is understood.
case $BOARD in
    virt) early=pl011,0x9000000 ;;
    raspi4b) early=ns16550,0xfe215040,2,4 ;;
esac
cp "$IMAGE" "$folder/image"
put_early_console "$folder/image" "${EARLYCON:-$early}"

nonce=$(od -An -N8 -tx1 /dev/urandom | tr -d ' \n')
words="faultline.nonce=$nonce faultline.epoch=${EPOCH:-$(date +%s)}${SEED:+ faultline.seed=$SEED}"
words="$words${HOST_APPEND:+ $HOST_APPEND}"
if [ "${BUNDLE:-yes}" = yes ]; then guest/host/bundle.sh "$folder"; fi

# Sets the positional parameters to QEMU's command line.
console=stdio,mux=on,signal=off
[ -z "${CONSOLE:-}" ] || console=socket,mux=on,path=$CONSOLE,server=on,wait=off
set -- -nic none -display none -no-reboot -smp "$SMP" -m "$MEM" \
    -chardev "$console,id=con,logfile=$folder/log" -mon chardev=con
case $BOARD-$ENTRY in
    virt-el2) set -- "$@" -machine "$(virt_machine)" -cpu "$CPU" -serial chardev:con ;;
    virt-el1) set -- "$@" -machine "virt,gic-version=$GIC" -cpu "$CPU" -serial chardev:con ;;
    virt-el3)
        # QEMU hands a tree to an image it boots itself, not to a loaded one: write nonce and bundle into its own tree.
        machine=$(virt_machine),secure=on at=0x48000000
        "$QEMU" "$@" -machine "$machine,dumpdtb=$folder/host.dtb" -cpu "$CPU" -serial null >/dev/null 2>&1 </dev/null
        fdtput -t s "$folder/host.dtb" /chosen bootargs "$words"
        if [ -e "$folder/vms.dtb" ]; then
            end=$(printf '0x%x' $((at + $(wc -c <"$folder/vms.dtb"))))
            fdtput -t x "$folder/host.dtb" /chosen linux,initrd-start 0 $at
            fdtput -t x "$folder/host.dtb" /chosen linux,initrd-end 0 "$end"
            set -- "$@" -device "loader,file=$folder/vms.dtb,addr=$at,force-raw=on"
        fi
        set -- "$@" -machine "$machine" -cpu "$CPU" -serial chardev:con -dtb "$folder/host.dtb" \
            -device "loader,file=$folder/image,addr=${LOAD_AT:-0x40200000},cpu-num=0,force-raw=on"
        ;;
    raspi4b-el2)
        tree=target/linux/$BOARD.dtb
        [ -s "$tree" ] || refuse "$tree: not fetched yet; \`make run BOARD=$BOARD\` does it"
        set -- "$@" -machine raspi4b -dtb "$tree"
        # QEMU's first serial port is serial0 (PL011), its second serial1 (mini UART).
        case $(fdtget "$tree" /chosen stdout-path) in
            serial0*) set -- "$@" -serial chardev:con ;;
            *) set -- "$@" -serial null -serial chardev:con ;;
        esac
        ;;
    *) refuse "ENTRY=$ENTRY: only with BOARD=virt" ;;
esac
if [ "$ENTRY" != el3 ]; then
    set -- "$@" -kernel "$folder/image" -append "$words"
    if [ -e "$folder/vms.dtb" ]; then set -- "$@" -initrd "$folder/vms.dtb"; fi
fi
# shellcheck disable=SC2086  # blanks separate the arguments, as documented
set -- "$@" ${QEMU_ARGS:-}

: >"$folder/log"
exec 3<&0
if [ -n "$EOF_KEYS" ] && [ ! -t 0 ]; then
    # stdin goes through a pipe that we keep open, so that its end can be told to the guest.
    mkfifo "$folder/keys"
    exec 4<>"$folder/keys"
    cat <&3 >&4 4>&- &
    feeder_pid=$!
    exec 3<"$folder/keys"
fi
"$QEMU" "$@" <&3 4>&- 2>"$folder/complaints" &
qemu_pid=$!
exec 3<&-

# The hypervisor's word, if it has spoken. No guest knows the nonce. Where no device tree was found the hypervisor does
# not know it either: then it can only refuse, before any guest has run, so within its first lines.
verdict() {
    word=$(tail -c 4096 "$folder/log" | verdict_with "$nonce")
    [ -n "$word" ] || word=$(head -n 6 "$folder/log" | verdict_with none | grep -x refused || true)
    echo "$word"
}
verdict_with() { # NONCE
    tr -d '\r' | sed -n "s/^faultline: verdict=\([a-z]*\) nonce=$1\$/\1/p" | tail -n 1
}

end_qemu() {
    kill "$qemu_pid" 2>/dev/null || true
    for _ in 1 2 3 4 5 6 7 8 9 10; do
        kill -0 "$qemu_pid" 2>/dev/null || return 0
        sleep 0.2
    done
    kill -KILL "$qemu_pid" 2>/dev/null || true
}

# When stdin has ended and the console has nothing more to say, type what ends a session.
size=0 quiet=0
tell_the_end() {
    [ -z "$feeder_pid" ] || kill -0 "$feeder_pid" 2>/dev/null || feeder_pid=
    now=$(wc -c <"$folder/log")
    if [ "$now" != "$size" ] || [ -n "$feeder_pid" ]; then
        size=$now quiet=0
    elif [ "$quiet" -ge 15 ]; then
        printf '%b' "$EOF_KEYS" >&4
        quiet=0
    else
        quiet=$((quiet + 1))
    fi
}

[ -t 0 ] || TIMEOUT=${TIMEOUT:-600}
limit=${TIMEOUT:-0} begin=$(date +%s) spoken=0 timed_out=
while kill -0 "$qemu_pid" 2>/dev/null; do
    sleep 0.2
    if [ "$limit" -gt 0 ] && [ $(($(date +%s) - begin)) -ge "$limit" ]; then
        timed_out=yes
        end_qemu
        break
    fi
    # A board that cannot power off stays, halted; one that can has 5 seconds to do so.
    if [ -n "$(verdict)" ]; then
        spoken=$((spoken + 1))
        if [ "$spoken" -ge 25 ] || tail -c 4096 "$folder/log" | grep -aq '^faultline: halted'; then
            end_qemu
            break
        fi
    elif [ -n "$EOF_KEYS" ] && [ -e "$folder/keys" ]; then
        tell_the_end
    fi
done
wait "$qemu_pid" && qemu_code=0 || qemu_code=$?
qemu_pid=
cp "$folder/log" "$LOG"
# QEMU's own words, but for the devices of a board it lacks and for our having ended it.
grep -v -e 'has been disabled!$' -e 'terminating on signal' "$folder/complaints" >&2 || true

# answer CODE LINE
answer() {
    printf '\n%s (exit code %d)\n' "$2" "$1" >&2
    exit "$1"
}
case $(verdict) in
    ok) exit 0 ;;
    failed) answer 1 "a guest reported failure" ;;
    stopped) answer 2 "the hypervisor stopped a VM; the reason is above" ;;
    crashed) answer 3 "the hypervisor crashed; the reason is above" ;;
    refused) answer 4 "the hypervisor refused to start; the reason is above" ;;
esac
[ -z "$timed_out" ] || answer 124 "time limit: QEMU was ended after $limit s"
[ "$qemu_code" = 0 ] || answer 5 "no verdict: QEMU ended with code $qemu_code"
answer 5 "no verdict: QEMU was ended before the hypervisor was done"
