#!/bin/sh
# A QEMU beside the system's, from this Debian release, once. No root, and the system's packages stay as they are.
#
#   qemu-backports.sh            `make setup-raspi4b`: a newer one, from backports: target/qemu-backports/qemu
#   qemu-backports.sh release    the release's own, where the system cannot have it: target/qemu-release/qemu
#
# Unpacked with the libraries the system lacks; run by a wrapper that finds both.
set -eu
cd "$(dirname "$0")/../.."
. guest/host/common.sh
. guest/host/apt-private.sh
which=${1:-backports}
folder=target/qemu-$which
out=$PWD/$folder

has_board() { "$1" -machine help 2>/dev/null | grep -q '^raspi4b '; }

if [ -x "$out/qemu" ]; then exit 0; fi
codename=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
if [ "$which" = release ]; then
    suite=$codename hint="a QEMU of version 7.2 or later"
else
    suite=$codename-backports hint="a QEMU of version 9 or later"
    if command -v qemu-system-aarch64 >/dev/null && has_board qemu-system-aarch64; then
        say found "the system's QEMU has raspi4b: nothing to fetch"
        exit 0
    fi
fi
command -v dpkg >/dev/null || refuse "no Debian here to fetch $hint from; use QEMU=path"
rm -rf "$out"
say read "Debian's package lists with $suite"
apt_hint="this system offers no $suite; bring $hint and use QEMU=path"
apt_private "$folder/apt" "$(dpkg --print-architecture)" /var/lib/dpkg/status "$([ "$which" = release ] || echo "$suite")"
apt_hint=
version=$(APT_CONFIG=$apt_folder/apt.conf apt-cache madison qemu-system-arm | awk -v from="$suite/" 'index($6, from) { print $3; exit }')
[ -n "$version" ] || refuse "$suite has no QEMU; bring $hint and use QEMU=path"

# What is missing for it, as apt counts it; no recommendations (firmware for PCI cards, windows). A QEMU also loads those
# modules of the system's QEMU that it has none of itself, and complains about their version: so it gets its own.
native=$(uname -m)-linux-gnu
packages="qemu-system-arm qemu-system-common qemu-system-data"
[ ! -e "/usr/lib/$native/qemu/ui-opengl.so" ] || packages="$packages qemu-system-modules-opengl"
[ ! -e "/usr/lib/$native/qemu/ui-spice-core.so" ] || packages="$packages qemu-system-modules-spice"
install="apt-get -q install -t $suite --download-only --reinstall $packages"
size=$(APT_CONFIG=$apt_folder/apt.conf $install --print-uris | awk '/^.http|^.[a-z+]*:/ { s += $3 } END { print s + 0 }')
version=${version%%[+~]*}
say fetch "QEMU ${version#*:} from $suite ($(megabytes "$size"))"
# shellcheck disable=SC2086  # a command line
apt_quiet $install
unpack_archives "$out/root"

cat >"$out/qemu.part" <<EOF
#!/bin/sh
# Written by guest/host/qemu-backports.sh.
root=\${0%/*}/root
export LD_LIBRARY_PATH="\$root/usr/lib/$native:\$root/lib/$native\${LD_LIBRARY_PATH:+:\$LD_LIBRARY_PATH}"
export QEMU_MODULE_DIR="\$root/usr/lib/$native/qemu"
exec "\$root/usr/bin/qemu-system-aarch64" -L "\$root/usr/share/qemu" "\$@"
EOF
chmod +x "$out/qemu.part"
[ "$which" = release ] || has_board "$out/qemu.part" || refuse "the QEMU of $suite does not run here: $("$out/qemu.part" --version 2>&1 | tail -n 1)"
"$out/qemu.part" --version >/dev/null || refuse "the QEMU of $suite does not run here"
rm -rf "$out/apt"
mv "$out/qemu.part" "$out/qemu"
if [ "$which" = release ]; then
    say ready "$folder/qemu: make finds it"
else
    say ready "$folder/qemu: make run BOARD=raspi4b finds it; QEMU=$folder/qemu for other machines"
fi
