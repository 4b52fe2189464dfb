# What every script here shares. Sourced with the repository as the working directory.
#
# Messages go to stderr, so that stdout is the guest's console and nothing else.

# say VERB WHAT: one aligned line of progress.
say() {
    printf '%10s  %s\n' "$1" "$2" >&2
}

# refuse LINE: a wrong value or a missing thing, in one line. Exit code 4 is the hypervisor's "refused" too.
refuse() {
    printf '%s\n' "$*" >&2
    exit 4
}

# megabytes BYTES: "67 MB", rounded up.
megabytes() {
    printf '%d MB' $((($1 + 999999) / 1000000))
}

# locate PATH: the path as the person meant it: from the folder make was called in, else from the repository.
locate() {
    case $1 in
        /*) printf '%s' "$1" ;;
        *) if [ -e "${FROM:-.}/$1" ]; then printf '%s' "${FROM:-.}/$1"; else printf '%s' "$1"; fi ;;
    esac
}

# is_number TEXT: decimal, no sign, no leading zero but 0 itself, short enough for the shell's arithmetic.
is_number() {
    case $1 in
        '' | *[!0-9]* | 0?* | ???????????????????*) return 1 ;;
    esac
}

# mebibytes SIZE: 256M -> 256, 1G -> 1024; fails on anything else.
mebibytes() {
    number=${1%[MmGg]}
    is_number "$number" && [ "$number" -gt 0 ] && [ "$number" -le 1048576 ] || return 1
    case $1 in
        *[Mm]) echo "$number" ;;
        *[Gg]) echo $((number * 1024)) ;;
        *) return 1 ;;
    esac
}

# put_early_console IMAGE TEXT: the early console is data in the image, 64 bytes at offset 64, padded with zeros.
put_early_console() {
    { printf '%s' "$2" && head -c $((64 - ${#2})) /dev/zero; } | dd of="$1" bs=1 seek=64 conv=notrunc status=none
}
